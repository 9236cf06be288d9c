"""Relu squared in codes: the reference to the bit, within its bound, for every form and special value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import passes
from passes.relu_squared import bound, reference
from tests.helpers import model, operators, rewrite, run

BLOCK = 8
REQUEST = {"operators": frozenset({"relu_squared"}), "block_size": BLOCK}
TWO = {"two": np.array(2, np.float32)}
FORMS = {
    "product": "r = Relu(x) y = Mul(r, r)",
    "power": "r = Relu(x) y = Pow(r, two)",
    "whole power": "r = Relu(x) i = Constant<value_int = 2>() y = Pow(r, i)",
    "two of one": "r = Relu(x) s = Relu(x) y = Mul(r, s)",
}
SPECIAL = np.array([[0, -0.0, 1e-41, -1e-41, 1e-30, 1, -1, 3, 1e15, -3e38, 2e19]], np.float32)
floats = st.floats(-(2.0**60), 2.0**60, width=32)


def source(nodes, dtype="float", axes="m, k"):
    kind = f"{dtype}[{axes}]" if axes else dtype
    return model(f"g ({kind} x) => ({kind} y) {{ {nodes} }}", **(TWO if "two" in nodes else {}))


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    return rewrite(source(FORMS["product"]), tmp_path_factory.mktemp("relu_squared"), **REQUEST).proto


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_one_call(tmp_path, form):
    result = rewrite(source(FORMS[form]), tmp_path, **REQUEST)
    assert result.replaced == {"relu_squared": 1}
    assert [node.op_type for node in result.proto.graph.node] == ["CodedReluSquared"]
    assert operators(result.proto).count("QuantizeLinear") == 1


@settings(max_examples=50, deadline=None)
@given(x=hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=floats))
def test_the_reference_to_the_bit_and_within_the_bound(coded, x):
    for optimize in (False, True):
        (y,) = run(coded, optimize, x=x)
        np.testing.assert_array_equal(y, reference(x, BLOCK))
    exact = np.square(np.maximum(x.astype(np.float64), 0))
    # Squares below float32's range are zero, whatever computes them.
    assert (np.abs(y - exact) <= bound(x, BLOCK) + 1e-37).all()


def test_the_bound_is_near_what_happens(coded):
    x = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    (y,) = run(coded, x=x)
    part = np.abs(y - np.square(np.maximum(x.astype(np.float64), 0))) / bound(x, BLOCK)
    assert 0.8 < part.max() <= 1


def test_special_values(coded):
    (y,) = run(coded, x=SPECIAL)
    np.testing.assert_array_equal(y, reference(SPECIAL, BLOCK))
    assert (y[SPECIAL <= 0] == 0).all()
    assert np.isinf(y[0, -1])
    (y,) = run(coded, x=np.array([[np.inf, 1, -np.inf]], np.float32))
    np.testing.assert_array_equal(y, [[np.inf, 0, 0]])


@pytest.mark.parametrize(("axes", "shape"), [("", ()), ("k", (11,)), ("a, b, k", (2, 3, 11)), ("m, k", (0, 8))])
def test_any_axes(tmp_path, axes, shape):
    result = rewrite(source(FORMS["product"], axes=axes), tmp_path, **REQUEST)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (y,) = run(result.proto, x=x)
    assert y.shape == shape
    if shape and x.size:
        np.testing.assert_array_equal(y, reference(x, BLOCK))


def test_half_precision_stays_half(tmp_path):
    result = rewrite(source(FORMS["product"], "float16"), tmp_path, **REQUEST)
    x = np.linspace(-3, 3, 40).astype(np.float16)[None]
    (y,) = run(result.proto, x=x)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, reference(x.astype(np.float32), BLOCK).astype(np.float16))


def test_whole_columns_have_blocks_of_32(tmp_path):
    result = rewrite(source(FORMS["product"]), tmp_path, **REQUEST | {"block_size": 0})
    x = np.random.default_rng(2).standard_normal((3, 70)).astype(np.float32)
    np.testing.assert_array_equal(run(result.proto, x=x)[0], reference(x, 32))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("r = Relu(x) s = Mul(r, r) n = Neg(r) y = Add(s, n)", "its inner value r is also used by"),
        (
            "c = Constant<value_floats = [1.0, 2.0]>() r = Relu(c) s = Mul(r, r) y = Add(x, s)",
            "its input is a constant",
        ),
    ],
)
def test_what_it_leaves_has_a_reason(tmp_path, nodes, reason):
    result = rewrite(source(nodes, axes="m, 2"), tmp_path, **REQUEST)
    assert not result.replaced
    (said,) = result.skips("relu_squared").values()
    assert said.startswith(reason)


def test_a_runtime_without_blocks_keeps_it(tmp_path):
    result = rewrite(source(FORMS["product"]), tmp_path, **REQUEST, lacks=frozenset({passes.Feature.BLOCKWISE}))
    assert not result.replaced
    assert list(result.skips("relu_squared").values()) == [f"the runtime lacks {passes.Feature.BLOCKWISE}"]


def test_an_output_stays(tmp_path):
    shown = model("g (float[k] x) => (float[k] r, float[k] y) { r = Relu(x) y = Mul(r, r) }")
    result = rewrite(shown, tmp_path, **REQUEST)
    assert list(result.skips("relu_squared").values()) == ["its inner value r is an output of the graph"]


def test_other_types_stay(tmp_path):
    result = rewrite(source(FORMS["product"], "int32"), tmp_path, **REQUEST)
    assert list(result.skips("relu_squared").values()) == ["its type is int32, not a float"]


@pytest.mark.parametrize("nodes", ["r = Relu(x) y = Mul(r, x)", "t = Tanh(x) y = Mul(t, t)", "y = Mul(x, x)"])
def test_others_are_of_no_concern(tmp_path, nodes):
    result = rewrite(source(nodes), tmp_path, **REQUEST)
    assert not result.replaced
    assert not result.skips("relu_squared")


def test_inside_a_body(tmp_path):
    nested = model(
        "g (float[m, k] x, bool c) => (float[m, k] y) { y = If (c) <then_branch = t () => (float[m, k] a)"
        " { r = Relu(x) a = Mul(r, r) }, else_branch = e () => (float[m, k] b) { b = Neg(x) }> }"
    )
    result = rewrite(nested, tmp_path, **REQUEST)
    assert result.replaced == {"relu_squared": 1}
    x = np.linspace(-3, 3, 16).astype(np.float32).reshape(2, 8)
    np.testing.assert_array_equal(run(result.proto, x=x, c=np.array(True))[0], reference(x, BLOCK))


def test_what_is_left_is_reported_with_the_reason(tmp_path):
    """The survey of `paper` says of the node that it computes in float, and why, not that it lies between codes."""
    text = """g (float[m, 64] x) => (float[m, 64] y, float[m, 64] r) {
        a = Tanh(x) r = Relu(a) s = Mul(r, r) y = Neg(s) }"""
    result = rewrite(model(text), tmp_path, operators=frozenset({"relu_squared", "intermediates"}))
    (squared,) = [node for node in result.reports["intermediates"].nodes if node.op == "Mul"]
    assert squared.how == "left"
    assert squared.reason == "relu_squared: its inner value r is an output of the graph"
