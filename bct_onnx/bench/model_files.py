"""What can be read of a model file without running it: its inputs and its size on disk."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from bct_onnx.errors import BctError

# What may stand between an input of ids and the Gather that looks them up.
PASSED_THROUGH = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Input:
    """An input: ONNX element type, dimensions (name or "" when free), number of ids it may hold."""

    name: str
    kind: int
    dims: tuple[int | str, ...]
    vocabulary: int | None

    @property
    def is_cache(self) -> bool:
        """Tell whether it holds keys and values of earlier tokens."""
        return "past" in self.name and len(self.dims) >= 4

    @property
    def is_picture(self) -> bool:
        """Tell whether it is [batch, channels, height, width]."""
        return (
            self.kind in {TensorProto.FLOAT, TensorProto.FLOAT16}
            and len(self.dims) == 4
            and not self.is_cache
        )


def read_inputs(path: Path) -> list[Input]:
    """Read the inputs of a model; raise BctError when the file is not one."""
    graph = _read(path).graph
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)

    def rows(name: str) -> list[int]:
        found = []
        for node in readers[name]:
            if node.op_type == "Gather" and node.input[1] == name and node.input[0] in sizes:
                found.append(sizes[node.input[0]][0])
            elif node.op_type in PASSED_THROUGH:
                found += rows(node.output[0])
        return found

    inputs = []
    for value in graph.input:
        if value.name not in sizes:
            kind = value.type.tensor_type
            dims = tuple(d.dim_value or d.dim_param for d in kind.shape.dim)
            inputs.append(Input(value.name, kind.elem_type, dims, min(rows(value.name), default=None)))
    return inputs


def file_bytes(path: Path) -> int:
    """Return the size of a model on disk, external data included."""
    graph = _read(path).graph
    data = {
        entry.value
        for tensor in _tensors(graph)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in data)))


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:
        raise BctError(
            f"{path}: not a readable ONNX model ({type(error).__name__}); give an .onnx file"
        ) from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from _tensors(attribute.g)
