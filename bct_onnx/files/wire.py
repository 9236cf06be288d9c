"""The protobuf encoding of ONNX, walked without parsing: weights are cut out of a model and put back.

An ONNX file is mostly the `raw_data` of its tensors. Cutting those out leaves a skeleton of some kilobytes
that protobuf can parse; putting them back yields a list of pieces that is written one after the other.
Nothing large is copied.
"""

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import NamedTuple

import onnx

# Encoding: https://protobuf.dev/programming-guides/encoding/
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10
# What protobuf's own parsers allow; deeper files would be refused by them anyway.
_MAX_DEPTH = 100

# The way from a model to its tensors: the fields of each message that lead to a TensorProto. Lists of tensors
# or graphs in one attribute are left out: no operator of the standard has them, and they stay as they are.
_PATHS = {
    "ModelProto": ("graph", "functions"),
    "GraphProto": ("node", "initializer"),
    "FunctionProto": ("node",),
    "NodeProto": ("attribute",),
    "AttributeProto": ("t", "g"),
}


def _descend(message: str, names: tuple[str, ...]) -> dict[int, str]:
    found = [getattr(onnx, message).DESCRIPTOR.fields_by_name[name] for name in names]
    return {field.number: field.message_type.name for field in found}


_CHILDREN = {message: _descend(message, names) for message, names in _PATHS.items()}
_TENSOR = onnx.TensorProto.DESCRIPTOR.fields_by_name
_RAW_DATA = _TENSOR["raw_data"].number
_STORAGE = {_RAW_DATA, _TENSOR["data_location"].number, _TENSOR["external_data"].number}

# A piece of an encoded message: bytes, or something that knows its length and yields its bytes later.
Piece = Sized
# Gets the encoded TensorProto at data[start:stop]; returns the pieces to put there, None to leave it alone.
Replace = Callable[[memoryview, int, int], list[Piece] | None]


class WireError(ValueError):
    """The bytes are not a protobuf message."""


class Field(NamedTuple):
    """One field of an encoded message: number, wire type, where its tag begins, where its value lies."""

    number: int
    kind: int
    begin: int
    start: int
    stop: int


def decode_varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """Return the number at `at` and the position behind it; raises WireError if that is beyond `stop`."""
    value = 0
    for index, position in enumerate(range(at, min(stop, at + _MAX_VARINT_BYTES))):
        byte = data[position]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + 1
    raise WireError(f"no number ends at byte {at}")


def encode_varint(value: int) -> bytes:
    """Return the encoding of a number >= 0."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def length_prefix(number: int, length: int) -> bytes:
    """Return what stands before a length-delimited value of `length` bytes in field `number`."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(length)


def fields(data: memoryview, start: int, stop: int) -> Iterator[Field]:
    """Yield the fields of the message at data[start:stop] in order; raises WireError where a field does not
    fit.
    """
    at = start
    while at < stop:
        tag, value = decode_varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        if kind == LENGTH:
            length, value = decode_varint(data, value, stop)
            end = value + length
        elif kind == VARINT:
            _, end = decode_varint(data, value, stop)
        elif kind in _FIXED_SIZE:
            end = value + _FIXED_SIZE[kind]
        else:
            raise WireError(f"wire type {kind} at byte {at}")
        if number == 0 or end > stop:
            raise WireError(f"field {number} at byte {at} ends at {end}, its message at {stop}")
        yield Field(number, kind, at, value, end)
        at = end


def rewrite_tensors(data: memoryview, replace: Replace, smallest: int = 0) -> list[Piece]:
    """Return the encoded ModelProto `data` in pieces, its tensors as `replace` gives them.

    Tensors of at least `smallest` bytes in the graph, its subgraphs, functions and attributes are visited.
    Raises WireError for bytes that are not protobuf.
    """
    pieces = _Rewriter(data, replace, smallest).message(0, len(data), "ModelProto", 0)
    return [data] if pieces is None else pieces


@dataclass(frozen=True)
class _Rewriter:
    data: memoryview
    replace: Replace
    smallest: int

    def message(self, start: int, stop: int, kind: str, depth: int) -> list[Piece] | None:
        """Return the message at data[start:stop] in pieces, or None if nothing in it was replaced."""
        if kind == "TensorProto":
            return self.replace(self.data, start, stop)
        if depth > _MAX_DEPTH:
            raise WireError(f"messages are nested more than {_MAX_DEPTH} deep")
        pieces: list[Piece] = []
        written = start
        for field in fields(self.data, start, stop):
            child = _CHILDREN[kind].get(field.number)
            if child is None or field.kind != LENGTH or field.stop - field.start < self.smallest:
                continue
            inner = self.message(field.start, field.stop, child, depth + 1)
            if inner is None:
                continue
            prefix = length_prefix(field.number, sum(map(len, inner)))
            pieces += [self.data[written : field.begin], prefix, *inner]
            written = field.stop
        return [*pieces, self.data[written:stop]] if pieces else None


def cut_out(data: memoryview, location: str, smallest: int) -> bytes:
    """Return the skeleton of an encoded ModelProto: `raw_data` of `smallest` bytes and more as references.

    The reference is what ONNX calls external data: `location` (the name of the file that `data` is), offset
    and length. Raises WireError for bytes that are not protobuf.
    """

    def replace(data: memoryview, start: int, stop: int) -> list[Piece] | None:
        storage = [field for field in fields(data, start, stop) if field.number in _STORAGE]
        if len(storage) != 1 or storage[0].kind != LENGTH or storage[0].stop - storage[0].start < smallest:
            return None
        raw = storage[0]
        if raw.number != _RAW_DATA:
            return None
        reference = onnx.TensorProto()
        refer(reference, location=location, offset=raw.start, length=raw.stop - raw.start)
        return [data[start : raw.begin], data[raw.stop : stop], reference.SerializeToString()]

    return b"".join(rewrite_tensors(data, replace, smallest))  # type: ignore[arg-type]


def put_back(tensor: onnx.TensorProto, content: Sized) -> list[Piece]:
    """Return the encoding of a tensor with `content` as its `raw_data` in place of external data."""
    bare = onnx.TensorProto()
    bare.CopyFrom(tensor)
    bare.ClearField("data_location")
    bare.ClearField("external_data")
    return [bare.SerializeToString(), length_prefix(_RAW_DATA, len(content)), content]


def refer(tensor: onnx.TensorProto, **entries: str | int) -> None:
    """Make a tensor refer to external data by the standard's entries `location`, `offset`, `length`."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
