"""NBitsMatMul and its form with exponents: products of weights in packed codes, on every kind of processor."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from passes.formats.planes import pack_nibbles
from passes.functions import block_scales, nbits
from tests.bct_onnx.kernels.calls import Array, call, run, session
from tests.bct_onnx.kernels.test_packed import Weight, rows

SIZES = ((16, 1, 16), (100, 7, 32), (48, 66, 16), (300, 130, 64), (1024, 70, 16))
UNIT = 0.25


class Shifted(Weight):
    """A weight whose blocks have exponents of two, or of a root of two."""

    def __init__(self, bits: int, k: int, n: int, block: int, seed: int = 0, step: float = 1.0) -> None:
        """Make exponents from 0 to 15, and scales of columns."""
        super().__init__(bits, k, n, block, seed)
        numbers = np.random.default_rng(seed + 1)
        self.step = step
        self.exponents = numbers.integers(0, 16, (n, self.blocks)).astype(np.uint8)
        self.column_scale = (2.0 ** numbers.integers(-8, 0, (n, 1))).astype(np.float16)

    @property
    def floats(self) -> Array:
        """The float weight [k, n]."""
        scale = block_scales.reference(self.exponents, self.column_scale, self.step, UNIT)
        return nbits.reference(self.codes, scale)[:, : self.k].astype(np.float64).T

    def bound(self, x: Array) -> Array:
        """Return how far a product may be off: 1/254 of the peaks of x's blocks, and the rounding of sums."""
        blocks = np.zeros((*x.shape[:-1], self.blocks * self.block), np.float64)
        blocks[..., : self.k] = x
        peaks = np.abs(blocks.reshape(*x.shape[:-1], self.blocks, self.block)).max(-1).repeat(self.block, -1)
        found: Array = (peaks[..., : self.k] / 254 * 1.0001 + 1e-5 * np.abs(x)) @ np.abs(self.floats)
        return found

    def model(self, x: Array, nibbles: bool = True, **changed: Any) -> onnx.ModelProto:
        """Return the model of a call."""
        constants: dict[str, Array | TensorProto] = {
            "codes": self.packed,
            "exponents": self.exponents,
            "column_scale": self.column_scale,
        }
        if nibbles:
            flat = np.append(self.exponents.ravel(), np.zeros(self.exponents.size % 2, np.uint8))
            shape = self.exponents.shape
            constants["exponents"] = onnx.helper.make_tensor(
                "exponents", TensorProto.UINT4, shape, pack_nibbles(flat).tobytes(), raw=True
            )
        attributes = {"K": self.k, "N": self.n, "bits": self.bits, "block_size": self.block}
        attributes |= {"step": self.step, "tensor_scale": UNIT}
        for key in changed.keys() & constants.keys():
            constants[key] = changed.pop(key)
        return call("NBitsMatMulScales", {"x": x}, constants, attributes | changed)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("bits", nbits.WIDTHS)
@pytest.mark.parametrize("step", [1.0, 0.25])
def test_products_keep_the_bound_and_rows_are_their_own(bits, step):
    for k, n, block in SIZES:
        weight = Shifted(bits, k, n, block, seed=n, step=step)
        x = rows(3, 11, k, seed=k)
        x[..., : block // 2] *= 100
        (y,) = run(weight.model(x), {"x": x})
        assert np.all(np.abs(y - x @ weight.floats) <= weight.bound(x))
        one = x[1:2, :5]
        (again,) = run(weight.model(one, nibbles=False), {"x": one})
        assert np.array_equal(again, y[1:2, :5])


@pytest.mark.usefixtures("processor")
def test_steps_of_one_row_do_not_depend_on_the_batch():
    weight, x = Shifted(4, 96, 40, 32), rows(9, 1, 96)
    (y,) = run(weight.model(x), {"x": x})
    assert np.all(np.abs(y - x @ weight.floats) <= weight.bound(x))
    for row in range(9):
        one = x[row : row + 1]
        assert np.array_equal(run(weight.model(one), {"x": one})[0], y[row : row + 1])


@pytest.mark.parametrize("bits", nbits.WIDTHS)
def test_bodies_say_the_same(bits):
    weight, x = Shifted(bits, 160, 48, 32), rows(2, 7, 160)
    model = weight.model(x)
    (native,), (body,) = run(model, {"x": x}), run(model, {"x": x}, native=False)
    assert np.all(np.abs(native - body) <= 2 * weight.bound(x))


@given(
    st.integers(0, 70),
    st.integers(1, 300),
    st.integers(1, 140),
    st.sampled_from((16, 32, 64, 128, 256)),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_weights_of_any_shape(m, k, n, block, seed):
    weight = Shifted((2, 4, 8)[seed % 3], k, n, block, seed)
    x = rows(m, k, seed=seed)
    (y,) = run(weight.model(x), {"x": x})
    assert y.shape == (m, n)
    assert np.all(np.abs(y - x @ weight.floats) <= weight.bound(x))


@pytest.mark.usefixtures("processor")
def test_rows_of_extreme_numbers():
    weight = Shifted(8, 64, 20, 16)
    x = rows(7, 64)
    x[0], x[1, 3], x[2, 40], x[3, 0] = 0, np.nan, np.inf, -np.inf
    x[4] *= np.float32(1e30)
    x[5] *= np.float32(1e-30)
    (y,) = run(weight.model(x), {"x": x})
    assert np.array_equal(y[0], np.zeros(20))
    assert not np.isfinite(y[1:4]).any()
    for row in (4, 5, 6):
        assert np.all(np.abs(y[row] - x[row] @ weight.floats) <= weight.bound(x[row]))


@pytest.mark.usefixtures("processor")
def test_the_largest_and_the_smallest_floats():
    weight = Shifted(8, 32, 20, 16)
    weight.exponents[:] = 0
    weight.column_scale[:] = 2.0**-10
    x = np.zeros((3, 32), np.float32)
    x[0, 1], x[1, 2], x[2] = np.finfo(np.float32).max, 2.0**126, 1e-44
    (y,) = run(weight.model(x), {"x": x})
    with np.errstate(over="ignore"):
        assert np.all(np.abs(y[:2] - x[:2] @ weight.floats) <= weight.bound(x[:2]))
    assert np.abs(y[2]).max() < 1e-30


def test_codes_and_exponents_that_are_fed_are_taken():
    weight, x = Shifted(8, 64, 20, 32), rows(9, 64)
    feeds = {"x": x, "codes": weight.packed, "exponents": weight.exponents, "column_scale": weight.column_scale}
    attributes = {"K": 64, "N": 20, "bits": 8, "block_size": 32, "step": 1.0, "tensor_scale": UNIT}
    (y,) = run(call("NBitsMatMulScales", feeds, {}, attributes), feeds)
    assert np.all(np.abs(y - x @ weight.floats) <= weight.bound(x))


HOSTILE: dict[str, dict[str, Any]] = {
    "codes": {"codes": np.zeros((20, 2, 31), np.uint8)},
    "exponents": {"exponents": np.ones((20, 3), np.uint8)},
    "exponents type": {"exponents": np.ones((20, 2), np.int64)},
    "scale": {"column_scale": np.ones((19, 1), np.float32)},
    "scale type": {"column_scale": np.ones((20, 1), np.int32)},
    "bits": {"bits": 3},
    "block": {"block_size": 0},
    "wide block": {"block_size": 512},
    "K": {"K": -64},
    "huge": {"K": 1 << 62, "N": 1 << 62},
    "N": {"N": 21},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    weight, x = Shifted(8, 64, 20, 32), rows(2, 64)
    with pytest.raises(Exception, match="NBitsMatMulScales: "):
        run(weight.model(x, nibbles=False, **HOSTILE[what]), {"x": x})


def test_rows_that_do_not_fit_are_an_error():
    weight = Shifted(8, 64, 20, 32)
    native = session(weight.model(rows(2, 64)))
    with pytest.raises(Exception, match="x and the weight differ in K"):
        native.run(None, {"x": rows(2, 65)})


@pytest.mark.usefixtures("processor")
def test_exponents_too_far_apart_for_bfloat16_are_taken():
    weight, x = Shifted(8, 64, 20, 16), rows(4, 64)
    weight.exponents[:, 0] = 70
    weight.column_scale[:] = 2.0**-14
    (y,) = run(weight.model(x, nibbles=False), {"x": x})
    assert np.all(np.abs(y - x @ weight.floats) <= weight.bound(x))


@pytest.mark.usefixtures("processor")
def test_scales_of_nothing_give_nothing():
    weight, x = Shifted(8, 64, 20, 16), rows(4, 64)
    weight.column_scale[3] = 0
    (y,) = run(weight.model(x), {"x": x})
    assert np.array_equal(y[:, 3], np.zeros(4))
    assert np.all(np.abs(y - x @ weight.floats) <= weight.bound(x))
