"""Float constants that nothing multiplies in integers: smaller in the file, the same floats within a stated error."""

import numpy as np
import onnx
import pytest

from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
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
    "c is a ramp: positions or frequencies are kept exact": np.arange(2000, dtype=np.float32),
    "c holds NaN or infinity": np.where(np.triu(np.ones((64, 64), bool), 1), -np.inf, 0).astype(np.float32),
    "c holds values beyond 65504: a mask": np.where(
        np.triu(np.ones((64, 64), bool), 1), np.finfo(np.float32).min, 0
    ).astype(np.float32),
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


def test_a_mask_of_two_values_comes_back_exactly(tmp_path):
    """-10000 where a token may not look, as exporters with a finite mask write it."""
    values = np.where(np.triu(np.ones((64, 64), bool), 1), -10000, 0).astype(np.float32)
    result = rewrite(add(values), tmp_path)
    answer = restored(result.proto, values)
    assert not answer[values == 0].any()
    np.testing.assert_allclose(answer, values, rtol=1e-3)


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
