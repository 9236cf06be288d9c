"""Codes that stand for those of a file that is not written: as harmful, or as large."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bct_onnx.search import NoisyCodes, codes_of_size
from bct_onnx.search.stand_in import disturbed, take_sample
from passes import make_lowering, plain_codes
from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
from tests.helpers import random

K, N = 96, 400


@settings(deadline=None, max_examples=40)
@given(
    k=st.integers(64, 200),
    n=st.integers(64, 1500),
    part=st.floats(1e-4, 0.3),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e25]),
    by_rows=st.booleans(),
)
def test_noise_has_the_size_that_is_asked_for(k: int, n: int, part: float, scale: float, by_rows: bool) -> None:
    matrix = random(k, n, seed=1) * np.float32(scale)
    matrix = np.ascontiguousarray(matrix.T).T if by_rows else matrix
    noisy, found = disturbed(matrix, part)
    assert found == pytest.approx(part, rel=0.1)
    exact = matrix.astype(np.float64)
    assert np.square(noisy - exact).sum() / np.square(exact).sum() == pytest.approx(found, rel=0.01)
    # What is left of the weight is as near as codes of that error bring it: the error has nothing to do with them.
    assert abs(np.vdot(noisy - exact, noisy)) < 0.1 * np.square(noisy - exact).sum() + 0.02 * np.vdot(exact, exact)
    np.testing.assert_array_equal(noisy, disturbed(matrix, part)[0])
    assert (noisy.strides[0] < noisy.strides[1]) == by_rows


def test_zeros_stay_zeros() -> None:
    noisy, part = disturbed(np.zeros((64, 96), np.float32), 0.1)
    assert not noisy.any()
    assert part == 0
    matrix = random(64, 96, seed=2)
    matrix[:, 3] = 0
    assert not disturbed(matrix, 0.1)[0][:, 3].any()


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_tries_err_as_the_codes_that_they_stand_for(bits: int) -> None:
    weight, fmt = random(K, N, seed=3), make_lowering("dense").format(bits, 8, K)
    assert fmt.trellis
    tried, exact = NoisyCodes()(weight, fmt, None, 1), encode(weight, fmt)
    assert tried.format == BlockFormat.shifted(8, 0)
    noise = float(np.square(decode(tried) - weight, dtype=np.float64).sum())
    assert noise == pytest.approx(exact.noise, rel=0.15)


def test_formats_that_are_quickly_made_have_their_own_codes() -> None:
    weight, fmt = random(K, N, seed=3), BlockFormat.fine(4, 32)
    tried = NoisyCodes()(weight, fmt, None, 1)
    np.testing.assert_array_equal(tried.codes, plain_codes(weight, fmt, None, 1).codes)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_codes_for_the_bytes_are_of_the_same_shape_and_their_own(bits: int) -> None:
    fmt = make_lowering("dense").format(bits, 8, K)
    one, other = random(K, N, seed=4), random(K, N, seed=5)
    tensor, exact = codes_of_size(one, fmt, None, 1), encode(one, fmt)
    assert (tensor.format, tensor.k) == (exact.format, exact.k)
    for name in ("codes", "exponents", "column_scale"):
        made, needed = getattr(tensor, name), getattr(exact, name)
        assert (made.shape, made.dtype) == (needed.shape, needed.dtype)
    np.testing.assert_array_equal(tensor.codes, codes_of_size(one.copy(), fmt, None, 1).codes)
    assert (tensor.codes != codes_of_size(other, fmt, None, 1).codes).any()


def test_a_sample_tells_the_error_of_the_weight() -> None:
    weight = random(K, N, seed=6)
    for bits in (2, 4, 8):
        fmt = BlockFormat.shifted(bits, 8)
        whole = encode(weight, fmt)
        assert take_sample(weight).error(fmt, 1) == pytest.approx(whole.noise / whole.signal, rel=0.1)
    zeros = np.zeros((K, N), np.float32)
    assert take_sample(zeros).error(BlockFormat.shifted(4, 8), 1) == 0


@pytest.mark.parametrize("column", [0, 7, N - 1])
def test_a_column_with_a_huge_number_stands_for_itself_alone(column: int) -> None:
    """All others of that column are lost in the step that the huge number asks for."""
    weight, fmt = random(K, N, seed=6), BlockFormat.shifted(8, 0)
    weight[3, column] = 40 * np.abs(weight).max()
    sample, whole = take_sample(weight), encode(weight, fmt)
    assert any(np.array_equal(each, weight[:, column]) for each in sample.largest.T)
    assert not any(np.array_equal(each, weight[:, column]) for each in sample.others.T)
    assert sample.error(fmt, 1) == pytest.approx(whole.noise / whole.signal, rel=0.1)


@pytest.mark.parametrize("n", [1, 5, 16, 17, 40, 100])
def test_a_sample_stands_for_every_column(n: int) -> None:
    weight = random(K, n, seed=7)
    sample = take_sample(weight)
    assert sample.largest.shape[1] + sample.times * sample.others.shape[1] == pytest.approx(n)
    if n <= sample.largest.shape[1] + sample.others.shape[1]:
        whole = encode(weight, BlockFormat.shifted(4, 8))
        assert sample.error(BlockFormat.shifted(4, 8), 1) == pytest.approx(whole.noise / whole.signal, rel=1e-3)
