"""Biases inside weights: the same function without the additions; and those that have to stay."""

from functools import partial

import numpy as np
import pytest

from tests import helpers
from tests.helpers import K, operators, random
from tests.passes import additions

check = partial(additions.check, "absorb")
NORM = "n = LayerNormalization <axis = -1> (x, scale, shift)"
MLP = "h0 = MatMul(n, w) h = Add(h0, b) r = Relu(h) z = MatMul(r, v)"
END = "s = Add(n, z) y = LayerNormalization <axis = -1> (s, scale2, shift2)"


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


def test_a_constant_is_added_where_the_next_normalization_does_not_see_it(tmp_path):
    check(block(), tmp_path, 1, 1)


def test_a_normalization_whose_bias_has_a_mean_needs_no_constant(tmp_path):
    """The sum is an output, so that nothing may be added to it."""
    check(block(lift=0.3, outputs=f", float[b, s, {K}] s"), tmp_path, 1, 1)


def test_all_products_take_in_what_the_constant_adds(tmp_path):
    mlp, u = f"{MLP} k0 = MatMul(n, u) k = ReduceSum(k0)", random(K, K, seed=8)
    source = block(mlp=mlp, outputs=", float[1, 1, 1] k", u=u / 2 - u.mean(axis=0) / 4)
    check(source, tmp_path, 1, 1)


def test_a_gemm_with_a_factor_and_a_transposed_weight(tmp_path):
    shapes = f"rows = Constant <value_ints = [-1, {K}]> () whole = Constant <value_ints = [2, 5, {K}]> ()"
    norm = f"{shapes} x2 = Reshape(x, rows) n = LayerNormalization <axis = -1> (x2, scale, shift)"
    mlp = "h = Gemm <transB = 1, alpha = 0.5> (n, w, b) r = Relu(h) z = MatMul(r, v)"
    end = "s = Add(n, z) y2 = LayerNormalization <axis = -1> (s, scale2, shift2) y = Reshape(y2, whole)"
    w = random(2 * K, K, seed=1)
    check(block(norm, mlp, end, w=w - w.mean(axis=1, keepdims=True)), tmp_path, 1, 1)


@pytest.mark.parametrize(
    "source",
    [
        block(size=100.0),
        block(outputs=f", float[b, s, {K}] n"),
        block(end="y = Add(n, z)"),
        block(end="s = Add(n, z) y = RMSNormalization <axis = -1> (s, scale2)"),
        block(mlp=f"{MLP} k = MatMul(n, w)", outputs=f", float[b, s, {2 * K}] k"),
        block(scale=np.linspace(0, 1, K, dtype=np.float32)),
        block(norm="n = LayerNormalization <axis = -1> (x, scale)"),
    ],
    ids=["too large", "an output", "no normalization", "not centered", "a shared weight", "a scale of 0", "no bias"],
)
def test_biases_that_stay(tmp_path, source):
    if any(node.op_type == "RMSNormalization" for node in source.graph.node):
        source.opset_import[0].version = 23
    check(source, tmp_path, operators(source).count("Add"), 0)


def test_what_is_kept_keeps_its_bias(tmp_path):
    check(block(), tmp_path, 2, 0, keep=("^w$",))


def test_other_lowerings_add_biases_on_their_way(tmp_path):
    check(block(), tmp_path, 2, 0, lowering="packed")
