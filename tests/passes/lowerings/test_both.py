"""Two forms of one weight: which of them multiplies how many rows, and that both hold the same numbers."""

import numpy as np
import onnx
import pytest

from passes.formats.block import decode
from passes.functions.quantize_rows import LONGEST_SUM
from passes.graph.editor import Emitter
from passes.lowerings import both
from passes.lowerings.both import MOST_ROWS, Both
from passes.lowerings.packing import pack_zeros
from tests.helpers import K, activation_bound, model, nodes, operators, optimized, plain, random, rewrite, run
from tests.passes.lowerings.test_lowerings import as_float, build, encoded, product

MERGED = """g (float[batch, tokens, 64] x, float[batch, 2, past, 8] past_key, bool use_cache_branch)
    => (float[batch, tokens, 64] y) {
    y = If (use_cache_branch) <
        then_branch = later () => (float[batch, tokens, 64] a) {
            sum = ReduceSum <keepdims = 0> (past_key) p = MatMul (x, w) a = Add (p, sum) },
        else_branch = first () => (float[batch, tokens, 64] b) { b = MatMul (x, w) }
    >
}"""


def forced(proto: onnx.ModelProto, many: bool) -> onnx.ModelProto:
    """Return a model whose branches all go one way."""
    for node in nodes(proto.graph):
        if node.op_type == "Greater":
            node.op_type = "Equal" if many else "Less"
            node.input[:] = [node.input[0], node.input[0]]
    return proto


@pytest.mark.parametrize(("bits", "skew"), [(2, 0), (4, 0), (4, 1), (8, 0)])
def test_int8_is_what_codes_stand_for(tmp_path, bits, skew):
    """The int8 matrix times its columns' scales, and the codes times the blocks' scales, are the same weight."""
    lowering, tensor = Both(), encoded(Both(), bits, 32, (172, 6), skew=skew)
    assert tensor.zeros is not None or not skew

    def write(at: Emitter, _: object) -> list[object]:
        weight = lowering.store(at.at_load(), tensor, "w", by_rows=False)
        values = both._decode(at.at_load(), weight)
        return [as_float(at, values), as_float(at, weight.column_scale), weight.scale]

    values, column, scales = run(build(tmp_path, write), optimize=False, x=random(1))
    column = column * np.float32(tensor.tensor_scale)
    assert np.abs(values).max() <= 128
    np.testing.assert_array_equal(values * column, decode(tensor))
    if bits < 8:
        np.testing.assert_array_equal(scales, tensor.block_scale.T)
    else:
        np.testing.assert_array_equal(scales, np.broadcast_to(column[:, None], scales.shape))


@pytest.mark.parametrize(("bits", "skew"), [(2, 0), (4, 0), (4, 1), (8, 0)])
@pytest.mark.parametrize("optimize", [False, True])
def test_the_number_of_rows_chooses(tmp_path, bits, skew, optimize):
    """Up to the most rows of packed codes, and from there on: the very numbers of each form."""
    tensor = encoded(Both(), bits, 32, (64, 24), skew=skew)
    rows = product(tmp_path, Both(), tensor)
    few, many = (forced(plain(product(tmp_path, Both(), tensor)), each) for each in (False, True))
    for count in (1, MOST_ROWS[bits], MOST_ROWS[bits] + 1, 40):
        x = random(count, 64, seed=count)
        expected, other = many, few
        if count <= MOST_ROWS[bits]:
            expected, other = few, many
        (y,), (right,), (wrong,) = (run(each, optimize, x=x) for each in (rows, expected, other))
        np.testing.assert_array_equal(y, right)
        assert not np.array_equal(right, wrong)
        assert np.all(np.abs(right - wrong) <= 2 * activation_bound(x, decode(tensor)) + 1e-5)


@pytest.mark.parametrize("k", [64, 172])
def test_packed_codes_less_their_zero_points_are_the_weight(tmp_path, k):
    """An odd count of blocks, too. The kernel's activations are floats at level 0: a unit matrix shows the weight."""
    tensor = encoded(Both(), 4, 32, (k, 6), skew=1)
    assert tensor.zeros is not None
    assert tensor.zeros.any()
    proto = forced(plain(product(tmp_path, Both(), tensor)), many=False)
    for node in nodes(proto.graph):
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    (y,) = run(proto, optimize=False, x=np.eye(k, dtype=np.float32))
    np.testing.assert_allclose(y, decode(tensor), rtol=1e-6, atol=1e-12)


def test_zero_points_lie_as_the_kernel_has_them():
    zeros = np.array([[-8, 7], [0, 1], [3, -1]], np.int8)
    np.testing.assert_array_equal(pack_zeros(zeros), [[0x80, 0x0B], [0x9F, 0x07]])


@pytest.mark.parametrize("magnitude", [0.0, 1e-20, 1e20])
@pytest.mark.parametrize("rows", [1, 8])
def test_rows_of_any_magnitude(tmp_path, rows, magnitude):
    tensor = encoded(Both(), 4, 32, (64, 24))
    x = random(rows, 64) * np.float32(magnitude)
    (y,) = run(product(tmp_path, Both(), tensor), x=x)
    bound = activation_bound(x, decode(tensor)) + 1e-5 * np.abs(x).max() * np.abs(decode(tensor)).max()
    assert np.all(np.abs(y - x @ decode(tensor)) <= bound)


def test_products_of_the_same_rows_count_them_once(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] z) { y = MatMul (x, w) r = Relu (y) z = MatMul (r, v) }"
    result = rewrite(model(text, w=random(K, K), v=random(K, K, seed=1)), tmp_path, lowering="both", bits=4)
    assert operators(plain(result.proto)).count("Size") == 1
    assert operators(plain(result.proto)).count("If") == 2


@pytest.mark.parametrize(("rows", "form"), [(1, "MatMulNBits"), (4, "MatMulNBits"), (5, "MatMulIntegerToFloat")])
def test_a_known_number_of_rows_needs_no_branch(tmp_path, rows, form):
    text = f"g (float[{rows}, 64] x) => (float[{rows}, 64] y) {{ y = MatMul (x, w) }}"
    result = rewrite(model(text, w=random(K, K)), tmp_path, lowering="both", bits=4)
    found = set(operators(optimized(result.proto, tmp_path)))
    assert found & {"If", "MatMulNBits", "MatMulIntegerToFloat"} == {form}


def test_branches_of_a_merged_decoder_take_their_form(tmp_path):
    """The first step is int8, later ones are packed; the codes are in the file once."""
    weight = random(K, K)
    result = rewrite(model(MERGED, w=weight), tmp_path, lowering="both", bits=4)
    (branch,) = (node for node in plain(result.proto).graph.node if node.op_type == "If")
    later, first = ({n.op_type for n in attribute.g.node} for attribute in branch.attribute)
    assert "MatMulNBits" in later
    assert not {"If", "MatMulIntegerToFloat"} & later
    assert "MatMulIntegerToFloat" in first
    assert not {"If", "MatMulNBits"} & first
    assert sum(len(t.raw_data) for t in result.proto.graph.initializer) < K * K * 4 / 6
    feed = {"x": random(1, 3, K), "past_key": np.zeros((1, 2, 4, 8), np.float32)}
    expected = feed["x"] @ weight
    for use in (False, True):
        (y,) = run(result.proto, use_cache_branch=np.array(use), **feed)
        assert np.linalg.norm(y - expected) < 0.15 * np.linalg.norm(expected)


def test_sums_too_long_for_integers_stay_packed(tmp_path):
    k = LONGEST_SUM + 63
    tensor = encoded(Both(), 4, 256, (k, 2))
    assert "If" not in operators(plain(product(tmp_path, Both(), tensor)))
    x = random(8, k)
    (y,) = run(product(tmp_path, Both(), tensor), x=x)
    assert np.all(np.abs(y - x @ decode(tensor)) <= activation_bound(x, decode(tensor)) + 1e-2)


@pytest.mark.parametrize(("k", "block"), [(576, 64), (768, 128), (100, 16), (30, 32), (8, 16)])
def test_columns_with_one_scale_are_cut_into_even_blocks(tmp_path, k, block):
    """Padding is bytes of the file: the largest block that leaves the least."""
    tensor = encoded(Both(), 8, 0, (k, 4))
    (node,) = (n for n in nodes(plain(product(tmp_path, Both(), tensor)).graph) if n.op_type == "MatMulNBits")
    assert next(a.i for a in node.attribute if a.name == "block_size") == block
