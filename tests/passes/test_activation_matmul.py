"""Products of two activations: int8 on both sides, a scale per row and per column; the stated bound holds."""

import numpy as np
import pytest

from passes.activation_matmul.function import bound as product_bound
from tests.helpers import model, operators, rewrite, run

OPERATORS = {"operators": frozenset({"activation_matmul"})}
PRODUCT = "g (float[%s] a, float[%s] b) => (float[%s] y) { y = MatMul(a, b) }"
# Beside the bound: float32's own rounding.
ROUNDING = 1e-6


def draw(*shape, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    scales = np.exp(spread * rng.standard_normal((*shape[:-1], 1)))
    return (rng.standard_normal(shape) * scales).astype(np.float32)


def bound(a, b):
    return (product_bound(a.shape[-1]) + ROUNDING) * np.abs(a).max(-1, keepdims=True) * np.abs(b).max(-2, keepdims=True)


@pytest.mark.parametrize("lowering", ["dense", "qdq"])
@pytest.mark.parametrize("shapes", [((5, 7), (7, 3)), ((2, 3, 5, 64), (2, 3, 64, 9)), ((4, 5, 7), (7, 3))], ids=str)
def test_rows_of_very_different_sizes(tmp_path, shapes, lowering):
    dims = [", ".join(f"{name}{i}" for i in range(len(shape))) for name, shape in zip("ab", shapes, strict=True)]
    source = model(PRODUCT % (*dims, ", ".join(f"y{i}" for i in range(len(shapes[0])))))
    a, b = draw(*shapes[0], seed=1, spread=3), draw(*shapes[1], seed=2)
    result = rewrite(source, tmp_path, lowering=lowering, **OPERATORS)
    assert result.replaced == {"activation_matmul": 1}
    assert ("MatMulIntegerToFloat" in operators(result.proto)) == (lowering == "dense")
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, a=a, b=b)
        assert (np.abs(y - a.astype(np.float64) @ b) <= bound(a, b)).all()


def test_zeros_give_zeros_and_lengths_vary(tmp_path):
    source = model(PRODUCT % ("m, k", "k, n", "m, n"))
    proto = rewrite(source, tmp_path, **OPERATORS).proto
    for k in (1, 700):
        a, b = draw(3, k, seed=1), np.zeros((k, 2), np.float32)
        (y,) = run(proto, a=a, b=b)
        assert y.shape == (3, 2)
        assert not y.any()


def test_half_precision_stays_half(tmp_path):
    source = model("g (float16[m, k] a, float16[k, n] b) => (float16[m, n] y) { y = MatMul(a, b) }")
    a, b = draw(3, 8, seed=1).astype(np.float16), draw(8, 2, seed=2).astype(np.float16)
    (y,) = run(rewrite(source, tmp_path, **OPERATORS).proto, a=a, b=b)
    assert y.dtype == np.float16
    assert (np.abs(y - a.astype(np.float64) @ b) <= bound(a, b) + 2e-3 * np.abs(y)).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[7] a, float[7, 2] b) => (float[2] y) { y = MatMul(a, b) }", "a vector has no rows and columns"),
        ("g (float[3, 7] a, float[7, 2] b) => (float[3, 2] y) { y = Gemm(a, b) }", "a Gemm of two activations"),
        ("g (int32[3, 7] a, int32[7, 2] b) => (int32[3, 2] y) { y = MatMul(a, b) }", "its type is int32"),
        (
            'g (float[3, 7] a, float[7, 2] b) => (float[3, 2] y) { y = Einsum <equation = "mk,kn->mn"> (a, b) }',
            "Einsum",
        ),
    ],
)
def test_left_with_a_reason(tmp_path, text, reason):
    result = rewrite(model(text), tmp_path, **OPERATORS)
    assert not result.replaced
    assert reason in next(iter(result.skips("activation_matmul").values()))


def test_a_constant_side_is_not_its_business(tmp_path):
    w = np.ones((7, 2), np.float32)
    result = rewrite(model("g (float[3, 7] a) => (float[3, 2] y) { y = MatMul(a, w) }", w=w), tmp_path, **OPERATORS)
    assert not result.replaced
    assert not result.skips("activation_matmul")
