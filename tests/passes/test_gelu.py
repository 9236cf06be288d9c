"""Gelu and its kin from a table: the stated bound holds on the whole real line."""

import numpy as np
import pytest

from passes.gelu.function import CURVES
from passes.gelu.function import table as function_table
from tests.helpers import constant_nodes, model, operators, rewrite, run

OPERATORS = {"operators": frozenset({"gelu"})}
# What float32 rounds of values up to 1, beside a bound.
ROUNDING = 1e-6
NODES = {
    "gelu": "Gelu(x)",
    "gelu_tanh": 'Gelu<approximate = "tanh">(x)',
    "quick_gelu": "com.microsoft.QuickGelu(x)",
    "silu": "com.microsoft.QuickGelu<alpha = 1.0>(x)",
}
LINE = np.concatenate([np.linspace(-20, 20, 100001), [1e-41, -1e-41, 1e-45, 1e30, -1e30, 3.4e38, -3.4e38]])


@pytest.mark.parametrize("kind", NODES)
def test_error_stays_within_the_bound(tmp_path, kind):
    source = model(f"g (float[n] x) => (float[n] y) {{ y = {NODES[kind]} }}")
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {"gelu": 1}
    assert operators(result.proto) == ["Abs", "QuantizeLinear", "Cast", "Gather", "DequantizeLinear", "Relu", "Sub"]
    x = LINE.astype(np.float32)
    expected, bound = CURVES[kind](x.astype(np.float64)), function_table(kind).bound
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, x=x)
        error = np.abs(y - expected) - ROUNDING * np.maximum(1, np.abs(expected))
        assert error.max() <= bound
    # The bound is near what happens.
    assert bound < 1.3 * error[: len(LINE) - 7].max()


@pytest.mark.parametrize(
    ("kind", "largest"), [("gelu", 0.0034), ("gelu_tanh", 0.0034), ("quick_gelu", 0.0044), ("silu", 0.0074)]
)
def test_bounds(kind, largest):
    table = function_table(kind)
    assert table.bound <= largest
    assert (table.codes.dtype, table.codes.shape, table.codes[0], table.codes[255]) == (np.uint8, (256,), 0, 0)


def test_far_from_zero_inputs_pass_through(tmp_path):
    result = rewrite(model("g (float[n] x) => (float[n] y) { y = Gelu(x) }"), tmp_path, **OPERATORS)
    x = np.array([0, -0.0, 4, 100, 3e38, np.inf, -4, -100, -3e38, -np.inf, np.nan], np.float32)
    (y,) = run(result.proto, x=x)
    np.testing.assert_array_equal(y, [0, 0, 4, 100, np.float32(3e38), np.inf, 0, 0, 0, 0, np.nan])


def test_nodes_of_a_kind_share_one_table(tmp_path):
    source = model(
        "g (float[n] x) => (float[n] y) { a = Gelu(x) b = Gelu(a) c = com.microsoft.QuickGelu(b) y = Gelu(c) }"
    )
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {"gelu": 4}
    assert [function.name for function in result.proto.functions] == ["TableGelu", "TableQuickGelu"]
    assert not constant_nodes(result.proto)


def test_a_bias_is_added_before(tmp_path):
    bias = np.array([1, -1, 0.5], np.float32)
    source = model("g (float[n, 3] x) => (float[n, 3] y) { y = com.microsoft.BiasGelu(x, b) }", b=bias)
    result = rewrite(source, tmp_path, **OPERATORS)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    (y,) = run(result.proto, x=x)
    assert np.abs(y - CURVES["gelu"]((x + bias).astype(np.float64))).max() <= function_table("gelu").bound + ROUNDING


def test_half_precision_stays_half(tmp_path):
    source = model("g (float16[n] x) => (float16[n] y) { s = Sigmoid(x) y = Mul(x, s) }")
    result = rewrite(source, tmp_path, **OPERATORS)
    x = np.linspace(-9, 9, 999).astype(np.float16)
    (y,) = run(result.proto, x=x)
    assert y.dtype == np.float16
    # Half precision rounds values up to 9 by 2^-11 of them.
    assert np.abs(y - CURVES["silu"](x.astype(np.float64))).max() <= function_table("silu").bound + 9 * 2**-11


def test_what_it_leaves_has_a_reason(tmp_path):
    source = model("g (int32[n] i) => (float[n] y) { y = Gelu(c) }", c=np.ones(3, np.float32))
    assert list(rewrite(source, tmp_path, **OPERATORS).skips("gelu").values()) == [
        "its input is a constant: the session folds it"
    ]


def test_inside_a_body(tmp_path):
    source = model(
        "g (float[n] x, bool c) => (float[n] y) { y = If (c) <then_branch = t () => (float[n] a) { a = Gelu(x) },"
        " else_branch = e () => (float[n] b) { b = Neg(x) }> }"
    )
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {"gelu": 1}
    x = np.linspace(-3, 3, 9).astype(np.float32)
    (y,) = run(result.proto, x=x, c=np.array(True))
    assert np.abs(y - CURVES["gelu"](x.astype(np.float64))).max() <= function_table("gelu").bound + ROUNDING
