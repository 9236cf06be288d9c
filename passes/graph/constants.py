"""Constants as exporters write them: initializers seen through Identity, Transpose, Reshape, Squeeze and Cast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

Array = NDArray[Any]
Step = tuple[str, Any]
FLOATS = ("float16", "float32", "float64")
# Casts that keep every value.
WIDER = {"bfloat16": ("float32", "float64"), "float16": ("float32", "float64"), "float32": ("float64",)}


@dataclass(frozen=True)
class ConstantView:
    """A constant as its reader sees it.

    Attributes:
        source: the initializer that holds the values.
        steps: ("transpose", permutation), ("reshape", shape) and ("cast", dtype) between source and reader, in order.
        shape: shape as the reader sees it.
        dtype: name of the numpy type as the reader sees it.
    """

    source: gs.Constant
    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for views of the same values."""
        return (id(self.source), self.steps)

    @property
    def is_float(self) -> bool:
        """Tell whether the reader sees float16, float32 or float64."""
        return self.dtype in FLOATS

    @property
    def nbytes(self) -> int:
        """Bytes of the source's values."""
        return constant_bytes(self.source)

    def values(self) -> Array:
        """Load the values, [*shape]: perhaps a view of the file, not to be written to."""
        array = load(self.source)
        for kind, parameter in self.steps:
            if kind == "transpose":
                array = array.transpose(parameter)
            elif kind == "reshape":
                array = array.reshape(parameter)
            else:
                array = array.astype(parameter)
        return array


def moving_steps(view: ConstantView) -> tuple[Step, ...]:
    """Return the steps of a view without the casts that keep every value."""
    steps, dtype = [], np.dtype(view.source.dtype).name
    for step in view.steps:
        if step[0] != "cast" or step[1] not in WIDER.get(dtype, ()):
            steps.append(step)
        dtype = step[1] if step[0] == "cast" else dtype
    return tuple(steps)


def load(constant: gs.Constant) -> Array:
    """Return a constant's values without keeping them in the graph."""
    values = constant._values
    if isinstance(values, SparseValues):
        return dense_values(values.tensor)
    return np.asarray(values.load() if isinstance(values, LazyValues) else values)


def dense_values(sparse: onnx.SparseTensorProto) -> NDArray[Any]:
    """Return all values of a sparse tensor, [*dims]."""
    values, places = (onnx.numpy_helper.to_array(tensor) for tensor in (sparse.values, sparse.indices))
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return dense


def constant_bytes(constant: gs.Constant) -> int:
    """Return the bytes of a constant's values as the file holds them."""
    return int(constant._values.nbytes)


def resolve(tensor: gs.Tensor) -> ConstantView | None:
    """Return the constant behind a tensor, or None if it depends on an input or on operators not followed."""
    nodes: list[gs.Node] = []
    while not isinstance(tensor, gs.Constant):
        if not tensor.inputs or tensor.inputs[0].op not in _FOLLOWED:
            return None
        nodes.append(tensor.inputs[0])
        tensor = tensor.inputs[0].inputs[0]
    if isinstance(tensor._values, SparseValues) or None in tensor.shape:
        return None
    try:
        view = ConstantView(tensor, (), tuple(tensor.shape), np.dtype(tensor.dtype).name)
        for node in reversed(nodes):
            view = _FOLLOWED[node.op](view, node)
    except (TypeError, ValueError, IndexError, KeyError):
        return None  # a type numpy does not have, or parameters that do not fit: the runtime's to judge
    return view


def reader_of(constant: gs.Constant) -> gs.Node | None:
    """Return the first node that reads a constant or what it becomes behind operators that are followed, if any."""
    return last_reader(constant.outputs[0]) if constant.outputs else None


def last_reader(node: gs.Node) -> gs.Node:
    """Return a node that reads a constant, or the one that reads what the constant becomes in it."""
    while node.outputs and resolve(node.outputs[0]) is not None and node.outputs[0].outputs:
        node = node.outputs[0].outputs[0]
    return node


def small_values(tensor: gs.Tensor) -> Array | None:
    """Return the values of a constant that parametrizes a node (a scalar, a shape, axes), or None."""
    view = resolve(tensor)
    return view.values() if view is not None and math.prod(view.shape) <= 64 else None


def _append(view: ConstantView, step: Step, shape: tuple[int, ...], dtype: str | None = None) -> ConstantView:
    return ConstantView(view.source, (*view.steps, step), shape, dtype or view.dtype)


def _transpose(view: ConstantView, node: gs.Node) -> ConstantView:
    permutation = tuple(node.attrs.get("perm") or reversed(range(len(view.shape))))
    return _append(view, ("transpose", permutation), tuple(view.shape[axis] for axis in permutation))


def _reshape(view: ConstantView, shape: tuple[int, ...]) -> ConstantView:
    shape = np.broadcast_to(np.zeros(1, bool), math.prod(view.shape)).reshape(shape).shape
    return view if shape == view.shape else _append(view, ("reshape", shape), shape)


def _reshape_node(view: ConstantView, node: gs.Node) -> ConstantView:
    asked = _required(node.inputs[1])
    keep_zero = node.attrs.get("allowzero", 0)
    dims = [view.shape[i] if dim == 0 and not keep_zero else int(dim) for i, dim in enumerate(asked)]
    return _reshape(view, tuple(dims))


def _axes(node: gs.Node) -> list[int] | None:
    if "axes" in node.attrs:
        return [int(axis) for axis in node.attrs["axes"]]
    return [int(axis) for axis in _required(node.inputs[1]).reshape(-1)] if len(node.inputs) > 1 else None


def _squeeze(view: ConstantView, node: gs.Node) -> ConstantView:
    axes = _axes(node)
    probe = np.broadcast_to(np.zeros((), bool), view.shape)
    return _reshape(view, np.squeeze(probe, None if axes is None else tuple(axes)).shape)


def _unsqueeze(view: ConstantView, node: gs.Node) -> ConstantView:
    probe = np.broadcast_to(np.zeros((), bool), view.shape)
    return _reshape(view, np.expand_dims(probe, tuple(_axes(node) or ())).shape)


def _cast(view: ConstantView, node: gs.Node) -> ConstantView:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))).name
    return view if dtype == view.dtype else _append(view, ("cast", dtype), view.shape, dtype)


def _required(tensor: gs.Tensor) -> Array:
    values = small_values(tensor)
    if values is None:
        raise ValueError(f"{tensor.name} is not a small constant")
    return values


_FOLLOWED = {
    "Identity": lambda view, _: view,
    "Transpose": _transpose,
    "Reshape": _reshape_node,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
}
