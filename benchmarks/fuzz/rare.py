"""Parts of models that few exporters write and many tools get wrong; `x` is a tensor [batch, length, width]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from .generate import Builder

# Sums of so many products of 8-bit numbers can pass the largest int32.
LONG = 140_000
LONGEST_TEXT, WINDOW = 256, 16
EXPERTS = 3
OPSET_EINSUM, OPSET_RESIZE, OPSET_AXES_INPUT = 12, 11, 18


def long_sum(b: Builder, x: str, width: int) -> str:
    """Add what a product over very many numbers that are no less than zero makes of the mean token."""
    tiles = b.constant(np.array([1, 1, -(-LONG // width)], np.int64))
    rows = width * -(-LONG // width)
    wide = b.op("Tile", b.op("Relu", b.mean(x, 1)), tiles)
    weight = np.abs(b.rng.standard_normal((rows, 8))) / rows
    few = b.op("MatMul", wide, b.constant(weight.astype(b.dtype), "w"))
    return b.op("Add", x, b.linear(few, 8, width))


def masked_attention(b: Builder, x: str, width: int) -> str:
    """Write attention whose one constant holds positions and what is masked: later tokens, or those beyond a window."""
    place = np.arange(LONGEST_TEXT)
    distance = place[:, None] - place
    seen = distance >= 0 if b.rng.random() < 0.5 else np.abs(distance) < WINDOW
    masked = float(b.rng.choice([-1e4, -65504.0, -3.4e38, -np.inf]))
    limit = float(np.finfo(b.dtype).min)
    bias = np.where(seen, -0.05 * np.abs(distance), masked if np.isinf(masked) else max(masked, limit))
    length = b.op("Gather", b.op("Shape", x), b.constant(np.array([1], np.int64)), axis=0)
    ends = b.op("Concat", length, length, axis=0)
    bounds = (b.constant(np.array(value, np.int64)) for value in ([0, 0], [0, 1]))
    start, axes = bounds
    mask = b.op("Slice", b.constant(bias.astype(b.dtype), "mask"), start, ends, axes)
    query, key, value = (b.linear(x, width, width) for _ in range(3))
    scores = b.op("MatMul", query, b.op("Transpose", key, perm=[0, 2, 1]))
    scaled = b.op("Mul", scores, b.scalar(width**-0.5))
    return b.op("MatMul", b.op("Softmax", b.op("Add", scaled, mask), axis=-1 if b.opset > 12 else 2), value)


def sparse_weight(b: Builder, x: str, width: int) -> str:
    """Multiply with a weight of which few numbers are stored."""
    dense = b.rng.standard_normal((width, width)).astype(b.dtype)
    where = np.flatnonzero(b.rng.random(width * width) < 0.1)
    name = b.name("sparse")
    values = numpy_helper.from_array(dense.reshape(-1)[where], name)
    indices = numpy_helper.from_array(where.astype(np.int64), f"{name}_indices")
    b.sparse.append(helper.make_sparse_tensor(values, indices, [width, width]))
    return b.op("MatMul", x, name)


def fused_product(b: Builder, x: str, width: int) -> str:
    """Multiply as ONNX Runtime's optimizer writes it: scaled, and with the weight turned."""
    turned = int(b.rng.integers(2))
    return b.op("FusedMatMul", x, b.weight(width, width), alpha=0.5, transB=turned, domain="com.microsoft")


def einsum(b: Builder, x: str, width: int) -> str:
    """Write a product as Einsum, the weight as it is or turned."""
    equation = str(b.rng.choice(["bld,dk->blk", "bld,kd->blk", "...d,dk->...k"]))
    return b.op("Einsum", x, b.weight(width, width), equation=equation)


def resized(b: Builder, x: str, width: int) -> str:
    """Stretch the numbers of every token, as a picture of one row each, to twice as many and take those back."""
    shape = b.constant(np.array([0, -1, 1, width], np.int64))
    scales = b.constant(np.array([1, 1, 1, 2], np.float32))
    none = b.constant(np.zeros(0, np.float32))
    mode = str(b.rng.choice(["nearest", "linear"]))
    large = b.op("Resize", b.op("Reshape", x, shape), none, scales, mode=mode)
    rows = b.op("Reshape", large, b.constant(np.array([0, -1, 2 * width], np.int64)))
    return b.linear(rows, 2 * width, width)


def experts(b: Builder, x: str, width: int) -> str:
    """Multiply each text with the weight that it picks."""
    table = b.rng.standard_normal((EXPERTS, width, width)) / np.sqrt(width)
    chosen = b.op("ArgMax", b.linear(b.mean(x, 1), width, EXPERTS), axis=2, keepdims=0)
    row = b.op("Reshape", chosen, b.constant(np.array([-1], np.int64)))
    return b.op("MatMul", x, b.op("Gather", b.constant(table.astype(b.dtype), "experts"), row, axis=0))


def weight_norm(b: Builder, x: str, width: int) -> str:
    """Multiply with a direction and a size for every column, kept apart."""
    direction = b.constant(b.rng.standard_normal((width, width)).astype(b.dtype), "v")
    size = b.constant(np.abs(b.rng.standard_normal(width)).astype(b.dtype), "g")
    if b.opset < OPSET_AXES_INPUT:
        norm = b.op("ReduceL2", direction, axes=[0], keepdims=1)
    else:
        norm = b.op("ReduceL2", direction, b.constant(np.array([0], np.int64)), keepdims=1)
    return b.op("MatMul", x, b.op("Mul", b.op("Div", direction, norm), size))


def wide_columns(b: Builder, x: str, width: int) -> str:
    """Multiply with columns of very different size, and even them again."""
    size = 10.0 ** b.rng.uniform(-4, 3 if b.dtype == np.float32 else 1, width)
    weight = b.rng.standard_normal((width, width)) / np.sqrt(width) * size
    y = b.op("MatMul", x, b.constant(weight.astype(b.dtype), "w"))
    return b.op("Mul", y, b.constant((1 / size).astype(b.dtype))) if b.rng.random() < 0.5 else y


# Each with the lowest opset that has its operators.
PARTS = {
    long_sum: 1,
    masked_attention: 1,
    sparse_weight: 1,
    fused_product: 1,
    einsum: OPSET_EINSUM,
    resized: OPSET_RESIZE,
    experts: 1,
    weight_norm: 1,
    wide_columns: 1,
}
