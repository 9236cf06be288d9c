"""A normalization and the call that quantizes its rows are one call; the answers stay to the bit."""

import numpy as np
import pytest

from passes.graph import normalizations
from tests.helpers import model, optimized, random, rewrite, run

K, N = 64, 24
X = random(2, 3, K, seed=1)
MATMUL = {"bits": 8, "operators": frozenset({"matmul"})}
ONE = "h = LayerNormalization(x, g, b) y = MatMul(h, w)"
TOGETHER = {
    ONE: ["LayerNormalizationQuantizeRows"],
    ONE.replace("(x", "<axis = 2, epsilon = 1e-3>(x"): ["LayerNormalizationQuantizeRows"],
    "h = LayerNormalization(x, g, b) p = MatMul(h, v) i = Add(p, h) j = LayerNormalization(i, g, b) y = MatMul(j, w)": [
        "LayerNormalizationQuantizeRows",
        "BlockMatMul8ResidualLayerNormalizationQuantizeRowsLike",
    ],
}
FLOATS, CODES = "h = LayerNormalization(x, g, b)", "i = LayerNormalization(x, c, d)"
READ = "j = MatMul(i, w) r = ReduceMean(h) y = Add(j, r)"
TWICE = f"{FLOATS} {CODES} {READ}"
# Rows that products read by other gains than what else reads them has, in either order.
EVEN = {
    TWICE: "LayerNormalizationEvenQuantizeRows",
    f"{CODES} {FLOATS} {READ}": "LayerNormalizationEvenQuantizeRows",
    "p = MatMul(x, v) s = Add(p, x) " + TWICE.replace("(x", "(s"): (
        "BlockMatMul8ResidualLayerNormalizationEvenQuantizeRowsLike"
    ),
}
TWO = [
    # Floats of both are read, or they are not normalized alike.
    f"{TWICE.replace('y =', 't =')} s = ReduceMean(i) y = Add(t, s)",
    TWICE.replace("(x, g", "<epsilon = 1e-3>(x, g"),
]
APART = [
    "h = LayerNormalization(x, g) y = MatMul(h, w)",
    "h = LayerNormalization<axis = 1>(x, gg, gg) y = MatMul(h, w)",
    # Zero points come of a call that waits for the normalization.
    "h = LayerNormalization(x, g, b) i = Neg(h) p = MatMul(i, v) q = MatMul(h, w) r = MatMul(p, w) y = Add(q, r)",
]


def source(text):
    values = {"w": random(K, N), "v": random(K, K, seed=7), "g": random(K, seed=2), "b": random(K, seed=3)}
    values |= {"gg": random(3, K, seed=4), "c": random(K, seed=5), "d": random(K, seed=6)}
    return model(f"g (float[a, 3, 64] x) => (float[a, 3, 24] y) {{ {text} }}", **values)


def kinds(proto):
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("text", TOGETHER)
def test_one_call(text, tmp_path, monkeypatch):
    proto = rewrite(source(text), tmp_path, **MATMUL).proto
    assert [kind for kind in kinds(proto) if "Normalization" in kind] == TOGETHER[text]
    assert not {"QuantizeRows", "QuantizeRowsLike"} & set(kinds(proto))
    with monkeypatch.context() as patch:
        patch.setattr(normalizations, "BY_QUANTIZER", {})
        before = rewrite(source(text), tmp_path, **MATMUL).proto
    assert "LayerNormalization" in kinds(before)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, optimize, x=X)[0], run(before, optimize, x=X)[0])
    # A session runs the same operators.
    assert sorted(kinds(optimized(proto, tmp_path))) == sorted(kinds(optimized(before, tmp_path)))


@pytest.mark.parametrize("text", APART)
def test_other_nodes_stay(text, tmp_path):
    proto = rewrite(source(text), tmp_path, **MATMUL).proto
    assert "LayerNormalization" in kinds(proto)
    assert run(proto, x=X)


@pytest.mark.parametrize("text", EVEN)
def test_two_gains_are_one_call(text, tmp_path, monkeypatch):
    proto = rewrite(source(text), tmp_path, **MATMUL).proto
    assert [kind for kind in kinds(proto) if "Normalization" in kind] == [EVEN[text]]
    with monkeypatch.context() as patch:
        patch.setattr(normalizations, "EVEN", {})
        before = rewrite(source(text), tmp_path, **MATMUL).proto
    assert "LayerNormalization" in kinds(before)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, optimize, x=X)[0], run(before, optimize, x=X)[0])
    assert sorted(kinds(optimized(proto, tmp_path))) == sorted(kinds(optimized(before, tmp_path)))


@pytest.mark.parametrize("text", TWO)
def test_two_normalizations_stay(text, tmp_path):
    proto = rewrite(source(text), tmp_path, **MATMUL).proto
    assert not [kind for kind in kinds(proto) if "Even" in kind]
    assert run(proto, x=X)
