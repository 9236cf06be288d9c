"""Layer normalization with statistics in integers: the stated bound holds, edge rows are what float makes of them."""

import numpy as np
import onnx
import pytest

from passes.layer_normalization.form import normalized
from passes.layer_normalization.function import Rows
from passes.layer_normalization.function import bound as normalization_bound
from tests.helpers import constant_nodes, model, optimized, rewrite, run

OPERATORS = {"operators": frozenset({"layer_normalization"})}
# What float32 rounds, beside a bound.
ROUNDING = 1e-5
BLOCK = 32
# A scale of 1 errs by at most half a step of 127.
GAIN_ERROR = 1 / 254


def layer(width, epsilon, op="LayerNormalization"):
    """Return a normalization with scale 1."""
    text = f"g (float[a, b, {width}] x) => (float[a, b, {width}] y) {{ y = {op}<epsilon = {epsilon}>(x, gain) }}"
    return model(text, gain=np.ones(width, np.float32))


def inputs(width):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((2, 8, width))
    outlier = x * np.where(np.arange(width) == width // 2, 100, 1)
    rows = {
        "normal": x,
        "rows of very different sizes": x * np.exp(4 * rng.standard_normal((2, 8, 1))),
        "an outlier": outlier,
        "far from zero": x + 10,
        "very far from zero": x + 300,
        "tiny": x * 1e-6,
        "denormals": x * 1e-41,
        "zeros": x * 0,
        "all equal": x * 0 + 3.7,
    }
    return {name: values.astype(np.float32) for name, values in rows.items()}


@pytest.mark.parametrize("epsilon", [1e-5, 1e-12])
@pytest.mark.parametrize("width", [1, 2, 33, 64, 172, 8192])
@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_error_stays_within_the_bound(tmp_path, op, width, epsilon):
    rows = Rows(width, BLOCK, epsilon, centered=op == "LayerNormalization")
    result = rewrite(layer(width, epsilon, op), tmp_path, **OPERATORS)
    assert result.replaced == {"layer_normalization": 1}
    for x in inputs(width).values():
        expected, bound = normalized(x.astype(np.float64), epsilon, rows.centered), normalization_bound(x, rows)
        (y,) = run(result.proto, x=x)
        assert (np.abs(y - expected) <= bound + ROUNDING + np.abs(expected) * GAIN_ERROR).all()


@pytest.mark.parametrize("offset", [1e2, -1e3])
def test_what_a_row_has_in_common_costs_no_precision(tmp_path, offset):
    x = np.random.default_rng(6).standard_normal((32, 172)).astype(np.float32)
    result = rewrite(layer(172, 1e-5), tmp_path, **OPERATORS)
    (near,), (far,) = run(result.proto, x=x[None]), run(result.proto, x=x[None] + np.float32(offset))
    # What float32 keeps of a value beside the offset, doubled by a step of a code here and there.
    assert np.abs(near - normalized(x, 1e-5, True)).max() < 0.03
    assert np.abs(far - normalized(x, 1e-5, True)).max() < 0.03


@pytest.mark.parametrize("value", [0, 3.7, -1e4, 1e-3, 1e30, 1e-41])
@pytest.mark.parametrize("width", [1, 33, 8192])
def test_rows_of_equal_values_are_the_bias(tmp_path, width, value):
    source = model(
        f"g (float[a, {width}] x) => (float[a, {width}] y)"
        " { y = LayerNormalization<epsilon = 1e-12>(x, gain, zero) }",
        gain=np.ones(width, np.float32),
        zero=np.zeros(width, np.float32),
    )
    (y,) = run(rewrite(source, tmp_path, **OPERATORS).proto, x=np.full((3, width), value, np.float32))
    assert (y == 0).all()


def test_overflow_is_that_of_the_float_operator(tmp_path):
    x = (np.random.default_rng(1).standard_normal((1, 2, 64)) * 1e30).astype(np.float32)
    source = layer(64, 1e-5)
    (expected,), (y,) = run(source, x=x), run(rewrite(source, tmp_path, **OPERATORS).proto, x=x)
    assert np.isfinite(y).all() == np.isfinite(expected).all()


def test_scales_and_biases_of_one_width_are_stored_together(tmp_path):
    rng = np.random.default_rng(2)
    gains = {f"{name}{i}": rng.normal(name == "g", 0.1, 96).astype(np.float32) for i in (1, 2) for name in "gb"}
    text = (
        "g (float[a, 96] x) => (float[a, 96] y) { h = LayerNormalization(x, g1, b1) s = Add(x, h)"
        " k = LayerNormalization(s, g2, b2) y = SimplifiedLayerNormalization(k, g1) }"
    )
    source = model(text, **gains)
    result = rewrite(source, tmp_path, **OPERATORS)
    (tensor,) = result.reports["layer_normalization"].tensors
    # The last one has the scale of the first.
    assert (tensor.shape, tensor.bits, tensor.bytes_before) == ((96, 4), 8, 4 * 4 * 96)
    assert tensor.bytes_after < 1.3 * 4 * 96
    assert tensor.sqnr_db > 40
    floats = [t for t in result.proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all(np.prod(t.dims) <= 1 for t in floats)
    assert not constant_nodes(optimized(result.proto, tmp_path))
    x = rng.standard_normal((5, 96)).astype(np.float32)
    (expected,), (y,) = run(source, x=x), run(result.proto, x=x)
    # Three times 8-bit rows, each within 1 % of the largest value, and scales within half a percent.
    assert np.abs(y - expected).max() < 0.1


def test_residual_and_sum_of_a_skip_node(tmp_path):
    rng = np.random.default_rng(3)
    weights = {"gain": rng.normal(1, 0.1, 64), "shift": rng.normal(0, 0.1, 64), "extra": rng.normal(0, 1, 64)}
    text = (
        "g (float[a, b, 64] x, float[a, b, 64] h) => (float[a, b, 64] y, float[a, b, 64] total)"
        " { y, n1, n2, total = com.microsoft.SkipLayerNormalization<epsilon = 1e-5>(x, h, gain, shift, extra) }"
    )
    source = model(text, **{name: value.astype(np.float32) for name, value in weights.items()})
    result = rewrite(source, tmp_path, **OPERATORS)
    feeds = {name: rng.standard_normal((2, 3, 64)).astype(np.float32) for name in ("x", "h")}
    expected, y = run(source, **feeds), run(result.proto, **feeds)
    np.testing.assert_allclose(y[1], expected[1], rtol=1e-6, atol=1e-6)
    assert np.abs(y[0] - expected[0]).max() < 0.06


def test_half_precision_stays_half(tmp_path):
    text = "g (float16[a, 64] x) => (float16[a, 64] y) { y = LayerNormalization(x, gain) }"
    result = rewrite(model(text, gain=np.ones(64, np.float16)), tmp_path, **OPERATORS)
    x = np.random.default_rng(4).standard_normal((5, 64)).astype(np.float16)
    (y,) = run(result.proto, x=x)
    assert y.dtype == np.float16
    assert np.abs(y - normalized(x.astype(np.float64), 1e-5, True)).max() < 0.06


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = LayerNormalization(c, gain)", "its input is a constant: the session folds it"),
        ("y = LayerNormalization(x, bad)", "its scale or bias holds NaN or infinity"),
    ],
)
def test_what_it_leaves_has_a_reason(tmp_path, text, reason):
    weights = {"gain": np.ones(8, np.float32), "bad": np.full(8, np.inf, np.float32), "c": np.ones((2, 8), np.float32)}
    source = model(f"g (float[a, 8] x) => (float[a, 8] y) {{ {text} }}", **weights)
    assert list(rewrite(source, tmp_path, **OPERATORS).skips("layer_normalization").values()) == [reason]


@pytest.mark.parametrize("large", [100, 1e6])
def test_large_channels_leave_the_digits_of_the_others(tmp_path, large):
    gain, offset = np.ones(64, np.float32), np.full(64, 0.5, np.float32)
    gain[7] = large
    text = "g (float[a, 64] x) => (float[a, 64] y) { y = LayerNormalization(x, gain, offset) }"
    source = model(text, gain=gain, offset=offset)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {"layer_normalization": 1}
    x = np.random.default_rng(4).standard_normal((50, 64)).astype(np.float32)
    error, expected = (run(m, x=x)[0] / gain for m in (result.proto, source))
    assert np.abs(error - expected).max() < 0.05


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization"])
def test_a_scale_of_one_number_stands_for_a_whole_row(tmp_path, op):
    text = f"g (float[a, 64] x) => (float[a, 64] y) {{ y = {op}(x, gain) }}"
    source = model(text, opset=23, gain=np.array([1.5], np.float32))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {"layer_normalization": 1}
    x = np.random.default_rng(4).standard_normal((50, 64)).astype(np.float32)
    assert np.abs(run(result.proto, x=x)[0] - run(source, x=x)[0]).max() < 0.05
    unknown = "g (float[a, b] x) => (float[a, b] y) { y = LayerNormalization(x, gain) }"
    left = rewrite(model(unknown, gain=np.array([1.5], np.float32)), tmp_path, **OPERATORS)
    assert "one number" in left.skips("layer_normalization")["LayerNormalization"]
