"""Products of codes with zero points and of int8 tables, few rows and many, on every kind of processor."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from passes.functions import both_matmul, decode_multiples, quantize_rows
from passes.lowerings.packing import pack_zeros
from tests.bct_onnx.kernels.calls import Array, call, run, session
from tests.bct_onnx.kernels.test_packed import FLOOR, SIZES, Weight, activation_error, rows


class Offset(Weight):
    """A weight of 4 bits whose blocks have zero points."""

    def __init__(self, k: int, n: int, block: int, seed: int = 0) -> None:
        """Make zero points of which products with codes are int8."""
        super().__init__(4, k, n, block, seed)
        numbers = np.random.default_rng(seed + 1)
        self.zeros = numbers.integers(-8, 8, (n, self.blocks)).astype(np.int8)
        far = 8 + np.abs(self.zeros.astype(np.int64) + 1)
        self.multiples = np.minimum(self.multiples, 127 // far).astype(np.uint8)
        self.zero_points = pack_zeros(self.zeros.T)

    @property
    def matrix(self) -> Array:
        """The int8 weight [k, n]."""
        return decode_multiples.reference(self.codes, self.multiples, self.zeros)[: self.k]

    def constants(self, nibbles: bool = True) -> dict[str, Array | TensorProto]:
        """Return the constant inputs of BothMatMulOffset4."""
        steps = np.arange(16)[None, None, :, None]
        pieces = (np.arange(256)[:, None] >> np.arange(0, 8, 4) & 15)[None, None]
        zeros, factors = steps.reshape(16, 1, 1, 1), steps.reshape(1, 16, 1, 1)
        table = ((pieces - zeros) * factors).astype(np.int8).reshape(-1, 2)
        spread = decode_multiples.spread(self.block // 2, zeros=True)
        return {**super().constants(nibbles), "table": table, "spread": spread, "zero_points": self.zero_points}

    def attributes(self, floor: float | None = None) -> dict[str, Any]:
        """Return the attributes of a call."""
        return {**super().attributes(floor), "count": [self.blocks]}


class Table(Weight):
    """Int8 rows [n, k], a scale each."""

    def __init__(self, k: int, n: int, block: int, seed: int = 0) -> None:
        """Make rows of all int8 numbers."""
        super().__init__(8, k, n, block, seed)
        self.multiples[:] = 1
        self.packed = np.random.default_rng(seed).integers(-128, 128, (n, k)).astype(np.int8)

    @property
    def matrix(self) -> Array:
        """The int8 weight [k, n]."""
        return self.packed.T

    def constants(self, nibbles: bool = True) -> dict[str, Array | TensorProto]:  # noqa: ARG002
        """Return the constant inputs of BothMatMulTable, which has no multiples."""
        return {"table": self.packed, "column_scale": self.column_scale}

    def attributes(self, floor: float | None = None) -> dict[str, Any]:
        """Return the attributes of a call."""
        more = {} if floor is None else quantize_rows.attributes(floor)
        sizes = {"K": self.k, "N": self.n, "bits": 8, "block_size": self.block, "tensor_scale": 0.25}
        blocks = [self.n, self.blocks]
        return {**more, **sizes, "blocks": blocks, "byte_blocks": [*blocks, self.block]}


def product(weight: Weight, x: Array, many: bool, floor: float | None = None, **keywords: Any) -> tuple[Any, Any]:
    """Return the model of a call and what it is fed."""
    name = f"BothMatMul{'Table' if isinstance(weight, Table) else 'Offset4'}{'' if floor is None else 'Above'}"
    feeds = {"x": x, "many": np.array(many)}
    return call(name, feeds, weight.constants(**keywords), weight.attributes(floor)), feeds


def nbits_offset(weight: Offset, x: Array, **changed: Any) -> onnx.ModelProto:
    """Return the model of a call of NBitsMatMulOffset."""
    scale = decode_multiples.scales(weight.multiples, weight.column_scale, 0.25)
    constants = {"codes": weight.packed, "scale": scale, "zero_points": weight.zero_points}
    attributes = {"K": weight.k, "N": weight.n, "bits": 4, "block_size": weight.block}
    for key in changed.keys() & constants.keys():
        constants[key] = changed.pop(key)
    return call("NBitsMatMulOffset", {"x": x}, constants, attributes | changed)


def bound(x: Array, weight: Weight) -> Array:
    """Return how far a product may be off: codes and zero points are multiplied apart, 128 units at most, in floats."""
    units = 128 * weight.column_scale.astype(np.float32) * np.float32(0.25)
    found: Array = activation_error(x, weight) + 1e-6 * np.abs(x).sum(-1, keepdims=True) * units
    return found


KINDS = (Offset, Table)
# Rows of tables are whole blocks. Lengths of several chunks, ends within one, and odd numbers of blocks.
LARGER = ((768, 37, 32), (640, 80, 128), (2112, 33, 16), (416, 40, 32))


def sizes(kind: type[Weight]) -> list[tuple[int, int, int]]:
    return [(k - k % block if kind is Table else k, n, block) for k, n, block in (*SIZES, *LARGER)]


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("floor", [None, FLOOR])
def test_many_rows_are_the_reference_to_the_bit(kind, floor):
    for k, n, block in sizes(kind):
        weight, x = kind(k, n, block, seed=n), np.maximum(rows(2, 9, k), -10 if floor is None else floor)
        scale = weight.column_scale.astype(np.float32) * np.float32(0.25)
        expected = both_matmul.reference(x, weight.matrix, scale, floor)
        model, feeds = product(weight, x, True, floor, nibbles=n % 3 > 0)
        assert np.array_equal(run(model, feeds)[0], expected)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_keep_the_bound_and_are_their_own(kind):
    for k, n, block in sizes(kind):
        weight = kind(k, n, block, seed=n)
        native = session(product(weight, rows(1, k), False, nibbles=n % 3 > 0)[0])
        for count in (1, 2, 3, 4, 7):
            x = rows(count, k, seed=count)
            x[:, : block // 2] *= 100
            (y,) = native.run(None, {"x": x, "many": np.array(False)})
            exact = x.astype(np.float64) @ (weight.matrix * (weight.column_scale.astype(np.float64) * 0.25))
            assert np.all(np.abs(y - exact) <= bound(x, weight))
            (last,) = native.run(None, {"x": x[-1:], "many": np.array(False)})
            assert np.array_equal(last, y[-1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("many", [True, False])
def test_bodies_say_the_same(kind, many):
    weight, x = kind(160, 48, 32), rows(1, 3, 160)
    model, feeds = product(weight, x, many)
    (native,), (body,) = run(model, feeds), run(model, feeds, native=False)
    if many:
        assert np.array_equal(native, body)
    else:
        assert np.all(np.abs(native - body) <= 2 * bound(x, weight))


@given(
    st.integers(0, 40),
    st.integers(1, 400),
    st.integers(1, 140),
    st.sampled_from((16, 32, 64, 128, 256)),
    st.integers(0, 99),
)
@example(1, 4096, 3, 32, 0)
@settings(max_examples=40, deadline=None)
def test_weights_of_any_shape(m, k, n, block, seed):
    weight, x = Offset(k, n, block, seed), rows(m, k, seed=seed)
    (few,) = run(nbits_offset(weight, x), {"x": x})
    exact = x.astype(np.float64) @ (weight.matrix * (weight.column_scale.astype(np.float64) * 0.25))
    assert few.shape == (m, n)
    assert np.all(np.abs(few - exact) <= bound(x, weight))
    model, feeds = product(weight, x, True)
    scale = weight.column_scale.astype(np.float32) * np.float32(0.25)
    assert np.array_equal(run(model, feeds)[0], both_matmul.reference(x, weight.matrix, scale))


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("many", [True, False])
def test_rows_without_numbers_and_rows_of_none(kind, many):
    weight, x = kind(64, 20, 32), rows(5, 64)
    x[0], x[1, 3], x[2, 40] = 0, np.nan, np.inf
    x[3] *= np.float32(1e-42)
    model, feeds = product(weight, x, many)
    native = session(model)
    (y,) = native.run(None, feeds)
    assert np.array_equal(y[0], np.zeros(20))
    assert not np.isfinite(y[1:3]).any()
    assert np.abs(y[3]).max() < 1e-30
    assert np.array_equal(native.run(None, {**feeds, "x": x[4:]})[0], y[4:])
    assert native.run(None, {**feeds, "x": x[:0]})[0].shape == (0, 20)


def test_weights_that_are_fed_are_taken():
    for kind in KINDS:
        weight, x = kind(96, 70, 32), rows(9, 96)
        feeds = {"x": x, "many": np.array(True), **weight.constants(nibbles=False)}
        name = "BothMatMulTable" if kind is Table else "BothMatMulOffset4"
        (y,) = run(call(name, feeds, {}, weight.attributes()), feeds)
        scale = weight.column_scale.astype(np.float32) * np.float32(0.25)
        assert np.array_equal(y, both_matmul.reference(x, weight.matrix, scale))


def test_products_of_codes_with_zero_points_say_what_their_body_does():
    weight, x = Offset(160, 48, 32), rows(3, 160)
    model = nbits_offset(weight, x)
    (native,), (body,) = run(model, {"x": x}), run(model, {"x": x}, native=False)
    assert np.all(np.abs(native - body) <= 2 * bound(x, weight))


HOSTILE: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "codes": ({"codes": np.zeros((20, 2, 15), np.uint8)}, {}),
    "zero points": ({"zero_points": np.zeros((20, 2), np.uint8)}, {}),
    "multiples": ({"multiples": np.ones((20, 3), np.uint8)}, {}),
    "multiples type": ({"multiples": np.ones((20, 2), np.int64)}, {}),
    "scale": ({"column_scale": np.ones(19, np.float32)}, {}),
    "bits": ({}, {"bits": 8}),
    "block": ({}, {"block_size": 0}),
    "K": ({}, {"K": -64}),
    "huge": ({}, {"K": 1 << 62, "N": 1 << 62}),
    "N": ({}, {"N": 21}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    weight, feeds = Offset(64, 20, 32), {"x": rows(2, 64), "many": np.array(True)}
    constants = {**weight.constants(nibbles=False), **HOSTILE[what][0]}
    with pytest.raises(Exception, match="BothMatMulOffset4: "):
        run(call("BothMatMulOffset4", feeds, constants, {**weight.attributes(), **HOSTILE[what][1]}), feeds)


HOSTILE_TABLE: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "table": ({"table": np.zeros((20, 63), np.int8)}, {}),
    "ends within a block": ({"table": np.zeros((20, 72), np.int8)}, {"K": 72}),
    "scale": ({"column_scale": np.ones(21, np.float16)}, {}),
    "bits": ({}, {"bits": 4}),
    "N": ({}, {"N": 1 << 40}),
}


@pytest.mark.parametrize("what", HOSTILE_TABLE)
def test_a_table_that_does_not_fit_is_an_error(what):
    weight, feeds = Table(64, 20, 32), {"x": rows(2, 64), "many": np.array(False)}
    constants = {**weight.constants(), **HOSTILE_TABLE[what][0]}
    with pytest.raises(Exception, match="BothMatMulTable: "):
        run(call("BothMatMulTable", feeds, constants, {**weight.attributes(), **HOSTILE_TABLE[what][1]}), feeds)


HOSTILE_CODES: dict[str, dict[str, Any]] = {
    "codes": {"codes": np.zeros((20, 2, 31), np.uint8)},
    "scale": {"scale": np.ones((20, 1), np.float32)},
    "zero points": {"zero_points": np.ones((19, 1), np.uint8)},
    "bits": {"bits": 2, "codes": np.zeros((20, 2, 8), np.uint8)},
    "block": {"block_size": 24},
}


@pytest.mark.parametrize("what", HOSTILE_CODES)
def test_codes_that_do_not_fit_are_an_error(what):
    weight, x = Offset(64, 20, 32), rows(2, 64)
    with pytest.raises(Exception, match="NBitsMatMulOffset: "):
        run(nbits_offset(weight, x, **HOSTILE_CODES[what]), {"x": x})


def test_rows_that_do_not_fit_are_an_error():
    native = session(nbits_offset(Offset(64, 20, 32), rows(2, 64)))
    with pytest.raises(Exception, match="x and the weight differ in K"):
        native.run(None, {"x": rows(2, 65)})
