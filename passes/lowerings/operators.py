"""Standard operators whose form changed between opsets."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
INT64 = onnx.TensorProto.INT64
INT8, UINT8, BOOL = onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.BOOL
INT32 = onnx.TensorProto.INT32
INT4, UINT4 = onnx.TensorProto.INT4, onnx.TensorProto.UINT4
# QuantizeLinear.
OPSET_QUANTIZE = 10
# BitwiseAnd and BitwiseOr.
OPSET_BITWISE = 18


def cast(at: Emitter, x: gs.Tensor, to: int, name: str, output: gs.Variable | None = None) -> gs.Variable:
    """Write Cast."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
    return at.op("Cast", x, name=name, output=output, dtype=dtype, to=int(to))


def reshape(at: Emitter, x: gs.Tensor, shape: tuple[int, ...], name: str) -> gs.Variable:
    """Write Reshape to a constant shape."""
    return at.op("Reshape", x, at.constant(np.array(shape, np.int64), f"shape{len(shape)}"), name=name)


def unsqueeze_last(at: Emitter, x: gs.Tensor, count: int, name: str) -> gs.Variable:
    """Write Unsqueeze that adds axes of length one behind the last, whatever the rank from opset 13 on."""
    axes = list(range(-count, 0))
    if at.opset >= 13:
        return at.op("Unsqueeze", x, at.constant(np.array(axes, np.int64), "new_axes"), name=name, dtype=x.dtype)
    return at.op("Unsqueeze", x, name=name, dtype=x.dtype, axes=axes)


def reduce_last(at: Emitter, op: str, x: gs.Tensor, name: str) -> gs.Variable:
    """Write ReduceMax or ReduceMin over the last axis, which is kept: [..., k] to [..., 1]."""
    if at.opset >= 18:
        return at.op(op, x, at.constant(np.array([-1], np.int64), "last_axis"), name=name, keepdims=1)
    return at.op(op, x, name=name, axes=[-1], keepdims=1)


def slice_first(at: Emitter, x: gs.Tensor, axis: int, stop: int, name: str) -> gs.Variable:
    """Write Slice that keeps the first `stop` entries of an axis."""
    return slice_between(at, x, axis, 0, stop, name)


def slice_between(at: Emitter, x: gs.Tensor, axis: int, start: int, stop: int, name: str) -> gs.Variable:
    """Write Slice that keeps the entries of an axis from `start` to before `stop`."""
    if at.opset < 10:
        return at.op("Slice", x, name=name, axes=[axis], starts=[start], ends=[stop])
    named = (start, "start" if start else "zero"), (stop, "stop"), (axis, "axis")
    bounds = [at.constant(np.array([value], np.int64), bound) for value, bound in named]
    return at.op("Slice", x, *bounds, name=name)


def split_last(at: Emitter, x: gs.Tensor, outputs: list[gs.Variable], sizes: list[int]) -> None:
    """Write Split along the last axis into the given tensors."""
    if at.opset >= 13:
        at.node("Split", [x, at.constant(np.array(sizes, np.int64), "split")], outputs, axis=-1)
    else:
        at.node("Split", [x], outputs, axis=-1, split=sizes)
