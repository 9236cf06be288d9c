"""Write ONNX graphs node by node, named as TorchScript exporters name them, with random weights."""

import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Operand = str | int | float | list[int] | Array
"""A tensor's name, or a value that becomes a Constant node (int: int64 scalar, list: int64 vector)."""

OPSET = 17
PIECE = 1 << 24  # weights per write to the data file: bounds the memory at 64 MB


class Writer:
    """Collects one graph; weights go into the model, or are streamed to `PATH.data` when `external`."""

    def __init__(self, path: Path, seed: int = 0, external: bool = False) -> None:
        """Start an empty graph that is written to `path`."""
        self._path = path
        self._random = np.random.Generator(np.random.SFC64(seed))
        self._data = Path(f"{path}.data").open("wb") if external else None  # noqa: SIM115, closed by __exit__
        self._graph = onnx.GraphProto(name="main_graph")
        self._names: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Close the data file and, unless something went wrong, write the model."""
        if self._data:
            self._data.close()
        if kind is None:
            opsets = [helper.make_opsetid("", OPSET)]
            model = helper.make_model(self._graph, opset_imports=opsets, ir_version=8, producer_name="bct_onnx models")
            onnx.save(model, self._path)

    def input(self, name: str, kind: int, *dims: int | str) -> str:
        """Declare an input of the element type `kind`, dimensions fixed (int) or named (str)."""
        self._graph.input.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def output(self, name: str, *dims: int | str) -> str:
        """Declare a float output."""
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        return name

    def weight(self, name: str, *shape: int, mean: float = 0.0, std: float = 0.02) -> str:
        """Add a float32 initializer of normally distributed numbers."""
        size = int(np.prod(shape))
        tensor = self._graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=shape)
        if not self._data:
            tensor.raw_data = self._normal(size, mean, std)
            return name
        offset = self._data.tell()
        for start in range(0, size, PIECE):
            self._data.write(self._normal(min(PIECE, size - start), mean, std))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {
            "location": f"{self._path.name}.data",
            "offset": offset,
            "length": 4 * size,
        }.items():
            tensor.external_data.add(key=key, value=str(value))
        return name

    def kernel(self, *shape: int, std: float = 0.02) -> str:
        """Add the weight of a matrix multiplication under the nameless name exporters give it."""
        self._names["onnx::MatMul"] += 1
        return self.weight(f"onnx::MatMul_{self._names['onnx::MatMul']}", *shape, std=std)

    def buffer(self, name: str, value: Array) -> str:
        """Add an initializer with the given value."""
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def op(
        self,
        scope: str,
        kind: str,
        *inputs: Operand,
        result: str | list[str] | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node `SCOPE/KIND` and return its first output; `result` names the outputs."""
        name = self._fresh(f"{scope}/{kind}")
        names = [i if isinstance(i, str) else self._constant(scope, i) for i in inputs]
        outputs = [result] if isinstance(result, str) else result or [f"{name}_output_0"]
        self._graph.node.append(helper.make_node(kind, names, outputs, name, **attributes))
        return outputs[0]

    def _constant(self, scope: str, value: int | float | list[int] | Array) -> str:
        array = np.array(value, np.float32 if isinstance(value, float) else None)
        name = self._fresh(f"{scope}/Constant")
        tensor = numpy_helper.from_array(array)
        self._graph.node.append(helper.make_node("Constant", [], [f"{name}_output_0"], name, value=tensor))
        return f"{name}_output_0"

    def _fresh(self, stem: str) -> str:
        self._names[stem] += 1
        return stem if self._names[stem] == 1 else f"{stem}_{self._names[stem] - 1}"

    def _normal(self, size: int, mean: float, std: float) -> bytes:
        values = self._random.standard_normal(size, np.float32)
        values *= np.float32(std)
        values += np.float32(mean)
        return (values if sys.byteorder == "little" else values.byteswap()).tobytes()
