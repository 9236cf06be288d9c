"""What kind of numbers an array holds: told to the bit, whatever the values."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from passes.formats.numbers import distinct, half_holds, is_ramp, is_whole, split_mask

FLOATS = st.floats(width=32)
ANY = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=20), elements=FLOATS)


@given(ANY)
def test_a_table_and_its_places_are_the_array(values):
    found = distinct(values)
    if found is None:
        assert len(np.unique(values.view(np.uint32))) > 256
    else:
        assert found.table[found.indices].tobytes() == np.ascontiguousarray(values).tobytes()
        assert len(np.unique(found.table.view(np.uint32))) == len(found.table)


def test_too_many_values_are_no_table():
    assert distinct(np.random.default_rng(0).random(100_000)) is None
    assert len(distinct(np.random.default_rng(0).integers(0, 4000, 100_000).astype(np.float32)).table) == 4000
    assert distinct(np.random.default_rng(0).integers(0, 4000, 20_000).astype(np.float32)) is None


@given(ANY)
def test_a_mask_and_the_rest_are_the_array(values):
    found = split_mask(values)
    if found is not None:
        assert np.isfinite(found.rest).all()
        np.testing.assert_array_equal(found.rest[~found.places], values[~found.places])
        with np.errstate(over="ignore"):
            total = np.where(found.places, found.value + found.rest, found.rest)
        np.testing.assert_allclose(total, values, rtol=1e-6)
        assert np.abs(found.rest).max() < np.abs(found.value)


@pytest.mark.parametrize("value", [-1e4, np.inf, -np.inf, np.finfo(np.float32).min])
def test_what_is_a_mask(value):
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    values[np.triu_indices(64, 1)] = value
    found = split_mask(values)
    assert found.value == value
    assert found.places.sum() == 64 * 63 / 2
    values[np.triu_indices(64, 1)] = 4
    assert split_mask(values) is None, "not far enough from the others"
    values[5, 7] = value
    assert split_mask(values) is None, "one broken value"
    values[np.triu_indices(64, 1)] = np.nan
    assert split_mask(values) is None


@given(ANY)
def test_whole_numbers_and_ramps(values):
    flat = values.reshape(-1).astype(np.float64)
    assert is_whole(values) == bool(np.all(np.isfinite(flat) & (np.floor(flat) == flat)))
    pairs = list(itertools.pairwise(flat))
    assert is_ramp(values) == (len(pairs) > 1 and (all(a < b for a, b in pairs) or all(a > b for a, b in pairs)))


@given(arrays.arrays(np.float32, 30, elements=st.floats(-1e5, 1e5, width=32)), st.booleans())
def test_float16_holds_what_is_said(values, each):
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    error = np.abs(half.astype(np.float64) - values)
    if half_holds(values, each):
        assert np.all(error <= np.abs(values) * 2.0**-11 + (0 if each else np.abs(values).max() * 2.0**-20))
    assert half_holds(half.astype(np.float32), each) == bool(np.isfinite(half).all())
