"""Tensors that stay in their file: where their bytes lie, whether they fit, their values on demand."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

from bct_onnx.errors import BctError

_TYPE_NAME = onnx.TensorProto.DataType.Name

# Element types by their number in ONNX, but for those of 6 bits, whose packing is not known here.
DTYPES: dict[int, np.dtype[Any]] = {
    number: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
    for number in onnx.helper.get_all_tensor_dtypes()
    if not _TYPE_NAME(number).startswith("FLOAT6")
}
DATA_TYPES = {dtype: number for number, dtype in DTYPES.items()}
PACKED_BITS = {
    np.dtype(ml_dtypes.uint4): 4,
    np.dtype(ml_dtypes.int4): 4,
    np.dtype(ml_dtypes.float4_e2m1fn): 4,
    np.dtype(ml_dtypes.uint2): 2,
    np.dtype(ml_dtypes.int2): 2,
}
_STRING = onnx.TensorProto.STRING


@dataclass(frozen=True)
class Span:
    """Bytes of a file: `length` bytes from `offset` on."""

    path: Path
    offset: int
    length: int


class TensorValues(LazyValues):  # type: ignore[misc]
    """The values of a TensorProto, made when asked for: views of the mapped file where it lies in one."""

    def __init__(self, tensor: onnx.TensorProto, content: memoryview | None) -> None:
        """Take a checked tensor and, when it refers to external data, its raw bytes."""
        self.tensor = tensor
        self.content = content
        self.shape = tuple(tensor.dims)
        self.dtype = DTYPES[tensor.data_type]
        self.nbytes = raw_size(self.dtype, self.shape)

    def load(self) -> np.ndarray[Any, Any]:
        """Return the values, shape `dims`: a read-only view when mapped, a copy for types below 8 bits."""
        if self.content is None:
            return np.asarray(onnx.numpy_helper.to_array(self.tensor))
        if self.dtype in PACKED_BITS:
            packed = onnx.TensorProto(data_type=self.tensor.data_type, dims=self.shape, raw_data=bytes(self.content))
            return np.asarray(onnx.numpy_helper.to_array(packed))
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)


def raw_size(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return the bytes that `raw_data` of this element type and shape has (types below 8 bits are packed)."""
    bits = PACKED_BITS.get(dtype, 8 * dtype.itemsize)
    return -(-prod(shape) * bits // 8)


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file, mapped for reading; raises BctError if it cannot be opened."""
    try:
        if path.is_dir():
            raise BctError(f"{path}: is a folder; name the .onnx file in it")
        if path.exists() and not path.is_file():
            raise BctError(f"{path}: is not a regular file; copy the model to one")
        with path.open("rb") as file:
            empty = file.seek(0, 2) == 0
            return memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise BctError(f"{path}: cannot be read: {error.strerror}") from error


def release(view: memoryview) -> None:
    """Let the system take back the pages of what `map_file` returned, where it can: they count as the process's own."""
    if isinstance(view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        view.obj.madvise(mmap.MADV_DONTNEED)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every TensorProto of a model: initializers, attributes, subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)


def check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Check that a tensor's data has the size that its dims and type ask for, before anything is allocated.

    External data is checked where it is located. Raises BctError, the line starting with `where`.
    """
    name = f"{where}: tensor {tensor.name!r}"
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        raise BctError(f"{name} has the unknown element type {tensor.data_type}; update onnx or change the type")
    if any(size < 0 for size in tensor.dims):
        raise BctError(f"{name} has a negative size in its dims {list(tensor.dims)}; export the model again")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    if tensor.HasField("raw_data"):
        found, needed, unit = len(tensor.raw_data), raw_size(dtype, tuple(tensor.dims)), "bytes of raw_data"
        if tensor.data_type == _STRING:
            raise BctError(f"{name} holds strings as raw bytes, which ONNX does not allow; export the model again")
    else:
        unit = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        found, needed = len(getattr(tensor, unit)), _entries(dtype, tuple(tensor.dims))
    if found != needed:
        raise BctError(
            f"{name} has {found} {unit} where dims {list(tensor.dims)} of {_TYPE_NAME(tensor.data_type)}"
            f" need {needed}; the file is damaged, export it again"
        )


def _entries(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Entries of the typed field (float_data ...): packed types one a byte, complex numbers two a value."""
    if dtype in PACKED_BITS:
        return raw_size(dtype, shape)
    return prod(shape) * (2 if dtype.kind == "c" else 1)


def locate(tensor: onnx.TensorProto, model: Path) -> tuple[str, int, int]:
    """Return location, offset and length of external data; raises BctError for a bad reference."""
    name = f"{model}: tensor {tensor.name!r}"
    if tensor.data_type == _STRING:
        raise BctError(f"{name} holds strings as raw bytes, which ONNX does not allow; export the model again")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    needed = raw_size(DTYPES[tensor.data_type], tuple(tensor.dims))
    location, offset, length = (
        entries.get("location"),
        entries.get("offset", "0"),
        entries.get("length", str(needed)),
    )
    numbers_fit = all(text.isdecimal() and len(text) < 20 for text in (offset, length))
    if not isinstance(location, str) or not location or not numbers_fit:
        raise BctError(f"{name} has external data without a usable location, offset and length: {entries}")
    if int(length) != needed:
        raise BctError(
            f"{name} has {length} bytes of data where dims {list(tensor.dims)} of"
            f" {_TYPE_NAME(tensor.data_type)} need {needed}; the file is damaged, export it again"
        )
    return location, int(offset), needed


def external_path(location: str, model: Path, tensor: str) -> Path:
    """Return the file of an external `location` beside `model`; raises BctError if it is not there.

    Links are followed only to files beside the model or beside the file that the model itself is a link to.
    """
    name = f"{model}: tensor {tensor!r}"
    if Path(location).is_absolute() or ".." in Path(location).parts or "\0" in location:
        raise BctError(f"{name} is in {location!r}, outside of the model's folder; put the data beside the model")
    path = model.parent / location
    try:
        inside = any(path.resolve().is_relative_to(place.resolve()) for place in (model.parent, _home(model)))
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise BctError(f"{name} is in {location!r}, which cannot be opened: {error}") from error
    if not inside:
        raise BctError(f"{name} is in {location!r}, a link out of the model's folder; put the data beside the model")
    if not exists:
        raise BctError(f"{name} is in {path}, which does not exist; put the external data beside the model")
    return path


def _home(model: Path) -> Path:
    """Return the folder of the file that `model` is or links to."""
    return model.resolve().parent
