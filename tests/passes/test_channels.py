"""Channels of very different size, rows that are no numbers, sums longer than an int32 holds: integers lose none."""

import numpy as np
import pytest

from passes.channels import WIDEST_ROWS, even_rows
from passes.functions.quantize_rows import LONGEST_SUM
from tests.helpers import K, model, operators, random, relative_error, rewrite, run

EIGHT = {"bits": 8, "block_size": 0}
# What 8 bits on both sides leave of a product whose channels are even, with room for 4 bits of the weight.
EVEN, EVEN_4 = 0.02, 0.2
FORMS = [("dense", 8, 0), ("dense7", 7, 0), ("dense", 4, 8), ("packed", 4, 32), ("packed", 8, 32), ("qdq", 8, 32)]
PLAIN = "g (float[m, 64] x) => (float[m, 48] y) { y = MatMul(x, w) }"
SKEWED = (
    "g (float[m, 64] x) => (float[m, 48] y) { n = LayerNormalization<axis = -1>(x, gain, offset) y = MatMul(n, w) }"
)
RAW = {
    "sums": "a = Add(x, x) y = MatMul(a, w)",
    "gelu": "a = Gelu(x) y = MatMul(a, w)",
    "transposed": "t = Transpose<perm = [1, 0]>(x) y = Gemm<transA = 1>(t, w)",
    "beside a product": "p = MatMul(x, v) a = Add(p, x) y = MatMul(a, w)",
}
MIXED = {
    "product": "a = MatMul(x, v) y = MatMul(a, w)",
    "normalization": "a = LayerNormalization(x, gain) y = MatMul(a, w)",
    "normalization in parts": """mean = ReduceMean<keepdims = 1>(x, last) d = Sub(x, mean) s = Mul(d, d)
        v2 = ReduceMean<keepdims = 1>(s, last) e = Add(v2, tiny) r = Sqrt(e) a = Div(d, r) y = MatMul(a, w)""",
    "softmax": "a = Softmax(x) y = MatMul(a, w)",
}
W, V = random(K, 48, seed=1), random(K, K, seed=2)
WEIGHTS = {"w": W, "v": V, "gain": np.ones(K, np.float32), "tiny": np.array(1e-6, np.float32), "last": np.array([-1])}


def used(text):
    return {name: array for name, array in WEIGHTS.items() if f"{name})" in text or f"{name}," in text}


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("spread", [1e2, 1e7])
def test_features_in_units_of_their_own(tmp_path, spread, form):
    lowering, bits, block_size = form
    units = np.exp(np.random.default_rng(0).uniform(0, np.log(spread), K)).astype(np.float32)
    units[:2] = 1, spread
    source = model(PLAIN, w=W / units[:, None])
    x = random(50, K, seed=3) * units
    (expected,) = run(source, x=x)
    result = rewrite(source, tmp_path, lowering=lowering, bits=bits, block_size=block_size)
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, x=x)
        assert relative_error(y, expected) < (EVEN if bits > 4 else EVEN_4)


@pytest.mark.parametrize("between", ["a = Identity(p)", "a = Relu(p)", "a = Add(p, c)"])
def test_a_product_in_units_of_their_own(tmp_path, between):
    units = (10.0 ** np.random.default_rng(0).integers(-3, 4, K)).astype(np.float32)
    text = f"g (float[m, 64] x) => (float[m, 48] y) {{ p = MatMul(x, v) {between} y = MatMul(a, w) }}"
    weights = {"w": W / units[:, None], "v": V * units} | ({"c": 0.1 * units} if "c" in between.split("(")[1] else {})
    source, x = model(text, **weights), random(50, K, seed=3)
    result = rewrite(source, tmp_path, **EIGHT)
    assert relative_error(run(result.proto, x=x)[0], run(source, x=x)[0]) < EVEN


def test_whole_numbers_in_units_of_their_own(tmp_path):
    units = np.repeat([1, 10_000], K // 2)
    text = "g (int64[m, 64] i) => (float[m, 48] y) { x = Cast<to = 1>(i) y = MatMul(x, w) }"
    source = model(text, w=(W / units[:, None]).astype(np.float32))
    i = np.random.default_rng(0).integers(1, 100, (50, K)) * units
    result = rewrite(source, tmp_path, **EIGHT)
    assert relative_error(run(result.proto, i=i)[0], run(source, i=i)[0]) < EVEN


def test_factors_are_powers_of_two_and_only_where_rows_differ():
    even = np.full((K, 4), 3.0, np.float32)
    assert even_rows(even, K) is None
    assert even_rows(np.zeros((K, 4), np.float32), K) is None
    even[5] /= WIDEST_ROWS
    even[7] = 0
    found = even_rows(even, K)
    assert found.factor[[0, 5, 7]].tolist() == [1, 1 / WIDEST_ROWS, 1 / WIDEST_ROWS]
    np.testing.assert_array_equal(found.rows(even) * found.factor[:, None], even)
    assert np.abs(found.rows(even)[[0, 5]]).max(axis=1).tolist() == [3, 3]


@pytest.mark.parametrize("small", [1, 1e-4])
def test_a_large_row_is_multiplied_apart_whatever_its_values(tmp_path, small):
    """Where its values are no smaller than the others, one step for all would be too large."""
    weight = W.copy()
    weight[9] *= 1000
    source, x = model(PLAIN, w=weight), random(50, K, seed=3)
    x[:, 9] *= np.float32(small)
    result = rewrite(source, tmp_path, **EIGHT)
    assert operators(result.proto).count("MatMul") == 1
    error = run(result.proto, x=x)[0] - run(source, x=x)[0]
    x[:, 9] = 0
    assert np.linalg.norm(error) < EVEN * np.linalg.norm(x @ weight) + 1e-3


def test_rows_that_died_further_in_cost_nothing(tmp_path):
    dead = W.copy()
    dead[3] *= 1e-6
    text = "g (float[m, 64] x) => (float[m, 48] y) { p = MatMul(x, v) a = Gelu(p) y = MatMul(a, w) }"
    result = rewrite(model(text, w=dead, v=V), tmp_path, **EIGHT)
    plain = rewrite(model(text, w=W, v=V), tmp_path, **EIGHT)
    assert operators(result.proto) == operators(plain.proto)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("large", [30, 300, 1e4])
@pytest.mark.parametrize("offset", [0, 1])
def test_channels_that_a_normalization_makes_large(tmp_path, large, offset, form):
    lowering, bits, block_size = form
    gain = np.ones(K, np.float32)
    gain[[5, 40]] = large
    bias = gain * np.float32(offset)
    source = model(SKEWED, w=W, gain=gain, offset=bias)
    x = random(50, K, seed=3)
    result = rewrite(source, tmp_path, lowering=lowering, bits=bits, block_size=block_size)
    (expected,), (y,) = run(source, x=x), run(result.proto, x=x)
    # The small channels: what is left without the large ones.
    normalized = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias
    normalized[:, [5, 40]] = 0
    rounding = 1e-6 * np.abs(expected).max()
    assert (
        np.linalg.norm(y - expected) < (EVEN if bits > 4 else EVEN_4) * np.linalg.norm(normalized @ W) + rounding * 99
    )


def test_too_many_large_channels_leave_the_product_float(tmp_path):
    gain = np.ones(K, np.float32)
    gain[:9] = 100
    source = model(SKEWED, w=W, gain=gain, offset=np.zeros(K, np.float32))
    result = rewrite(source, tmp_path, operators=frozenset({"matmul"}))
    assert result.replaced == {}
    assert "9 of its activation's 64 channels" in result.skips("matmul")["MatMul"]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 31, 63])
def test_a_row_that_is_no_number_stays_one_and_the_others_as_they_are(tmp_path, place, value, form):
    lowering, bits, block_size = form
    result = rewrite(model(PLAIN, w=W), tmp_path, lowering=lowering, bits=bits, block_size=block_size)
    x = random(5, K, seed=3)
    (before,) = run(result.proto, x=x)
    x[2, place] = value
    (after,) = run(result.proto, x=x)
    assert not np.isfinite(after[2]).any()
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))


@pytest.mark.parametrize("name", [*RAW, *MIXED])
def test_no_number_passes_whatever_lies_between(tmp_path, name):
    text = f"g (float[m, 64] x) => (float[m, 48] y) {{ {(RAW | MIXED)[name]} }}"
    source = model(text, **used(text))
    result = rewrite(source, tmp_path, operators=frozenset({"matmul"}), **EIGHT)
    x = random(6, K, seed=3)
    x[2, 7] = np.nan
    (expected,), (y,) = run(source, x=x), run(result.proto, x=x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    rows = operators(result.proto).count("Sum")
    assert rows == (name in RAW) + (name in ("product", "beside a product"))


def test_flattened_rows_may_hold_a_row_that_is_no_number(tmp_path):
    text = """g (float[m, 4, 16] x) => (float[m, 48] y)
    { a = LayerNormalization(x, gain) f = Flatten(a) y = MatMul(f, w) }"""
    source = model(text, w=W, gain=np.ones(16, np.float32))
    result = rewrite(source, tmp_path, operators=frozenset({"matmul"}), **EIGHT)
    x = random(3, 4, 16, seed=3)
    x[1, 2, 5] = np.nan
    (y,) = run(result.proto, x=x)
    assert np.isnan(y).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("before", ["Relu", "Neg"], ids=["codes from zero", "codes on both sides"])
@pytest.mark.parametrize("k", [LONGEST_SUM, LONGEST_SUM + 1, 150528])
def test_sums_longer_than_an_int32_holds(tmp_path, k, before):
    text = f"g (float[m, {k}] x) => (float[m, 2] y) {{ a = {before}(x) y = MatMul(a, w) }}"
    weight = np.stack([np.full(k, 1 / k), np.full(k, -1 / k)], 1).astype(np.float32)
    x = np.full((2, k), 5 if before == "Relu" else -5, np.float32)
    x += np.random.default_rng(0).random(x.shape, np.float32) * np.sign(x)
    source = model(text, w=weight)
    result = rewrite(source, tmp_path, operators=frozenset({"matmul"}), **EIGHT)
    (expected,) = run(source, x=x)
    for optimize in (False, True):
        np.testing.assert_allclose(run(result.proto, optimize, x=x)[0], expected, rtol=2e-3)


def test_columns_of_very_different_size_in_one_product(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 48] q, float[m, 48] v) { q = MatMul(x, a) v = MatMul(x, b) }"
    source = model(text, a=W, b=random(K, 48, seed=5) * np.float32(1e-9))
    result = rewrite(source, tmp_path, **EIGHT)
    assert operators(result.proto).count("MatMulIntegerToFloat") == 1
    x = random(20, K, seed=3)
    for y, expected in zip(run(result.proto, x=x), run(source, x=x), strict=True):
        assert relative_error(y, expected) < EVEN


@pytest.mark.parametrize("size", [1e-3, 1e-2, 1, 30])
def test_rows_after_a_gelu_keep_their_digits_whatever_their_size(tmp_path, size):
    """A least step that suits the usual size of a normalized network's rows would leave nothing of small ones."""
    text = "g (float[m, 64] x) => (float[m, 48] y) { p = MatMul(x, v) a = Gelu(p) y = MatMul(a, w) }"
    source = model(text, w=W, v=V)
    x = random(50, K, seed=3) * np.float32(size * 8)
    (y,), (expected,) = run(rewrite(source, tmp_path, **EIGHT).proto, x=x), run(source, x=x)
    assert relative_error(y, expected) < EVEN


@pytest.mark.parametrize("gain", [0.01, 8])
def test_a_floor_is_of_use_where_a_normalization_makes_rows_large_enough(tmp_path, gain):
    text = """g (float[m, 64] x) => (float[m, 48] y)
    { n = LayerNormalization(x, g) q = MatMul(n, v) p = Add(q, c) a = Gelu(p) y = MatMul(a, w) }"""
    weights = {"w": W, "v": V, "g": np.full(K, gain, np.float32), "c": np.full(K, 0.01 * gain, np.float32)}
    source = model(text, **weights)
    result = rewrite(source, tmp_path, operators=frozenset({"matmul"}), **EIGHT)
    assert operators(result.proto).count("ReduceMin") == (1 if gain > 1 else 2)
    x = random(50, K, seed=3)
    assert relative_error(run(result.proto, x=x)[0], run(source, x=x)[0]) < EVEN


def test_a_vector_whose_rank_is_not_known(tmp_path):
    source = model("g (float[a, b] x) => (float[c] y) { v = Squeeze(x) y = MatMul(v, w) }", w=W)
    result = rewrite(source, tmp_path, **EIGHT)
    x = random(1, K, seed=3)
    for optimize in (False, True):
        (y,), (expected,) = run(result.proto, optimize, x=x), run(source, x=x)
        assert y.shape == expected.shape == (48,)
        assert relative_error(y, expected) < EVEN
