"""Blocks with powers of two for all scales: products of the decoded weight, in the session and in numpy."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
from tests.helpers import activation_bound, decoded, model, nodes, plain, random, rewrite, run

TEXT = "g (float[m, k] x) => (float[m, n] y) { y = MatMul(x, w) }"
WEIGHT = random(96, 40, seed=1) * np.exp2(np.linspace(-9, 9, 40, dtype=np.float32))
ONLY = {"operators": frozenset({"matmul"}), "lowering": "shifts"}


def scales(proto: onnx.ModelProto) -> np.ndarray:
    """Return the block scales that the product reads, as the session computes them."""
    proto = plain(proto)
    (product,) = [node for node in nodes(proto.graph) if node.op_type == "MatMulNBits"]
    shown = onnx.ModelProto.FromString(proto.SerializeToString())
    shown.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info(product.input[2], onnx.TensorProto.FLOAT, None)
    )
    return run(shown, x=np.zeros((1, len(WEIGHT)), np.float32))[-1]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_scale_in_the_session_is_a_power_of_two(tmp_path, bits):
    scale = scales(rewrite(model(TEXT, w=WEIGHT), tmp_path, bits=bits, **ONLY).proto)
    assert scale.shape == (40, 3)
    assert (np.frexp(scale)[0] == 0.5).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_product_is_that_of_the_decoded_weight(tmp_path, bits):
    result = rewrite(model(TEXT, w=WEIGHT), tmp_path, bits=bits, **ONLY)
    x, weight = random(5, 96, seed=2), decoded(WEIGHT, bits, 32, "shifts")
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, x=x)
        assert (np.abs(y - x @ weight) <= activation_bound(x, weight) + 1e-6).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_block_errs_by_at_most_half_the_shift_that_holds_it(bits):
    tensor = encode(WEIGHT, BlockFormat.shifts_only(bits, 32))
    # Below twice the peak over the largest code; a smaller shift that clips is taken where its squared error is less.
    peaks = np.abs(WEIGHT.reshape(3, 32, 40)).max(1)
    error = np.sqrt(np.square(decode(tensor) - WEIGHT).reshape(3, 32, 40).mean(1))
    assert (error <= peaks / tensor.format.high * (1 + 1e-6)).all()


def test_shifts_reach_blocks_far_below_the_largest():
    weight = WEIGHT.copy()
    weight[32:64] *= np.float32(2**-14)
    tensor = encode(weight, BlockFormat.shifts_only(8, 32))
    part = np.s_[32:64]
    assert np.linalg.norm((decode(tensor) - weight)[part]) < 0.01 * np.linalg.norm(weight[part])


def test_a_table_is_looked_up_in_the_same_codes(tmp_path):
    table = random(128, 64, seed=3)
    text = "g (int64[m] i) => (float[m, k] y) { y = Gather(t, i) }"
    result = rewrite(model(text, t=table), tmp_path, operators=frozenset({"gather"}), lowering="shifts", bits=4)
    (y,) = run(result.proto, i=np.array([0, 127, 5]))
    np.testing.assert_array_equal(y, decoded(table.T, 4, 32, "shifts").T[[0, 127, 5]])


@pytest.mark.parametrize("operator", ["constant", "layer_normalization"])
def test_other_constants_have_shifts_alone_where_they_are_asked_for(tmp_path, operator):
    text = "g (float[m, 64] x) => (float[m, 64] y) { h = Mul(x, w) s = LayerNormalization(h, a, b) y = Add(s, c) }"
    weights = {"w": random(1, 64), "a": random(64), "b": random(64), "c": random(48, 64)}
    result = rewrite(model(text, **weights), tmp_path, operators=frozenset({operator}), scales="shift")
    stored = {t.name: numpy_helper.to_array(t) for t in result.proto.graph.initializer}
    halves = [value for name, value in stored.items() if name.endswith(".scale")]
    assert halves
    assert all((np.frexp(value.astype(np.float32))[0] == 0.5).all() for value in halves)
