"""What follows a product is part of its call where nothing else reads it; the answers stay to the bit."""

import numpy as np
import onnx
import pytest

from passes.functions.function import DOMAIN
from passes.graph import endings
from tests.helpers import model, nodes, optimized, random, rewrite, run

K, N = 64, 24
MATMUL = {"bits": 8, "operators": frozenset({"matmul"})}
X = random(2, 3, K, seed=1)
SHAPES = "float[a, b, 64] x, float[a, b, 24] r, float[b, 24] s, float[1, 1, 24] t"
FOLLOWED = {
    "h = MatMul(x, w) y = Add(h, c)": "Bias",
    "h = MatMul(x, w) y = Add(c, h)": "Bias",
    "h = MatMul(x, w) y = Add(h, t)": "Bias",
    "h = MatMul(x, w) y = Add(r, h)": "Residual",
    "h = MatMul(x, w) i = Add(h, c) y = Add(i, r)": "BiasResidual",
    "h = MatMul(x, w) y = Relu(h)": "Relu",
    "h = MatMul(x, w) y = Gelu(h)": "Gelu",
    "h = MatMul(x, w) i = Add(h, c) y = Gelu<approximate = 'tanh'>(i)": "BiasGeluTanh",
    "h = MatMul(x, w) g = Sigmoid(h) y = Mul(g, h)": "Silu",
    "h = MatMul(x, w) i = Add(h, c) y = com.microsoft.QuickGelu<alpha = 1.5>(i)": "BiasQuickGelu",
}
LEFT = [
    "h = MatMul(x, w) y = Add(h, s)",  # a row of it is no residual's, and no bias
    "h = MatMul(x, w) y = Add(h, one)",  # one number for all columns
    "h = MatMul(x, w) y = Add(h, h)",
    "h = MatMul(x, w) g = Sigmoid(h) y = Mul(g, g)",
    "h = MatMul(x, w) g = Sigmoid(h) z = Mul(g, h) y = Add(z, g)",
    "h = MatMul(x, w) i = Relu(h) j = Neg(h) y = Add(i, j)",
]


def source(text, outputs="float[p, q, 24] y", opset=21):
    values = {"w": random(K, N), "c": random(1, N, seed=2), "one": random(1, seed=3)}
    return model(f"g ({SHAPES}) => ({outputs}) {{ {text} }}".replace("'", '"'), opset=opset, **values)


def calls(proto):
    return [node for node in nodes(proto.graph) if node.domain == DOMAIN and "MatMul" in node.op_type]


def feeds(proto):
    given = {"x": X, "r": random(2, 3, N, seed=4), "s": random(3, N, seed=5), "t": random(1, 1, N, seed=6)}
    return {value.name: given[value.name] for value in proto.graph.input}


def apart(text, folder, monkeypatch, **options):
    """Return the model without endings."""
    with monkeypatch.context() as patch:
        patch.setattr(endings, "FOLLOWED", {})
        return rewrite(source(text, **options), folder, **MATMUL).proto


@pytest.mark.parametrize("text", FOLLOWED)
def test_what_follows_is_part_of_the_call(text, tmp_path, monkeypatch):
    opset = 23 if "Gelu" in text else 21
    proto = rewrite(source(text, opset=opset), tmp_path, **MATMUL).proto
    (call,) = calls(proto)
    assert call.op_type == "BlockMatMul8" + FOLLOWED[text]
    assert proto.graph.node[-1].op_type == call.op_type
    before = apart(text, tmp_path, monkeypatch, opset=opset)
    for optimize in (False, True):
        (y,), (expected,) = run(proto, optimize, **feeds(proto)), run(before, optimize, **feeds(before))
        np.testing.assert_array_equal(y, expected)
    # A session runs the same operators.
    kinds = [sorted(node.op_type for node in optimized(each, tmp_path).graph.node) for each in (proto, before)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("text", LEFT)
def test_other_nodes_stay(text, tmp_path):
    (call,) = calls(rewrite(source(text), tmp_path, **MATMUL).proto)
    assert call.op_type == "BlockMatMul8"


def test_outputs_stay(tmp_path):
    proto = rewrite(
        source("h = MatMul(x, w) y = Relu(h)", "float[a, b, 24] y, float[a, b, 24] h"), tmp_path, **MATMUL
    ).proto
    assert [node.op_type for node in proto.graph.node][-2:] == ["BlockMatMul8", "Relu"]


def test_names_are_those_of_all_nodes(tmp_path):
    given = source("h = MatMul(x, w) i = Add(h, c) y = Relu(i)")
    for node, name in zip(given.graph.node, ["dense", "", "relu"], strict=True):
        node.name = name
    (call,) = calls(rewrite(given, tmp_path, **MATMUL).proto)
    assert call.name == "dense + relu"


def test_in_bodies(tmp_path):
    """A branch's own nodes are composed; what a branch reads of the outer graph stays."""
    branch = "then_branch = a () => (float[p, q, 24] u) { h = MatMul(x, w) u = Relu(h) }"
    other = "else_branch = b () => (float[p, q, 24] v) { v = Relu(o) }"
    text = f"f = ReduceMax<keepdims = 0>(r) k = Cast<to = 9>(f) o = MatMul(x, w2) y = If(k) <{branch}, {other}>"
    given = source(text)
    given.graph.initializer.append(onnx.numpy_helper.from_array(random(K, N, seed=9), "w2"))
    proto = rewrite(given, tmp_path, **MATMUL).proto
    assert sorted(call.op_type for call in calls(proto)) == ["BlockMatMul8", "BlockMatMul8Relu"]
    assert run(proto, **feeds(proto))
