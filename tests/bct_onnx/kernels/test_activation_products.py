"""IntegerMatMul: products of two activations in integers, on every kind of processor."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.activation_matmul import function
from tests.bct_onnx.kernels.calls import Array, call, run

# Sums are the same; two factors round in another order.
ULPS = 4e-7
SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((1, 1), (1, 1)),
    ((2, 3, 17, 32), (2, 3, 32, 17)),
    ((2, 3, 40, 197), (2, 3, 197, 64)),
    ((1, 8, 9, 8), (1, 8, 8, 130)),
    ((2, 4, 300, 70), (2, 1, 70, 66)),
    ((5, 65), (3, 65, 20)),
    ((3, 1, 5, 16), (2, 16, 7)),
    ((300, 130), (130, 5)),
)


def numbers(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def product(a: Array, b: Array, name: str = "IntegerMatMul", **keywords: Any) -> Array:
    (y,) = run(call(name, {"a": a, "b": b}, {}, {}), {"a": a, "b": b}, **keywords)
    return y


@pytest.mark.usefixtures("processor")
def test_products_are_the_reference_but_for_two_roundings():
    for left, right in SHAPES:
        a, b = numbers(left, 1), numbers(right, 2)
        expected = function.reference(a, b)
        y = product(a, b)
        assert y.shape == expected.shape
        assert np.all(np.abs(y - expected) <= ULPS * np.abs(expected))


@given(st.integers(0, 70), st.integers(1, 150), st.integers(0, 140), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_matrices_of_any_shape(m, k, n, seed):
    a, b = numbers((2, m, k), seed), numbers((2, k, n), seed + 1)
    a[0] *= 100
    y = product(a, b)
    expected = function.reference(a, b)
    assert y.shape == (2, m, n)
    assert np.all(np.abs(y - expected) <= ULPS * np.abs(expected))
    peaks = np.abs(a).max(-1, keepdims=True) * np.abs(b).max(-2, keepdims=True)
    assert np.all(np.abs(y - a.astype(np.float64) @ b) <= function.bound(k) * peaks * 1.001)


@pytest.mark.parametrize("name", ["IntegerMatMul", "IntegerMatMulStandard"])
def test_bodies_say_the_same(name):
    a, b = numbers((2, 3, 20, 48), 1), numbers((2, 3, 48, 30), 2)
    native, body = product(a, b, name), product(a, b, name, native=False)
    assert np.all(np.abs(native - body) <= ULPS * np.abs(body))


@pytest.mark.usefixtures("processor")
def test_rows_and_columns_of_extreme_numbers():
    a, b = numbers((8, 40), 1), numbers((40, 70), 2)
    expected = function.reference(a, b)
    a[0], a[1, 3], a[2, 5] = 0, np.nan, np.inf
    b[:, 0], b[4, 1], b[39, 69] = 0, np.nan, -np.inf
    a[3] *= np.float32(1e-20)
    a[4] *= np.float32(1e-34)
    a[5] *= np.float32(1e30)
    b[:, 2] *= np.float32(1e-33)
    y = product(a, b)
    assert not np.isfinite(y[1:3, 2:69]).any()
    assert not np.isfinite(y[:, [1, 69]]).any()
    assert np.array_equal(y[0, 2:69], np.zeros(67))
    assert np.array_equal(y[3:, 0], np.zeros(5))
    # Rows and columns do not disturb each other.
    assert np.all(np.abs(y[6:, 3:69] - expected[6:, 3:69]) <= ULPS * np.abs(expected[6:, 3:69]))
    rest = function.reference(a[3:6], b[:, 2:69])
    assert np.allclose(y[3:6, 2:69], rest, rtol=1e-6, atol=1e-44)


@pytest.mark.usefixtures("processor")
def test_rows_do_not_depend_on_those_beside_them():
    a, b = numbers((3, 50, 33), 1), numbers((3, 33, 65), 2)
    y = product(a, b)
    assert np.array_equal(product(a[1:2, 7:9], b[1:2]), y[1:2, 7:9])


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        ((2, 3), (4, 5), "a and b differ in k"),
        ((2, 3, 4), (3, 4, 5), "a and b do not broadcast"),
        ((4,), (4, 5), "no matrix"),
        ((1, 70000), (70000, 1), "too long"),
    ],
)
def test_what_does_not_fit_is_an_error(left, right, why):
    with pytest.raises(Exception, match=f"IntegerMatMul: .*{why}"):
        product(numbers(left, 1), numbers(right, 2))
