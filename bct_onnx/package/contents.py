"""What a folder of a model holds: ONNX files to compress, files that go along, and what is left out and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bct_onnx import files
from bct_onnx.errors import BctError

CONFIG = "config.json"
GENAI_CONFIG = "genai_config.json"
MERGED = "decoder_model_merged.onnx"
# What a package has of its own; it is made anew.
MANIFEST = "manifest.json"
OPERATORS_CONFIG = "required_operators.config"
PROBES = "probes"

# One graph for the first step and one for the others, which the merged decoder holds both.
_MERGED_PARTS = frozenset({"decoder_model.onnx", "decoder_with_past_model.onnx"})
# Endings by which exporters tell files with other numbers from the model itself: Transformers.js's dtypes,
# sentence-transformers' and optimum's quantized and optimized models.
_VARIANT = re.compile(
    r"_(fp16|bf16|q[1248](f16)?|u?int8|bnb4|quantized|O[1-4]|q?u?int8_\w+|fp16_\w+)(?=\.onnx$)", re.IGNORECASE
)
# Weights as transformers and others save them: the package has them in ONNX.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf", "*.tflite", "*.ort")
_WEIGHT_INDEX = ("*.safetensors.index.json", "*.bin.index.json")
_OTHER_RUNTIMES = ("openvino", "coreml", "flax", "tf")
_EXTERNAL_DATA = ("*.onnx_data*", "*.onnx.data", "*.data")


@dataclass(frozen=True)
class Contents:
    """The files of a folder, as paths below it.

    Attributes:
        folder: the folder.
        models: ONNX files to compress.
        rest: files that go along as they are: configuration, tokenizer, processor, licence.
        left_out: files that do not, each with the reason.
    """

    folder: Path
    models: tuple[PurePosixPath, ...]
    rest: tuple[PurePosixPath, ...]
    left_out: Mapping[PurePosixPath, str]

    @property
    def config(self) -> Mapping[str, Any]:
        """Return config.json, empty where there is none; raises BctError if it is damaged."""
        return read_json(self.folder / CONFIG) if (self.folder / CONFIG).exists() else {}


def read_contents(folder: Path) -> Contents:
    """Sort the files of a folder; hidden ones are passed over. Raises BctError for one that cannot be read."""
    paths = sorted(_files(folder))
    models = [path for path in paths if path.suffix == ".onnx"]
    left_out = {path: why for path in models if (why := _superfluous(path, models))}
    kept = [path for path in models if path not in left_out]
    data = _external_data(folder, kept)
    for path in paths:
        if path.suffix != ".onnx" and path not in data and (why := _not_for_onnx(path)):
            left_out[path] = why
    made_here = {path for path in paths if str(path) in (MANIFEST, OPERATORS_CONFIG) or path.parts[0] == PROBES}
    rest = [path for path in paths if path not in {*models, *data, *left_out, *made_here}]
    return Contents(folder, tuple(kept), tuple(rest), left_out)


def read_json(path: Path) -> Any:
    """Return what a JSON file says; raises BctError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BctError(f"{path}: cannot be read as JSON: {error}") from error


def variant_of(path: PurePosixPath) -> PurePosixPath | None:
    """Return the model of which a file, by its name, holds a variant in other numbers; None for a model itself."""
    plain = _VARIANT.sub("", path.name)
    return None if plain == path.name else path.with_name(plain)


def _files(folder: Path) -> Iterator[PurePosixPath]:
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in below.parts):
            yield PurePosixPath(below.as_posix())


def _superfluous(path: PurePosixPath, models: list[PurePosixPath]) -> str | None:
    if (plain := variant_of(path)) is not None:
        return f"a variant of {plain} in other numbers" if plain in models else "quantized or optimized already"
    if path.name in _MERGED_PARTS and path.with_name(MERGED) in models:
        return f"{MERGED} holds it too"
    return None


def _external_data(folder: Path, models: list[PurePosixPath]) -> set[PurePosixPath]:
    """Return the files beside models that hold their weights."""
    used = {place for model in models for place in files.read(folder / model).files.values()}
    return {PurePosixPath(place.relative_to(folder).as_posix()) for place in used if place.is_relative_to(folder)}


def _not_for_onnx(path: PurePosixPath) -> str | None:
    if any(path.match(pattern) for pattern in (*_WEIGHTS, *_WEIGHT_INDEX)):
        return "weights in another format"
    if path.parts[0] in _OTHER_RUNTIMES and len(path.parts) > 1:
        return "for another runtime"
    if any(path.match(pattern) for pattern in _EXTERNAL_DATA):
        return "weights of no model that is compressed"
    return None
