"""Weights that are int8 in the model already: the same codes, multiplied as codes."""

import numpy as np
import onnx
import pytest

from tests.helpers import activation_bound, model, operators, random, rewrite, run

K, N = 64, 48
CODES = np.random.default_rng(0).integers(-127, 128, (K, N)).astype(np.int8)
ONE, EACH = np.array(0.002, np.float32), (0.001 + 0.01 * np.random.default_rng(1).random(N)).astype(np.float32)
MATMUL = "w = DequantizeLinear%s y = MatMul(%s, w)"
X = random(7, K, seed=2)


def graph(body: str) -> str:
    return f"g (float[m, {K}] x) => (float[m, {N}] y) {{ {body} }}"


FORMS = {
    "one scale": (MATMUL % ("(q, s)", "x"), {"q": CODES, "s": ONE}),
    "a scale a column": (MATMUL % ("<axis = 1>(q, s)", "x"), {"q": CODES, "s": EACH}),
    "zero points": (MATMUL % ("<axis = 1>(q, s, z)", "x"), {"q": CODES, "s": EACH, "z": np.zeros(N, np.int8)}),
    "uint8": (
        MATMUL % ("(q, s, z)", "x"),
        {"q": (CODES.astype(np.int16) + 128).astype(np.uint8), "s": ONE, "z": np.array(128, np.uint8)},
    ),
    "Gemm": (
        "w = DequantizeLinear<axis = 0>(q, s) y = Gemm<transB = 1>(x, w, c)",
        {"q": np.ascontiguousarray(CODES.T), "s": EACH, "c": random(N, seed=3)},
    ),
}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", FORMS)
def test_the_codes_are_multiplied_as_they_are(tmp_path, name, bits):
    body, weights = FORMS[name]
    source = model(graph(body), **weights)
    result = rewrite(source, tmp_path, bits=bits)
    assert result.replaced["quantized_weights"] == 1
    assert "DequantizeLinear" not in operators(result.proto)
    assert any(
        np.array_equal(onnx.numpy_helper.to_array(tensor), CODES) for tensor in result.proto.graph.initializer
    ), "to the bit"
    for optimize in (False, True):
        (y,), (expected,) = run(result.proto, optimize, x=X), run(source, optimize=False, x=X)
        assert (np.abs(y - expected) <= activation_bound(X, CODES * np.broadcast_to(weights["s"], N)) + 1e-5).all()


LEFT = {
    "its activation is quantized, too": (
        "qx = QuantizeLinear(x, s) dx = DequantizeLinear(qx, s) " + MATMUL % ("(q, s)", "dx"),
        {"q": CODES, "s": ONE},
    ),
    "another zero point than 0": (MATMUL % ("(q, s, z)", "x"), {"q": CODES, "s": ONE, "z": np.array(3, np.int8)}),
    "a scale for each place of the sums": (
        MATMUL % ("<axis = 0>(q, s)", "x"),
        {"q": CODES, "s": np.full(K, 0.002, np.float32)},
    ),
    "quantized in blocks": (
        MATMUL % ("<axis = 0, block_size = 32>(q, s)", "x"),
        {"q": CODES, "s": np.full((K // 32, N), 0.002, np.float32)},
    ),
    "more than a product and a sum": (
        "w = DequantizeLinear(q, s) y = Gemm<alpha = 2.0>(x, w)",
        {"q": CODES, "s": ONE},
    ),
    "quantized to int8 [64, 48], with float16": (
        "w = DequantizeLinear(q, s) f = Cast<to = 10>(x) h = MatMul(f, w) y = Cast<to = 1>(h)",
        {"q": CODES, "s": ONE.astype(np.float16)},
    ),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_is_left_and_why(tmp_path, reason):
    body, weights = LEFT[reason]
    source = model(graph(body), **weights)
    result = rewrite(source, tmp_path)
    (found,) = result.skips("quantized_weights").values()
    assert reason in found
    np.testing.assert_array_equal(run(result.proto, False, x=X)[0], run(source, False, x=X)[0])


@pytest.mark.parametrize("lowering", ["packed", "qdq"])
def test_other_lowerings_leave_them(tmp_path, lowering):
    body, weights = FORMS["one scale"]
    assert rewrite(model(graph(body), **weights), tmp_path, lowering=lowering, block_size=32).replaced == {}


def test_one_weight_of_two_products_is_stored_once(tmp_path):
    text = graph("w = DequantizeLinear(q, s) a = MatMul(x, w) b = Neg(x) c = MatMul(b, w) y = Add(a, c)")
    result = rewrite(model(text, q=CODES, s=ONE), tmp_path)
    assert result.replaced["quantized_weights"] == 2
    assert sum(tensor.dims == [K, N] for tensor in result.proto.graph.initializer) == 1
    np.testing.assert_allclose(run(result.proto, x=X)[0], 0, atol=1e-3)
