"""Codes that make up for each other's errors keep to the format and leave a smaller error of the product."""

import numpy as np
import pytest

from passes.formats.block import BlockFormat, decode
from passes.formats.compensated import DAMPING, STRONG_DAMPING, Gram, compensate, output_error
from passes.formats.encode import encode


def correlated(samples: int, k: int, seed: int = 0) -> np.ndarray:
    """Return activations whose channels go together and differ in size, [samples, k]."""
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((samples, max(1, k // 4))) @ rng.standard_normal((max(1, k // 4), k))
    return ((few + 0.3 * rng.standard_normal((samples, k))) * np.exp(rng.standard_normal(k))).astype(np.float32)


def gram_of(x: np.ndarray) -> Gram:
    return Gram(x.T @ x / np.float32(len(x)), len(x))


def product_error(x: np.ndarray, weight: np.ndarray, decoded: np.ndarray) -> float:
    return float(np.square(x @ (decoded - weight)).mean())


@pytest.mark.parametrize("k", [8, 33, 100, 160])
@pytest.mark.parametrize(
    "fmt",
    [BlockFormat.shifted(4, 32), BlockFormat.fine(3, 16), BlockFormat.shifted(8, 0)],
)
def test_the_product_errs_less_than_with_the_nearest_codes(k: int, fmt: BlockFormat) -> None:
    x = correlated(4000, k)
    weight = np.random.default_rng(1).standard_normal((k, 24)).astype(np.float32)
    tensor = compensate(weight, gram_of(x[:2000]), fmt, workers=2)
    plain = product_error(x[2000:], weight, decode(encode(weight, fmt)))
    assert product_error(x[2000:], weight, decode(tensor)) < 0.6 * plain
    assert tensor.codes.min() >= fmt.low
    assert tensor.codes.max() <= fmt.high
    assert not tensor.codes.reshape(-1, 24)[k:].any()
    assert tensor.noise == pytest.approx(float(np.square(decode(tensor) - weight).sum()), rel=1e-3)


def test_rounds_every_row_against_what_is_left_of_it() -> None:
    """The published loop, written plainly in float64, gives the same codes."""
    k, n = 24, 5
    gram = gram_of(correlated(500, k))
    weight = np.random.default_rng(2).standard_normal((k, n)).astype(np.float32)
    fmt = BlockFormat.shifted(4, 8)
    tensor = compensate(weight, gram, fmt)
    damped = gram.matrix.astype(np.float64) + DAMPING * np.trace(gram.matrix.astype(np.float64)) / k * np.eye(k)
    scale = np.repeat(encode(weight, fmt, importance=np.diag(damped)).block_scale, 8, axis=0)
    order = np.argsort(-np.diag(damped), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, codes = weight.astype(np.float64)[order], np.zeros((k, n))
    for i, row in enumerate(order):
        codes[row] = np.clip(np.rint(left[i] / scale[row]), fmt.low, fmt.high)
        left[i + 1 :] -= np.outer(upper[i, i + 1 :], (left[i] - codes[row] * scale[row]) / upper[i, i])
    np.testing.assert_array_equal(tensor.codes.reshape(k, n), codes)


def test_representable_weights_come_back_exactly() -> None:
    fmt = BlockFormat.shifted(4, 16)
    weight = np.random.default_rng(3).integers(-7, 8, (32, 6)).astype(np.float32)
    weight[0], weight[1] = 7, -7
    tensor = compensate(weight, gram_of(correlated(300, 32)), fmt)
    np.testing.assert_array_equal(decode(tensor), weight)
    assert tensor.noise == 0


def test_dead_channels_and_columns_of_zeros_do_no_harm() -> None:
    x = correlated(300, 32)
    x[:, 5:9] = 0
    weight = np.random.default_rng(4).standard_normal((32, 6)).astype(np.float32)
    weight[:, 2] = 0
    decoded = decode(compensate(weight, gram_of(x), BlockFormat.shifted(4, 16)))
    assert np.isfinite(decoded).all()
    assert not decoded[:, 2].any()
    silent = compensate(weight, Gram(np.zeros((32, 32), np.float32), 300), BlockFormat.shifted(4, 16))
    assert np.isfinite(decode(silent)).all()


def test_is_never_worse_than_the_search_on_what_it_saw() -> None:
    gram = gram_of(correlated(100, 40))
    weight = np.random.default_rng(5).standard_normal((40, 3)).astype(np.float32)
    for bits in range(2, 9):
        fmt = BlockFormat.shifted(bits, 8)
        importance = np.diag(gram.matrix) + DAMPING * np.trace(gram.matrix) / 40
        searched = encode(weight, fmt, importance=importance)
        error = output_error(compensate(weight, gram, fmt), weight, gram.matrix)
        assert error <= output_error(searched, weight, gram.matrix) * (1 + 1e-5)


def test_few_samples_and_made_ones_count_less() -> None:
    assert gram_of(correlated(63, 32)).damping == STRONG_DAMPING
    assert gram_of(correlated(64, 32)).damping == DAMPING
    made = Gram(gram_of(correlated(64, 32)).matrix, 64, real=False)
    assert made.damping == STRONG_DAMPING
    mean = np.trace(made.matrix) / 32
    np.testing.assert_allclose(made.damped() - made.matrix, STRONG_DAMPING * mean * np.eye(32), rtol=1e-5, atol=1e-6)


def test_codes_stand_for_themselves() -> None:
    """Rounding row after row knows no path: where a trellis is asked for, the same codes as without come back."""
    weight = np.random.default_rng(7).standard_normal((48, 6)).astype(np.float32)
    gram = gram_of(correlated(500, 48))
    tensor, plain = (compensate(weight, gram, fmt) for fmt in (BlockFormat.best(4, 8), BlockFormat.shifted(4, 8)))
    assert tensor.format == plain.format
    np.testing.assert_array_equal(decode(tensor), decode(plain))


def test_scales_that_are_powers_of_two_stay_so() -> None:
    weight = np.random.default_rng(8).standard_normal((64, 6)).astype(np.float32)
    tensor = compensate(weight, gram_of(correlated(500, 64)), BlockFormat.shifts_only(4, 16))
    assert (np.frexp(tensor.scale)[0] == 0.5).all()
