"""Intermediate results in blocks: which edges, which codes, and the stated bound."""

import numpy as np
import pytest

from passes.functions.quantize_blocks import CODE_TYPES
from tests.helpers import model, nodes, operators, plain, random, rewrite, run

ONLY = {"operators": frozenset({"intermediates"}), "block_size": 32}
W = random(64, 64, seed=1)
# x follows from nothing but itself: a float input. One edge lies between the two nodes.
EDGE = "g (float[%s] x) => (float[%s] y) { d = Add(x, x) y = Neg(d) }"


def edges(result):
    return {edge.tensor: (edge.how, edge.reason) for edge in result.reports["intermediates"].edges}


def quantizers(result):
    return operators(result.proto).count("QuantizeLinear")


def largest(x, block=32):
    """Return the largest magnitude of each value's block."""
    k = x.shape[-1]
    padded = np.pad(np.abs(x), [(0, 0)] * (x.ndim - 1) + [(0, -k % block)])
    peaks = padded.reshape(*x.shape[:-1], padded.shape[-1] // block, block).max(-1)
    return np.repeat(peaks, block, -1)[..., :k]


@pytest.mark.parametrize("code", CODE_TYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 64), (2, 3, 70), (2, 2, 3, 7), (1, 1), (0, 40), (4, 33)], ids=str)
def test_every_width_and_rank_keeps_the_bound(tmp_path, shape, code):
    dims = ", ".join(f"d{i}" for i in range(len(shape)))
    result = rewrite(model(EDGE % (dims, dims)), tmp_path, activations=code, **ONLY)
    assert edges(result)["d"] == ("coded", "")
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(shape) * np.exp(3 * rng.standard_normal((*shape[:-1], 1)))).astype(np.float32)
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, x=x)
        assert y.shape == x.shape
        assert (np.abs(y + 2 * x) <= CODE_TYPES[code].bound * largest(2 * x) * (1 + 1e-6)).all()


@pytest.mark.parametrize("code", CODE_TYPES)
def test_powers_of_two_and_zeros_come_back_exactly(tmp_path, code):
    x = np.zeros((9, 64), np.float32)
    x[:8, ::3] = 2.0 ** np.array([-60, -20, -1, 0, 1, 5, 30, 60])[:, None]
    x[3, 1] = -1
    (y,) = run(rewrite(model(EDGE % ("m, n", "m, n")), tmp_path, activations=code, **ONLY).proto, x=x)
    np.testing.assert_array_equal(y, -2 * x)


def test_shifts_are_powers_of_two(tmp_path):
    shown = plain(rewrite(model(EDGE % ("m, n", "m, n")), tmp_path, **ONLY).proto)
    quantizer = next(node for node in nodes(shown.graph) if node.op_type == "QuantizeLinear")
    shifts = quantizer.input[1]
    del shown.graph.output[:]
    shown.graph.output.add().name = shifts
    peaks = np.concatenate([np.exp2(np.arange(-90, 90)), np.exp(np.linspace(-60, 60, 999))]).astype(np.float32)
    x = np.repeat(peaks[:, None] / 2, 3, 1)
    (scale,) = run(shown, x=x)
    mantissa, _ = np.frexp(scale)
    assert (mantissa == 0.5).all()
    ratio = scale[:, 0] / (2 * x[:, 0].astype(np.float64) / 127)
    assert (ratio > 1 - 1e-6).all()
    assert (ratio < 2).all()


def test_infinities_saturate_and_others_in_their_block_do_not_become_nan(tmp_path):
    (y,) = run(
        rewrite(model(EDGE % ("m, n", "m, n")), tmp_path, **ONLY).proto, x=np.array([[np.inf, 1, 0]], np.float32)
    )
    assert np.isfinite(y).all()


def test_a_residual_sum_with_two_readers_is_coded_once(tmp_path):
    text = """g (float[m, 64] x) => (float[m, 64] y)
    { h = MatMul(x, w) s = Add(h, x) t = Tanh(s) y = Add(s, t) }"""
    result = rewrite(model(text, w=W), tmp_path, **ONLY)
    assert {name for name, (how, _) in edges(result).items() if how == "coded"} == {"h", "s", "t"}
    assert quantizers(result) == 3


def test_what_a_row_wise_product_reads_is_not_quantized_twice(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] y) { h = Add(x, x) r = Identity(h) y = MatMul(r, w) }"
    operators_ = {"operators": frozenset({"intermediates", "matmul"})}
    result = rewrite(model(text, w=W), tmp_path, **operators_)
    assert {how for how, _ in edges(result).values()} == {"reader"}
    narrow = rewrite(model(text, w=W), tmp_path, activations="int4", **operators_)
    assert edges(narrow)["h"][0] == "coded", "8 bits are not the 4 that were asked for"
    assert edges(narrow)["r"][0] == "moved"


def test_what_gelu_lets_pass_is_coded(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] y) { h = MatMul(x, w) a = Gelu(h) y = MatMul(a, w) }"
    result = rewrite(model(text, w=W), tmp_path, operators=frozenset({"gelu", "intermediates", "matmul"}))
    # Its table reads codes of its own, but large values go around the table.
    assert edges(result) == {"h": ("coded", ""), "a": ("reader", "its readers quantize it themselves")}


def test_what_moves_codes_needs_no_others(tmp_path):
    text = """g (float[2, 64] x) => (float[64, 2] y)
    { h = Add(x, x) t = Transpose <perm = [1, 0]> (h) y = Neg(t) }"""
    result = rewrite(model(text), tmp_path, **ONLY)
    assert edges(result)["t"] == ("moved", "moves values that are codes already")
    assert quantizers(result) == 1


def test_a_concatenation_with_a_float_input_is_coded(tmp_path):
    text = """g (float[2, 64] x, float[p, 64] past) => (float[q, 64] y)
    { h = Add(x, x) c = Concat <axis = 0> (past, h) y = Neg(c) }"""
    assert edges(rewrite(model(text), tmp_path, **ONLY))["c"][0] == "coded"


def test_masks_positions_and_integers_are_left(tmp_path):
    text = """g (float[m, 64] x, int64[64] seen) => (float[m, 64] y, int64[64] z)
    <float least = {-3.4e38}, float one = {1.0}> {
        f = Cast <to = 1> (seen) g = Sub(one, f) mask = Mul(g, least) h = Add(x, x) s = Add(h, mask)
        e = Exp(s) y = Neg(e) i = Add(seen, seen) z = Neg(i) }"""
    result = rewrite(model(text), tmp_path, **ONLY)
    found = edges(result)
    assert found.keys() == {"h", "s", "e"}
    assert found["h"][0] == "coded"
    assert found["s"] == ("left", "may hold a mask's huge values, which no block's scale should stretch to")


def test_outputs_stay_exact_and_keep_their_names(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] y, float[m, 64] z) { y = Add(x, x) z = Neg(y) }"
    result = rewrite(model(text), tmp_path, **ONLY)
    x = random(3, 64, seed=5)
    y, z = run(result.proto, x=x)
    np.testing.assert_array_equal(y, 2 * x)
    assert (np.abs(y + z) <= largest(y) / 127).all()
    assert np.abs(y + z).any()


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_other_float_types_stay(tmp_path, kind):
    text = f"g ({kind}[m, 64] x) => ({kind}[m, 64] y) {{ d = Add(x, x) y = Neg(d) }}"
    x = random(3, 64, seed=5).astype("float64" if kind == "double" else kind)
    (y,) = run(rewrite(model(text), tmp_path, **ONLY).proto, x=x)
    assert y.dtype == x.dtype
    assert (np.abs(y + 2 * x) <= largest(2 * x) / 127).all()


def test_inside_a_body(tmp_path):
    text = """g (bool c, float[3, 64] x) => (float[3, 64] y) {
        h = Add(x, x)
        y = If (c) <then_branch = then () => (float[3, 64] a) { d = Add(h, x) a = Neg(d) },
                    else_branch = other () => (float[3, 64] b) { b = Neg(h) }> }"""
    result = rewrite(model(text), tmp_path, **ONLY)
    assert {name for name, (how, _) in edges(result).items() if how == "coded"} == {"h", "d"}
    x = random(3, 64, seed=5)
    for condition, factor in ((True, -3), (False, -2)):
        (y,) = run(result.proto, c=np.array(condition), x=x)
        assert (np.abs(y - factor * x) <= 2 * largest(3 * x) / 127).all()


def test_keep_leaves_a_node_with_a_reason(tmp_path):
    result = rewrite(model(EDGE % ("m, n", "m, n")), tmp_path, keep=("^d$",), **ONLY)
    assert edges(result)["d"] == ("left", "kept by the pattern '^d$'")
    assert not quantizers(result)


def test_nodes_say_what_became_of_them(tmp_path):
    text = """g (float[m, 64] x) => (float[m, 64] y)
    { h = MatMul(x, w) s = Add(h, x) r = Reshape(s, to) k = Relu(r) n = Shape(k) y = Reshape(k, n) }"""
    result = rewrite(
        model(text, w=W, to=np.array([-1, 64])), tmp_path, operators=frozenset({"matmul", "intermediates"})
    )
    found = {node.node: (node.op, node.how) for node in result.reports["intermediates"].nodes}
    assert list(found.values()) == [
        ("MatMul", "replaced"),
        ("Add", "between"),
        ("Reshape", "moves"),
        ("Relu", "between"),
        ("Shape", "aside"),
        ("Reshape", "moves"),
    ]


def test_a_single_number_is_left(tmp_path):
    text = """g (float[m, 64] x) => (float[m, 64] y)
    { q, scale, zero = DynamicQuantizeLinear(x) double = Add(scale, scale) f = Cast <to = 1> (q) y = Mul(f, double) }"""
    result = rewrite(model(text), tmp_path, **ONLY)
    assert edges(result)["scale"] == ("left", "a single number: no block")
    assert edges(result)["double"][0] == "left"
    x = random(3, 64)
    assert np.isfinite(run(result.proto, x=x)[0]).all()


def test_a_single_number_of_unknown_rank_is_a_block(tmp_path):
    text = """g (float[m, 64] x, float[p] number, int64[r] shape) => (float[m, 64] y)
    { n = Reshape(number, shape) s = Abs(n) y = Mul(x, s) }"""
    source = model(text)
    result = rewrite(source, tmp_path, **ONLY)
    assert edges(result)["s"] == ("coded", "")
    feeds = {"x": random(3, 64), "number": random(1, seed=2)}
    for shape in ([], [1, 1]):
        feeds["shape"] = np.array(shape, np.int64)
        (expected,), (y,) = run(source, **feeds), run(result.proto, **feeds)
        np.testing.assert_allclose(y, expected, rtol=2 * CODE_TYPES["int8"].bound)


def test_what_angles_are_made_of_is_left(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] y) { h = MatMul(x, w) a = Mul(h, t) s = Sin(a) y = Neg(s) }"
    source, x = model(text, w=W, t=np.array(500, np.float32)), random(5, 64, seed=2)
    result = rewrite(source, tmp_path, **ONLY)
    assert {name: how for name, (how, _) in edges(result).items()} == {"h": "left", "a": "left", "s": "coded"}
    bound = CODE_TYPES["int8"].bound
    assert np.abs(run(result.proto, x=x)[0] - run(source, x=x)[0]).max() <= bound * 1.01


def test_branches_that_use_a_name_twice(tmp_path):
    """Each has codes of its own."""
    text = """g (bool c, float[3, 64] x) => (float[3, 64] y) {
        y = If (c) <then_branch = t () => (float[3, 64] a) { z = Neg(x) a = Abs(z) },
                    else_branch = e () => (float[3, 64] b) { z = Abs(x) b = Neg(z) }>
    }"""
    result = rewrite(model(text), tmp_path, **ONLY)
    assert result.replaced == {"intermediates": 2}
    assert operators(plain(result.proto)).count("QuantizeLinear") == 2
