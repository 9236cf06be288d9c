"""MatMul and Gemm with a constant weight: integers compute what the decoded weight would."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.helpers import (
    as_constant_nodes,
    decoded,
    model,
    nodes,
    operators,
    random,
    relative_error,
    rewrite,
    run,
    with_weights,
)

# Error of a row's int8 activation, relative: the row's peak, three deviations, over 127 steps of uniform error
# (3 / 127 / sqrt(12) = 0.7 %), twice. Four-bit weights err by 10 %: what was not encoded, or encoded along the
# wrong axis, is far outside.
ACTIVATION = 0.015
BITS = 4
K, N = 40, 24
W, B = random(K, N, seed=1), random(N, seed=2)
X = random(3, K, seed=3)

PRODUCT = "g (float[m, 40] x) => (float[m, 24] y) { y = MatMul(x, w) }"
GEMM = "g (float[m, 40] x) => (float[m, 24] y) { y = Gemm %s(x, w%s) }"


def check(source, folder, feeds, transposed=False, names=("w",), tolerance=ACTIVATION, **options):
    """Rewrite, and hold the answers, with optimizations and without, to those of the decoded weights."""
    options = {"bits": BITS, **options}
    result = rewrite(source, folder, **options)
    weights = {t.name: onnx.numpy_helper.to_array(t) for g in [source.graph] for t in g.initializer if t.name in names}
    lowering = options.get("lowering", "dense")
    turn = np.transpose if transposed else np.asarray
    replaced = {name: turn(decoded(turn(w), options["bits"], lowering=lowering)) for name, w in weights.items()}
    expected = run(with_weights(source, **replaced), **feeds)
    for optimize in (False, True):
        for output, reference in zip(run(result.proto, optimize, **feeds), expected, strict=True):
            assert output.dtype == reference.dtype
            assert output.shape == reference.shape
            assert relative_error(output, reference) < tolerance
    return result


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
@pytest.mark.parametrize("lead", [(1,), (5,), (2, 3), (2, 1, 3)], ids=str)
def test_activations_of_any_rank(tmp_path, lead, lowering):
    dims = "".join(f"d{i}, " for i in range(len(lead)))
    text = f"g (float[{dims}40] x) => (float[{dims}24] y) {{ y = MatMul(x, w) }}"
    result = check(model(text, w=W), tmp_path, {"x": random(*lead, K, seed=4)}, lowering=lowering)
    assert result.replaced == {"matmul": 1}


@pytest.mark.parametrize("bias", [None, (N,), (1, N), (3, 1), (3, N), (1,), ()], ids=str)
@pytest.mark.parametrize("attributes", ["", "<alpha = 0.5>", "<beta = 2.0>", "<alpha = -1.5, beta = 0.25>"])
def test_gemm(tmp_path, attributes, bias):
    weights = {"w": W} | ({} if bias is None else {"c": random(*bias, seed=5) if bias else np.array(0.3, np.float32)})
    text = GEMM % (attributes, "" if bias is None else ", c")
    result = check(model(text, **weights), tmp_path, {"x": X})
    assert result.replaced["matmul"] == 1
    assert "Gemm" not in operators(result.proto)


def test_gemm_with_a_bias_that_is_an_activation(tmp_path):
    text = "g (float[m, 40] x, float[m, 24] c) => (float[m, 24] y) { y = Gemm(x, w, c) }"
    check(model(text, w=W), tmp_path, {"x": X, "c": random(3, N, seed=6)})


def test_gemm_with_an_empty_name_for_its_bias(tmp_path):
    source = model(GEMM % ("", ""), w=W)
    source.graph.node[0].input.append("")
    check(source, tmp_path, {"x": X})


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 1), (1, 0), (1, 1)])
def test_gemm_transposed(tmp_path, trans_a, trans_b, lowering):
    shape = "40, m" if trans_a else "m, 40"
    attributes = f"<transA = {trans_a}, transB = {trans_b}, alpha = 2.0>"
    source = model(
        f"g (float[{shape}] x) => (float[m, 24] y) {{ y = Gemm {attributes}(x, w, c) }}",
        w=W.T.copy() if trans_b else W,
        c=B,
    )
    feed = X.T.copy() if trans_a else X
    check(source, tmp_path, {"x": feed}, transposed=bool(trans_b), lowering=lowering)


BEHIND = {
    "Identity": ("u = Identity(w)", W, False),
    "Transpose": ("u = Transpose <perm = [1, 0]> (w)", W.T.copy(), True),
    "Transpose without perm": ("u = Transpose (w)", W.T.copy(), True),
    "Transpose twice": ("v = Transpose (w) u = Transpose(v)", W, False),
    "Reshape": ("s = Constant <value_ints = [40, -1]> () u = Reshape(w, s)", W.reshape(-1), None),
    "Reshape keeping a size": ("s = Constant <value_ints = [0, 24]> () u = Reshape(w, s)", W.reshape(40, 4, 6), None),
    "Squeeze": ("a = Constant <value_ints = [0]> () u = Squeeze(w, a)", W[None], None),
    "Unsqueeze and Squeeze": ("a = Constant <value_ints = [1]> () v = Unsqueeze(w, a) u = Squeeze(v, a)", W, False),
    "Cast": ("u = Cast <to = 1> (w)", W.astype(np.float16), False),
    "Cast from double": ("u = Cast <to = 1> (w)", W.astype(np.float64), False),
}


@pytest.mark.parametrize("constants", ["initializers", "nodes"])
@pytest.mark.parametrize("form", BEHIND)
def test_weights_behind_other_nodes(tmp_path, form, constants):
    before, weight, transposed = BEHIND[form]
    source = model(f"g (float[m, 40] x) => (float[m, 24] y) {{ {before} y = MatMul(x, u) }}", w=weight)
    matrix = weight.T if transposed else weight.reshape(K, N)
    expected = X @ decoded(matrix.astype(np.float32), BITS)
    result = rewrite(as_constant_nodes(source) if constants == "nodes" else source, tmp_path, bits=BITS)
    assert result.replaced == {"matmul": 1}
    assert relative_error(run(result.proto, x=X)[0], expected) < ACTIVATION


def test_a_weight_that_numbers_move_is_left(tmp_path):
    """Behind an operator that is not followed the weight is no constant to the pass."""
    source = model("g (float[m, 40] x) => (float[m, 24] y) { u = Neg(w) y = MatMul(x, u) }", w=W)
    assert "matmul" not in rewrite(source, tmp_path).replaced


SKIPS = {
    "both inputs are activations": ("g (float[3, 40] x) => (float[3, 3] y) { t = Transpose(x) y = MatMul(x, t) }", {}),
    "its constant is on the left": ("g (float[24, m] x) => (float[40, m] y) { y = MatMul(w, x) }", {"w": W}),
    "both inputs are constants: the session folds the node": (
        "g (float[m, 40] x) => (float[m, 40] y) { u = MatMul(w, v) y = Add(x, u) }",
        {"w": random(1, 40), "v": random(40, 40)},
    ),
    "its weight is int32, not a float": (
        "g (int32[m, 40] x) => (int32[m, 24] y) { y = MatMul(x, w) }",
        {"w": np.ones((K, N), np.int32)},
    ),
    "its weight has shape [512], not a matrix": (
        "g (float[m, 512] x) => (float[m] y) { y = MatMul(x, w) }",
        {"w": random(512)},
    ),
    "its weight has shape [0, 24], not a matrix": (
        "g (float[m, 0] x) => (float[m, 24] y) { y = MatMul(x, w) }",
        {"w": np.zeros((0, 24), np.float32)},
    ),
    "its activation is a vector: one row is not worth quantizing": (
        "g (float[40] x) => (float[24] y) { y = MatMul(x, w) }",
        {"w": W},
    ),
    "its weight has 256 bytes, fewer than 1024": (
        "g (float[m, 8] x) => (float[m, 8] y) { y = MatMul(x, w) }",
        {"w": random(8, 8)},
    ),
    "an outer product: nothing is summed": (
        "g (float[m, 1] x) => (float[m, 512] y) { y = MatMul(x, w) }",
        {"w": random(1, 512)},
    ),
    "its weight holds NaN or infinity": (PRODUCT, {"w": np.full((K, N), np.nan, np.float32)}),
    "kept by the pattern '^dense/'": (PRODUCT, {"w": W}),
}


@pytest.mark.parametrize("reason", SKIPS)
def test_what_is_left_and_why(tmp_path, reason):
    text, weights = SKIPS[reason]
    source = model(text, **weights)
    for node in source.graph.node:
        node.name = f"dense/{node.op_type}"
    result = rewrite(source, tmp_path, keep=("^dense/",) if "kept" in reason else ())
    assert result.skips("matmul") == {"dense/MatMul": reason}
    assert operators(result.proto).count("MatMul") == operators(source).count("MatMul")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_kept_to_the_bit(tmp_path, value):
    weight = W.copy()
    weight[5, 7] = value
    source = model(PRODUCT, w=weight)
    result = rewrite(source, tmp_path)
    assert result.replaced == {}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(result.proto.graph.initializer[0]), weight)


@pytest.mark.parametrize("lowering", ["packed", "qdq"])
def test_a_batch_of_matrices_is_for_dense_alone(tmp_path, lowering):
    source = model("g (float[2, m, 40] x) => (float[2, m, 24] y) { y = MatMul(x, w) }", w=random(2, K, N))
    reasons = rewrite(source, tmp_path, lowering=lowering).skips("matmul")
    assert list(reasons.values()) == ["its weight of shape [2, 40, 24] is a batch of matrices"]


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((2, 3, K), (2, K, N)),
        ((3, K), (2, K, N)),
        ((2, 1, 3, K), (4, K, N)),
        ((2, 4, 3, K), (2, 4, K, N)),
        ((1, 4, 3, K), (2, 1, K, N)),
    ],
    ids=str,
)
def test_batches_of_matrices(tmp_path, x, w):
    weight = random(*w, seed=7)
    y = (random(*x) @ weight).shape
    source = model(f"g (float{list(x)} x) => (float{list(y)} y) {{ y = MatMul(x, w) }}", w=weight)
    result = rewrite(source, tmp_path, bits=BITS)
    assert result.replaced == {"matmul": 1}
    flat = np.moveaxis(weight, -2, 0).reshape(K, -1)
    restored = np.moveaxis(decoded(flat, BITS).reshape(K, *w[:-2], N), 0, -2)
    feed = random(*x, seed=8)
    for optimize in (False, True):
        (answer,) = run(result.proto, optimize, x=feed)
        assert answer.shape == y
        assert relative_error(answer, feed @ restored) < ACTIVATION


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_float_types(tmp_path, name, dtype, lowering):
    text = f"g ({name}[m, 40] x) => ({name}[m, 24] y) {{ y = Gemm <alpha = 2.0>(x, w, c) }}"
    check(model(text, w=W.astype(dtype), c=B.astype(dtype)), tmp_path, {"x": X.astype(dtype)}, lowering=lowering)


@pytest.mark.parametrize("n", [1, 300])
@pytest.mark.parametrize("k", [7, 8, 9, 65, 172])
def test_lengths_that_no_block_divides(tmp_path, k, n):
    weight = random(k, n, seed=k)
    source = model(f"g (float[m, {k}] x) => (float[m, {n}] y) {{ y = MatMul(x, w) }}", w=weight)
    if weight.nbytes < 1024:
        assert "fewer than 1024" in rewrite(source, tmp_path).skips("matmul")["MatMul"]
    else:
        check(source, tmp_path, {"x": random(3, k, seed=9)})


# Query, key and value.

THREE = """g (float[b, s, 40] x) => (float[b, s, 24] q, float[b, s, 24] k, float[b, s, 24] v) {
    %s
}"""
PLAIN = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
BIASED = """q0 = MatMul(x, wq) q = Add(q0, bq) k0 = MatMul(x, wk) k = Add(bk, k0)
    v0 = MatMul(x, wv) v = Add(v0, bv)"""
ONE_WITHOUT = "q0 = MatMul(x, wq) q = Add(q0, bq) k = MatMul(x, wk) v0 = MatMul(x, wv) v = Add(v0, bv)"
WEIGHTS = {f"w{c}": random(K, N, seed=i) for i, c in enumerate("qkv")}
BIASES = {f"b{c}": random(N, seed=10 + i) for i, c in enumerate("qkv")}
X3 = random(2, 3, K, seed=11)


def multiplications(proto: onnx.ModelProto) -> int:
    return sum(node.op_type in ("MatMulIntegerToFloat", "MatMulNBits", "MatMul") for node in nodes(proto.graph))


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


# Shared weights.


def test_two_products_with_one_weight_store_it_once(tmp_path):
    text = (
        "g (float[m, 40] x, float[m, 40] z) => (float[m, 24] y, float[m, 24] u) { y = MatMul(x, w) u = MatMul(z, w) }"
    )
    result = check(model(text, w=W), tmp_path, {"x": X, "z": 2 * X})
    assert len(result.reports["matmul"].tensors) == 1
    assert multiplications(result.proto) == 2


def test_a_weight_used_both_ways_round_is_encoded_twice(tmp_path):
    """The summed axis differs, and so do the blocks."""
    weight = random(K, K, seed=12)
    text = "g (float[m, 40] x) => (float[m, 40] y, float[m, 40] z) { y = Gemm(x, w) z = Gemm <transB = 1>(x, w) }"
    result = rewrite(model(text, w=weight), tmp_path, bits=BITS)
    y, z = run(result.proto, x=X)
    assert relative_error(y, X @ decoded(weight, BITS)) < ACTIVATION
    assert relative_error(z, X @ decoded(weight.T.copy(), BITS)) < ACTIVATION


@pytest.mark.parametrize("lowering", ["packed", "qdq"])
def test_a_vector_whose_rank_nobody_knows_stays_a_vector(tmp_path, lowering):
    body = "v = Reshape(x, s) p = MatMul(v, w) q = Add(p, b) y = ReduceSum <keepdims = 0> (q) n = Shape(q)"
    text = f"g (float[a, {K}] x, int64[r] s) => (float y, int64[d] n) {{ {body} }}"
    source = model(text, w=random(K, N), b=random(N, seed=1))
    result = rewrite(source, tmp_path, lowering=lowering)
    x = random(1, K, seed=2)
    assert [run(proto, x=x, s=np.array([K]))[1].tolist() for proto in (source, result.proto)] == [[N], [N]]


def test_rows_of_a_batch_are_computed_as_if_alone(tmp_path):
    result = rewrite(model(THREE % BIASED, **WEIGHTS, **BIASES), tmp_path)
    batch = random(4, 3, K, seed=13) * np.float32([1, 100, 0.01, 0])[:, None, None]
    together = run(result.proto, x=batch)
    for row in range(4):
        for one, all_rows in zip(run(result.proto, x=batch[row : row + 1]), together, strict=True):
            np.testing.assert_array_equal(one[0], all_rows[row])


def test_names_of_outputs_stay(tmp_path):
    source = model(THREE % BIASED, **WEIGHTS, **BIASES)
    result = rewrite(source, tmp_path)
    assert [value.name for value in result.proto.graph.output] == ["q", "k", "v"]


@pytest.mark.parametrize("name", ["w0", "w0.codes4", "x0.q", "one", "zero_point", "x0.scale", "tensor_scale"])
def test_names_that_the_model_has_already(tmp_path, name):
    source = model(PRODUCT, w=W)
    source.graph.input[0].name = source.graph.node[0].input[0] = name
    check(source, tmp_path, {name: X})


def test_matmuls_of_other_domains_are_none(tmp_path):
    source = model(PRODUCT, w=W)
    source.graph.node[0].domain = "custom"
    source.opset_import.append(helper.make_opsetid("custom", 1))
    assert rewrite(source, tmp_path).reports["matmul"].skipped == []
