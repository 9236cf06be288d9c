"""Bit planes hold every bit of every code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from passes.formats.planes import PLANES, Plane, pack_nibbles, split


def pieces(plane: Plane) -> np.ndarray:
    """Unpack a plane as the documentation of Plane says: neighbours for nibbles, strides for smaller pieces."""
    lanes = [(plane.packed >> shift) & ((1 << plane.bits) - 1) for shift in range(0, 8, plane.bits)]
    return np.stack(lanes, axis=1).reshape(-1) if plane.bits == 4 else np.concatenate(lanes)


def join(planes: list[Plane], bits: int) -> np.ndarray:
    """Return the int8 codes of planes: the pieces in their places, the sign extended."""
    joined = sum(pieces(plane).astype(np.int64) << plane.shift for plane in planes)
    return (joined - ((joined >> (bits - 1)) << bits)).astype(np.int8)


@given(st.data(), st.integers(2, 8), st.integers(1, 20))
def test_joined_planes_are_the_codes(data, bits, eighths):
    codes = data.draw(
        st.lists(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1), min_size=8 * eighths, max_size=8 * eighths)
    )
    codes = np.array(codes, np.int8)
    np.testing.assert_array_equal(join(split(codes, bits), bits), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_comes_back(bits):
    codes = np.arange(-(1 << bits - 1), 1 << bits - 1).repeat(2).astype(np.int8).reshape(2, -1, 2)
    np.testing.assert_array_equal(join(split(codes, bits), bits), codes.reshape(-1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_planes_take_just_the_bits_of_the_codes(bits):
    planes = split(np.zeros(64, np.int8), bits)
    assert tuple(plane.bits for plane in planes) == PLANES[bits]
    assert sum(plane.packed.nbytes for plane in planes) == 64 * bits // 8
    assert sum(PLANES[bits]) == bits


def test_nibbles_are_packed_as_onnx_packs_int4():
    codes = np.array([-8, 7, 3, -1, 0, 1, -5, 2], np.int8)
    packed = pack_nibbles(codes.view(np.uint8) & np.uint8(15))
    proto = helper.make_tensor("codes", TensorProto.INT4, [8], packed.tobytes(), raw=True)
    np.testing.assert_array_equal(numpy_helper.to_array(proto).astype(np.int8), codes)
