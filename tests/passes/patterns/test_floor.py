"""What is known of the least value of an activation, and what a product makes of it."""

import numpy as np
import pytest

from passes.gelu.function import CURVES
from passes.patterns.floor import FLOORS
from tests.helpers import decoded, model, random, rewrite, run

K, N = 96, 40
GRID = np.linspace(-20, 20, 400_001)


@pytest.mark.parametrize("kind", FLOORS)
def test_floors_are_below_their_functions_and_near(kind):
    least = np.asarray(CURVES[kind](GRID), np.float64).min()
    assert least - 2e-4 < FLOORS[kind] <= least


# Operators, the floor of what they give, and how many steps of a row's scale lie above and below zero.
MADE = {
    "Relu": ("y = Relu(x)", 0.0, 255, 1),
    "Gelu": ("n = LayerNormalization(x, g) p = MatMul(n, v) y = Gelu(p)", 0.1701, 223, 32),
    "Sigmoid": ("y = Sigmoid(x)", 0.0, 255, 1),
}


@pytest.mark.parametrize("made", MADE)
def test_rows_that_are_hardly_ever_negative_are_quantized_finer(tmp_path, made):
    body, floor, above, below = MADE[made]
    source = model(
        f"g (float[m, {K}] x) => (float[m, {K}] y, float[m, {N}] z) {{ {body} z = MatMul(y, w) }}",
        w=(weight := random(K, N)),
        **({"v": random(K, K, seed=5), "g": np.full(K, 4, np.float32)} if made == "Gelu" else {}),
    )
    result = rewrite(source, tmp_path, bits=8, block_size=0, operators=frozenset({"matmul"}))
    # Rows of usual numbers, of large ones, of Gelu's lowest place alone, and of zeros.
    x = np.concatenate(
        [random(4, K, seed=1) * 10, random(2, K, seed=2) * 300, np.full((1, K), -0.75), np.zeros((1, K))]
    )
    y, z = run(result.proto, x=x.astype(np.float32))
    step = np.maximum(y.max(axis=1, keepdims=True) / above, floor / below)
    exact = decoded(weight, 8, 0)
    # Half a step for every weight, and float32 sums of K products.
    bound = 0.5 * step * np.abs(exact).sum(axis=0) + 1e-5 * (np.abs(y) @ np.abs(exact) + 1)
    assert (np.abs(z - y.astype(np.float64) @ exact) <= bound).all()
