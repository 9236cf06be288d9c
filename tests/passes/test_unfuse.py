"""Fused operators in plain ones: the same answers as the runtime's kernels, and what the other passes then see."""

from typing import Any

import numpy as np
import onnx
import pytest

from tests.helpers import Array, model, operators, random, relative_error, rewrite, run

ALONE = {"operators": frozenset({"unfuse"})}
# Sums of float32 in another order.
ROUNDING = 2e-6
B, S, P, K, HEADS = 2, 7, 3, 24, 4
IDS = np.random.default_rng(0).integers(0, 9, (B, S))


def agree(source: onnx.ModelProto, folder: Any, gone: str, **feeds: Array) -> onnx.ModelProto:
    """Hold what `unfuse` alone makes of a model, without the operator `gone`, to the answers of the model."""
    result = rewrite(source, folder, **ALONE)
    assert result.replaced == {"unfuse": 1}
    assert gone not in operators(result.proto)
    expected = run(source, optimize=False, **feeds)
    for optimize in (False, True):
        for y, reference in zip(run(result.proto, optimize, **feeds), expected, strict=True):
            assert y.shape == reference.shape
            assert y.dtype == reference.dtype
            assert relative_error(y, reference) < ROUNDING
    return result.proto


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("side", ["A", "B"])
def test_fused_products_with_transpositions(tmp_path, side, transposed, batch):
    shapes = {"A": (5, 6, 6, 6), "B": (5, 6, 6, 6)}
    attrs = f"alpha = 0.5, trans{side} = {transposed}, transBatch{side} = {batch}"
    if batch:
        shapes = dict.fromkeys(shapes, (6, 6, 6, 6))
    text = (
        f"g (float{list(shapes['A'])} x) => (float[a, b, c, d] y) {{ y = com.microsoft.FusedMatMul <{attrs}> (x, w) }}"
    )
    agree(model(text, w=random(*shapes["B"])), tmp_path, "FusedMatMul", x=random(*shapes["A"], seed=1))


@pytest.mark.parametrize(
    ("function", "attrs"),
    [("Relu", ""), ("LeakyRelu", ", activation_alpha = 0.3"), ("Tanh", "")],
)
def test_fused_gemms(tmp_path, function, attrs):
    text = f"""g (float[m, 24] x) => (float[m, 32] y) {{
        y = com.microsoft.FusedGemm <activation = "{function}", transB = 1, alpha = 2.0{attrs}> (x, w, c)
    }}"""
    agree(model(text, w=random(32, K), c=random(32)), tmp_path, "FusedGemm", x=random(5, K, seed=1))


@pytest.mark.parametrize("x", ["24, m", "2, 24, m", "2, 3, 24, m"])
def test_constants_on_the_left(tmp_path, x):
    shape = tuple(int(d) for d in x.replace("m", "7").split(", "))
    text = f"g (float[{x}] x) => (float[{x.replace('24', '40')}] y) {{ y = MatMul(w, x) }}"
    source = model(text, w=random(40, K))
    result = rewrite(source, tmp_path, bits=8, block_size=0)
    assert result.replaced == {"unfuse": 1, "matmul": 1}
    feed = random(*shape, seed=2)
    assert relative_error(run(result.proto, x=feed)[0], run(source, x=feed)[0]) < 0.02
    plain = rewrite(source, tmp_path, **ALONE).proto
    assert relative_error(run(plain, x=feed)[0], run(source, x=feed)[0]) < ROUNDING


@pytest.mark.parametrize("attrs", ["", "transA = 1,", "transB = 1,", "transA = 1, transB = 1,"])
def test_gemms_with_the_constant_on_the_left(tmp_path, attrs):
    w, x = (K, 40) if "transA" in attrs else (40, K), (7, K) if "transB" in attrs else (K, 7)
    text = f"""g (float{list(x)} x) => (float[40, 7] y) {{
        y = Gemm <{attrs} alpha = 0.5, beta = 2.0> (w, x, c)
    }}"""
    agree(model(text, w=random(*w), c=random(40, 1)), tmp_path, "Gemm", x=random(*x, seed=1))


def test_lookups_of_rows_by_element(tmp_path):
    text = "g (int64[b, 2, 1] i) => (float[b, 2, 24] y) { y = GatherND(w, i) }"
    ids = np.array([[[3], [-1]], [[0], [39]], [[7], [7]]])
    agree(model(text, w=random(40, K)), tmp_path, "GatherND", i=ids)


EINSUMS = {
    "mk,kn->mn": ((7, 24), (24, 32)),
    "mk,nk->mn": ((7, 24), (32, 24)),
    "kn,mk->mn": ((24, 32), (7, 24)),
    "bsk,kn->bsn": ((2, 7, 24), (24, 32)),
    "...k,kn->...n": ((2, 7, 24), (24, 32)),
    "abc,cde->abde": ((2, 7, 24), (24, 4, 8)),
    "abcd,cde->abe": ((2, 7, 4, 6), (4, 6, 32)),
    "bsk,nk->nsb": ((2, 7, 24), (32, 24)),
    "bsk,k->bs": ((2, 7, 24), (24,)),
    "emk,ekn->emn": ((3, 7, 24), (3, 24, 32)),
    "ek,ekn->en": ((3, 24), (3, 24, 32)),
    "bsk,ekn->bsen": ((2, 7, 24), (3, 24, 32)),
    "bsek,ekn->bsen": ((2, 7, 3, 24), (3, 24, 32)),
    "behk,ehkn->behn": ((2, 3, 5, 24), (3, 5, 24, 32)),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsums_that_are_products(tmp_path, equation):
    first, second = EINSUMS[equation]
    shape, weight, terms = (first, second, "x, w") if equation != "kn,mk->mn" else (second, first, "w, x")
    rank = np.einsum(equation, *(np.zeros(s) for s in (first, second))).ndim
    dims = ", ".join(f"d{i}" for i in range(rank))
    text = f"""g (float{[f"n{i}" for i in range(len(shape))]} x) => (float[{dims}] y) {{
        y = Einsum <equation = "{equation}"> ({terms})
    }}""".replace("'", "")
    agree(model(text, w=random(*weight)), tmp_path, "Einsum", x=random(*shape, seed=1))


@pytest.mark.parametrize(
    ("equation", "x", "w", "reason"),
    [
        ("ij,ij->ij", (24, 32), (24, 32), "ij,ij->ij with a constant of float32 and shape [24, 32] is no product"),
        ("ii,ij->ij", (24, 24), (24, 32), "ii,ij->ij is no product of matrices"),
        ("mk,kn->m", (7, 24), (24, 32), "mk,kn->m is no product of matrices"),
        ("mk,kn->mn", (7, 24), (1, 32), "mk,kn->mn with a constant of float32 and shape [1, 32] is no product"),
    ],
)
def test_einsums_that_are_none(tmp_path, equation, x, w, reason):
    y = np.einsum(equation.replace("k", "k"), np.zeros(x), np.zeros((x[1], *w[1:]) if w[0] == 1 else w))
    text = f"""g (float{list(x)} x) => (float{list(y.shape)} y) {{ y = Einsum <equation = "{equation}"> (x, w) }}"""
    result = rewrite(model(text, w=random(*w)), tmp_path, **ALONE)
    assert result.skips("unfuse") == {"Einsum": reason}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("shift", [True, False])
def test_skip_normalizations(tmp_path, shift, total, bias):
    outputs, declared = ("y, , , t", "float[b, s, 24] y, float[b, s, 24] t") if total else ("y", "float[b, s, 24] y")
    inputs = f"x, r, g1, {'b1' if shift else ''}{', c' if bias else ''}"
    text = f"""g (float[b, s, 24] x, float[b, s, 24] r) => ({declared}) {{
        {outputs} = com.microsoft.SkipLayerNormalization <epsilon = 0.01> ({inputs})
    }}"""
    weights = {"g1": random(K), "b1": random(K, seed=1), "c": random(K, seed=2)}
    feeds = {name: random(B, S, K, seed=seed) for seed, name in enumerate("xr")}
    agree(model(text.replace("(x, r, g1, )", "(x, r, g1)"), **weights), tmp_path, "SkipLayerNormalization", **feeds)


@pytest.mark.parametrize("places", [True, False])
@pytest.mark.parametrize("segments", [True, False])
def test_embeddings(tmp_path, segments, places):
    segment, kinds = ("seg", "kinds") if segments else ("", "")
    text = f"""g (int32[b, s] ids, int32[b, s] seg, int32[b, s] mask, int32[b, s] at) =>
        (float[b, s, 24] y, int32[b] m, float[b, s, 24] t) {{
        y, m, t = com.microsoft.EmbedLayerNormalization <epsilon = 0.01>
            (ids, {segment}, words, places, {kinds}, g1, b1, mask{", at" if places else ""})
    }}"""
    weights = {"words": random(9, K), "places": random(S, K), "kinds": random(2, K), "g1": random(K), "b1": random(K)}
    feeds = {"ids": IDS, "seg": IDS % 2, "mask": np.arange(S) < np.array([[S], [4]]), "at": IDS % S}
    feeds = {name: array.astype(np.int32) for name, array in feeds.items()}
    agree(model(text, **weights), tmp_path, "EmbedLayerNormalization", **feeds)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_gelus_with_a_bias(tmp_path, op, opset):
    text = f"g (float[b, 24] x) => (float[b, 24] y) {{ y = com.microsoft.{op}(x, c) }}"
    source, x = model(text, opset, 8, c=random(K)), random(5, K, seed=1) * 4
    result = rewrite(source, tmp_path, bits=8, **ALONE)
    gelu = "FastGelu" if op == "FastGelu" and opset < 20 else "Gelu"
    assert operators(result.proto) == ["Add", gelu]
    assert relative_error(run(result.proto, x=x)[0], run(source, x=x)[0]) < ROUNDING


MASKS = {
    "none": ("", "", None),
    "ends": ("int32[b] m", "m", np.array([7, 4])),
    "padding": ("int32[b, t] m", "m", np.array([[1] * 7, [0, 0, 1, 1, 1, 1, 1]])),
    "each query": ("int32[b, s, t] m", "m", np.tril(np.ones((B, S, S)))),
}
OPTIONS = [
    "",
    "unidirectional = 1,",
    "mask_filter_value = -3.4e38,",
    "scale = 0.3,",
    "qkv_hidden_sizes = [16, 16, 32],",
]


def attention(attrs: str, mask: str, given: str, more: str = "") -> str:
    width = 32 if "qkv" in attrs else K
    declared = ", ".join(filter(None, ["float[b, s, 24] x", mask, "float[b, 4, s, s] bias" if more else ""]))
    return f"""g ({declared}) =>
        (float[b, s, {width}] y) {{
        y = com.microsoft.Attention <{attrs} num_heads = 4> (x, w, c{f", {given}" if given or more else ""}{more})
    }}"""


def weights_of(attrs: str) -> dict[str, Array]:
    width = 64 if "qkv" in attrs else 3 * K
    return {"w": random(K, width) * 8, "c": random(width, seed=1)}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("attrs", OPTIONS)
def test_attention_with_its_weights(tmp_path, attrs, mask):
    declared, given, values = MASKS[mask]
    feeds = {} if values is None else {"m": values.astype(np.int32)}
    source = model(attention(attrs, declared, given), **weights_of(attrs))
    agree(source, tmp_path, "com.microsoft.Attention", x=random(B, S, K, seed=2) * 4, **feeds)


def test_attention_with_numbers_added_to_its_scores(tmp_path):
    source = model(attention("", "", "", ", , bias"), **weights_of(""))
    feeds = {"x": random(B, S, K, seed=2) * 4, "bias": random(B, HEADS, S, S, seed=3)}
    agree(source, tmp_path, "", **feeds)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_a_cache(tmp_path, causal):
    text = f"""g (float[b, s, 24] x, float[2, b, 4, p, 6] past) => (float[b, s, 24] y, float[2, b, 4, t, 6] present) {{
        y, present = com.microsoft.Attention <unidirectional = {causal}, num_heads = 4> (x, w, c, , past)
    }}"""
    feeds = {"x": random(B, S, K, seed=2), "past": random(2, B, HEADS, P, K // HEADS, seed=3)}
    agree(model(text, **weights_of("")), tmp_path, "", **feeds)


@pytest.mark.parametrize("opset", [21, 23])
def test_the_merged_weight_becomes_one_integer_product(tmp_path, opset):
    declared, given, mask = MASKS["padding"]
    source = model(attention("", declared, given), opset, 11, **weights_of(""))
    result = rewrite(source, tmp_path, bits=8, block_size=0)
    assert [tensor.name for tensor in result.reports["matmul"].tensors] == ["w"]
    assert ("Softmax" in operators(result.proto)) == (opset < 23)
    feeds = {"x": random(B, S, K, seed=2), "m": mask.astype(np.int32)}
    assert relative_error(run(result.proto, **feeds)[0], run(source, **feeds)[0]) < 0.02


@pytest.mark.parametrize(
    ("attrs", "inputs", "reason"),
    [
        ("do_rotary = 1,", "x, w, c", "it rotates queries and keys"),
        ("", "x, v, c", "its weight is not a constant matrix of floats"),
        ("", "x, w, c, m", "whether its mask m holds ends, or ends and starts of tokens, is not known"),
    ],
)
def test_attention_that_stays(tmp_path, attrs, inputs, reason):
    text = f"""g (float[b, s, 24] x, float[24, 72] v, int32[n] m) => (float[b, s, 24] y) {{
        y = com.microsoft.Attention <{attrs} num_heads = 4> ({inputs})
    }}"""
    result = rewrite(model(text, **weights_of("")), tmp_path, **ALONE)
    assert result.skips("unfuse") == {"Attention": reason}
