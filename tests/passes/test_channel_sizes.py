"""Sizes and means of channels: what the noise is, its gradient, and that the descent lessens it."""

import numpy as np
import pytest

from passes import channel_sizes
from passes.channel_sizes import SHARE, Quantized, least_noise

K, N, ROWS = 48, 32, 40


def product(large: float = 20.0, seed: int = 0) -> Quantized:
    """Return rows with two large channels, one of them far from zero, and a weight."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((ROWS, K)) * rng.uniform(0.5, 2, K)
    rows[:, 3] *= large
    rows[:, 9] += large
    return Quantized(rows, rng.standard_normal((K, N)) * rng.uniform(0.2, 1, (K, 1)))


def squared_error(of: Quantized, mean: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """Return what 8-bit codes of the rows, and of the weight's columns, do to the product: mean squares."""
    x, weight = (of.rows - mean) / size, of.weight * size[:, None]
    errors = []
    for values, axis in ((x, 1), (weight, 0)):
        step = np.abs(values).max(axis=axis, keepdims=True) / 127
        errors.append(np.rint(values / step) * step - values)
    return float(np.square(errors[0] @ weight).mean()), float(np.square(x @ errors[1]).mean())


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_noise_is_the_error_of_codes(power: float) -> None:
    """Steps are uniform noise: step^2 / 12 an element; a hundred thousand sums make it so within a tenth."""
    rng = np.random.default_rng(1)
    of = Quantized(rng.standard_normal((400, 256)) * rng.uniform(0.2, 4, 256), rng.standard_normal((256, 300)))
    size = of.rows.std(axis=0) ** power
    noise = of.noise(np.zeros(256), size)
    unit = 127**2 * 12 * 400 * 300
    activation, weight = squared_error(of, np.zeros(256), size)
    assert activation == pytest.approx(noise.activation * 400 / unit, rel=0.1)
    assert weight == pytest.approx(noise.weight / SHARE * 400 / unit, rel=0.1)


def test_gradient_is_that_of_the_logarithm_of_the_noise() -> None:
    of = product()
    rows, weight = of.rows.astype(np.float32), np.abs(of.weight).astype(np.float32)
    descent = channel_sizes._Descent(rows, np.square(of.weight).sum(axis=1), weight, 1.0, np.linspace(0.5, -0.5, K))

    def smooth(log: np.ndarray, mean: np.ndarray) -> float:
        power, size = 2.0**channel_sizes.DOUBLINGS, np.exp(log)
        x, weight = (of.rows - mean) / size, of.weight * size[:, None]
        peaks, steps = (np.linalg.norm(v, power, axis=axis) for v, axis in ((x, 1), (weight, 0)))
        activation = np.square(peaks).mean() * np.square(weight).sum()
        return float(np.log(activation + SHARE * np.square(steps).sum() * np.square(x).sum(axis=1).mean()))

    at = np.stack([np.linspace(-1, 1, K), np.linspace(2, -2, K)])
    found = descent.gradient(*at)
    for row, channel in ((0, 3), (0, 9), (0, 20), (1, 3), (1, 9), (1, 20)):
        step = np.zeros_like(at)
        step[row, channel] = 1e-5
        slope = (smooth(*(at + step)) - smooth(*(at - step))) / 2e-5
        assert found[row, channel] == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_descent_lessens_noise_and_errors(shifts: bool, seed: int) -> None:
    of = product(seed=seed)
    mean = of.rows.mean(axis=0) if shifts else np.zeros(K)
    start = np.ones(K)
    found = of.least(mean, start, shifts)
    assert of.noise(*found).total < 0.7 * of.noise(mean, start).total
    assert sum(squared_error(of, *found)) < 0.8 * sum(squared_error(of, mean, start))
    assert shifts or np.array_equal(found[0], mean)


@pytest.mark.parametrize("seed", range(5))
def test_what_fits_rows_by_chance_is_not_taken(seed: int) -> None:
    """From four rows a descent learns more of their chance than of the channels."""
    of = product(large=1.0, seed=seed)
    few = of.rows[:8]
    starts = [(np.zeros(K), of.rows.std(axis=0) ** power) for power in (0.0, 0.5)]
    mean, size, left = least_noise(few, of.weight, starts, shifts=True)
    seen, judged = Quantized(few[::2], of.weight), Quantized(few[1::2], of.weight)
    plain, found = judged.noise(*starts[0]).total, judged.noise(mean, size).total
    assert found <= min(judged.noise(*start).total for start in starts)
    assert left == pytest.approx(found / plain)
    fitted = [seen.least(*start, shifts=True) for start in starts]
    assert any(judged.noise(*each).total > plain for each in fitted)


def test_a_descent_is_taken_where_it_helps_other_rows() -> None:
    of = product()
    start = (of.rows.mean(axis=0), np.ones(K))
    _, size, left = least_noise(of.rows, of.weight, [start], shifts=True)
    assert size is not start[1]
    assert left < 0.5


def test_columns_of_a_wide_weight_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    of, mean, size = product(), np.zeros(K), np.ones(K)
    every = of.noise(*of.least(mean, size, shifts=True)).total
    monkeypatch.setattr(channel_sizes, "MOST_COLUMNS", 12)
    assert of.noise(*of.least(mean, size, shifts=True)).total < 1.2 * every


def test_a_channel_that_never_changes_leaves_all_as_they_are() -> None:
    of = product()
    of.rows[:, 5] = 1.0
    mean, size = np.zeros(K), np.ones(K)
    found = of.least(mean, size, shifts=True)
    assert found[0] is mean and found[1] is size
