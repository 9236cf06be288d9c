"""Weights computed from constants: bit for bit what the session computes, seen by the passes that follow."""

import numpy as np
import pytest
from onnx import numpy_helper

from tests.helpers import model, operators, random, relative_error, rewrite, run

ALONE = {"operators": frozenset({"fold"})}
K, N = 40, 64
W, A, B = random(K, N), random(K, 4, seed=1), random(4, N, seed=2)
G = random(1, N, seed=3)
FORMS = {
    "sum": "u = Add(w, z)",
    "update kept apart": "d = MatMul(a, b) s = Mul(d, two) u = Add(w, s)",
    "weight norm": "l = ReduceL2 <keepdims = 1> (w, axis) d = Div(w, l) u = Mul(g, d)",
    "negative": "u = Neg(w)",
    "slice": "u = Slice(wide, from, to, axis1)",
    "split": "v, u = Split <axis = 1, num_outputs = 2> (wide)",
    "concat": "l = Neg(h) u = Concat <axis = 0> (h2, l)",
    "lookup of rows": "u = Gather(w, order)",
    "choice": "c = Greater(w, two) u = Where(c, two, w)",
}
WEIGHTS = {
    "w": W, "z": random(K, N, seed=4), "a": A, "b": B, "g": G, "two": np.float32(2), "axis": np.array([0]),
    "wide": random(K, 2 * N, seed=5), "from": np.array([N]), "to": np.array([2 * N]), "axis1": np.array([1]),
    "h": random(K // 2, N, seed=6), "h2": random(K // 2, N, seed=8), "order": np.arange(K)[::-1].copy(),
}  # fmt: skip
TEXT = "g (float[m, 40] x) => (float[m, 64] y) {{ {} y = MatMul(x, u) }}"


def product(form: str, text: str = TEXT):
    """Return a model whose weight u a form computes."""
    text = text.format(FORMS[form])
    return model(text, **{name: array for name, array in WEIGHTS.items() if f" {name}" in text.replace("(", " ")})


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_computed_to_the_bit(tmp_path, form):
    source = product(form)
    result = rewrite(source, tmp_path, **ALONE)
    assert result.replaced == {"fold": 1}
    assert operators(result.proto) == ["MatMul"]
    (weight,) = result.proto.graph.initializer
    source.graph.output[0].name = "u"
    source.graph.output[0].type.CopyFrom(source.graph.input[0].type)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    feed = np.zeros((1, K), np.float32)
    np.testing.assert_array_equal(numpy_helper.to_array(weight), run(source, optimize=False, x=feed)[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_passes_for_weights_see_them(tmp_path, form):
    source = product(form)
    result = rewrite(source, tmp_path, bits=8, block_size=0)
    assert result.replaced == {"fold": 1, "matmul": 1}
    assert [tensor.name for tensor in result.reports["matmul"].tensors] == ["u"]
    x = random(9, K, seed=7)
    assert relative_error(run(result.proto, x=x)[0], run(source, x=x)[0]) < 0.02


def test_an_old_opset_with_axes_as_attributes(tmp_path):
    form = "s = Mul(w, w) n = ReduceSum <axes = [0], keepdims = 1> (s) l = Sqrt(n) u = Div(w, l)"
    source = model(TEXT.format(form), 11, 6, w=W)
    assert rewrite(source, tmp_path, **ALONE).replaced == {"fold": 1}


def test_no_more_is_written_than_the_sources_hold(tmp_path):
    """Two of three sums of the same two weights: the third stays computed."""
    sums = " ".join(f"u{i} = {op}(w, z) p{i} = MatMul(x, u{i})" for i, op in enumerate(("Add", "Sub", "Mul")))
    text = f"g (float[m, 40] x) => (float[m, 64] y) {{ {sums} s = Add(p0, p1) y = Add(s, p2) }}"
    result = rewrite(model(text, w=W, z=WEIGHTS["z"]), tmp_path, **ALONE)
    assert result.replaced == {"fold": 2}
    assert "takes less room" in result.skips("fold")["Mul"]


def test_weights_in_bodies(tmp_path):
    text = """g (float[m, 40] x, bool c) => (float[m, 64] y) {
        y = If (c) <
            then_branch = t () => (float[m, 64] p) { u = Add(w, z) p = MatMul(x, u) },
            else_branch = e () => (float[m, 64] q) { v = Sub(w, z) q = MatMul(x, v) }
        >
    }"""
    source = model(text, w=W, z=WEIGHTS["z"])
    result = rewrite(source, tmp_path, **ALONE)
    assert result.replaced == {"fold": 2}
    x = random(3, K, seed=7)
    for branch in (True, False):
        feeds = {"x": x, "c": np.array(branch)}
        np.testing.assert_array_equal(run(result.proto, False, **feeds)[0], run(source, False, **feeds)[0])


LEFT = {
    "a mask is part of it: apart from that, the rest is as exact as without": (
        "g (float[40, 64] x) => (float[40, 64] y) { u = Add(w, m) y = Add(x, u) }",
        {"w": W, "m": np.where(WEIGHTS["z"] > 0, np.float32(-1e4), np.float32(0))},
    ),
    "it makes 2560 numbers of 64: computed when the session is made, it takes less room": (
        "g (float[40, 64] x) => (float[40, 64] y) { u = Expand(r, shape) y = Add(x, u) }",
        {"r": random(1, N), "shape": np.array([K, N])},
    ),
    "it makes 2560 values that are no floats": (
        "g (float[40, 64] x) => (float[40, 64] y) { c = Greater(w, two) y = Where(c, x, two) }",
        {"w": W, "two": np.float32(2)},
    ),
    "kept by the pattern '^w$'": (
        "g (float[m, 40] x) => (float[m, 64] y) { u = Add(w, z) y = MatMul(x, u) }",
        {"w": W, "z": WEIGHTS["z"]},
    ),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_is_left_and_why(tmp_path, reason):
    text, weights = LEFT[reason]
    source = model(text, **weights)
    result = rewrite(source, tmp_path, keep=("^w$",) if "kept" in reason else (), **ALONE)
    assert list(result.skips("fold").values()) == [reason]
    assert operators(result.proto) == operators(source)


@pytest.mark.parametrize(
    "form", ["n = RandomNormalLike(w) u = Add(w, n)", "u = DequantizeLinear <axis = 1> (q, s)", "u = Transpose(v)"]
)
def test_noise_codes_and_views_are_not_folded(tmp_path, form):
    weights = {"w": W, "q": np.ones((K, N), np.int8), "s": np.ones(N, np.float32), "v": W.T.copy()}
    source = model(
        TEXT.format(form), **{name: a for name, a in weights.items() if f"({name}" in form or f", {name}" in form}
    )
    result = rewrite(source, tmp_path, **ALONE)
    assert result.replaced == {}
    assert operators(result.proto) == operators(source)


def test_what_is_kept_further_back(tmp_path):
    source = product("update kept apart")
    result = rewrite(source, tmp_path, keep=("^a$",), **ALONE)
    assert list(result.skips("fold").values()) == ["what it is computed from is kept by the pattern '^a$'"]


def test_a_kept_reader_keeps_what_was_folded(tmp_path):
    source = product("sum")
    source.graph.node[1].name = "head"
    result = rewrite(source, tmp_path, keep=("^head$",))
    assert result.replaced == {"fold": 1}
    (weight,) = result.proto.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), W + WEIGHTS["z"])
