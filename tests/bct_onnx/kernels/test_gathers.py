"""BlockGather and BlockGatherRows: to the bit what the numpy references say."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from passes.formats import trellis
from passes.formats.planes import PACK, PACK_LANES, pack_rows, split
from passes.functions import block_gather, block_gather_packed, decode_blocks
from passes.functions.block_gather_packed import BY_PACKING
from passes.functions.unpack import PACKINGS, Packing
from tests.bct_onnx.kernels.calls import Array, call, run, session

BLOCK, ROWS, K = 8, 37, 72
INDICES = np.array([[0, 36, -1], [5, 5, -37]], np.int64)


def random_codes(bits: int) -> tuple[Array, Array]:
    """Return codes [ROWS, K] and, a bit each, the shifts of blocks [ROWS, K / BLOCK]."""
    numbers, top = np.random.default_rng(bits), 1 << (bits - 1)
    return numbers.integers(-top, top, (ROWS, K)).astype(np.int8), numbers.integers(0, 2, (ROWS, K // BLOCK), np.uint8)


def stood_for(codes: Array, packing: Packing) -> Array:
    return trellis.values(codes.T, packing.bits).T if packing.trellis else codes


def planes(codes: Array, packing: Packing) -> dict[str, Array | TensorProto]:
    if packing.trellis:
        return {
            f"codes{plane.bits}": plane.packed.reshape(ROWS, *packing.lane_axes(plane.bits), K // 8, 1)
            for plane in split(codes, packing.bits, pack_rows(ROWS))
        }
    found: dict[str, Array | TensorProto] = {}
    for plane in split(codes, packing.bits, PACK_LANES if packing.lanes else PACK):
        name = f"codes{plane.bits}"
        found[name] = plane.packed[None]
        if plane.bits == 4 and not packing.lanes:
            shape = [ROWS, K // BLOCK, BLOCK]
            found[name] = onnx.helper.make_tensor(name, TensorProto.INT4, shape, plane.packed.tobytes(), raw=True)
    return found


def table(suffix: str) -> tuple[Array, dict[str, Any], dict[str, Any]]:
    """Return an int8 table [ROWS, K], its constants, and the attributes of its call."""
    packing = PACKINGS[suffix]
    codes, shifts = random_codes(packing.bits)
    bits = np.zeros(-(-shifts.size // 8) * 8, np.uint8)
    bits[: shifts.size] = shifts.ravel()
    blocks = (ROWS, K // BLOCK, BLOCK)
    matrix = decode_blocks.reference(stood_for(codes, packing).reshape(blocks), shifts[..., None], (ROWS, K))
    constants = {"shifts": PACK[1](bits)[None], **planes(codes, packing), "turn": np.zeros(1, np.float32)}
    constants["scale"] = (np.random.default_rng(0).random(ROWS) + 0.1).astype(np.float16)
    attributes = {"codes": blocks, "shifts": (*shifts.shape, 1), "matrix": [ROWS, -1], "count": [shifts.size]}
    return matrix, constants, {**attributes, "tensor_scale": 0.25}


@pytest.mark.parametrize("suffix", PACKINGS)
@pytest.mark.parametrize("indices", [INDICES, INDICES.astype(np.int32), np.int64(3), np.zeros((0, 2), np.int64)])
def test_reference(suffix, indices):
    matrix, constants, attributes = table(suffix)
    feeds = {"indices": np.asarray(indices)}
    model = call(f"BlockGather{suffix}", feeds, constants, attributes)
    expected = block_gather.reference(matrix, constants["scale"], np.asarray(indices), 0.25)
    for optimize in ("all", "none"):
        assert np.array_equal(run(model, feeds, optimize=optimize)[0], expected)
    assert np.array_equal(run(model, feeds, native=False)[0], expected)


@pytest.mark.parametrize("packing", BY_PACKING, ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_packed_reference(packing, shared):
    codes, shifts = random_codes(packing.bits)
    unsigned = codes + np.int8(1 << (packing.bits - 1))
    constants = {
        f"rows{plane.bits}": plane.packed.reshape(ROWS, *packing.lane_axes(plane.bits), -1)
        for plane in split(unsigned, packing.bits, pack_rows(ROWS))
    }
    scale = np.random.default_rng(0).random(ROWS).astype(np.float16)
    feeds = {"indices": INDICES}
    attributes = {"blocks": [0, 0, K // BLOCK, BLOCK], "row": [0, 0, K], "tensor_scale": 0.75}
    if shared:
        shifts = shifts[:1, :1] | 1
    flat = np.zeros(-(-shifts.size // 8) * 8, np.uint8)
    flat[: shifts.size] = shifts.ravel()
    attributes |= {"shifts": [-1, shifts.shape[1], 1], "count": [shifts.size]}
    constants |= {"shifts": PACK[1](flat)[None], "scale": scale}
    scales = block_gather_packed.shifted_scales(shifts[..., None], scale, 0.75)
    model = call(BY_PACKING[packing].name, feeds, constants, attributes)
    numbers = stood_for(codes, packing).reshape(ROWS, -1, BLOCK)
    expected = block_gather_packed.reference(numbers, scales, INDICES)
    assert np.array_equal(run(model, feeds)[0], expected)
    assert np.array_equal(run(model, feeds, native=False)[0], expected)


def test_int8_tables():
    numbers = np.random.default_rng(0)
    constants = {"table": numbers.integers(-128, 128, (5, 9)).astype(np.int8), "scale": numbers.random(5, np.float32)}
    feeds = {"indices": np.array([4, 0, -5])}
    (y,) = run(call("BlockGather8", feeds, constants, {"tensor_scale": 3.0}), feeds)
    assert np.array_equal(y, block_gather.reference(constants["table"], constants["scale"], feeds["indices"], 3.0))


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1, 2**62])
def test_an_index_out_of_range_is_an_error(index):
    _, constants, attributes = table("4Trellis")
    feeds = {"indices": np.array([0, index])}
    native = session(call("BlockGather4Trellis", feeds, constants, attributes))
    with pytest.raises(Exception, match="an index is out of range"):
        native.run(None, feeds)


HOSTILE: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "planes": ({"codes4": np.zeros((ROWS, 1, 2, 2, 1, 1), np.uint8)}, {}),
    "shifts": ({"shifts": np.zeros((1, 1), np.uint8)}, {}),
    "scale": ({"scale": np.zeros(3, np.float16)}, {}),
    "scale type": ({"scale": np.zeros(ROWS, np.int64)}, {}),
    "codes": ({}, {"codes": [1 << 60, 8, 16]}),
    "shift shape": ({}, {"shifts": [3, 1, 16]}),
    "matrix": ({}, {"matrix": [7, 16]}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    _, constants, attributes = table("4Trellis")
    feeds = {"indices": INDICES}
    model = call("BlockGather4Trellis", feeds, constants | HOSTILE[what][0], attributes | HOSTILE[what][1])
    with pytest.raises(Exception, match="BlockGather4Trellis: "):
        run(model, feeds)
