"""What a model's folder holds for an evaluation: its ONNX files, its tokenizer or processor."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bct_onnx import files
from bct_onnx.errors import BctError
from bct_onnx.package.contents import read_contents

MODEL = "model.onnx"


def check_models(models: Sequence[str | Path]) -> list[Path]:
    """Return the paths; raises BctError where there is none or one is neither a file nor a folder of ONNX files."""
    paths = [Path(model) for model in models]
    if not paths:
        raise BctError("no model given: name the reference, then the models to compare with it")
    for path in paths:
        if not path.exists():
            raise BctError(f"{path}: no such file or folder")
        models_in(path)
    return paths


def models_in(path: Path) -> list[Path]:
    """Return the file itself, or the ONNX files of a folder that are no variants of others; raises BctError."""
    if not path.is_dir():
        return [path]
    found = read_contents(path)
    # Where all there is was quantized, by others or for Transformers.js, that is what is deployed.
    models = found.models or [name for name in found.left_out if name.suffix == ".onnx"]
    if not models:
        raise BctError(f"{path}: holds no ONNX files; name a file, or a folder of them")
    return [path / model for model in models]


def model_in(path: Path) -> Path:
    """Return the file itself, or the one model of a folder, or that called model.onnx; raises BctError."""
    models = models_in(path)
    named = [model for model in models if model.name == MODEL]
    if len(models) > 1 and len(named) != 1:
        names = ", ".join(str(model.relative_to(path)) for model in models)
        raise BctError(f"{path}: holds several models, {names}: name one of them")
    return (named or models)[0]


def bytes_on_disk(path: Path) -> int:
    """Return the bytes of an ONNX file, or of those of a folder, and of the external data files they name."""
    return files.bytes_on_disk(*models_in(path))


def config_folders(path: Path, reference: Path) -> Iterator[Path]:
    """Yield the folders where a tokenizer, a processor or a configuration of a model may be, the likeliest first.

    Those are its own folder and, for a file, the one above, in which `onnx` lies; then those of the reference.
    """
    for model in (path, reference):
        yield from [model] if model.is_dir() else [model.absolute().parent, model.absolute().parent.parent]


def find_beside(name: str, path: Path, reference: Path) -> Path | None:
    """Return the first file of this name among the places of a model; None where there is none."""
    return next((place / name for place in config_folders(path, reference) if (place / name).is_file()), None)
