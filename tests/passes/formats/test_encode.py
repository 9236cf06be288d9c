"""Codes, exponents and column scales keep to the bounds that the format promises."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.formats.block import BlockFormat, BlockTensor, decode, exponent_scale, round_up
from passes.formats.encode import COLUMNS, encode, largest_size

# float32 rounds the scaled weight, the code times its scale, and their difference.
ROUNDING = 4 * np.finfo(np.float32).eps

formats = st.builds(
    lambda make, bits, block: make(bits, block),
    st.sampled_from([BlockFormat.shifted, BlockFormat.fine, BlockFormat.multiples]),
    st.integers(2, 8),
    st.sampled_from([0, 8, 16, 32, 128]),
)
every_format = (
    pytest.mark.parametrize("bits", range(2, 9)),
    pytest.mark.parametrize("make", [BlockFormat.shifted, BlockFormat.fine, BlockFormat.multiples]),
)


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Draw a [k, n] weight: any shape and magnitude, rows and columns of zeros, outliers, few levels."""
    k, n = draw(st.sampled_from([1, 7, 8, 9, 31, 32, 33, 130])), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    matrix = rng.standard_normal((k, n)) * 10.0 ** draw(st.integers(-6, 6))
    match draw(st.sampled_from(["normal", "columns", "zeros", "outlier", "levels", "rows"])):
        case "columns":
            matrix *= 10.0 ** rng.integers(-4, 5, n)
        case "zeros":
            matrix *= rng.integers(0, 2, (k, n))
        case "outlier":
            matrix[rng.integers(k), rng.integers(n)] *= 1e4
        case "levels":
            matrix = np.sign(matrix) * np.abs(matrix).max()
        case "rows":
            matrix *= 10.0 ** rng.integers(-4, 5, (k, 1))
    return matrix.astype(np.float32)


def block_scales(tensor: BlockTensor) -> np.ndarray:
    """Return the scale of every element, [k, n]."""
    return np.repeat(tensor.block_scale, tensor.codes.shape[1], axis=0)[: tensor.k]


def errors(weight: np.ndarray, tensor: BlockTensor) -> np.ndarray:
    return np.abs(decode(tensor).astype(np.float64) - weight.astype(np.float64))


def simple(weight: np.ndarray, fmt: BlockFormat) -> np.ndarray:
    """Decode what the largest column scale and exponents that do not clip give, in float64: no search."""
    k, n = weight.shape
    blocks, rows = fmt.blocks(k)
    padded = np.zeros((blocks * rows, n))
    padded[:k] = weight
    padded = padded.reshape(blocks, rows, n)
    peak = np.abs(padded).max(axis=1)
    scale = np.maximum(peak.max(axis=0) / (fmt.high * float(fmt.factors[-1])), 1e-30)
    # The exponent that float16 column scales of any size leave room for.
    unit = 2.0 ** np.floor(np.log2(scale.max()))
    scale16 = (scale / unit).astype(np.float16)
    short = scale16 < scale / unit * (1 - 2**-10)
    if not is_wide(weight, scale / unit):
        scale = np.where(short, np.nextafter(scale16, np.float16(np.inf)), scale16).astype(np.float64) * unit
    needed = np.maximum(peak, 1e-30) / (scale * fmt.high)
    steps = needed - 1 if fmt.whole else np.log2(needed) * fmt.steps
    exponents = np.clip(np.ceil(steps - 1e-6), 0, fmt.max_exponent)
    block_scale = (scale * (exponents + 1 if fmt.whole else 2.0 ** (exponents / fmt.steps)))[:, None, :]
    return (np.clip(np.rint(padded / block_scale), fmt.low, fmt.high) * block_scale).reshape(-1, n)[:k]


def is_wide(weight: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether a column that is not all zeros has a scale for which float16 has too few bits."""
    return bool(np.any(scale[weight.any(axis=0)] < 2**-14))


def same(a: BlockTensor, b: BlockTensor) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(BlockTensor))


@given(weights(), formats)
def test_an_element_that_is_not_clipped_errs_by_half_its_blocks_scale(weight, fmt):
    tensor = encode(weight, fmt)
    low, high = tensor.limits
    inside = ((tensor.codes > low[:, None]) & (tensor.codes < high[:, None])).reshape(-1, tensor.n)[: tensor.k]
    bound = block_scales(tensor) / 2 + ROUNDING * np.abs(weight)
    assert np.all(errors(weight, tensor)[inside] <= bound[inside])


@given(weights(), formats)
def test_a_columns_error_is_never_above_that_of_the_largest_scale(weight, fmt):
    tensor = encode(weight, fmt)
    error = np.linalg.norm(errors(weight, tensor), axis=0)
    largest = np.linalg.norm(simple(weight, fmt) - weight, axis=0)
    slack = np.sqrt(len(weight)) * np.abs(weight).max(axis=0) * ROUNDING
    assert np.all(error <= largest * (1 + 1e-6) + slack)


@given(weights(), formats)
def test_arrays_have_the_shapes_and_ranges_of_the_format(weight, fmt):
    (k, n), tensor = weight.shape, encode(weight, fmt)
    blocks, rows = fmt.blocks(k)
    assert (tensor.k, tensor.n) == (k, n)
    assert tensor.codes.shape == (blocks, rows, n)
    assert tensor.exponents.shape == (blocks, n)
    assert tensor.column_scale.shape == (n,)
    assert (tensor.codes.dtype, tensor.exponents.dtype) == (np.int8, np.uint8)
    peaks = np.abs(weight).max(axis=0)
    wide = peaks[peaks > 0].min(initial=np.inf) < 2**-12 * peaks.max()
    assert tensor.column_scale.dtype == np.float16 or wide
    assert rows % 8 == 0
    assert fmt.low <= tensor.codes.min() <= tensor.codes.max() <= fmt.high
    assert tensor.exponents.max() <= fmt.max_exponent
    assert np.all(tensor.column_scale > 0)
    assert np.log2(tensor.tensor_scale) % 1 == 0
    assert not tensor.numbers.reshape(-1, n)[k:].any(), "rows past k are zero"
    assert decode(tensor).shape == (k, n)
    assert decode(tensor).dtype == np.float32


@given(weights(), formats)
def test_zeros_stay_zero(weight, fmt):
    decoded = decode(encode(weight, fmt))
    assert not decoded[weight == 0].any()
    assert not decoded[:, ~weight.any(axis=0)].any()


@given(weights(), formats)
def test_noise_and_signal_are_those_of_the_decoded_weight(weight, fmt):
    tensor = encode(weight, fmt)
    signal = np.square(weight.astype(np.float64)).sum()
    assert tensor.signal == pytest.approx(signal, rel=1e-4)
    # Below a ten millionth of the signal the noise is that of float32 arithmetic.
    assert tensor.noise == pytest.approx(np.square(errors(weight, tensor)).sum(), rel=1e-3, abs=1e-7 * signal)


@given(weights(), formats)
@settings(max_examples=30)
def test_workers_change_nothing(weight, fmt):
    # As many columns as three ranges have.
    wide = np.tile(weight, (1, 1 + 2 * COLUMNS // weight.shape[1]))
    assert same(encode(wide, fmt, workers=1), encode(wide, fmt, workers=2))


@pytest.mark.parametrize(
    "fmt", [BlockFormat.shifted(4, 8), BlockFormat.shifted(6, 0), BlockFormat.fine(4, 128)], ids=str
)
def test_a_weight_of_several_pieces_is_searched_as_a_whole(fmt):
    weight = np.random.default_rng(9).standard_normal((1003, 500)).astype(np.float32)
    tensor = encode(weight, fmt)
    squared = np.square(errors(weight, tensor))
    assert (squared.sum(axis=0) <= np.square(simple(weight, fmt) - weight).sum(axis=0) * (1 + 1e-5)).all()
    assert np.isclose(tensor.noise, squared.sum(), rtol=1e-4)
    assert np.isclose(tensor.signal, np.square(weight, dtype=np.float64).sum(), rtol=1e-4)


@given(weights(), formats)
@settings(max_examples=30)
def test_layout_changes_nothing(weight, fmt):
    (k, n), expected = weight.shape, encode(weight, fmt)
    strided = np.zeros((2 * k, 3 * n), np.float32)
    strided[::2, ::3] = weight
    backwards = np.ascontiguousarray(weight[::-1, ::-1])[::-1, ::-1]
    for other in (np.asfortranarray(weight), strided[::2, ::3], backwards):
        assert same(encode(other, fmt), expected)


@given(weights(), formats)
@settings(max_examples=30)
def test_columns_are_encoded_on_their_own(weight, fmt):
    both = encode(np.hstack([weight, weight[:, ::-1]]), fmt)
    np.testing.assert_array_equal(decode(both)[:, : weight.shape[1]], decode(encode(weight, fmt)))


@every_format[0]
@every_format[1]
@pytest.mark.parametrize("block", [0, 8, 32])
def test_representable_values_come_back_bit_for_bit(bits, make, block):
    fmt = make(bits, block)
    rng = np.random.default_rng(bits)
    blocks, rows = fmt.blocks(96)
    codes = rng.integers(-fmt.high, fmt.high + 1, (blocks, rows, 5)).astype(np.float32)
    # Every block uses its largest code, and the largest exponent is used: the search begins with these scales.
    codes[:, 0] = fmt.high
    exponents = rng.integers(0, fmt.max_exponent + 1, (blocks, 5)).astype(np.uint8)
    exponents[0] = fmt.max_exponent
    column_scale = np.float32(1.5 * 2.0**-7) * 2.0 ** np.arange(-2, 3, dtype=np.float32)
    weight = (codes * (exponent_scale(exponents, fmt) * column_scale)[:, None]).reshape(-1, 5)[:96]
    np.testing.assert_array_equal(decode(encode(weight, fmt)), weight)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_other_float_types_give_what_their_float32_gives(bits, dtype):
    weight = np.random.default_rng(0).standard_normal((45, 6)).astype(np.float16)
    fmt = BlockFormat.shifted(bits, 16)
    assert same(encode(weight.astype(dtype), fmt), encode(weight.astype(np.float32), fmt))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("magnitude", [1e-30, 1e-20, 1e20, 1e30])
def test_magnitudes_at_the_ends_of_float32(magnitude, bits, steps):
    """A power of two times the weight gives the same codes, however tiny or huge."""
    fmt = BlockFormat.shifted(bits, 32) if steps == 1 else BlockFormat.fine(bits, 32)
    weight = np.random.default_rng(1).standard_normal((70, 5)).astype(np.float32)
    power = np.float32(2.0 ** np.round(np.log2(magnitude)))
    plain, scaled = encode(weight, fmt), encode(weight * power, fmt)
    np.testing.assert_array_equal(scaled.codes, plain.codes)
    np.testing.assert_array_equal(decode(scaled), decode(plain) * power)
    assert scaled.sqnr_db == pytest.approx(plain.sqnr_db, abs=1e-3)


@pytest.mark.parametrize(
    "fmt", [BlockFormat.shifted(8, 0), BlockFormat.shifted(4, 8), BlockFormat.fine(4, 32)], ids=str
)
def test_a_column_far_below_the_others_is_as_exact_as_they_are(fmt):
    """Scales that float16 has too few bits for, 2^-56 of the largest here, are float32."""
    even = np.random.default_rng(2).standard_normal((64, 1)).astype(np.float32).repeat(8, axis=1)
    weight = even * np.float32(2.0) ** -np.arange(0, 64, 8, dtype=np.float32)
    tensor = encode(weight, fmt)
    assert tensor.column_scale.dtype == np.float32
    relative = np.linalg.norm(errors(weight, tensor), axis=0) / np.linalg.norm(weight.astype(np.float64), axis=0)
    alone = encode(even[:, :1], fmt)
    np.testing.assert_allclose(
        relative, np.linalg.norm(errors(even[:, :1], alone)) / np.linalg.norm(even[:, 0]), rtol=0.05
    )


def test_search_gains_over_rounding_up():
    weight = np.random.default_rng(3).standard_normal((256, 64)).astype(np.float32)
    fmt = BlockFormat.shifted(4, 32)
    plain = 10 * np.log10(np.square(weight).sum() / np.square(simple(weight, fmt) - weight).sum())
    assert encode(weight, fmt).sqnr_db > plain + 1.0


def test_more_bits_and_smaller_blocks_are_never_worse():
    weight = np.random.default_rng(4).standard_t(4, (256, 32)).astype(np.float32)
    by_bits = [encode(weight, BlockFormat.fine(bits, 32)).sqnr_db for bits in range(2, 9)]
    by_block = [encode(weight, BlockFormat.fine(4, block)).sqnr_db for block in (256, 64, 16)]
    assert by_bits == sorted(by_bits)
    assert by_block == sorted(by_block)
    # 6.02 decibels a bit; at 2 bits the asymmetric range costs some of it.
    assert by_bits[-1] - by_bits[2] > 4 * 5.5


def test_sqnr_of_nothing_lost_is_infinite():
    assert encode(np.zeros((8, 2), np.float32), BlockFormat.shifted(4, 8)).sqnr_db == float("inf")


@pytest.mark.parametrize(("k", "rounded"), [(1, 8), (8, 8), (9, 16), (172, 176)])
def test_round_up(k, rounded):
    assert round_up(k) == rounded


@pytest.mark.parametrize(
    ("fmt", "k", "blocks"),
    [
        (BlockFormat.shifted(4, 32), 172, (6, 32)),
        (BlockFormat.shifted(4, 0), 172, (1, 176)),
        (BlockFormat.fine(4, 8), 1, (1, 8)),
    ],
)
def test_blocks(fmt, k, blocks):
    assert fmt.blocks(k) == blocks


@pytest.mark.parametrize("bits", range(2, 9))
def test_shifted_codes_fit_an_int8(bits):
    fmt = BlockFormat.shifted(bits, 32)
    assert fmt.max_exponent == (0 if bits == 8 else 1)
    assert fmt.low << fmt.max_exponent >= -128
    assert (fmt.high << fmt.max_exponent) <= 127


@pytest.mark.parametrize("bits", range(2, 9))
def test_multiplied_codes_fit_an_int8(bits):
    fmt = BlockFormat.multiples(bits, 32)
    assert list(fmt.factors) == (list(range(1, 16)) if bits <= 4 else [1])
    assert fmt.low * fmt.factors[-1] >= -128
    assert fmt.high * fmt.factors[-1] <= 127
    assert fmt.block_size == (32 if bits <= 4 else 0)


def test_multiples_are_nearer_than_quarter_octaves():
    """And take half the bytes: the largest block of a column has 15 of its scales, most have 8 to 15."""
    weight = np.random.default_rng(0).standard_normal((1024, 64)).astype(np.float32)
    multiples, fine = (encode(weight, make(4, 32)) for make in (BlockFormat.multiples, BlockFormat.fine))
    assert multiples.sqnr_db > fine.sqnr_db + 0.1


@pytest.mark.parametrize("make", [BlockFormat.shifted, BlockFormat.fine, BlockFormat.multiples])
def test_importance_moves_the_error_to_rows_that_matter_less(make) -> None:
    rng = np.random.default_rng(7)
    weight, importance = rng.standard_normal((100, 16)).astype(np.float32), np.exp(2 * rng.standard_normal(100))
    plain, weighed = encode(weight, make(4, 32)), encode(weight, make(4, 32), importance=importance)
    by_row = np.square(errors(weight, weighed)).sum(axis=1)
    assert importance @ by_row < 0.95 * (importance @ np.square(errors(weight, plain)).sum(axis=1))
    assert weighed.noise == pytest.approx(by_row.sum(), rel=1e-4)
    same = encode(weight, make(4, 32), importance=np.full(100, 3.0))
    np.testing.assert_array_equal(decode(same), decode(plain))


@given(weights(), formats)
def test_codes_do_not_depend_on_how_the_weight_lies_in_memory(weight, fmt):
    by_rows, by_columns = (encode(np.asarray(weight, order=order), fmt) for order in ("C", "F"))
    assert same(by_rows, by_columns)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_anywhere(order, value):
    weight = np.zeros((70, 33), np.float32, order=order)
    assert largest_size(weight, 2) == 0
    weight[69, 32] = value
    assert not np.isfinite(largest_size(weight, 2))
    assert largest_size(weight[:0]) == 0


@pytest.mark.parametrize("size", [1e10, 1e18, 1e30])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_columns_of_zeros_and_small_ones_stand_beside_huge_ones(bits: int, size: float) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    weight[:, 2] = 0
    huge = weight * np.where(np.arange(8) == 5, np.float32(size), np.float32(1))
    fmt = BlockFormat.shifted(bits, 32)
    alone, beside = (np.delete(decode(encode(each, fmt)), 5, 1) for each in (weight, huge))
    assert not beside[:, 2].any()
    noise = [np.square(each - np.delete(weight, 5, 1)).sum(axis=0) for each in (beside, alone)]
    # Beyond 1e20 squared errors of the small ones are nothing in units of the huge one: none of them is clipped.
    assert np.all(noise[0] <= noise[1] * (1.02 if size < 1e20 else 8))
