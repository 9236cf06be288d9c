"""BothMatMul and NBitsMatMul: codes as they lie in the file, few rows and many, on every kind of processor."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from passes.formats.block import BlockFormat
from passes.formats.planes import pack_nibbles
from passes.functions import both_matmul, decode_multiples, nbits, quantize_rows
from passes.lowerings.packing import pack
from tests.bct_onnx.kernels.calls import Array, call, run, session

FLOOR = -0.17


class Weight:
    """Random codes [n, blocks, block], multiples [n, blocks] and scales, as files have them."""

    def __init__(self, bits: int, k: int, n: int, block: int, seed: int = 0) -> None:
        """Make codes up to k, zeros behind."""
        numbers = np.random.default_rng(seed)
        self.bits, self.k, self.n, self.block, self.blocks = bits, k, n, block, -(-k // block)
        top = 1 << (bits - 1)
        codes = numbers.integers(-top, top, (n, self.blocks * block)).astype(np.int8)
        codes[:, k:] = 0
        self.codes = codes.reshape(n, self.blocks, block)
        high = 16 if bits < 8 else 2
        self.multiples = numbers.integers(1, high, (n, self.blocks)).astype(np.uint8)
        self.column_scale = (numbers.random(n) + 0.1).astype(np.float16)
        fmt = BlockFormat.multiples(bits, block)
        self.packed = pack(np.ascontiguousarray(self.codes.transpose(1, 2, 0)), fmt, 1)

    @property
    def matrix(self) -> Array:
        """The int8 weight [k, n]."""
        return decode_multiples.reference(self.codes, self.multiples)[: self.k]

    def constants(self, nibbles: bool = True) -> dict[str, Array | TensorProto]:
        """Return the constant inputs of BothMatMul."""
        found: dict[str, Array | TensorProto] = {"codes": self.packed, "turn": np.zeros(1, np.float32)}
        found["column_scale"] = self.column_scale
        if self.bits == 8:
            return found
        found["multiples"] = self.multiples
        if nibbles:
            flat = np.append(self.multiples.ravel(), np.zeros(self.multiples.size % 2, np.uint8))
            raw, shape = pack_nibbles(flat).tobytes(), self.multiples.shape
            found["multiples"] = onnx.helper.make_tensor("multiples", TensorProto.UINT4, shape, raw, raw=True)
        numbers = np.arange(256)[:, None] >> np.arange(0, 8, self.bits) & ((1 << self.bits) - 1)
        steps = numbers - (1 << (self.bits - 1))
        table = (np.arange(16)[:, None, None] * steps).astype(np.int8)
        spread = decode_multiples.spread(self.block * self.bits // 8)
        return {**found, "table": table.reshape(16 * 256, -1), "spread": spread}

    def attributes(self, floor: float | None = None) -> dict[str, Any]:
        """Return the attributes of a call."""
        more = {} if floor is None else quantize_rows.attributes(floor)
        sizes = {"K": self.k, "N": self.n, "bits": self.bits, "block_size": self.block, "depth": [self.k]}
        if self.bits == 8:
            sizes["blocks"] = [self.n, self.blocks]
        return {**more, **sizes, "matrix": [self.blocks * self.block, self.n], "tensor_scale": 0.25}


def both(weight: Weight, x: Array, many: bool, floor: float | None = None, **keywords: Any) -> tuple[Any, Any]:
    """Return the model of a call and what it is fed."""
    name = f"BothMatMul{weight.bits}{'' if floor is None else 'Above'}"
    feeds = {"x": x, "many": np.array(many)}
    return call(name, feeds, weight.constants(**keywords), weight.attributes(floor)), feeds


def rows(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def activation_error(x: Array, weight: Weight) -> Array:
    """Return how far a product may be off where x errs by 1/254 of its block's peak."""
    blocks = np.zeros((*x.shape[:-1], weight.blocks * weight.block), np.float32)
    blocks[..., : weight.k] = x
    peaks = np.abs(blocks.reshape(*x.shape[:-1], weight.blocks, weight.block)).max(-1).repeat(weight.block, -1)
    floats = np.abs(weight.matrix) * (weight.column_scale.astype(np.float32) * 0.25)
    return peaks[..., : weight.k] / 254 @ floats * np.float32(1.001) + 1e-5 * np.abs(x) @ floats


SIZES = ((16, 1, 16), (100, 7, 32), (128, 66, 128), (300, 130, 64), (520, 9, 256), (1024, 70, 16))


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("bits", nbits.WIDTHS)
@pytest.mark.parametrize("floor", [None, FLOOR])
def test_many_rows_are_the_reference_to_the_bit(bits, floor):
    for k, n, block in SIZES:
        weight, x = Weight(bits, k, n, block, seed=n), np.maximum(rows(2, 9, k), -10 if floor is None else floor)
        expected = both_matmul.reference(
            x, weight.matrix, weight.column_scale.astype(np.float32) * np.float32(0.25), floor
        )
        for nibbles in (True, False):
            model, feeds = both(weight, x, True, floor, nibbles=nibbles)
            assert np.array_equal(run(model, feeds)[0], expected)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("bits", nbits.WIDTHS)
def test_few_rows_keep_the_bound(bits):
    for k, n, block in SIZES:
        weight = Weight(bits, k, n, block, seed=n)
        for count in (1, 2, 3, 4, 7):
            x = rows(count, k, seed=count)
            x[:, : block // 2] *= 100
            model, feeds = both(weight, x, False)
            (y,) = run(model, feeds)
            exact = x.astype(np.float64) @ (weight.matrix * (weight.column_scale.astype(np.float64) * 0.25))
            error = np.abs(y - exact)
            assert np.all(error <= activation_error(x, weight))
            for row in range(count):
                model, feeds = both(weight, x[row : row + 1], False)
                assert np.array_equal(run(model, feeds)[0], y[row : row + 1])


@pytest.mark.parametrize("bits", nbits.WIDTHS)
@pytest.mark.parametrize("many", [True, False])
def test_bodies_say_the_same(bits, many):
    weight, x = Weight(bits, 160, 48, 32), rows(1, 3, 160)
    model, feeds = both(weight, x, many)
    (native,), (body,) = run(model, feeds), run(model, feeds, native=False)
    if many:
        assert np.array_equal(native, body)
    else:
        assert np.all(np.abs(native - body) <= 2 * activation_error(x, weight))


@given(
    st.integers(0, 6),
    st.integers(1, 300),
    st.integers(1, 140),
    st.sampled_from((16, 32, 64, 128, 256)),
    st.integers(0, 99),
)
@example(1, 4096, 3, 128, 0)
@settings(max_examples=30)
def test_packed_codes_of_any_shape(m, k, n, block, seed):
    weight = Weight((2, 4, 8)[seed % 3], k, n, block, seed)
    scale = np.random.default_rng(seed).random((n, weight.blocks), np.float32)
    attributes = {"K": k, "N": n, "bits": weight.bits, "block_size": block}
    feeds = {"x": rows(m, k, seed=seed)}
    (y,) = run(call("NBitsMatMul", feeds, {"codes": weight.packed, "scale": scale}, attributes), feeds)
    floats = nbits.reference(weight.codes, scale)[:, :k].astype(np.float64)
    peak = np.abs(feeds["x"]).max(initial=0)
    assert y.shape == (m, n)
    assert np.all(np.abs(y - feeds["x"] @ floats.T) <= peak * np.abs(floats).sum(1) / 250 + 1e-6)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("many", [True, False])
def test_rows_without_numbers_and_rows_of_none(many):
    weight = Weight(4, 64, 20, 32)
    x = rows(5, 64)
    x[0], x[1, 3], x[2, 40] = 0, np.nan, np.inf
    x[3] *= np.float32(1e-42)
    model, feeds = both(weight, x, many)
    (y,) = run(model, feeds)
    assert np.array_equal(y[0], np.zeros(20))
    assert not np.isfinite(y[1:3]).any()
    assert np.abs(y[3]).max() < 1e-30
    model, feeds = both(weight, x[4:], many)
    assert np.array_equal(run(model, feeds)[0], y[4:])
    model, feeds = both(weight, x[:0], many)
    assert run(model, feeds)[0].shape == (0, 20)


HOSTILE: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "codes": ({"codes": np.zeros((20, 2, 15), np.uint8)}, {}),
    "multiples": ({"multiples": np.ones((20, 3), np.uint8)}, {}),
    "multiples type": ({"multiples": np.ones((20, 2), np.int64)}, {}),
    "scale": ({"column_scale": np.ones(19, np.float32)}, {}),
    "bits": ({}, {"bits": 8}),
    "bits of none": ({}, {"bits": 3}),
    "block": ({}, {"block_size": 0}),
    "wide block": ({}, {"block_size": 512}),
    "K": ({}, {"K": -64}),
    "huge": ({}, {"K": 1 << 62, "N": 1 << 62}),
    "N": ({}, {"N": 21}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    weight, feeds = Weight(4, 64, 20, 32), {"x": rows(2, 64), "many": np.array(True)}
    constants = {**weight.constants(nibbles=False), **HOSTILE[what][0]}
    with pytest.raises(Exception, match="BothMatMul4: "):
        run(call("BothMatMul4", feeds, constants, {**weight.attributes(), **HOSTILE[what][1]}), feeds)


def test_rows_that_do_not_fit_are_an_error():
    model, feeds = both(Weight(4, 64, 20, 32), rows(2, 64), True)
    native = session(model)
    with pytest.raises(Exception, match="x and the weight differ in K"):
        native.run(None, {**feeds, "x": rows(2, 65)})
