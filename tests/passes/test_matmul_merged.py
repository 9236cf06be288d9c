"""Products of one activation (query, key and value) become one; and those that stay apart."""

from itertools import pairwise

import numpy as np
import pytest

from tests.helpers import decoded, model, operators, random, relative_error, rewrite, run
from tests.passes.products import (
    ACTIVATION,
    BIASED,
    BIASES,
    BITS,
    THREE,
    WEIGHTS,
    B,
    K,
    N,
    W,
    X,
    check,
    multiplications,
)

PLAIN = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
ONE_WITHOUT = "q0 = MatMul(x, wq) q = Add(q0, bq) k = MatMul(x, wk) v0 = MatMul(x, wv) v = Add(v0, bv)"
X3 = random(2, 3, K, seed=11)


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
@pytest.mark.parametrize("body", [PLAIN, BIASED, ONE_WITHOUT], ids=["plain", "biased", "one without"])
def test_query_key_and_value_become_one(tmp_path, body, lowering):
    used = {name: array for name, array in (WEIGHTS | BIASES).items() if name in body}
    result = check(model(THREE % body, **used), tmp_path, {"x": X3}, names=tuple(WEIGHTS), lowering=lowering)
    assert result.reports["matmul"].replaced == 3
    assert multiplications(result.proto) == 1
    (tensor,) = result.reports["matmul"].tensors
    assert (tensor.name, tensor.shape) == ("wq + wk + wv", (K, 3 * N))


@pytest.mark.parametrize("lowering", ["dense", "packed"])
@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_split_and_reduce_at_every_opset(tmp_path, opset, lowering):
    source = model(THREE % BIASED, opset=opset, ir_version=7, **WEIGHTS, **BIASES)
    result = check(
        source,
        tmp_path,
        {"x": X3},
        names=tuple(WEIGHTS),
        bits=8,
        block_size=0 if lowering == "dense" else 32,
        lowering=lowering,
        tolerance=ACTIVATION + 0.01,
    )
    assert multiplications(result.proto) == 1
    assert result.proto.opset_import[0].version == opset


def test_different_widths_become_one(tmp_path):
    """Grouped-query attention: the key and value are narrower."""
    text = "g (float[m, 40] x) => (float[m, 24] q, float[m, 8] k) { q = MatMul(x, wq) k = MatMul(x, wk) }"
    result = check(model(text, wq=W, wk=random(K, 8, seed=3)), tmp_path, {"x": X}, names=("wq", "wk"))
    assert multiplications(result.proto) == 1


def test_gemms_become_one(tmp_path):
    body = "q = Gemm <transB = 1>(x, wq, bq) k = Gemm(x, wk) v = Gemm(x, wv, bv)"
    text = THREE.replace("b, s, ", "m, ") % body
    weights = WEIGHTS | {"wq": WEIGHTS["wq"].T.copy()}
    source = model(text, **weights, bq=BIASES["bq"], bv=BIASES["bv"])
    result = rewrite(source, tmp_path, bits=BITS)
    assert multiplications(result.proto) == 1
    expected = [X @ decoded(WEIGHTS[f"w{c}"], BITS) + (0 if c == "k" else BIASES[f"b{c}"]) for c in "qkv"]
    for output, reference in zip(run(result.proto, x=X), expected, strict=True):
        assert relative_error(output, reference) < ACTIVATION


@pytest.mark.parametrize(
    ("why", "body", "more"),
    [
        ("scaled", "q = Gemm <alpha = 2.0>(x, wq) k = Gemm(x, wk) v = Gemm(x, wv)", 2),
        ("bias of another shape", "q = Gemm(x, wq, row) k = Gemm(x, wk) v = Gemm(x, wv)", 2),
        ("another activation", "z = Neg(x) q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(z, wv)", 2),
        ("transposed", "z = Transpose(x) q = Gemm <transA = 1>(z, wq) k = Gemm(x, wk) v = Gemm(x, wv)", 2),
    ],
)
def test_what_does_not_merge(tmp_path, why, body, more):
    del why
    text = THREE.replace("b, s, ", "m, ") % body
    weights = WEIGHTS | ({"row": B[None]} if "row" in body else {})
    result = check(model(text, **weights), tmp_path, {"x": X}, names=tuple(WEIGHTS))
    assert multiplications(result.proto) == more


def test_four_readers_stay_apart_and_share_the_quantized_activation(tmp_path):
    body = " ".join(f"y{i} = MatMul(x, w{i})" for i in range(4))
    outputs = ", ".join(f"float[m, 24] y{i}" for i in range(4))
    weights = {f"w{i}": random(K, N, seed=i) for i in range(4)}
    source = model(f"g (float[m, 40] x) => ({outputs}) {{ {body} }}", **weights)
    result = check(source, tmp_path, {"x": X}, names=tuple(weights))
    assert multiplications(result.proto) == 4
    reads = [node.input[0] for node in result.proto.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert all(one == other for one, other in pairwise(reads))


def test_a_product_that_is_an_output_keeps_its_bias_apart(tmp_path):
    """The value before the bias is asked for, too."""
    text = """g (float[m, 40] x) => (float[m, 24] q0, float[m, 24] q, float[m, 24] k) {
        q0 = MatMul(x, wq) q = Add(q0, bq) k = MatMul(x, wk)
    }"""
    source = model(text, wq=WEIGHTS["wq"], bq=BIASES["bq"], wk=WEIGHTS["wk"])
    result = check(source, tmp_path, {"x": X}, names=("wq", "wk"))
    assert multiplications(result.proto) == 1


def test_a_product_that_two_nodes_read_keeps_its_bias_apart(tmp_path):
    text = """g (float[m, 40] x) => (float[m, 24] q, float[m, 24] r, float[m, 24] k) {
        q0 = MatMul(x, wq) q = Add(q0, bq) r = Neg(q0) k = MatMul(x, wk)
    }"""
    check(model(text, wq=WEIGHTS["wq"], bq=BIASES["bq"], wk=WEIGHTS["wk"]), tmp_path, {"x": X}, names=("wq", "wk"))


def test_a_sum_of_a_product_with_itself(tmp_path):
    text = (
        "g (float[m, 40] x) => (float[m, 24] q, float[m, 24] k) { p = MatMul(x, wq) q = Add(p, p) k = MatMul(x, wk) }"
    )
    check(model(text, wq=WEIGHTS["wq"], wk=WEIGHTS["wk"]), tmp_path, {"x": X}, names=("wq", "wk"))


def test_a_bias_in_another_scope_does_not_move(tmp_path):
    """The Add runs only in one branch."""
    text = """g (float[m, 40] x, bool c) => (float[m, 24] y, float[m, 24] k) {
        q0 = MatMul(x, wq)
        k = MatMul(x, wk)
        y = If (c) <then_branch = t () => (float[m, 24] a) { a = Add(q0, bq) },
                    else_branch = e () => (float[m, 24] b) { b = Identity(wrong) }>
    }"""
    source = model(text, wq=WEIGHTS["wq"], bq=BIASES["bq"], wk=WEIGHTS["wk"], wrong=np.ones((3, N), np.float32))
    for chosen in (True, False):
        result = check(source, tmp_path, {"x": X, "c": np.array(chosen)}, names=("wq", "wk"))
        assert multiplications(result.proto) == 1


WIDTHS = {"wq": 3, "wk": 8, "wv": 5}


@pytest.mark.parametrize("size", [1.0, 1e-7, 1e7], ids=["alike", "tiny query", "huge query"])
@pytest.mark.parametrize("lowering", ["dense", "packed"])
def test_widths_of_their_own(tmp_path, lowering, size):
    """Codes of three widths in one product; scales whose common factors differ keep theirs."""
    weights = WEIGHTS | {"wq": WEIGHTS["wq"] * np.float32(size)}
    result = rewrite(model(THREE % BIASED, **weights, **BIASES), tmp_path, lowering=lowering, bits_for=WIDTHS)
    tensors = result.reports["matmul"].tensors
    if lowering == "packed":
        assert [tensor.name for tensor in tensors] == ["wq + wk + wv"]
        return
    assert {tensor.name: tensor.bits for tensor in tensors} == WIDTHS
    assert multiplications(result.proto) == 1
    decoded_weights = {name: decoded(weight, WIDTHS[name]) for name, weight in weights.items()}
    for output, (name, weight) in zip(run(result.proto, x=X3), decoded_weights.items(), strict=True):
        assert relative_error(output, X3 @ weight + BIASES[f"b{name[-1]}"]) < ACTIVATION


@pytest.mark.parametrize(
    "widths, name",
    [
        ({"wq": 3, "wk": 8, "wv": 5}, "3Trellis85TrellisBias"),
        ({"wq": 6, "wk": 2, "wv": 2}, "6Trellis2Trellis2TrellisBias"),
    ],
)
def test_one_call_holds_the_codes_of_all_parts(tmp_path, widths, name):
    """It reads them as they lie in the file."""
    weights = {each: random(64, 48, seed=seed) for seed, each in enumerate(WEIGHTS)}
    biases = {each: random(48, seed=9) for each in BIASES}
    x = random(2, 3, 64, seed=11)
    body = model(THREE.replace("40]", "64]").replace("24]", "48]") % BIASED, **weights, **biases)
    result = rewrite(body, tmp_path, bits_for=widths)
    calls = [node.op_type for node in result.proto.graph.node]
    assert f"BlockMatMulJoined{name}" in calls
    assert not any("DecodeBlocks" in each for each in calls)
    for output, (each, weight) in zip(run(result.proto, x=x), weights.items(), strict=True):
        expected = x @ decoded(weight, widths[each]) + biases[f"b{each[-1]}"]
        assert relative_error(output, expected) < ACTIVATION


def test_one_that_has_no_codes_keeps_all_three_in_float(tmp_path):
    weights = WEIGHTS | {"wk": np.where(np.eye(K, N) > 0, np.float32(np.nan), WEIGHTS["wk"])}
    result = rewrite(model(THREE % BIASED, **weights, **BIASES), tmp_path, bits_for=WIDTHS)
    assert not result.reports["matmul"].tensors
    assert operators(result.proto).count("MatMul") == 3
