"""Softmax in integers: any axis, masks, rows of nothing but minus infinity; the stated bound holds."""

import numpy as np
import pytest

from passes.softmax.function import ENTRY_BOUND, GRID_BOUND
from tests.helpers import model, operators, rewrite, run

OPERATORS = {"operators": frozenset({"softmax"})}
INF = np.inf


def softmax(x, axis=-1):
    e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def check(source, folder, expected, entries, **feeds):
    result = rewrite(source, folder, **OPERATORS)
    assert result.replaced == {"softmax": 1}
    assert "Softmax" not in operators(result.proto)
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, **feeds)
        assert np.abs(y - expected).max() <= GRID_BOUND + entries * ENTRY_BOUND + 1e-6
    return y


@pytest.mark.parametrize("spread", [0.01, 1, 10, 1e4])
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_any_axis(tmp_path, axis, spread):
    source = model(f"g (float[a, b, c] x) => (float[a, b, c] y) {{ y = Softmax <axis = {axis}> (x) }}")
    x = (np.random.default_rng(1).standard_normal((3, 17, 130)) * spread).astype(np.float32)
    check(source, tmp_path, softmax(x, axis), x.shape[axis], x=x)


@pytest.mark.parametrize(
    "row",
    [[0.0], [3e38, 3e38], [0, 0, 0, 0], [-INF, 0, -INF, 1], [1e-45, 0, -1e-45], [-3e38, 3e38], [-3.4e38] * 5],
    ids=str,
)
def test_edge_values(tmp_path, row):
    source = model("g (float[m, n] x) => (float[m, n] y) { y = Softmax (x) }")
    x = np.array([row], np.float32)
    y = check(source, tmp_path, softmax(x), len(row), x=x)
    assert (y[np.isneginf(x)] == 0).all()


def test_a_long_flat_row_sums_to_one(tmp_path):
    source = model("g (float[m, n] x) => (float[m, n] y) { y = Softmax (x) }")
    y = check(source, tmp_path, np.full((1, 70000), 1 / 70000), 70000, x=np.zeros((1, 70000), np.float32))
    assert y.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("row", [[-INF, -INF], [INF, 0], [np.nan, np.nan]], ids=str)
def test_rows_without_a_finite_peak_are_what_the_float_operator_makes_of_them(tmp_path, row):
    source = model("g (float[m, n] x) => (float[m, n] y) { y = Softmax (x) }")
    x = np.array([row, [0, 1]], np.float32)
    (expected,) = run(source, x=x)
    (y,) = run(rewrite(source, tmp_path, **OPERATORS).proto, x=x)
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()
    assert np.isnan(expected[0]).any()


def test_an_additive_mask(tmp_path):
    source = model("g (float[m, n] x, float[n] mask) => (float[m, n] y) { s = Add(x, mask) y = Softmax (s) }")
    x = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    mask = np.array([0, 0, -INF, 0, -3.4e38, -10000], np.float32)
    y = check(source, tmp_path, softmax(x + mask), 6, x=x, mask=mask)
    assert (y[:, [2, 4, 5]] == 0).all()


def test_half_precision_stays_half(tmp_path):
    source = model("g (float16[m, n] x) => (float16[m, n] y) { y = Softmax (x) }")
    x = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float16)
    y = check(source, tmp_path, softmax(x), 6 + 5000, x=x)
    assert y.dtype == np.float16


def test_inside_fused_attention_it_is_left_with_a_reason(tmp_path):
    text = """g (float[2, 5, 8] q, float[2, 5, 8] k, float[2, 5, 8] v) => (float[2, 5, 8] y)
    { y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v) }"""
    result = rewrite(model(text), tmp_path, **OPERATORS)
    assert list(result.skips("softmax").values()) == ["the softmax inside MultiHeadAttention is computed by its kernel"]
