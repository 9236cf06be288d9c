"""Attention of what a Split makes is one call; answers stay to the bit, and so do the nodes that a session runs."""

from collections import Counter

import numpy as np
import pytest

from passes.graph import split_attentions
from tests.helpers import model, optimized, random, rewrite, run

COUNTS = "scale = 0.5, q_num_heads = 4, kv_num_heads = 2"
VALUES = {
    "w": random(6, 18, seed=1),
    "s": np.array([8, 4, 6], np.int64),
    "b": random(8, seed=2),
    "c": random(1, 6, seed=3),
    "d": random(4, seed=4),
}
SPLIT = "p = MatMul(x, w) q, k, v = Split<axis = -1>(p, s)"
ATTEND = f"y = Attention<{COUNTS}>"
ONE = {
    f"{SPLIT} {ATTEND}(q, k, v)": "SplitRowAttention",
    f"{SPLIT} {ATTEND}(q, k, v, m)": "SplitRowAttentionMasked",
    f"{SPLIT} i = Add(q, b) {ATTEND}(i, k, v)": "SplitRowAttentionBiasQ",
    f"{SPLIT} i = Add(c, v) {ATTEND}(q, k, i)": "SplitRowAttentionBiasV",
    f"{SPLIT} i = Add(q, b) j = Add(v, c) {ATTEND}(i, k, j, m)": "SplitRowAttentionBiasQVMasked",
    SPLIT.replace("-1", "2") + f" {ATTEND}(q, k, v)": "SplitRowAttention",
}
APART = {
    "another reader": f"{SPLIT} {ATTEND}(q, k, v) z = Neg(k)",
    "another reader of a sum": f"{SPLIT} i = Add(q, b) {ATTEND}(i, k, v) z = Neg(i)",
    "a bias of keys": f"{SPLIT} i = Add(k, d) {ATTEND}(q, i, v)",
    "no bias": f"{SPLIT} i = Add(q, q) {ATTEND}(i, k, v)",
    "a row for each": f"{SPLIT} i = Add(q, r) {ATTEND}(i, k, v)",
    "another order": f"{SPLIT} i = Slice(p, o, t, l) {ATTEND}(i, k, v) z = Neg(q)",
}


def source(text):
    outputs = "float[a, 3, 12] y" + (", float[a, 3, u] z" if "z =" in text else "")
    inputs = "float[a, 3, 6] x, float[3, 3] m, float[a, 3, 8] r"
    if "Slice" in text:
        extra = {"o": np.array([0], np.int64), "t": np.array([8], np.int64), "l": np.array([2], np.int64)}
    else:
        extra = {}
    return model(f"g ({inputs}) => ({outputs}) {{ {text} }}", 23, 11, **VALUES, **extra)


def written(text, folder):
    return rewrite(source(text), folder, operators=frozenset({"attention"})).proto


def feeds():
    return {"x": random(2, 3, 6), "m": random(3, 3, seed=9), "r": random(2, 3, 8, seed=8)}


def kinds(proto):
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("text", ONE)
def test_one_call(text, tmp_path, monkeypatch):
    proto = written(text, tmp_path)
    assert kinds(proto) == ["MatMul", ONE[text]]
    with monkeypatch.context() as patch:
        patch.setattr(split_attentions, "_MASKED", {})
        before = written(text, tmp_path)
    assert "Split" in kinds(before)
    for optimize in (False, True):
        for y, expected in zip(run(proto, optimize, **feeds()), run(before, optimize, **feeds()), strict=True):
            np.testing.assert_array_equal(y, expected)
    assert Counter(kinds(optimized(proto, tmp_path))) == Counter(kinds(optimized(before, tmp_path)))


@pytest.mark.parametrize("text", APART.values(), ids=APART)
def test_other_splits_stay(text, tmp_path):
    proto = written(text, tmp_path)
    assert {"Split", "RowAttention"} <= set(kinds(proto))
    assert run(proto, **feeds())


def test_an_output_of_the_graph_stays(tmp_path):
    text = f"{SPLIT} {ATTEND}(q, k, v) z = Identity(q)"
    proto = written(text, tmp_path)
    assert "RowAttention" in kinds(proto)


def test_lengths_are_asked_of_what_was_split(tmp_path):
    text = f"{SPLIT} i = Add(q, b) {ATTEND}(i, k, v) f = Shape(i) n = Gather(f, one) z = Expand(f0, n)"
    values = {"one": np.array([1], np.int64), "f0": np.ones(1, np.float32)}
    inputs = "float[a, 3, 6] x"
    outputs = "float[a, 3, 12] y, float[u] z"
    proto = rewrite(
        model(f"g ({inputs}) => ({outputs}) {{ {text} }}", 23, 11, **VALUES, **values),
        tmp_path,
        operators=frozenset({"attention"}),
    ).proto
    assert "SplitRowAttentionBiasQ" in kinds(proto)
    assert run(proto, x=random(2, 3, 6))[1].shape == (3,)
