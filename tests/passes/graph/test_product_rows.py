"""A product and the call that quantizes its results alone are one call; the answers stay to the bit."""

import numpy as np
import pytest

from passes.graph import product_rows
from tests.helpers import model, optimized, random, rewrite, run

K, N = 64, 24
X = random(2, 3, K, seed=1)
MATMUL = {"bits": 8, "operators": frozenset({"matmul"})}
RELU = "h = MatMul(x, v) i = Relu(h) y = MatMul(i, w)"
SUM = "h = MatMul(x, v) i = Add(h, x) j = LayerNormalization(i, g, b) k = MatMul(j, w) y = Mul(k, k)"
TOGETHER = {RELU: "BlockMatMul8ReluQuantizeRowsAbove", SUM: "BlockMatMul8ResidualLayerNormalizationQuantizeRowsLike"}
APART = [
    "h = MatMul(x, v) i = Relu(h) j = MatMul(i, w) k = ReduceMax(i) y = Add(j, k)",  # floats are read, too
    "h = MatMul(x, v) i = Neg(h) y = MatMul(i, w)",  # no ending
]


def source(text, outputs="float[p, q, 24] y"):
    values = {"w": random(K, N), "v": random(K, K, seed=7), "g": random(K, seed=2), "b": random(K, seed=3)}
    return model(f"g (float[a, 3, 64] x) => ({outputs}) {{ {text} }}", opset=23, **values)


def kinds(proto):
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("text", TOGETHER)
def test_one_call(text, tmp_path, monkeypatch):
    proto = rewrite(source(text), tmp_path, **MATMUL).proto
    assert TOGETHER[text] in kinds(proto)
    with monkeypatch.context() as patch:
        patch.setattr(product_rows, "BY_BOTH", {})
        before = rewrite(source(text), tmp_path, **MATMUL).proto
    assert TOGETHER[text] not in kinds(before)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, optimize, x=X)[0], run(before, optimize, x=X)[0])
    # A session runs the same operators.
    assert sorted(kinds(optimized(proto, tmp_path))) == sorted(kinds(optimized(before, tmp_path)))


@pytest.mark.parametrize("text", APART)
def test_other_calls_stay(text, tmp_path):
    proto = rewrite(source(text), tmp_path, **MATMUL).proto
    assert not [kind for kind in kinds(proto) if "MatMul" in kind and "QuantizeRows" in kind]
    assert run(proto, x=X)


def test_an_output_of_the_graph_stays(tmp_path):
    proto = rewrite(source(RELU, "float[p, q, 64] i, float[p, q, 24] y"), tmp_path, **MATMUL).proto
    assert TOGETHER[RELU] not in kinds(proto)
