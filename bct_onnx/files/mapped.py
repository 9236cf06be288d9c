"""A model as it is, its weights in a file beside it: ONNX Runtime maps those instead of copying them."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx

from bct_onnx.errors import BctError

from .reader import ModelFile, own_name
from .tensors import all_tensors

# Where weights begin: a multiple of a memory page, so that they can be mapped.
_PAGE = 4096
# What may lie in the model's own file, as a part of all, where its weights need no file of their own.
_LITTLE = 1 / 8


@dataclass(frozen=True)
class MappedModel:
    """The file of a model and that of its weights, for as long as they are needed."""

    path: Path
    data: Path

    def remove(self) -> None:
        """Remove both, where the system lets go of them; else they go with the folder that they are in."""
        for path in (self.path, self.data):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def write_mapped(model: ModelFile, path: Path, proto: onnx.ModelProto | None = None) -> MappedModel:
    """Write a model to the file `path`, weights of its main graph to a new one beside it, `<name>.<any>.data`.

    Nothing else is changed. `proto` takes the place of the model's own: the same, but for outputs, say. Data that lie
    in external files of the model are copied, too. BctError, and neither file, where the disk is full.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto or model.proto)
    written = MappedModel(path, path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", suffix=".data", delete=False) as file:
            written = MappedModel(path, Path(file.name))
            for tensor in copy.graph.initializer:
                content = model.content(tensor)
                if content is None:
                    continue
                del tensor.external_data[:]
                offset = -(-file.tell() // _PAGE) * _PAGE
                file.seek(offset)
                file.write(content)
                for key, value in (("location", written.data.name), ("offset", offset), ("length", len(content))):
                    tensor.external_data.add(key=key, value=str(value))
        _take_in(copy, model, written.data.name)
        model.let_go()
        write_proto(copy, path)
    except BaseException as error:
        written.remove()
        if isinstance(error, OSError):
            raise _refusal(path, error) from error
        raise
    return written


def write_proto(proto: onnx.ModelProto, path: Path) -> None:
    """Write a model in memory to a file, new or not; BctError where the disk is full."""
    try:
        onnx.save_model(proto, path)
    except OSError as error:
        raise _refusal(path, error) from error


def is_mapped(model: ModelFile) -> bool:
    """Tell whether the weights of a model lie in files beside it already, but for a few."""
    own = own_name(model.path)
    sizes = {True: 0, False: 0}
    for tensor in model.proto.graph.initializer:
        content = model.content(tensor)
        if content is not None:
            inside = any(entry.key == "location" and entry.value == own for entry in tensor.external_data)
            sizes[inside] += len(content)
    return sizes[True] <= _LITTLE * sizes[False]


def _take_in(proto: onnx.ModelProto, model: ModelFile, apart: str) -> None:
    """Put the data of tensors that refer to files, but the one named `apart`, into the model itself."""
    for tensor in all_tensors(proto):
        outside = {entry.value for entry in tensor.external_data if entry.key == "location"} - {apart}
        content = model.content(tensor) if outside else None
        if content is not None:
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = bytes(content)


def _refusal(path: Path, error: OSError) -> BctError:
    return BctError(f"{path}: cannot be written: {error.strerror}")
