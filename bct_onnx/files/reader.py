"""Reading ONNX with bounded memory: the file is mapped, weights stay there until they are asked for."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from bct_onnx.errors import BctError

from . import importer, wire
from .background import in_background
from .disk import total_bytes
from .order import CycleError, sort_model
from .tensors import Span, TensorValues, all_tensors, check_tensor, external_path, locate, map_file, release

# Weights from this size on stay in the file, in bytes.
_SMALL = 1024
# What protobuf parses at most.
_MAX_SKELETON = 2**31 - 1
# What is often given in place of an ONNX model: where its first bytes are, these, what it is and what to do.
_OTHERS = (
    (0, b"version https://", "a Git LFS pointer, not the model; fetch it with `git lfs pull`"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch saves; export the model to ONNX"),
    (0, b"GGUF", "a GGUF file; export the model it was made from to ONNX"),
    (0, b"<", "a web page or XML; download the model itself"),
    (0, b"{", "a JSON file; name the model beside it, or their folder"),
    (4, b"ORTM", "a model in ONNX Runtime's own format; use the ONNX model it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX"),
    (8, b'{"', "a safetensors file, which holds weights alone; name the checkpoint's folder, which is exported"),
)
# How the path of an address begins.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_EXTERNAL = onnx.TensorProto.EXTERNAL


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model in its file, its nodes sorted.

    `proto` is the model without its weights: a tensor of 1 KiB or more refers to `location` (the file itself
    or an external file), offset and length, as ONNX external data does. `large` says where these weights lie,
    by name of the main graph's initializer. `files` are all mapped files.
    """

    path: Path
    proto: onnx.ModelProto
    large: Mapping[str, Span]
    files: Mapping[str, Path]
    maps: Mapping[str, memoryview]

    @property
    def bytes(self) -> int:
        """The bytes on disk: of the file, and of the files of external data that it refers to, each of them whole."""
        return total_bytes(self.files.values())

    @property
    def sha256(self) -> str:
        """The SHA-256 in hexadecimal of the file followed by its external files, if any, in order of name."""
        return self._hash.result()

    def hash_ahead(self) -> None:
        """Let a thread find `sha256` beside other work."""
        _ = self._hash

    @cached_property
    def _hash(self) -> Future[str]:
        external = [self.files[name] for name in sorted(self.files) if name != own_name(self.path)]
        return in_background(lambda: file_hash(self.path, external))

    def graph(self) -> gs.Graph:
        """Return a new graph whose weights are views of the file; raises BctError if it cannot be kept whole.

        Functions are inlined. Inputs with a default value (IR version 4 on) are variables.
        """
        return importer.to_graph(self.inlined, self.content, self.path)

    @cached_property
    def inlined(self) -> onnx.ModelProto:
        """The model without functions."""
        return importer.inline_functions(self.proto, self.path)

    def let_go(self) -> None:
        """Give back the memory that what was read of the files takes; it is read anew when it is asked for."""
        for view in self.maps.values():
            release(view)

    def values(self, tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
        """Return the values of a tensor of `proto`: a read-only view of the file where they lie in one as they are."""
        return TensorValues(tensor, self.content(tensor)).load()

    def content(self, tensor: onnx.TensorProto) -> memoryview | None:
        """Return the raw bytes of a tensor of `proto` that refers to a file, None if it holds its data."""
        if tensor.data_location != _EXTERNAL:
            return None
        location, offset, length = locate(tensor, self.path)
        return self.maps[location][offset : offset + length]


def own_name(path: Path) -> str:
    """Return the location by which a skeleton refers to the model file itself."""
    return path.name.encode("utf-8", "replace").decode()


def file_hash(path: Path, external: list[Path]) -> str:
    """Return the SHA-256 in hexadecimal of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for part in (path, *external):
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read(path: Path) -> ModelFile:
    """Read a model and check that every tensor has the data it declares; raises BctError for a bad file."""
    path = Path(path)
    if path.parts and _SCHEME.fullmatch(path.parts[0]) and not path.exists():
        raise BctError(f"{path}: is an address, not a file; download the model and name the file")
    data = map_file(path)
    proto = _parse(data, path)
    own = own_name(path)
    maps, files = {own: data}, {own: path}
    for tensor in all_tensors(proto):
        check_tensor(tensor, str(path))
        if tensor.data_location == _EXTERNAL:
            location, offset, length = locate(tensor, path)
            if location not in maps:
                files[location] = external_path(location, path, tensor.name)
                maps[location] = map_file(files[location])
            if offset + length > len(maps[location]):
                raise BctError(
                    f"{path}: tensor {tensor.name!r} needs bytes {offset} to {offset + length} of"
                    f" {files[location]}, which has {len(maps[location])}; the external data is cut short"
                )
    large = {}
    for tensor in proto.graph.initializer:
        if tensor.data_location == _EXTERNAL:
            location, offset, length = locate(tensor, path)
            large[tensor.name] = Span(files[location], offset, length)
    return ModelFile(path, proto, large, files, maps)


def bytes_on_disk(*models: Path) -> int:
    """Return the bytes of models as `ModelFile.bytes` counts them; what they share counts once. BctError as `read`."""
    return total_bytes(file for path in models for file in read(path).files.values())


def _parse(data: memoryview, path: Path) -> onnx.ModelProto:
    for start, magic, what in _OTHERS:
        if bytes(data[start : start + len(magic)]) == magic:
            raise BctError(f"{path}: is {what}")
    if not data:
        raise BctError(f"{path}: is empty; export or download the model again")
    try:
        skeleton = wire.cut_out(data, own_name(path), _SMALL)
        if len(skeleton) > _MAX_SKELETON:
            raise BctError(f"{path}: {len(skeleton)} bytes besides raw_data are more than protobuf can parse")
        proto: onnx.ModelProto = onnx.ModelProto.FromString(skeleton)
    except (wire.WireError, DecodeError) as error:
        raise BctError(f"{path}: is not an ONNX model or is damaged ({error}); export or download it again") from error
    if not proto.HasField("graph"):
        raise BctError(f"{path}: holds no graph, so it is not an ONNX model")
    for text in _texts(proto):
        if isinstance(text, bytes):
            raise BctError(f"{path}: the text {text[:80]!r} in it is not UTF-8; export the model again")
    try:
        sort_model(proto)
    except CycleError as error:
        raise BctError(f"{path}: {error}; export the model again") from error
    return proto


def _texts(message: Message) -> Iterator[str | bytes]:
    """Yield the text fields of a message and those in it: protobuf gives bytes for what is not UTF-8."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from (value,) if isinstance(value, str | bytes) else value
        elif field.type == field.TYPE_MESSAGE:
            for inner in (value,) if isinstance(value, Message) else value:
                yield from _texts(inner)
