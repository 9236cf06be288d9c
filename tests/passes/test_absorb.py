"""Biases inside weights: the same function without the additions; and those that have to stay."""

import itertools
from functools import partial

import numpy as np
import onnx
import pytest

from tests import helpers
from tests.helpers import K, operators, random, rewrite
from tests.passes import additions

check = partial(additions.check, "absorb")
NORM = "n = LayerNormalization <axis = -1> (x, scale, shift)"
MLP = "h0 = MatMul(n, w) h = Add(h0, b) r = Relu(h) z = MatMul(r, v)"
END = "s = Add(n, z) y = LayerNormalization <axis = -1> (s, scale2, shift2)"
# Rows as a Gemm has them, [10, K], and y as it was.
ROWS = f"""rows = Constant <value_ints = [-1, {K}]> () whole = Constant <value_ints = [2, 5, {K}]> ()
 x2 = Reshape(x, rows) n = LayerNormalization <axis = -1> (x2, scale, shift)"""
ROWS_END = "s0 = Add(n, z) y2 = LayerNormalization <axis = -1> (s0, scale2, shift2) y = Reshape(y2, whole)"
FUSED = "t = Add(n, z) y, m, d, s = com.microsoft.SkipLayerNormalization (t, x, scale2, shift2)"
NOT_CENTERED = """
 p = Mul(x, x) last = Constant <value_ints = [-1]> () m = ReduceMean (p, last)
 e = Constant <value = float {1e-5}> () t = Add(m, e) u = Sqrt(t) f = Div(x, u) g = Mul(f, scale) n = Add(g, shift)
"""
# A weight to which a constant in all rows adds nothing.
CENTERED = random(K, 2 * K, seed=1) - random(K, 2 * K, seed=1).mean(axis=0)
CENTERED_SQUARE = random(K, K, seed=8) - random(K, K, seed=8).mean(axis=0)
# Makes squares add up to more than half precision holds.
SCALE = 40


def block(norm=NORM, mlp=MLP, end=END, size=0.01, lift=0.0, outputs="", **weights):
    """A normalization, two products, the sum and its normalization; `lift` is the mean of bias / scale of the first."""
    w, shift, scale = random(K, 2 * K, seed=1), random(K, seed=5), 1 + random(K, seed=4) / 4
    text = f"g (float[b, s, {K}] x) => (float[b, s, {K}] y{outputs}) {{ {norm} {mlp} {end} }}"
    constants = {
        "w": w - w.mean(axis=0) / 2,
        "b": random(2 * K, seed=2) * size,
        "v": random(2 * K, K, seed=3),
        "scale": scale,
        "shift": scale * (shift - shift.mean() + np.float32(lift)),
        "scale2": 1 + random(K, seed=6),
        "shift2": random(K, seed=7),
    }
    return helpers.model(text, 20, 9, **constants | weights)


@pytest.mark.parametrize("lift", [0.0, 0.1, -0.1])
def test_a_constant_is_added_where_the_next_normalization_does_not_see_it(tmp_path, lift):
    """It has the sign of the mean that is there: a tenth of the other would take that away."""
    check(block(lift=lift), tmp_path, 1, 1)


def test_a_normalization_whose_bias_has_a_mean_needs_no_constant(tmp_path):
    """The sum is an output, so that nothing may be added to it."""
    check(block(lift=0.3, outputs=f", float[b, s, {K}] s"), tmp_path, 1, 1)


def test_all_products_take_in_what_the_constant_adds(tmp_path):
    mlp, u = f"{MLP} k0 = MatMul(n, u) k = ReduceSum(k0)", random(K, K, seed=8)
    source = block(mlp=mlp, outputs=", float[1, 1, 1] k", u=u / 2 - u.mean(axis=0) / 4)
    check(source, tmp_path, 1, 1)


def test_a_gemm_with_a_factor_and_a_transposed_weight(tmp_path):
    w = random(2 * K, K, seed=1)
    mlp = "h = Gemm <transB = 1, alpha = 0.5> (n, w, b) r = Relu(h) z = MatMul(r, v)"
    check(block(ROWS, mlp, ROWS_END, w=w - w.mean(axis=1, keepdims=True)), tmp_path, 1, 1)


@pytest.mark.parametrize(
    ("form", "outputs", "u"),
    [
        ((NORM, f"{MLP} k0 = MatMul(n, u)", END), f", float[1, 1, 1] k, float[b, s, {K}] s", random(K, K)),
        ((NORM, f"{MLP} k0 = MatMul(n, u)", END), ", float[1, 1, 1] k", random(2, K, K)),
        ((ROWS, f"{MLP} k0 = Gemm <transA = 1> (n, u)", ROWS_END), ", float[1, 1] k", random(10, K)),
    ],
    ids=["no bias", "a batch", "transposed rows"],
)
def test_other_readers_keep_their_weights(tmp_path, form, outputs, u):
    """No constant is added where a matrix without a bias would have to make up for it, or the sum is an output."""
    norm, mlp, end = form
    source = block(norm, f"{mlp} k = ReduceSum(k0)", end, lift=0.3, outputs=outputs, u=u)
    proto = check(source, tmp_path, 1, 1)
    assert "u" in {tensor.name for tensor in proto.graph.initializer}


BRANCH = f"{MLP.replace('z =', 'z0 =')} z = Add(z0, c)"
SMALL = random(K, seed=9) / 10


@pytest.mark.parametrize(
    ("norm", "lift", "outputs"), [(NORM, 0.0, ""), (NORM, 0.3, f", float[b, s, {K}] s"), (ROWS, 0.0, "")]
)
def test_the_other_addend_needs_no_bias_either(tmp_path, norm, lift, outputs):
    """With a constant, or where the sum is an output, alone."""
    mlp = BRANCH if norm is NORM else BRANCH.replace("z0 = MatMul(r, v) z = Add(z0, c)", "z = Gemm(r, v, c)")
    check(
        block(norm, mlp, END if norm is NORM else ROWS_END, lift=lift, outputs=outputs, c=SMALL),
        tmp_path,
        1,
        1,
    )


@pytest.mark.parametrize(
    ("form", "lift", "outputs", "weights"),
    [
        ((BRANCH, END), 0.3, "", {"c": SMALL + np.float32(0.5)}),
        ((BRANCH, END), 0.0, "", {"c": np.float32(0.2) * np.sign(random(K, 2 * K, seed=1)[:, 0])}),
        ((BRANCH, END), 0.3, "", {"v": random(2 * K, 1), "c": random(1) / 10}),
        ((BRANCH, END), 0.3, f", float[b, s, {K}] z", {"c": SMALL}),
        ((BRANCH, END), 0.3, f", float[b, s, {K}] n", {"c": SMALL}),
        ((BRANCH, f"{END} k0 = Relu(n) k = ReduceMax <keepdims = 0> (k0)"), 0.3, ", float k", {"c": SMALL}),
    ],
    ids=["too large", "weights would change too much", "a column", "an output", "the other's output", "another reader"],
)
def test_the_other_addend_keeps_its_bias(tmp_path, form, lift, outputs, weights):
    """The biases of the products go all the same."""
    mlp, end = form
    check(block(mlp=mlp, end=end, lift=lift, outputs=outputs, **weights), tmp_path, 2, 1)


def test_a_scale_like_the_bias(tmp_path):
    check(block(scale=np.ones(K, np.float32), shift=np.ones(K, np.float32)), tmp_path, 1, 1)


def test_the_sum_may_be_an_output(tmp_path):
    """As logits are."""
    source = block(
        mlp="h0 = MatMul(n, w) h = Add(h0, b)", end="y = Relu(x)", lift=0.3, outputs=f", float[b, s, {2 * K}] h"
    )
    check(source, tmp_path, 0, 1)


def test_a_product_that_is_the_other_addend_itself(tmp_path):
    """Its bias goes once."""
    source = block(mlp="h0 = MatMul(n, u) z = Add(h0, c)", c=SMALL, u=CENTERED_SQUARE)
    check(source, tmp_path, 1, 1)


def test_two_normalizations_with_one_bias_between_them(tmp_path):
    """It is that of the other addend to the first, which takes it, and of a product to the second."""
    mlp = """h0 = MatMul(n, w) h = Add(h0, b) r = Relu(h) a = LayerNormalization <axis = -1> (r, scale3, shift3)
     z0 = MatMul(a, v) z = Add(z0, c)"""
    source = block(mlp=mlp, scale3=1 + random(2 * K, seed=8), shift3=np.float32(0.3) + random(2 * K), c=SMALL)
    check(source, tmp_path, 1, 1)


def test_half_precision_is_measured_in_single(tmp_path):
    """The bias is three times too long; the sum of the weight's squares, 10^5, overflows."""
    source = block(size=2.0 * SCALE, w=CENTERED * SCALE)
    for tensor in source.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert rewrite(source, tmp_path, operators=frozenset({"absorb"})).replaced == {}


@pytest.mark.parametrize(
    "source",
    [
        block(size=100.0),
        block(size=1.0, w=CENTERED),
        block(b=np.eye(1, 2 * K, dtype=np.float32)[0] * 0.55, w=CENTERED),
        block(outputs=f", float[b, s, {K}] n"),
        block(end="y = Add(n, z)"),
        block(end="s = Add(n, z) y = RMSNormalization <axis = -1> (s, scale2)"),
        block(mlp=f"{MLP} k = MatMul(n, w)", outputs=f", float[b, s, {2 * K}] k"),
        block(scale=np.linspace(0, 1, K, dtype=np.float32)),
        block(norm="n = LayerNormalization <axis = -1> (x, scale)"),
        block(shift=np.zeros(K, np.float32), outputs=f", float[b, s, {K}] s"),
        block(norm=NOT_CENTERED, lift=0.3),
        block(norm=additions.IN_PARTS, more=random(K, seed=8)),
        block(norm=additions.COMPUTED_BIAS),
        block(scale=np.ones(1, np.float32), shift=np.ones(1, np.float32)),
        block(end=FUSED, outputs=f", float[b, s, {K}] s"),
    ],
    ids=[
        "too large",
        "too long",
        "too high a peak",
        "an output",
        "no normalization",
        "not centered",
        "a shared weight",
        "a scale of 0",
        "no bias",
        "a bias of 0",
        "rows with a mean",
        "a bias in parts",
        "a bias that is computed",
        "one scale",
        "a fused sum",
    ],
)
def test_biases_that_stay(tmp_path, source):
    if any(node.op_type == "RMSNormalization" for node in source.graph.node):
        source.opset_import[0].version = 23
    check(source, tmp_path, operators(source).count("Add"), 0)


def test_what_is_kept_keeps_its_bias(tmp_path):
    check(block(), tmp_path, 2, 0, keep=("^w$",))


def test_a_kept_weight_takes_in_nothing(tmp_path):
    u = random(K, K, seed=8)
    source = block(mlp=f"{MLP} k = MatMul(n, u)", outputs=f", float[b, s, {K}] k", u=u - u.mean(axis=0))
    check(source, tmp_path, 2, 0, keep=("^u$",))


def test_other_lowerings_add_biases_on_their_way(tmp_path):
    check(block(), tmp_path, 2, 0, lowering="packed")


@pytest.mark.parametrize(("where", "wrong"), [("w", 1e30), *itertools.product(("w", "b", "shift"), (np.inf, np.nan))])
def test_what_does_not_add_up_stays(tmp_path, where, wrong):
    source = block()
    values = onnx.numpy_helper.to_array(next(t for t in source.graph.initializer if t.name == where)).copy()
    values.flat[3] = wrong
    source = helpers.with_weights(source, **{where: values})
    assert rewrite(source, tmp_path, operators=frozenset({"absorb", "biases"})).replaced.get("absorb", 0) == 0
