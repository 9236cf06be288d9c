"""Experts of a MoE: QMoE on packed codes, the same answers as from decoded weights; what stays a MoE, and why."""

import numpy as np
import onnx
import pytest

from tests.helpers import decoded, model, operators, random, relative_error, rewrite, run, with_weights

NAME = "experts"
TOKENS, WIDTH, INNER, COUNT = 5, 64, 96, 3
OPERATORS = {"operators": frozenset({NAME}), "lowering": "packed"}
# Activations in int8, see test_matmul.py.
ACTIVATION = 0.015


def experts(activation="relu", inner=INNER, biases=False, swiglu=""):
    given = "f, u, s, v" if biases else "f, , s"
    text = f"""g (float[n, {WIDTH}] x, float[n, {COUNT}] r) => (float[n, {WIDTH}] y) {{
        y = com.microsoft.MoE <k = 2, activation_type = "{activation}", normalize_routing_weights = 1{swiglu}>
            (x, r, {given}) }}"""
    made = 2 * inner if swiglu else inner
    weights = {"f": random(COUNT, made, WIDTH, seed=1), "s": random(COUNT, WIDTH, inner, seed=2)}
    if biases:
        weights |= {"u": random(COUNT, made, seed=3), "v": random(COUNT, WIDTH, seed=4)}
    return model(text, 21, 10, **weights)


FEEDS = {"x": random(TOKENS, WIDTH, seed=5), "r": random(TOKENS, COUNT, seed=6)}


def rounded(source, bits):
    """Return the model with weights as codes of packed products stand for them."""
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    flat = {name: found[name].reshape(-1, found[name].shape[-1]).T for name in "fs"}
    return with_weights(
        source,
        **{name: decoded(w, bits, 32, "packed", opset=1).T.reshape(found[name].shape) for name, w in flat.items()},
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("activation", "more"),
    [
        ("relu", {}),
        ("silu", {"biases": True}),
        ("swiglu", {"swiglu": ", swiglu_fusion = 1, activation_alpha = 1.702, activation_beta = 1.0", "biases": True}),
    ],
    ids=["relu", "biases", "swiglu"],
)
@pytest.mark.parametrize("optimize", [False, True])
def test_experts_are_multiplied_as_codes(tmp_path, bits, activation, more, optimize):
    source = experts(activation, **more)
    result = rewrite(source, tmp_path, bits=bits, **OPERATORS)
    assert result.replaced == {NAME: 1}
    assert operators(result.proto)[-1] == "QMoE"
    assert sum(tensor.data_type == onnx.TensorProto.FLOAT for tensor in result.proto.graph.initializer) <= 4
    y = run(result.proto, optimize, **FEEDS)[0]
    assert relative_error(y, run(rounded(source, bits), **FEEDS)[0]) < ACTIVATION


@pytest.mark.parametrize(("asked", "bits"), [(2, 4), (3, 4), (6, 8)])
def test_the_kernel_has_two_widths(tmp_path, asked, bits):
    result = rewrite(experts(), tmp_path, bits=asked, **OPERATORS)
    assert {tensor.bits for tensor in result.reports[NAME].tensors} == {bits}


def test_one_width_for_both_weights(tmp_path):
    result = rewrite(experts(), tmp_path, bits=4, bits_for={"s": 8}, **OPERATORS)
    assert {tensor.bits for tensor in result.reports[NAME].tensors} == {8}


def test_weights_that_are_not_finite_stay(tmp_path):
    source = experts()
    values = random(COUNT, INNER, WIDTH, seed=1)
    values[1, 2, 3] = np.nan
    result = rewrite(with_weights(source, f=values), tmp_path, **OPERATORS)
    assert operators(result.proto) == ["MoE"]


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        (experts(inner=40), OPERATORS, "its sums of 40 products are no whole blocks of 32"),
        (experts(), {**OPERATORS, "lacks": frozenset({"QMoE"})}, "the runtime has no QMoE"),
    ],
    ids=["blocks", "runtime"],
)
def test_what_has_to_stay(tmp_path, source, options, reason):
    result = rewrite(source, tmp_path, **options)
    assert not result.replaced
    assert list(result.skips(NAME).values()) == [reason]


def test_products_in_both_forms_have_packed_experts(tmp_path):
    result = rewrite(experts(), tmp_path, **{**OPERATORS, "lowering": "both"})
    assert operators(result.proto)[-1] == "QMoE"


@pytest.mark.parametrize("lowering", ["dense", "qdq"])
def test_where_products_are_not_packed_experts_are_constants(tmp_path, lowering):
    result = rewrite(experts(), tmp_path, bits=8, operators=frozenset({NAME}), lowering=lowering)
    assert operators(result.proto) == ["MoE"]
