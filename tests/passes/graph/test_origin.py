"""Axes that are the same in every run, as against axes of one name."""

import numpy as np
import pytest

from tests.helpers import K, model, operators, random, relative_error, rewrite, run

W = random(K, 48, seed=1)
ZEROS = {"one origin": 1, "two inputs": 2, "two inputs, added up": 1, "no last axis kept": 2}
TEXTS = {
    "one origin": "a = Gelu(x) p = MatMul(x, w) q = MatMul(a, w)",
    "two inputs": "p = MatMul(x, w) q = MatMul(z, w)",
    "two inputs, added up": "a = Add(x, z) b = Gelu(a) c = Add(a, b) p = MatMul(a, w) q = MatMul(c, w)",
    "no last axis kept": "t = Transpose<perm = [1, 0, 2]>(x) p = MatMul(x, w) q = MatMul(t, w)",
}


@pytest.mark.parametrize("name", TEXTS)
def test_zero_points_are_shared_by_rows_of_one_origin(tmp_path, name):
    text = f"""g (float[b, s, {K}] x, float[b, s, {K}] z) => (float[c, t, 48] p, float[d, u, 48] q)
    {{ {TEXTS[name]} }}"""
    result = rewrite(model(text, w=W), tmp_path, bits=8, block_size=0)
    shared = operators(result.proto).count("QuantizeLinear") - 2
    assert shared == ZEROS[name]


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
def test_axes_of_one_name_may_have_different_lengths(tmp_path, lowering):
    text = f"g (float[n, {K}] x, float[n, {K}] z) => (float[m, 48] p, float[l, 48] q) {{ {TEXTS['two inputs']} }}"
    source = model(text, w=W)
    result = rewrite(source, tmp_path, lowering=lowering, bits=8, block_size=32 if lowering != "dense" else 0)
    feeds = {"x": random(3, K, seed=2), "z": random(5, K, seed=3)}
    for y, expected in zip(run(result.proto, **feeds), run(source, **feeds), strict=True):
        assert y.shape == expected.shape
        assert relative_error(np.asarray(y), expected) < 0.02
