"""MatMul and Gemm with a constant weight: integers compute what the decoded weight would."""

import numpy as np
import onnx
import pytest
from onnx import helper

from passes.matmul import SHORTEST_SUM
from tests.helpers import (
    as_constant_nodes,
    decoded,
    model,
    operators,
    random,
    relative_error,
    rewrite,
    run,
)
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

PRODUCT = "g (float[m, 40] x) => (float[m, 24] y) { y = MatMul(x, w) }"
GEMM = "g (float[m, 40] x) => (float[m, 24] y) { y = Gemm %s(x, w%s) }"


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


TINY = np.full((K, N), 1e-35, np.float32)
SKIPS = {
    "both inputs are activations": ("g (float[3, 40] x) => (float[3, 3] y) { t = Transpose(x) y = MatMul(x, t) }", {}),
    "its constant is on the left": ("g (float[24] x) => (float[40] y) { y = MatMul(w, x) }", {"w": W}),
    "both inputs are constants: the session folds the node": (
        "g (float[60, 60] x) => (float[60, 60] y) { u = MatMul(w, v) y = Add(x, u) }",
        {"w": random(60, 10), "v": random(10, 60)},
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
    "its sums have 2 products, fewer than 9: too few to even out errors": (
        "g (float[m, 2] x) => (float[m, 512] y) { y = MatMul(x, w) }",
        {"w": random(2, 512)},
    ),
    "its weight reaches 1e-35: sums of codes times its scales are beyond float32": (PRODUCT, {"w": TINY}),
    "its weight reaches 1e+35: sums of codes times its scales are beyond float32": (
        PRODUCT,
        {"w": np.full((K, N), 1e35, np.float32)},
    ),
    "its weight reaches 1e+200: sums of codes times its scales are beyond float32": (
        PRODUCT.replace("float[", "double["),
        {"w": np.full((K, N), 1e200)},
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
    if weight.nbytes < 1024 or k < SHORTEST_SUM:
        assert "fewer than" in rewrite(source, tmp_path).skips("matmul")["MatMul"]
    else:
        check(source, tmp_path, {"x": random(3, k, seed=9)})


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
