"""Codes in a trellis: the least cost of all paths, the numbers that codes stand for, and errors as promised."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.formats import encode_trellis, trellis, viterbi
from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
from tests.passes.formats.test_encode import errors, same, weights

few = settings(max_examples=30)
formats = st.builds(BlockFormat.best, st.sampled_from(trellis.WIDTHS), st.sampled_from([0, 8, 16, 32, 128]))


def paid(costs: np.ndarray, kinds: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return what the last bits of codes cost in each column, [n]."""
    found = costs[2 * path + trellis.added_bits(path), kinds]
    return found.sum(axis=0, dtype=np.int64)


def drawn(seed: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return costs [4, kinds] and kinds [k, n]."""
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, viterbi.MOST_COST + 1, (4, 50)).astype(np.uint16)
    return costs, rng.integers(0, 50, (k, n)).astype(np.int16)


@given(k=st.integers(1, 11), seed=st.integers(0, 1000))
@few
def test_no_path_costs_less(k, seed):
    costs, kinds = drawn(seed, k, 3)
    every = np.array(list(product((0, 1), repeat=k)), np.uint8)
    least = [paid(costs, np.repeat(kinds[:, [column]], len(every), 1), every.T).min() for column in range(3)]
    np.testing.assert_array_equal(paid(costs, kinds, viterbi.least_paths(costs, kinds)), least)


def test_costs_of_the_most_and_of_nothing_stay_apart():
    """Sixteen bits are enough however large costs are: the path without cost is found, however long."""
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 2, (1000, 7)).astype(np.uint8)
    costs = np.full((4, 4), viterbi.MOST_COST, np.uint16)
    np.fill_diagonal(costs, 0)
    kinds = (2 * wanted + trellis.added_bits(wanted)).astype(np.int16)
    np.testing.assert_array_equal(viterbi.least_paths(costs, kinds), wanted)


@given(st.integers(0, 1000))
@few
def test_bits_are_sums_of_those_before(seed):
    last = np.random.default_rng(seed).integers(0, 2, 30).astype(np.uint8)
    for step, found in enumerate(trellis.added_bits(last)):
        assert found == sum(int(last[step - ago]) for ago in (2, 3, 7, 8) if step >= ago) % 2


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_numbers_are_levels(bits):
    """Code by code, step by step; doubled they fit an int8, and below zero they mirror those above."""
    levels = trellis.levels(bits)
    assert len(levels) == 2 << bits
    assert (np.diff(levels.astype(int)) > 0).all()
    assert 2 * levels.astype(int).min() >= -128
    assert 2 * levels.astype(int).max() <= 127
    if bits != trellis.WHOLE:
        np.testing.assert_array_equal(levels, -levels[::-1])
    half = 1 << (bits - 1)
    codes = np.random.default_rng(bits).integers(-half, half, (24, 1)).astype(np.int8)
    found = trellis.values(codes, bits)
    order = [lane * 3 + byte for byte in range(3) for lane in range(8)]
    added = trellis.added_bits((codes[order] & 1).astype(np.uint8))
    for row, bit in zip(order, added, strict=True):
        assert found[row, 0] == levels[2 * int(codes[row, 0]) + int(bit[0]) + (1 << bits)]


@given(weights(), formats)
def test_arrays_have_the_shapes_and_ranges_of_the_format(weight, fmt):
    (k, n), tensor = weight.shape, encode_trellis.encode(weight, fmt)
    blocks, rows = fmt.blocks(k)
    assert (tensor.k, tensor.codes.shape, tensor.exponents.shape) == (k, (blocks, rows, n), (blocks, n))
    assert (tensor.codes.dtype, tensor.exponents.dtype, decode(tensor).dtype) == (np.int8, np.uint8, np.float32)
    assert fmt.low <= tensor.codes.min() <= tensor.codes.max() <= fmt.high
    assert tensor.exponents.max() <= fmt.max_exponent
    assert set(tensor.codes.reshape(-1, n)[k:].reshape(-1)) <= {0, 1}, "rows past k hold nothing but last bits"
    assert np.log2(tensor.tensor_scale) % 1 == 0
    np.testing.assert_array_equal(tensor.column_scale > 0, weight.any(axis=0))
    assert np.isfinite(tensor.column_scale).all()
    assert not decode(tensor)[:, ~weight.any(axis=0)].any()


@given(weights(), formats)
def test_noise_and_signal_are_those_of_the_decoded_weight(weight, fmt):
    tensor = encode_trellis.encode(weight, fmt)
    signal = np.square(weight.astype(np.float64)).sum()
    assert tensor.signal == pytest.approx(signal, rel=1e-4)
    assert tensor.noise == pytest.approx(np.square(errors(weight, tensor)).sum(), rel=1e-3, abs=1e-7 * signal)


@given(weights(), formats)
def test_the_error_is_never_above_that_of_codes_that_stand_for_themselves(weight, fmt):
    tensor, uniform = encode(weight, fmt), encode(weight, fmt.uniform)
    assert tensor.noise <= uniform.noise
    assert tensor.format in (fmt, fmt.uniform)


@given(weights(), formats)
@few
def test_layout_and_workers_change_nothing(weight, fmt):
    wide = np.tile(weight, (1, 1 + 2 * encode_trellis.COLUMNS // weight.shape[1]))
    expected = encode_trellis.encode(wide, fmt)
    for other in (np.asfortranarray(wide), np.ascontiguousarray(wide[::-1, ::-1])[::-1, ::-1]):
        assert same(encode_trellis.encode(other, fmt, workers=2), expected)


@pytest.mark.parametrize("block", [0, 8, 32])
@pytest.mark.parametrize(("bits", "gain"), [(2, 2.3), (3, 2), (4, 2.2), (5, 1.8), (6, 0.7)])
def test_what_is_gained(bits, gain, block):
    """For normal numbers and for some with heavier tails, in decibels at the same bytes."""
    rng = np.random.default_rng(bits)
    for weight in (rng.standard_normal((384, 64)), rng.standard_t(6, (384, 64))):
        tensor = encode(weight.astype(np.float32), BlockFormat.best(bits, block))
        assert tensor.sqnr_db >= encode(weight.astype(np.float32), tensor.format.uniform).sqnr_db + gain


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_what_codes_hold_exactly_stays_exact(bits):
    high = (1 << (bits - 1)) - 1
    weight = np.random.default_rng(0).integers(-high, high + 1, (64, 8)).astype(np.float32)
    weight[::8] = high
    weight[:8] *= 2
    tensor = encode(weight, BlockFormat.best(bits, 8))
    assert tensor.format == BlockFormat.shifted(bits, 8)
    np.testing.assert_array_equal(decode(tensor), weight)


def test_widths_with_a_trellis():
    assert [bits for bits in range(2, 9) if BlockFormat.best(bits, 8).trellis] == [2, 3, 4, 5, 6]
