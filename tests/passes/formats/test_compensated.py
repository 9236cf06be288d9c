"""Codes that make up for each other's errors keep to the format and leave a smaller error of the product."""

import numpy as np
import pytest

from passes.formats.block import BlockFormat, decode
from passes.formats.compensated import DAMPING, LEAST, SHRINKING, Gram, compensate, output_error
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
    """Enough of the user's: part of the mean diagonal; else part of each channel's own, and a little for dead ones."""
    x = correlated(64, 32)
    x[:, 3] = 0
    for gram in (gram_of(x), gram_of(x[:63]), Gram(gram_of(x).matrix, 64, real=False)):
        added = gram.damped() - gram.matrix
        diagonal = gram.matrix.diagonal().astype(np.float64)
        enough = gram.real and gram.samples == 64
        wanted = DAMPING * diagonal.mean() if enough else SHRINKING * diagonal + LEAST * diagonal.mean()
        np.testing.assert_allclose(added, np.diag(np.broadcast_to(wanted, 32)), rtol=1e-5, atol=1e-6)
        np.linalg.cholesky(gram.damped())


def test_a_huge_channel_leaves_the_others_as_they_are() -> None:
    """One channel far above all, as attention sinks have: the others make up for each other all the same."""
    gram = gram_of(correlated(4096, 64)).matrix
    weight = np.random.default_rng(9).standard_normal((64, 32)).astype(np.float32)
    # The huge one goes with no other.
    gram[0, 1:] = gram[1:, 0] = 0
    gram[0, 0] = 1e4
    fmt, rest = BlockFormat.fine(4, 16), gram[1:, 1:]
    fitted = decode(compensate(weight, Gram(gram, 4096, real=False), fmt)) - weight
    plain = decode(encode(weight, fmt)) - weight
    assert np.vdot(rest @ fitted[1:], fitted[1:]) < 0.5 * np.vdot(rest @ plain[1:], plain[1:])


def test_codes_with_zero_points_make_up_for_errors_and_stay_int8() -> None:
    x = correlated(4096, 64)
    weight = (np.random.default_rng(10).exponential(1, (64, 24)) - 0.3).astype(np.float32)
    tensor = compensate(weight, gram_of(x), BlockFormat.multiples(4, 32))
    assert tensor.zeros is not None
    products = tensor.numbers.astype(np.int16) * (tensor.exponents[:, None].astype(np.int16) + 1)
    assert products.min() >= -128
    assert products.max() <= 127
    assert tensor.codes.min() >= -8
    assert tensor.codes.max() <= 7
    gram = gram_of(x).matrix
    plain = encode(weight, BlockFormat.multiples(4, 32))
    assert output_error(tensor, weight, gram) < 0.8 * output_error(plain, weight, gram)


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
