"""Writing ONNX as a stream: the model in pieces, weights one after the other, external data where it is needed."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_graphsurgeon as gs

from bct_onnx.errors import BctError

from . import exporter, wire
from .background import in_background
from .disk import total_bytes
from .exporter import Payload
from .reader import ModelFile, file_hash
from .staging import data_name

# The size from which protobuf, and so ONNX Runtime, cannot load a model from one file.
_MAX_EMBEDDED = 2**31 - 1
# The size from which weights are better off beside the model: ONNX Runtime maps them instead of copying them twice.
_LARGE = 2**30
# External data begins at multiples of a memory page, so that ONNX Runtime can map it.
_PAGE = 4096
# Bytes handed to the system at once.
_BLOCK = 1 << 24

ExternalData = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class WrittenFile:
    """A model as written: `bytes` and `sha256` cover the external data too, as in ModelFile."""

    path: Path
    bytes: int
    sha256: str
    opset: int
    ir_version: int


def write(
    graph: gs.Graph,
    source: ModelFile,
    target: Path,
    *,
    external_data: ExternalData = "auto",
    inline: bool = False,
    lasting: bool = True,
) -> WrittenFile:
    """Write a graph, all else taken from `source`, to the new file `target` (a Stage's path).

    Weights that no pass touched are streamed from the source's file. Above 1 GiB ("auto") or "always", tensors
    of 1 KiB and more go to `<target name>.<hash>.data` beside it. `inline`: calls of functions are replaced by what
    they do. Where it is not `lasting`, it is soon removed: it need not survive a power cut, and its hash is that of
    nothing. Raises BctError if the graph cannot be written.
    """
    target = Path(target)
    model, payloads = exporter.to_model(graph, source.proto, source.content, inline)
    try:
        pieces = _embed(model, payloads)
        total = sum(map(len, pieces))
        if total > _MAX_EMBEDDED and external_data == "never":
            raise BctError(f"{target}: {total} bytes do not fit one ONNX file; allow external data")
        data = None
        if external_data == "always" or (external_data == "auto" and total > _LARGE):
            data = _write_data(payloads, target, lasting)
            pieces = _embed(model, payloads, data.name if data else None)
        digest = _write_new(target, pieces, lasting)
    except OSError as error:
        raise BctError(f"{target}: cannot be written: {error.strerror}") from error
    external = [data] if data else []
    size = total_bytes([target, *external])
    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
    # ModelFile.sha256 begins with the model, which was written after its data: both are read once more.
    digest = file_hash(target, external) if external and lasting else digest
    return WrittenFile(target, size, digest, opset, model.ir_version)


def _embed(model: onnx.ModelProto, payloads: Sequence[Payload], location: str | None = None) -> list[Any]:
    """Return the encoded model in pieces, payloads in place or as references to the file `location`."""
    offsets = _offsets(payloads)

    def replace(data: memoryview, start: int, stop: int) -> list[Any] | None:
        tensor = onnx.TensorProto.FromString(data[start:stop])
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return None
        index = int(tensor.external_data[0].value)
        if location is None or payloads[index].in_attribute:
            return wire.put_back(tensor, payloads[index])
        wire.refer(tensor, location=location, offset=offsets[index], length=len(payloads[index]))
        return [tensor.SerializeToString()]

    return wire.rewrite_tensors(memoryview(model.SerializeToString()), replace)


def _offsets(payloads: Sequence[Payload]) -> dict[int, int]:
    """Return where each payload that may leave the model begins in the external data."""
    offsets, end = {}, 0
    for index, payload in enumerate(payloads):
        if not payload.in_attribute:
            offsets[index] = -(-end // _PAGE) * _PAGE
            end = offsets[index] + len(payload)
    return offsets


def _write_data(payloads: Sequence[Payload], target: Path, lasting: bool) -> Path | None:
    """Write the external data beside `target`, named after its hash; returns None if there is none."""
    pieces: list[Any] = []
    end = 0
    for index, offset in _offsets(payloads).items():
        pieces += [bytes(offset - end), payloads[index]]
        end = offset + len(payloads[index])
    if not pieces:
        return None
    unnamed = target.with_name(f"{target.name}.data")
    digest = _write_new(unnamed, pieces, lasting)
    return unnamed.rename(target.with_name(data_name(target.name, digest)))


def _write_new(path: Path, pieces: Iterable[Any], lasting: bool) -> str:
    """Write pieces to a file that must be new; returns their SHA-256 in hexadecimal.

    A lasting file is written down to the disk; of any other the hash is that of nothing.
    """
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            content = memoryview(piece.load() if isinstance(piece, Payload) else piece)
            if len(content) != len(piece):
                raise BctError(f"{path}: a tensor has {len(content)} bytes of data where {len(piece)} were declared")
            for start in range(0, len(content), _BLOCK):
                block = content[start : start + _BLOCK]
                if not lasting:
                    file.write(block)
                elif len(block) < _BLOCK:
                    digest.update(block)
                    file.write(block)
                else:
                    hashed = in_background(partial(digest.update, block))
                    file.write(block)
                    hashed.result()
        if lasting:
            file.flush()
            os.fsync(file.fileno())
    return digest.hexdigest()
