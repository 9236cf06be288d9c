"""Random small transformer-like models that ONNX Runtime runs: widths, parts, types and opsets by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .rare import PARTS

Array = NDArray[Any]
WIDTHS = (8, 12, 24, 32, 40, 64, 72, 96, 128)
OPSETS = (11, 12, 13, 14, 15, 17, 18, 20, 21, 22)
# Oldest file format with sparse initializers.
MIN_IR = 6


class Builder:
    """Writes one random graph; `x` is a tensor [batch, length, width] throughout."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw what the whole model shares."""
        self.rng = rng
        self.opset = int(rng.choice(OPSETS))
        self.dtype = np.float16 if rng.random() < 0.15 else np.float32
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.sparse: list[onnx.SparseTensorProto] = []
        self.weights: list[tuple[str, tuple[int, int]]] = []
        self.count = 0

    def name(self, stem: str) -> str:
        """Return a new name."""
        self.count += 1
        return f"/{stem}_{self.count}"

    def constant(self, values: Array, stem: str = "c") -> str:
        """Write an initializer, now and then a Constant node."""
        name = self.name(stem)
        tensor = numpy_helper.from_array(values, name)
        if self.rng.random() < 0.1:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.constants.append(tensor)
        return name

    def scalar(self, value: float) -> str:
        """Write a number in the model's float type."""
        return self.constant(np.array(value, self.dtype))

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Write a node and return its output."""
        output = self.name(op)
        name = output if self.rng.random() < 0.8 else ""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def weight(self, k: int, n: int) -> str:
        """Write a weight, or take one that is there already; some have outliers, zero columns or one value."""
        same = [name for name, shape in self.weights if shape == (k, n)]
        if same and self.rng.random() < 0.2:
            return str(self.rng.choice(same))
        values = self.rng.standard_normal((k, n)) / np.sqrt(k)
        kind = self.rng.random()
        if kind < 0.1:
            values[:, self.rng.integers(n)] = 0
        elif kind < 0.2:
            values[self.rng.integers(k)] *= 30
        elif kind < 0.25:
            values[:] = 0.25
        name = self.constant(values.astype(self.dtype), "w")
        self.weights.append((name, (k, n)))
        return name

    def linear(self, x: str, k: int, n: int) -> str:
        """Write x [..., k] @ w [k, n] in one of the ways of exporters, mostly with a bias."""
        if self.rng.random() < 0.2:
            stored = self.constant((self.rng.standard_normal((n, k)) / np.sqrt(k)).astype(self.dtype), "w")
            y = self.op("MatMul", x, self.op("Transpose", stored, perm=[1, 0]))
        else:
            y = self.op("MatMul", x, self.weight(k, n))
        if self.rng.random() < 0.7:
            size = float(self.rng.choice([0.02, 0.1, 0.5]))
            bias = self.constant((self.rng.standard_normal(n) * size).astype(self.dtype), "b")
            y = self.op("Add", *self.rng.permutation([y, bias]).tolist())
        return y

    def norm(self, x: str, width: int) -> str:
        """Write a layer normalization, as one node or in parts."""
        scale = self.constant((1 + 0.1 * self.rng.standard_normal(width)).astype(self.dtype), "g")
        mean = float(self.rng.choice([0, 0, 0.5, -0.5]))
        bias = self.constant((mean + 0.1 * self.rng.standard_normal(width)).astype(self.dtype), "b")
        if self.opset >= 17 and self.rng.random() < 0.5:
            return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)
        centred = self.op("Sub", x, self.mean(x))
        variance = self.mean(self.op("Mul", centred, centred))
        root = self.op("Sqrt", self.op("Add", variance, self.scalar(1e-3)))
        return self.op("Add", self.op("Mul", self.op("Div", centred, root), scale), bias)

    def mean(self, x: str, axis: int = -1) -> str:
        """Write the mean over an axis, the last one if not told, which is an attribute or an input by version."""
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=[axis], keepdims=1)
        return self.op("ReduceMean", x, self.constant(np.array([axis], np.int64)), keepdims=1)

    def activation(self, x: str) -> str:
        """Write a GELU in one of its forms, or another activation."""
        kind = self.rng.integers(5)
        if kind == 0 and self.opset >= 20:
            return self.op("Gelu", x, approximate=str(self.rng.choice(["none", "tanh"])))
        if kind == 1:
            inner = self.op("Erf", self.op("Div", x, self.scalar(np.sqrt(2))))
            return self.op("Mul", self.op("Mul", x, self.op("Add", inner, self.scalar(1))), self.scalar(0.5))
        if kind == 2:
            return self.op("Mul", x, self.op("Sigmoid", x))
        return self.op("Relu" if kind == 3 else "Tanh", x)

    def heads(self, x: str, heads: int, size: int, perm: list[int]) -> str:
        """Write [batch, length, width] to heads in the order of `perm`."""
        shape = self.constant(np.array([0, 0, heads, size], np.int64))
        return self.op("Transpose", self.op("Reshape", x, shape), perm=perm)

    def attention(self, x: str, width: int) -> str:
        """Write self-attention."""
        heads = int(self.rng.choice([h for h in (1, 2, 4) if width % h == 0]))
        size = width // heads
        query, key, value = (self.linear(x, width, width) for _ in range(3))
        scores = self.op(
            "MatMul", self.heads(query, heads, size, [0, 2, 1, 3]), self.heads(key, heads, size, [0, 2, 3, 1])
        )
        weights = self.op("Softmax", self.op("Mul", scores, self.scalar(size**-0.5)), axis=-1 if self.opset > 12 else 3)
        mixed = self.op("MatMul", weights, self.heads(value, heads, size, [0, 2, 1, 3]))
        joined = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", joined, self.constant(np.array([0, 0, width], np.int64))), width, width)

    def feed_forward(self, x: str, width: int) -> str:
        """Write two products around an activation."""
        inner = int(self.rng.choice(WIDTHS)) * int(self.rng.integers(1, 4))
        return self.linear(self.activation(self.linear(x, width, inner)), inner, width)

    def post_norm(self, x: str, width: int) -> str:
        """Write a branch of what is normalized before and after, as BERT has them."""
        x = self.norm(x, width)
        part = (self.attention, self.feed_forward, lambda x, width: self.linear(x, width, width))
        return self.norm(self.op("Add", x, part[int(self.rng.integers(3))](x, width)), width)

    def head(self, x: str, width: int) -> str:
        """Take the first or the last token, mostly, and classify it."""
        kind = self.rng.integers(4)
        if kind < 2:
            x = self.op("Gather", x, self.constant(np.array(-int(kind), np.int64)), axis=1)
        elif kind == 2:
            bounds = ([0], [1]) if self.rng.random() < 0.5 else ([-1], [2**63 - 1])
            x = self.op("Slice", x, *(self.constant(np.array(value, np.int64)) for value in (*bounds, [1])))
        return self.linear(x, width, int(self.rng.choice(WIDTHS))) if self.rng.random() < 0.7 else x

    def branch(self, x: str, width: int) -> str:
        """Write an If whose bodies have products."""
        outputs, bodies = [self.name("branch"), self.name("branch")], []
        outer, outer_weights = self.nodes, list(self.weights)
        for output in outputs:
            self.nodes, self.weights = [], list(outer_weights)
            y = self.linear(x, width, width)
            self.nodes.append(helper.make_node("Identity", [y], [output]))
            info = helper.make_tensor_value_info(output, helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)), None)
            bodies.append(helper.make_graph(self.nodes, output, [], [info]))
        self.nodes, self.weights = outer, outer_weights
        condition = self.constant(np.array(bool(self.rng.integers(2))))
        return self.op("If", condition, then_branch=bodies[0], else_branch=bodies[1])

    def rare(self, x: str, width: int) -> str:
        """Write a part that few models have."""
        known = [part for part, opset in PARTS.items() if opset <= self.opset]
        return known[int(self.rng.integers(len(known)))](self, x, width)

    def finish(self, x: str) -> list[str]:
        """Call x `output`, as it is or through Identity; return all outputs, now and then a tensor before it, too."""
        inner = [
            node.output[0] for node in self.nodes if node.op_type in ("Add", "MatMul", "Mul") and node.output[0] != x
        ]
        more = [str(self.rng.choice(inner))] if inner and self.rng.random() < 0.2 else []
        if self.nodes[-1].output[0] != x or self.rng.random() < 0.5:
            self.op("Identity", x)
        self.nodes[-1].output[0] = "output"
        return ["output", *more]


def model(seed: int) -> onnx.ModelProto:
    """Return the model of a seed."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(b.dtype))
    width = int(rng.choice(WIDTHS))
    table = None
    if rng.random() < 0.6:
        rows = int(rng.integers(17, 300))
        table = b.constant((rng.standard_normal((rows, width)) * 0.3).astype(b.dtype), "table")
        x = b.op("Gather", table, "ids", axis=0)
        inputs = [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "length"])]
    else:
        x = "states"
        inputs = [helper.make_tensor_value_info(x, kind, ["batch", "length", width])]
    parts: list[Callable[[str, int], str]] = [b.attention, b.feed_forward, b.norm, b.branch, b.post_norm, b.rare]
    for _ in range(int(rng.integers(1, 6))):
        part = parts[int(rng.choice(len(parts), p=[0.2, 0.2, 0.1, 0.1, 0.2, 0.2]))]
        y = part(x, width)
        x = b.op("Add", x, y) if rng.random() < 0.6 else y
    if table is not None and rng.random() < 0.5:
        x = b.op("MatMul", x, b.op("Transpose", table, perm=[1, 0]))
    elif rng.random() < 0.6:
        x = b.head(x, width)
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in b.finish(x)]
    graph = helper.make_graph(b.nodes, f"seed {seed}", inputs, outputs, b.constants, sparse_initializer=b.sparse)
    imports = [helper.make_opsetid("", b.opset), helper.make_opsetid("com.microsoft", 1)]
    version = max(MIN_IR, helper.find_min_ir_version_for(imports, ignore_unknown=True))
    return helper.make_model(graph, opset_imports=imports, ir_version=version)
