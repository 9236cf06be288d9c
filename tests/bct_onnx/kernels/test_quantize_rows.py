"""QuantizeRows: to the bit what the numpy reference says, special values too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from passes.functions import quantize_rows
from tests.bct_onnx.kernels.calls import call, run

FLOOR = -0.17


def model(name, x, floor):
    attributes = quantize_rows.attributes(floor) if floor is not None else {}
    if "ByDivision" not in name:
        attributes["block_size"] = x.shape[-1]
    zeros = {"zeros": np.zeros((*x.shape[:-1], 1), np.uint8)} if "Like" in name else {}
    return call(name, {"x": x}, zeros, attributes)


def check(name, x, floor=None):
    q, scale, *zeros = run(model(name, x, floor), {"x": x})
    with np.errstate(all="ignore"):
        expected_q, expected_scale = quantize_rows.reference(x, floor)
    assert np.array_equal(scale, expected_scale, equal_nan=True)
    assert np.array_equal(q, expected_q)
    assert all((each == quantize_rows.zero_point(floor)).all() for each in zeros)


@pytest.mark.parametrize("ending", ["", "Like", "ByDivision"])
@pytest.mark.parametrize("floor", [None, FLOOR, 0.0])
@pytest.mark.usefixtures("processor")
def test_reference(ending, floor):
    numbers = np.random.default_rng(1)
    for shape in ((3, 1), (2, 5, 64), (1, 131), (40, 768)):
        x = (numbers.standard_normal(shape) * 5).astype(np.float32)
        x = x if floor is None else np.maximum(x, np.float32(floor))
        check(f"QuantizeRows{'' if floor is None else 'Above'}{ending}", x, floor)


@pytest.mark.usefixtures("processor")
def test_halves_round_to_even_whatever_the_scale():
    # Quotients that are halves but for one rounding: a product with the inverse takes some of them to the other side.
    numbers = np.random.default_rng(2)
    peaks = numbers.random((64, 1)).astype(np.float32) + 1
    scale = peaks * np.float32(1 / 127)
    halves = np.concatenate([np.arange(-126, 127) + 0.5, np.zeros(3)]).astype(np.float32)
    x = np.concatenate([halves * scale, peaks], axis=1)
    check("QuantizeRows", x)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-44, 0.0])
@pytest.mark.parametrize("floor", [None, FLOOR])
@pytest.mark.usefixtures("processor")
def test_special_values(value, floor):
    x = np.random.default_rng(3).random((4, 100), np.float32)
    x[1, 70] = x[2, 3] = x[3, 99] = value
    x[2, 4:] = 0
    check(f"QuantizeRows{'' if floor is None else 'Above'}", x, floor)


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 200)), elements=st.floats(width=32)))
@settings(max_examples=60)
def test_any_floats(x):
    check("QuantizeRowsByDivision", x)


def test_vectors_and_empty_batches():
    check("QuantizeRowsByDivision", np.arange(5, dtype=np.float32))
    check("QuantizeRows", np.zeros((2, 0, 8), np.float32))
