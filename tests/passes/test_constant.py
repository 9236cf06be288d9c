"""Float constants that nothing multiplies in integers: smaller in the file, the same floats within a stated error."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
from passes.written import WORST, is_near
from tests.helpers import as_constant_nodes, constant_nodes, model, optimized, random, rewrite, run

ADD = "g (float[%s] x) => (float[%s] y) { y = Add(x, c) }"


def add(values: np.ndarray, kind: str = "float") -> onnx.ModelProto:
    dims = ", ".join(map(str, values.shape))
    return model((ADD % (dims, dims)).replace("float", kind), c=values)


def restored(proto: onnx.ModelProto, values: np.ndarray, optimize: bool = False) -> np.ndarray:
    return run(proto, optimize, x=np.zeros_like(values))[0]


@pytest.mark.parametrize("constants", ["initializers", "nodes"])
@pytest.mark.parametrize("shape", [(1500,), (40, 100), (100, 33), (7, 13, 17), (1, 1, 64, 64), (2, 1025)], ids=str)
def test_large_constants_become_codes_of_eight_bits(tmp_path, shape, constants):
    values = random(*shape, seed=1)
    source = add(values)
    result = rewrite(as_constant_nodes(source) if constants == "nodes" else source, tmp_path, bits=4)
    (tensor,) = result.reports["constant"].tensors
    assert (tensor.name, tensor.shape, tensor.bits, tensor.lowering) == ("c", shape, 8, "stored")
    for optimize in (False, True):
        answer = restored(result.proto, values, optimize)
        assert answer.shape == shape
        # Half a step of a block whose scale is within 2^(1/4) of what its peak needs; clipping loses as much at most.
        assert np.abs(answer - values).max() <= 1.2 * np.abs(values).max() / 127
    assert constant_nodes(optimized(result.proto, tmp_path)) == []
    assert len(result.proto.SerializeToString()) < 0.6 * len(source.SerializeToString())


def test_rows_are_encoded_as_the_format_says(tmp_path):
    values = random(40, 100, seed=2)
    result = rewrite(add(values), tmp_path)
    expected = decode(encode(values.T, BlockFormat.fine(8, 32))).T
    np.testing.assert_allclose(restored(result.proto, values), expected, rtol=4e-7)


@pytest.mark.parametrize("shape", [(96, 64), (1, 200, 70), (2, 3, 20, 64), (500, 3)], ids=str)
def test_small_channels_of_a_table_keep_their_digits_beside_large_ones(tmp_path, shape):
    values = random(*shape, seed=8) * np.logspace(0, -3, shape[-1], dtype=np.float32)
    answer = restored(rewrite(add(values), tmp_path).proto, values)
    axes = tuple(range(len(shape) - 1))
    # Two steps of a channel, with what clipping its largest value may lose.
    assert (np.abs(answer - values).max(axis=axes) <= 2 * np.abs(values).max(axis=axes) / 127).all()


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 8])
def test_the_weight_of_a_convolution_bears_the_requested_width(tmp_path, bits):
    kernel = random(16, 3, 5, 7, seed=3)
    text = "g (float[1, 3, 9, 9] x) => (float[1, 16, 5, 3] y) { y = Conv(x, c) }"
    result = rewrite(model(text, c=kernel), tmp_path, bits=bits)
    (tensor,) = result.reports["constant"].tensors
    assert tensor.bits == bits
    values = decode(encode(kernel.reshape(16, -1).T, BlockFormat.fine(bits, 32))).T.reshape(kernel.shape)
    x = random(1, 3, 9, 9, seed=4)
    reference = run(model(text, c=values), x=x)[0]
    np.testing.assert_allclose(run(result.proto, x=x)[0], reference, atol=1e-5)
    assert constant_nodes(optimized(result.proto, tmp_path)) == []


def test_small_constants_become_halves(tmp_path):
    values = random(300, seed=5)
    result = rewrite(add(values), tmp_path)
    (tensor,) = result.reports["constant"].tensors
    assert (tensor.lowering, tensor.bits, tensor.bytes_after) == ("half", 16, 600)
    np.testing.assert_array_equal(restored(result.proto, values), values.astype(np.float16).astype(np.float32))


def test_tiny_constants_stay(tmp_path):
    values = random(63, seed=6)
    assert rewrite(add(values), tmp_path).replaced == {}


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_float_types(tmp_path, kind, dtype):
    values = random(60, 64, seed=7).astype(dtype)
    result = rewrite(add(values, kind), tmp_path)
    assert result.replaced == {"constant": 1}
    answer = restored(result.proto, values)
    assert answer.dtype == dtype
    assert np.abs(answer - values).max() <= 1.2 * np.abs(values).max() / 127


EXACT = {
    "c is a ramp: positions or frequencies are kept exact": np.linspace(0, 1, 2000, dtype=np.float32),
    "c holds NaN or infinity": np.where(np.arange(64) == 7, np.nan, random(64, 64)).astype(np.float32),
    "c holds values beyond 65504: a mask": random(64, 64) * np.float32(1e7),
    "c holds whole numbers beyond 16 bits": np.rint(random(64, 64) * 8e6),
    "c holds numbers that float16 does not": random(100) * np.float32(1e-8),
}


@pytest.mark.parametrize("reason", EXACT)
def test_what_is_kept_exact(tmp_path, reason):
    values = EXACT[reason]
    source = add(values)
    result = rewrite(source, tmp_path)
    assert list(result.skips("constant").values()) == [reason]
    np.testing.assert_array_equal(restored(result.proto, values), restored(source, values))


@pytest.mark.parametrize(
    "values",
    [10000.0 ** -np.linspace(0, 1, 1024), np.linspace(1, -1, 100), np.arange(64, 0, -1)],
    ids=["frequencies", "falling", "small"],
)
def test_ramps_are_kept_exact(tmp_path, values):
    values = values.astype(np.float32)
    result = rewrite(add(values), tmp_path)
    np.testing.assert_array_equal(restored(result.proto, values), values)


TRIANGLE = np.triu(np.ones((64, 64), bool), 1)
SLOPES = np.float32(2.0) ** -np.arange(1, 9, dtype=np.float32)[:, None, None]
DISTANCES = SLOPES * (np.arange(64)[None, :] - np.arange(64)[:, None]).astype(np.float32)
MASKS = [-1e4, -65504.0, float(np.finfo(np.float32).min), -np.inf]


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize(
    "values",
    [
        *[np.where(TRIANGLE, mask, 0) for mask in MASKS],
        *[np.where(TRIANGLE, mask, DISTANCES) for mask in MASKS],
        np.where(TRIANGLE, DISTANCES - 1e4, DISTANCES),
        np.where(TRIANGLE, -0.0, 0.0),
        np.where(TRIANGLE, np.nan, 0.1),
        np.arange(5000).reshape(50, 100) % 17,
        np.arange(-3000, 3000),
        np.random.default_rng(0).integers(-(2**15), 2**15, (70, 33)),
        np.random.default_rng(0).choice(random(200), (33, 70)),
    ],
    ids=[
        *[f"mask {mask:g}" for mask in MASKS],
        *[f"bias and mask {mask:g}" for mask in MASKS],
        *("bias under the mask", "signs of zero", "not a number", "few", "ramp", "sixteen bits", "few trained"),
    ],
)
def test_few_values_and_whole_numbers_come_back_to_the_bit(tmp_path, values, opset):
    values = np.asarray(values, np.float32)
    dims = ", ".join(map(str, values.shape))
    # Where has no arithmetic: what comes out is the constant.
    text = f"g (bool[1] x) => (float[{dims}] y) {{ y = Where(x, c, zero) }}"
    source = model(text, opset, c=values, zero=np.zeros(1, np.float32))
    result = rewrite(source, tmp_path, lowering="packed", block_size=32)
    (tensor,) = result.reports["constant"].tensors
    for optimize in (False, True):
        (answer,) = run(result.proto, optimize, x=np.array([True]))
        np.testing.assert_array_equal(bits(answer), bits(values))
    assert tensor.bytes_after <= 0.6 * values.nbytes
    assert tensor.sqnr_db == np.inf
    assert constant_nodes(optimized(result.proto, tmp_path)) == []


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("under", [0, 1], ids=["the mask alone", "what it is added to"])
def test_a_mask_costs_a_bias_in_the_same_constant_nothing(tmp_path, mask, under):
    bias = random(4, 64, 64, seed=3)
    values = np.where(TRIANGLE, np.float32(mask) + under * bias, bias)
    near = np.where(TRIANGLE, values, restored(rewrite(add(bias), tmp_path).proto, bias))
    result = rewrite(add(values), tmp_path)
    (tensor,) = result.reports["constant"].tensors
    assert tensor.bytes_after < values.nbytes / 2.9
    answer = restored(result.proto, values)
    if not under or not np.isfinite(mask):
        np.testing.assert_array_equal(answer[:, TRIANGLE], values[:, TRIANGLE])
    step = 2 * np.abs(bias).max() / 127
    assert np.abs(answer[:, ~TRIANGLE] - near[:, ~TRIANGLE]).max() <= step
    if np.isfinite(mask):
        np.testing.assert_allclose(answer, values, rtol=1e-6, atol=step)


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
@pytest.mark.parametrize("octaves", [10, 20])
def test_small_rows_and_columns_keep_their_digits(tmp_path, octaves, axis):
    sizes = np.float32(2.0) ** -np.random.default_rng(1).integers(0, octaves + 1, 96)
    values = random(96, 96, seed=4) * np.expand_dims(sizes.astype(np.float32), 1 - axis)
    result = rewrite(add(values), tmp_path)
    answer = restored(result.proto, values)
    peaks = np.abs(values).max(axis=1 - axis, keepdims=True)
    assert (np.abs(answer - values) <= WORST * peaks).all()
    assert result.reports["constant"].tensors[0].bits == 8


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(70, 70), (4, 64, 65), (1100,), (200, 9)]),
    st.integers(0, 60),
    st.booleans(),
)
def test_every_value_is_near_beside_its_own_row_and_column(tmp_path, seed, shape, octaves, sparse):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * 2.0 ** -rng.integers(0, octaves + 1, shape) * 2.0 ** rng.integers(-20, 10)
    values *= rng.random(shape) < (0.1 if sparse else 1)
    values = values.astype(np.float32)
    answer = restored(rewrite(add(values), tmp_path).proto, values)
    assert is_near(answer, values)


def test_what_is_divided_by_keeps_its_digits(tmp_path):
    """A variance of 1e-9 beside others of 1: as codes or float16 it would be none."""
    text = """g (float[n, 1100, 2] x) => (float[n, 1100, 2] y)
    { y = BatchNormalization<epsilon = 1e-12>(x, one, zero, zero, c) }"""
    variance = np.where(np.arange(1100) % 5, random(1100) ** 2 + 1, 1e-9).astype(np.float32)
    vectors = {"one": np.ones(1100, np.float32), "zero": np.zeros(1100, np.float32)}
    source, x = model(text, c=variance, **vectors), random(2, 1100, 2)
    (y,), (expected,) = run(rewrite(source, tmp_path).proto, x=x), run(source, x=x)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


ANGLES = {
    "repeated frequencies": ("m = Mul(x, c) y = Cos(m)", np.tile(10000.0 ** -np.linspace(0, 1, 64), 2)),
    "a product": ("m = MatMul(x, c) s = Mul(m, m) y = Sin(s)", random(128, 128)),
    "steps": ("m = Add(x, c) y = Floor(m)", random(128, 128)),
}


@pytest.mark.parametrize("name", ANGLES)
def test_what_angles_are_made_of_stays(tmp_path, name):
    text, values = ANGLES[name]
    values = values.astype(np.float32)
    source = model(f"g (float[128, 128] x) => (float[128, 128] y) {{ {text} }}", c=values)
    result = rewrite(source, tmp_path, operators=frozenset({"constant"}))
    assert result.replaced == {}
    assert "is what" in result.skips("constant").popitem()[1]


def test_the_weight_of_a_product_over_coordinates_stays(tmp_path):
    source = model("g (float[m, 2] x) => (float[m, 999] y) { y = MatMul(x, c) }", c=random(2, 999))
    x = random(5, 2, seed=1)
    np.testing.assert_array_equal(run(rewrite(source, tmp_path).proto, x=x)[0], run(source, x=x)[0])


def test_zeros_stay_zero(tmp_path):
    values = random(64, 64) * (np.arange(64) % 3 == 0)
    answer = restored(rewrite(add(values), tmp_path).proto, values)
    assert not answer[values == 0].any()


def test_a_constant_that_is_an_output_stays(tmp_path):
    text = "g (float[64, 64] x) => (float[64, 64] y, float[64, 64] c) { y = Add(x, c) }"
    values = random(64, 64)
    result = rewrite(model(text, c=values), tmp_path)
    np.testing.assert_array_equal(run(result.proto, x=values)[1], values)


def test_all_readers_read_the_restored_constant(tmp_path):
    text = "g (float[64, 64] x) => (float[64, 64] y) { u = Add(x, c) v = Mul(u, c) y = Sub(c, v) }"
    values, x = random(64, 64), random(64, 64, seed=8)
    result = rewrite(model(text, c=values), tmp_path)
    assert "c" not in {tensor.name for tensor in result.proto.graph.initializer}
    near = restored(rewrite(add(values), tmp_path).proto, values)
    np.testing.assert_allclose(run(result.proto, x=x)[0], near - (x + near) * near, atol=1e-6)


def test_constants_of_quantized_operators_stay(tmp_path):
    """Their codes and scales are another quantizer's: nothing of them is touched."""
    text = """g (float[m, 64] x) => (float[m, 64] y) {
        w = DequantizeLinear <axis = 1> (q, s) u = Transpose(w) z = Mul(x, s2) y = MatMul(z, u)
    }"""
    codes = np.random.default_rng(0).integers(-127, 128, (64, 64)).astype(np.int8)
    scales = np.abs(random(64, seed=9))
    result = rewrite(model(text, q=codes, s=scales, s2=scales + 1), tmp_path)
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.proto.graph.initializer}
    np.testing.assert_array_equal(kept["q"], codes)
    np.testing.assert_array_equal(kept["s"], scales)


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_older_opsets_have_whole_bytes(tmp_path, opset):
    """33 is no multiple of a block: the padding is cut off in the form of the opset."""
    values = random(100, 33, seed=10)
    source = add(values)
    source.opset_import[0].version, source.ir_version = opset, 4
    result = rewrite(source, tmp_path, lowering="packed", bits=4)
    assert result.replaced == {"constant": 1}
    assert result.proto.opset_import[0].version == opset
    assert np.abs(restored(result.proto, values) - values).max() <= 1.2 * np.abs(values).max() / 127
