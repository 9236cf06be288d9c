"""Attention as one node, written as operators: what the node computes, and every reason to leave it."""

import numpy as np
import pytest

from tests.helpers import model, operators, random, relative_error, rewrite, run

ONLY = {"operators": frozenset({"open_attention"})}
INTEGERS = {"operators": frozenset({"open_attention", "activation_matmul", "softmax"})}
ROWS = "float[b, s, 8] q, float[b, l, 8] k, float[b, l, 12] v"
SPLIT = "float[b, 2, s, 4] q, float[b, 2, l, 4] k, float[b, 2, l, 6] v"
HEADS = "q_num_heads = 2, kv_num_heads = 2"
CAUSAL = f"{HEADS}, is_causal = 1"

STANDARD = {
    "rows": (ROWS, f"Attention <{HEADS}> (q, k, v)"),
    "heads first": (SPLIT, "Attention (q, k, v)"),
    "scale": (ROWS, f"Attention <{HEADS}, scale = 0.3> (q, k, v)"),
    "numbers as mask": (f"{ROWS}, float[1, 1, s, l] mask", f"Attention <{HEADS}> (q, k, v, mask)"),
    "bool as mask": (f"{ROWS}, bool[s, l] seen", f"Attention <{HEADS}> (q, k, v, seen)"),
    "a mask a head": (f"{SPLIT}, float[2, s, l] each", "Attention (q, k, v, each)"),
    "causal": (ROWS, f"Attention <{CAUSAL}> (q, k, v)"),
    "causal, heads first, masked": (f"{SPLIT}, bool[s, l] seen", "Attention <is_causal = 1> (q, k, v, seen)"),
}
MULTI = {
    "rows": (ROWS, "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v)"),
    "scale": (ROWS, "com.microsoft.MultiHeadAttention <num_heads = 2, scale = 0.3> (q, k, v)"),
    "bias": (ROWS, "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, bias)"),
    "padding": (f"{ROWS}, int32[b, l] pad", "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, , pad)"),
    "mask": (
        f"{ROWS}, float[1, 1, s, l] mask",
        "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, , , mask)",
    ),
    "causal": (ROWS, "com.microsoft.MultiHeadAttention <num_heads = 2, unidirectional = 1> (q, k, v)"),
}
CASES = [pytest.param(23, *case, id=name) for name, case in STANDARD.items()] + [
    pytest.param(21, *case, id=f"MultiHeadAttention: {name}") for name, case in MULTI.items()
]


def source(opset, inputs, call):
    kind = "float[b, 2, s, 6]" if "b, 2, s, 4" in inputs else "float[b, s, 12]"
    return model(f"g ({inputs}) => ({kind} y) {{ y = {call} }}", opset, bias=random(28, seed=9))


def feeds(inputs, s=5, l=5):  # noqa: E741 (as in the graph)
    rng, heads = np.random.default_rng(4), "b, 2, s, 4" in inputs
    widths = {"q": (s, 4), "k": (l, 4), "v": (l, 6)}
    found = {
        name: rng.standard_normal((3, 2, tokens, width) if heads else (3, tokens, 2 * width)).astype(np.float32)
        for name, (tokens, width) in widths.items()
    }
    shown = rng.random((s, l)) < 0.6
    shown[0] = [True] + [False] * (l - 1)
    shown[2] = False
    if " mask" in inputs:
        found["mask"] = (rng.standard_normal((1, 1, s, l)) * 3).astype(np.float32)
    if " each" in inputs:
        found["each"] = np.where(shown, rng.standard_normal((2, s, l)), -np.inf).astype(np.float32)
    if "seen" in inputs:
        found["seen"] = shown
    if "pad" in inputs:
        found["pad"] = np.array([[1] * l, [1] * (l - 2) + [0] * 2, [1] + [0] * (l - 1)], np.int32)
    return found


@pytest.mark.parametrize(("opset", "inputs", "call"), CASES)
def test_it_computes_what_the_node_does(tmp_path, opset, inputs, call):
    proto = source(opset, inputs, call)
    result = rewrite(proto, tmp_path, **ONLY)
    assert result.replaced == {"open_attention": 1}
    assert {"MatMul", "Softmax"} <= set(operators(result.proto))
    assert not {"Attention", "MultiHeadAttention"} & set(operators(result.proto))
    for s, keys in ((5, 5),) if "causal" in call or "unidirectional" in call else ((5, 5), (3, 7)):
        given = feeds(inputs, s, keys)
        (expected,) = run(proto, **given)
        for optimize in (False, True):
            (y,) = run(result.proto, optimize, **given)
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("opset", "inputs", "call"), CASES)
def test_integers_take_its_products_and_softmax(tmp_path, opset, inputs, call):
    proto = source(opset, inputs, call)
    result = rewrite(proto, tmp_path, **INTEGERS)
    assert result.replaced == {"open_attention": 1, "activation_matmul": 2, "softmax": 1}
    given = feeds(inputs)
    (expected,), (y,) = run(proto, **given), run(result.proto, **given)
    assert relative_error(y, expected) < 0.03


@pytest.mark.parametrize("kind", ["float16"])
def test_half_precision_stays_half(tmp_path, kind):
    inputs, call = STANDARD["causal"]
    proto = source(23, inputs.replace("float", kind), call)
    proto.graph.output[0].type.tensor_type.elem_type = 10
    given = {name: x.astype(kind) for name, x in feeds(inputs).items()}
    (y,) = run(rewrite(proto, tmp_path, **ONLY).proto, **given)
    (expected,) = run(source(23, inputs, call), **{name: x.astype(np.float32) for name, x in given.items()})
    assert y.dtype == np.float16
    assert relative_error(y, expected) < 0.01


PAST = "float[b, 2, p, 4] pk, float[b, 2, p, 6] pv"


@pytest.mark.parametrize(
    ("opset", "inputs", "call", "reason"),
    [
        (23, f"{SPLIT}, {PAST}", "Attention (q, k, v, , pk, pv)", "joins keys and values with earlier ones"),
        (23, ROWS, f"Attention <{HEADS}, softcap = 5.0> (q, k, v)", "caps scores at 5"),
        (
            23,
            "float[b, 4, s, 4] q, float[b, 2, l, 4] k, float[b, 2, l, 6] v",
            "Attention (q, k, v)",
            "4 of queries, 2 of",
        ),
        (23, f"{SPLIT}, float[s, seen] mask", "Attention (q, k, v, mask)", "its mask may cover some keys only"),
        (
            23,
            "float[b, 2, s, w] q, float[b, 2, l, w] k, float[b, 2, l, 6] v",
            "Attention (q, k, v)",
            "width of its heads",
        ),
        (21, "float[b, s, 2, 3, 4] q", "com.microsoft.MultiHeadAttention <num_heads = 2> (q)", "are not three tensors"),
        (
            21,
            f"{ROWS}, {PAST}",
            "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, , , , pk, pv)",
            "joins keys and values with earlier ones",
        ),
        (
            21,
            f"{ROWS}, float[28] c",
            "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, c)",
            "bias is computed",
        ),
        (
            21,
            f"{ROWS}, int32[b] pad",
            "com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, , pad)",
            "padding mask has no entry a token",
        ),
    ],
)
def test_what_it_leaves_has_a_reason(tmp_path, opset, inputs, call, reason):
    proto = model(
        f"g ({inputs}) => (float[b, s, 12] y) {{ h = {call} y = Reshape(h, to) }}", opset, to=np.array([0, 0, 12])
    )
    ((given),) = rewrite(proto, tmp_path, **ONLY).skips("open_attention").values()
    assert "is not opened up: " in given
    assert reason in given


def test_other_operators_are_no_concern_of_it(tmp_path):
    proto = model("g (float[b, s, 8] q) => (float[b, s, 8] y) { y = Softmax(q) }")
    result = rewrite(proto, tmp_path, **ONLY)
    assert not result.replaced
    assert not result.skips("open_attention")
