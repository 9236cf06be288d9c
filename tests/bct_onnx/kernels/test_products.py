"""BlockMatMul: every width and packing, to the bit what the numpy reference says, on every kind of processor."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from passes.formats import trellis
from passes.formats.planes import PACK, PACK_LANES, pack_rows, split
from passes.functions import block_matmul, decode_blocks
from passes.functions.unpack import PACKINGS, Packing
from tests.bct_onnx.kernels.calls import Array, call, run, session

BLOCK = 8


def packed(codes: Array, packing: Packing) -> dict[str, Array | TensorProto]:
    """Return the planes of codes [k, n] as files have them."""
    k, n = codes.shape
    if packing.trellis:
        planes = split(codes, packing.bits, pack_rows(1))
        return {
            f"codes{plane.bits}": plane.packed.reshape(1, *packing.lane_axes(plane.bits), k // 8, n) for plane in planes
        }
    found: dict[str, Array | TensorProto] = {}
    for plane in split(codes, packing.bits, PACK_LANES if packing.lanes else PACK):
        name = f"codes{plane.bits}"
        found[name] = plane.packed[None]
        if plane.bits == 4 and not packing.lanes:
            shape = [k // BLOCK, BLOCK, n]
            found[name] = onnx.helper.make_tensor(name, TensorProto.INT4, shape, plane.packed.tobytes(), raw=True)
    return found


def weight(packing: Packing, k: int, n: int, seed: int) -> tuple[Array, dict[str, Any], dict[str, Any]]:
    """Return an int8 weight [k, n] of random codes and shifts, its constants, and the attributes of its call."""
    numbers = np.random.default_rng(seed)
    top = 1 << (packing.bits - 1)
    codes = numbers.integers(-top, top, (k, n)).astype(np.int8)
    shifts = numbers.integers(0, 2, (k // BLOCK, 1, n)).astype(np.uint8)
    bits = np.zeros(-(-shifts.size // 8) * 8, np.uint8)
    bits[: shifts.size] = shifts.ravel()
    stood_for = trellis.values(codes, packing.bits) if packing.trellis else codes
    blocks = (k // BLOCK, BLOCK, n)
    matrix = decode_blocks.reference(stood_for.reshape(blocks), shifts, (k, n))
    constants = {"shifts": PACK[1](bits)[None], **packed(codes, packing), "turn": np.zeros(1, np.float32)}
    attributes = {"codes": blocks, "shifts": shifts.shape, "matrix": [-1, n], "count": [shifts.size]}
    return matrix, constants, attributes


def rows(shape: tuple[int, ...], seed: int) -> dict[str, Array]:
    numbers = np.random.default_rng(seed)
    q = numbers.integers(0, 256, shape).astype(np.uint8)
    return {"q": q, "row_scale": numbers.random((*shape[:-1], 1), np.float32) + np.float32(0.1)}


def scales(n: int, dtype: type[np.floating], seed: int) -> Array:
    return (np.random.default_rng(seed).random(n) + 0.1).astype(dtype)


@pytest.mark.parametrize("suffix", PACKINGS)
@pytest.mark.usefixtures("processor")
def test_every_packing_is_the_reference_to_the_bit(suffix):
    for rows_, k, n in ((3, 8, 1), (1, 104, 67), (35, 72, 128), (70, 256, 200)):
        matrix, constants, attributes = weight(PACKINGS[suffix], k, n, seed=n)
        scale = scales(n, np.float16, 1)
        feeds = rows((rows_, k), 2)
        attributes = {**attributes, "zero_point": 32, "tensor_scale": 0.25}
        model = call(f"BlockMatMul{suffix}", feeds, {**constants, "scale": scale}, attributes)
        expected = block_matmul.reference(feeds["q"], feeds["row_scale"], matrix, scale, 32, 0.25)
        for optimize in ("all", "none"):
            (y,) = run(model, feeds, optimize=optimize)
            assert np.array_equal(y, expected)


@pytest.mark.parametrize("suffix", ["4", "4Lanes", "5", "7", "4Trellis", "6Trellis"])
def test_bodies_say_the_same(suffix):
    _, constants, attributes = weight(PACKINGS[suffix], 64, 48, seed=5)
    feeds, scale = rows((2, 5, 64), 3), scales(48, np.float16, 4)
    attributes = {**attributes, "zero_point": 128, "tensor_scale": 0.5}
    model = call(f"BlockMatMul{suffix}", feeds, {**constants, "scale": scale}, attributes)
    (native,), (body,) = run(model, feeds), run(model, feeds, native=False, optimize="none")
    assert np.array_equal(native, body)


@given(st.integers(0, 70), st.integers(1, 150), st.integers(1, 140), st.integers(0, 255), st.integers(0, 2**32 - 1))
@example(1, 65793, 1, 255, 0)
@example(33, 3072, 65, 128, 1)
@settings(max_examples=30)
def test_int8_weights_of_any_shape(m, k, n, zero_point, seed):
    numbers = np.random.default_rng(seed)
    matrix = numbers.integers(-128, 128, (k, n)).astype(np.int8)
    feeds, scale = rows((m, k), seed), scales(n, np.float32, seed)
    attributes = {"zero_point": zero_point, "tensor_scale": 2.0}
    model = call("BlockMatMul8", feeds, {"weight": matrix, "scale": scale}, attributes)
    expected = block_matmul.reference(feeds["q"], feeds["row_scale"], matrix, scale, zero_point, 2.0)
    (y,) = run(model, feeds)
    assert np.array_equal(y, expected)


@pytest.mark.usefixtures("processor")
def test_largest_sums_are_exact():
    k = 65793
    constants = {"weight": np.full((k, 3), -128, np.int8), "scale": np.ones(3, np.float32)}
    feeds = {"q": np.full((17, k), 255, np.uint8), "row_scale": np.ones((17, 1), np.float32)}
    (y,) = run(call("BlockMatMul8", feeds, constants, {"zero_point": 0, "tensor_scale": 1.0}), feeds)
    assert np.array_equal(y, np.full((17, 3), np.float32(-128 * 255 * k)))


@pytest.mark.usefixtures("processor")
def test_rows_do_not_depend_on_their_neighbours():
    _, constants, attributes = weight(PACKINGS["5Trellis"], 96, 80, seed=1)
    feeds = rows((67, 96), 1)
    attributes = {**attributes, "zero_point": 128, "tensor_scale": 1.0}
    native = session(call("BlockMatMul5Trellis", feeds, {**constants, "scale": scales(80, np.float16, 1)}, attributes))
    (together,) = native.run(None, feeds)
    for row in (0, 1, 40, 66):
        (alone,) = native.run(None, {name: value[row : row + 1] for name, value in feeds.items()})
        assert np.array_equal(alone, together[row : row + 1])


@pytest.mark.parametrize(
    "left, right", [((2, 3, 5, 24), (3, 24, 20)), ((1, 4, 24), (3, 24, 20)), ((4, 24), (2, 2, 24, 20))]
)
def test_batches_of_weights_broadcast(left, right):
    numbers = np.random.default_rng(0)
    weights = numbers.integers(-128, 128, right).astype(np.int8)
    scale = numbers.random((*right[:-2], 1, right[-1]), np.float32)
    feeds = rows(left, 1)
    model = call("BlockMatMul8", feeds, {"weight": weights, "scale": scale}, {"zero_point": 128, "tensor_scale": 1.0})
    expected = block_matmul.reference(feeds["q"], feeds["row_scale"], weights, scale, 128)
    (y,) = run(model, feeds)
    assert np.array_equal(y, expected)


@pytest.mark.usefixtures("processor")
def test_special_scales():
    matrix = np.arange(-20, 20, dtype=np.int8).reshape(8, 5)
    feeds = rows((6, 8), 0)
    feeds["row_scale"] = np.array([0, np.nan, np.inf, 3e38, 1e-45, 1], np.float32)[:, None]
    constants = {"weight": matrix, "scale": np.ones(5, np.float16)}
    (y,) = run(call("BlockMatMul8", feeds, constants, {"zero_point": 3, "tensor_scale": 1.0}), feeds)
    with np.errstate(all="ignore"):
        expected = block_matmul.reference(feeds["q"], feeds["row_scale"], matrix, np.ones(5, np.float16), 3)
    assert np.array_equal(y, expected, equal_nan=True)


# What does not fit, by input or attribute; an input and an attribute are both named shifts.
HOSTILE: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "planes": ({"codes4": np.zeros((1, 1, 2, 2, 1, 4), np.uint8)}, {}),
    "shifts": ({"shifts": np.zeros((1, 0), np.uint8)}, {}),
    "scale": ({"scale": np.zeros(3, np.float16)}, {}),
    "scale type": ({"scale": np.zeros(16, np.int64)}, {}),
    "codes": ({}, {"codes": [1, 8, 1 << 40]}),
    "overflow": ({}, {"codes": [1 << 33, 1 << 33, 16]}),
    "negative codes": ({}, {"codes": [-1, -8, 16]}),
    "codes of one axis": ({}, {"codes": [128]}),
    "shift shape": ({}, {"shifts": [3, 1, 16]}),
    "matrix": ({}, {"matrix": [7, 16]}),
    "zero point": ({}, {"zero_point": 256}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    _, constants, attributes = weight(PACKINGS["4Trellis"], 8, 16, seed=1)
    other_constants, other_attributes = HOSTILE[what]
    constants = {**constants, "scale": scales(16, np.float16, 1), **other_constants}
    attributes = {**attributes, "zero_point": 128, "tensor_scale": 1.0, **other_attributes}
    feeds = rows((2, 8), 0)
    with pytest.raises(Exception, match="BlockMatMul4Trellis: "):
        run(call("BlockMatMul4Trellis", feeds, constants, attributes), feeds)


def test_rows_that_do_not_fit_are_an_error():
    constants = {"weight": np.zeros((8, 4), np.int8), "scale": np.ones(4, np.float32)}
    native = session(call("BlockMatMul8", rows((2, 8), 0), constants, {"zero_point": 1, "tensor_scale": 1.0}))
    with pytest.raises(Exception, match="q and the weight differ in k"):
        native.run(None, rows((2, 9), 0))
    with pytest.raises(Exception, match="row_scale is not one number a row"):
        native.run(None, {**rows((2, 8), 0), "row_scale": np.ones((1, 1), np.float32)})
