"""What a lowering writes computes what the codes stand for, and decodes them when the session is made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from passes.formats.block import BlockTensor, decode
from passes.formats.encode import encode
from passes.graph.editor import Editor, Emitter
from passes.lowerings.base import Lowering, StoredWeight
from passes.lowerings.dense import Dense
from passes.lowerings.packed import Packed
from passes.lowerings.qdq import Qdq
from passes.lowerings.stored import store_codes, store_half
from passes.lowerings.table import LOWERINGS, make_lowering
from tests.helpers import (
    activation_bound,
    constant_nodes,
    emitted,
    model,
    operators,
    optimized,
    plain,
    random,
    rewrite,
    run,
)

# The runtime's Pow is within a unit in the last place of the table that `decode` uses; a product rounds once more.
POWERS = 3 * np.finfo(np.float32).eps
# Blocks divide the first; the last block of the others is cut short; one row, one column.
SHAPES = [(64, 24), (172, 5), (10, 3), (33, 1), (2, 7)]
FORMATS = [
    (lowering, bits, 32)
    for lowering, widths in (
        ("dense", range(2, 9)),
        ("dense7", (2, 6, 7, 8)),
        ("packed", (2, 4, 5, 6, 7, 8)),
        ("both", (2, 4, 8)),
        ("qdq", (4, 8)),
    )
    for bits in widths
] + [("dense", 4, 0), ("dense", 4, 8), ("dense", 6, 128), ("packed", 4, 16), ("both", 4, 16), ("qdq", 4, 8)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
every_format = pytest.mark.parametrize(("name", "bits", "block"), FORMATS)

FLOAT = onnx.TensorProto.FLOAT
Write = Callable[[Emitter, gs.Variable], list[gs.Tensor]]


def build(folder: Path, write: Write, x_type: type = np.float32, opset: int = 21) -> onnx.ModelProto:
    """Return a model of one input x, of any shape, and the outputs that `write` wrote."""
    x = gs.Variable("x", x_type, None)
    graph = gs.Graph(inputs=[x], opset=opset, import_domains=[onnx.helper.make_opsetid("com.microsoft", 1)])
    graph.import_domains.append(onnx.helper.make_opsetid("", opset))
    editor = Editor(graph)
    at = Emitter(editor, graph, graph.nodes)
    outputs = [at.op("Identity", tensor, name=f"y{i}") for i, tensor in enumerate(write(at, x))]
    for output in outputs:
        output.dtype = np.float32
    graph.outputs = outputs
    editor.flush()
    return emitted(graph, folder, opset)


def as_float(at: Emitter, x: gs.Tensor) -> gs.Variable:
    return at.op("Cast", x, name="float", to=FLOAT)


def encoded(
    lowering: Lowering, bits: int, block: int, shape: tuple[int, int], table: bool = False, skew: float = 0
) -> BlockTensor:
    """Return codes as a weight or as a table has them; with `skew`, most numbers are on one side of zero."""
    weight = (random(*shape, seed=sum(shape)) + skew) * 10.0 ** random(1, shape[1], seed=1)
    fmt = lowering.table_format(bits, block, shape[0], 21) if table else lowering.format(bits, block, shape[0])
    return encode(weight.astype(np.float32), fmt)


def product(folder: Path, lowering: Lowering, tensor: BlockTensor, by_rows: bool = False) -> onnx.ModelProto:
    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        weight = lowering.store(at.at_load(), tensor, "w", by_rows)
        return [lowering.multiply(at, x, weight, "w")]

    return build(folder, write)


def lookup(folder: Path, lowering: Lowering, tensor: BlockTensor) -> onnx.ModelProto:
    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        table = lowering.store(at.at_load(), tensor, "w", by_rows=True)
        return [lowering.lookup(at, table, x, "w")]

    return build(folder, write, np.int64)


@every_shape
@pytest.mark.parametrize("by_rows", [False, True], ids=["columns", "rows"])
@pytest.mark.parametrize("block", [8, 32, 0])
@pytest.mark.parametrize("bits", range(2, 9))
def test_dense_decodes_bit_for_bit(tmp_path, bits, block, by_rows, shape):
    lowering = Dense()
    tensor = encoded(lowering, bits, block, shape)
    stored: list[StoredWeight] = []

    def write(at: Emitter, _: gs.Variable) -> list[gs.Tensor]:
        weight = lowering.store(at.at_load(), tensor, "w", by_rows)
        stored.append(weight)
        return [as_float(at, weight.values), as_float(at, weight.scale)]

    values, scale = run(build(tmp_path, write), optimize=False, x=random(1))
    scale = scale * np.float32(stored[0].tensor_scale)
    expected = decode(tensor)
    if by_rows:
        expected, scale = expected.T, scale[:, None]
    np.testing.assert_array_equal(values * scale, expected)


@every_shape
@every_format
def test_products(tmp_path, name, bits, block, shape):
    """Without optimizations and with them, within the bound of int8 activations of the decoded product."""
    lowering = make_lowering(name)
    tensor = encoded(lowering, bits, block, shape)
    weight = decode(tensor)
    proto = product(tmp_path, lowering, tensor)
    for rows in ((3, 4), (1, 1)):
        x = random(*rows, shape[0], seed=5)
        for optimize in (False, True):
            (y,) = run(proto, optimize, x=x)
            bound = activation_bound(x, weight) + 1e-5 * np.abs(x @ weight).max()
            assert y.shape == (*rows, shape[1])
            assert np.all(np.abs(y - x @ weight) <= bound)


@every_shape
@pytest.mark.parametrize("bits", [4, 8])
def test_qdq_decodes_to_the_codes(tmp_path, bits, shape):
    """Row i of the unit matrix times a weight is its row i; unfused the product is a float one."""
    tensor = encoded(Qdq(), bits, 32, shape)
    (y,) = run(product(tmp_path, Qdq(), tensor), optimize=False, x=np.eye(shape[0], dtype=np.float32))
    np.testing.assert_allclose(y, decode(tensor), rtol=POWERS)


@every_shape
@pytest.mark.parametrize("opset", [10, 12, 20])
def test_qdq_needs_no_blockwise_operator(tmp_path, opset, shape):
    """At every opset codes of a byte decode to the same, columns and rows, and a session folds what decodes them."""
    lowering, tensor = Qdq(), encoded(Qdq(), 8, 32, shape)
    indices = np.array([0, shape[1] - 1])

    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        columns = lowering.store(at.at_load(), tensor, "w", by_rows=False)
        rows = lowering.store(at.at_load(), tensor, "t", by_rows=True)
        found = lowering.lookup(at, rows, at.constant(indices, "indices"), "t")
        return [lowering.multiply(at, x, columns, "w"), lowering.multiply(at, x, rows, "t"), found]

    proto = build(tmp_path, write, opset=opset)
    by_columns, by_rows, found = run(proto, optimize=False, x=np.eye(shape[0], dtype=np.float32))
    np.testing.assert_allclose(by_columns, decode(tensor), rtol=POWERS)
    np.testing.assert_array_equal(by_rows, by_columns)
    np.testing.assert_array_equal(found, by_columns.T[indices])
    assert not {"DequantizeLinear", "Mul", "Reshape"} & set(operators(optimized(proto, tmp_path)))


@every_shape
@pytest.mark.parametrize(("bits", "skew"), [(2, 0), (4, 0), (4, 1), (5, 0), (6, 0), (7, 0), (8, 0)])
def test_packed_decodes_to_the_codes(tmp_path, bits, skew, shape):
    tensor = encoded(Packed(), bits, 32, shape, skew=skew)
    assert tensor.zeros is not None or not skew
    proto = plain(product(tmp_path, Packed(), tensor))
    # The kernel's activations are floats at level 0: then the unit matrix shows the weight itself.
    (node,) = [node for node in proto.graph.node if node.op_type == "MatMulNBits"]
    next(a for a in node.attribute if a.name == "accuracy_level").i = 0
    (y,) = run(proto, optimize=False, x=np.eye(shape[0], dtype=np.float32))
    np.testing.assert_allclose(y, decode(tensor), rtol=POWERS)


@every_shape
@every_format
def test_lookups(tmp_path, name, bits, block, shape):
    lowering = make_lowering(name)
    tensor = encoded(lowering, bits, block, shape, table=True)
    indices = np.array([[0, shape[1] - 1, 0], [shape[1] // 2, 0, shape[1] - 1]])
    proto = lookup(tmp_path, lowering, tensor)
    for optimize in (False, True):
        (rows,) = run(proto, optimize, x=indices)
        np.testing.assert_allclose(rows, decode(tensor).T[indices], rtol=POWERS)


@pytest.mark.parametrize(("name", "bits", "block"), FORMATS)
def test_a_table_by_rows_multiplies_too(tmp_path, name, bits, block):
    lowering = make_lowering(name)
    tensor = encoded(lowering, bits, block, (172, 12), table=True)
    x = random(5, 172)
    plain = run(product(tmp_path, lowering, tensor), optimize=False, x=x)[0]
    again = make_lowering(name)
    by_rows = run(product(tmp_path, again, tensor, by_rows=True), optimize=False, x=x)[0]
    np.testing.assert_allclose(by_rows, plain, rtol=1e-5, atol=1e-6)


@every_shape
@pytest.mark.parametrize("bits", range(2, 9))
def test_a_session_folds_all_that_dense_decodes(tmp_path, bits, shape):
    tensor = encoded(Dense(), bits, 32, shape)
    for by_rows in (False, True):
        assert constant_nodes(optimized(product(tmp_path, Dense(), tensor, by_rows), tmp_path)) == []
    assert constant_nodes(optimized(lookup(tmp_path, Dense(), tensor), tmp_path)) == []


@every_shape
@pytest.mark.parametrize("bits", [2, 4, 5, 6, 7, 8])
def test_a_session_folds_all_but_the_codes_of_packed_weights(tmp_path, bits, shape):
    tensor = encoded(Packed(), bits, 32, shape)
    proto = optimized(product(tmp_path, Packed(), tensor), tmp_path)
    assert constant_nodes(proto) == []
    assert "MatMulNBits" in operators(proto)
    assert constant_nodes(optimized(lookup(tmp_path, Packed(), tensor), tmp_path)) == []


def test_no_node_of_the_decoding_is_unknown_to_the_fold_test(tmp_path):
    """Before optimization the graph holds the nodes whose absence the tests above assert."""
    decoding = constant_nodes(product(tmp_path, Dense(), encoded(Dense(), 6, 32, (172, 5))))
    assert {"Cast", "BitShift", "BitwiseAnd", "BitwiseOr", "Reshape", "Slice"} <= set(decoding)
    assert "Pow" in constant_nodes(product(tmp_path, Packed(), encoded(Packed(), 8, 32, (64, 5))))


@every_shape
@pytest.mark.parametrize("bits", range(2, 9))
def test_stored_constants(tmp_path, bits, shape):
    """Numbers by the decoded reference, and nothing of the decoding is left once the session is made."""
    k, n = shape
    fmt = Qdq().format(8, 32, k)
    tensor = encode(random(k, n, seed=3), type(fmt).fine(bits, 32))
    target = (n, 1, k)

    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        restored, _ = store_codes(at.at_load(), tensor, target, FLOAT, "c")
        return [at.op("Add", x, restored, name="sum")]

    proto = build(tmp_path, write)
    for optimize in (False, True):
        (y,) = run(proto, optimize, x=np.zeros(1, np.float32))
        np.testing.assert_allclose(y, decode(tensor).T.reshape(target), rtol=POWERS)
    assert constant_nodes(optimized(proto, tmp_path)) == []


@pytest.mark.parametrize("to", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_stored_constants_of_other_types(tmp_path, to):
    tensor = encode(random(40, 3, seed=3), Qdq().format(8, 8, 40))
    proto = build(
        tmp_path,
        lambda at, _: [at.op("Cast", store_codes(at.at_load(), tensor, (3, 40), to, "c")[0], name="float", to=FLOAT)],
    )
    (y,) = run(proto, optimize=False, x=random(1))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
    np.testing.assert_allclose(
        y, decode(tensor).T.astype(dtype), rtol=2**-10 if to == onnx.TensorProto.FLOAT16 else POWERS
    )


def test_halves_come_back_bit_for_bit(tmp_path):
    values = random(300, seed=2)
    proto = build(
        tmp_path,
        lambda at, x: [at.op("Add", x, store_half(at.at_load(), values, FLOAT, "c")[0], name="sum")],
    )
    (y,) = run(proto, x=np.zeros(1, np.float32))
    np.testing.assert_array_equal(y, values.astype(np.float16).astype(np.float32))
    assert constant_nodes(optimized(proto, tmp_path)) == []


@pytest.mark.parametrize("name", LOWERINGS)
@pytest.mark.parametrize("bits", [4, 5, 6])
def test_bytes_are_those_of_codes_and_scales(tmp_path, name, bits):
    """The weight's initializers above a shape's size are what `bytes` says: codes and scales, nothing else."""
    lowering = make_lowering(name)
    tensor = encoded(lowering, bits, 32, (256, 64))
    stored: list[StoredWeight] = []

    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        stored.append(lowering.store(at.at_load(), tensor, "w", by_rows=False))
        return [lowering.multiply(at, x, stored[0], "w")]

    proto = build(tmp_path, write)
    sizes = [len(onnx.numpy_helper.to_array(t).reshape(-1)) for t in proto.graph.initializer]
    own = zip(proto.graph.initializer, sizes, strict=True)
    kept = [t for t, size in own if size >= 64 and t.name.startswith("w")]
    assert stored[0].bytes == sum(len(t.raw_data) for t in kept)
    assert stored[0].bytes < 256 * 64 * (tensor.format.bits + 0.6) / 8


def test_rows_do_not_disturb_each_other(tmp_path):
    """A row alone and the same row beside a far larger one: the same bits."""
    proto = product(tmp_path, Dense(), encoded(Dense(), 6, 32, (64, 24)))
    x = random(8, 64) * np.float32(10.0) ** np.arange(8, dtype=np.float32)[:, None]
    (together,) = run(proto, x=x)
    for row in range(8):
        (alone,) = run(proto, x=x[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("magnitude", [0.0, 1e-20, 1e20])
def test_rows_of_any_magnitude(tmp_path, magnitude):
    lowering = Dense()
    tensor = encoded(lowering, 8, 0, (64, 24))
    x = random(4, 64) * np.float32(magnitude)
    (y,) = run(product(tmp_path, lowering, tensor), x=x)
    bound = activation_bound(x, decode(tensor)) + 1e-5 * np.abs(x).max() * np.abs(decode(tensor)).max()
    assert np.all(np.abs(y - x @ decode(tensor)) <= bound)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_dense_products_at_every_opset(tmp_path, opset):
    """ReduceMax takes its axes as an attribute before opset 18; whole bytes need no operator of opset 21."""
    lowering = Dense()
    tensor = encoded(lowering, 8, 0, (64, 24))

    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        return [lowering.multiply(at, x, lowering.store(at.at_load(), tensor, "w", by_rows=False), "w")]

    proto = build(tmp_path, write, opset=opset)
    x = random(3, 64)
    (y,) = run(proto, x=x)
    assert np.all(np.abs(y - x @ decode(tensor)) <= activation_bound(x, decode(tensor)) + 1e-5)


@pytest.mark.parametrize(
    ("name", "bits", "expected"),
    [
        ("dense", 8, 10),
        ("dense", 6, 18),
        ("packed", 4, 7),
        ("packed", 8, 7),
        ("both", 4, 18),
        ("both", 8, 18),
        ("qdq", 4, 18),
        ("qdq", 8, 7),
    ],
)
def test_lowest_opsets(name, bits, expected):
    assert make_lowering(name).opset(bits) == expected


@pytest.mark.parametrize(
    ("name", "request_", "expected"),
    [
        ("dense", (6, 32, 768), (6, 32, 1)),
        ("dense", (6, 128, 60), (6, 64, 1)),
        ("dense", (8, 32, 768), (8, 0, 0)),
        ("packed", (3, 32, 768), (4, 32, 14)),
        ("packed", (5, 0, 768), (5, 128, 31)),
        ("packed", (4, 256, 100), (4, 128, 14)),
        ("packed", (4, 32, 10), (4, 16, 14)),
        ("both", (3, 32, 768), (4, 32, 14)),
        ("both", (2, 0, 768), (2, 128, 14)),
        ("both", (5, 32, 768), (8, 0, 0)),
        ("qdq", (6, 32, 768), (8, 32, 31)),
        ("qdq", (2, 0, 60), (4, 64, 31)),
        ("qdq", (8, 32, 48), (8, 16, 31)),
        ("qdq", (8, 32, 100), (8, 32, 31)),
        ("qdq", (8, 24, 48), (8, 24, 31)),
    ],
)
def test_the_nearest_format(name, request_, expected):
    fmt = make_lowering(name).format(*request_)
    assert (fmt.bits, fmt.block_size, fmt.max_exponent) == expected


@pytest.mark.parametrize("block", [8, 32, 0])
@pytest.mark.parametrize("bits", range(2, 9))
def test_two_products_of_seven_bits_fit_sixteen(bits, block):
    fmt = make_lowering("dense7").format(bits, block, 64)
    extremes = [fmt.low << fmt.max_exponent, fmt.high << fmt.max_exponent]
    assert all(-(2**15) <= 2 * 255 * value < 2**15 for value in extremes)


@pytest.mark.parametrize("name", ["dense", "packed", "both"])
def test_scales_of_many_columns_are_exact_in_the_file(tmp_path, name):
    """No later pass codes them: an error of a scale is one of everything that its column adds up to."""
    weight = random(64, 3072)
    result = rewrite(
        model("g (float[m, 64] x) => (float[m, 3072] y) { y = MatMul (x, w) }", w=weight),
        tmp_path,
        lowering=name,
        bits=4,
        block_size=32,
    )
    scales = [t for t in result.proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    lowering = make_lowering(name)
    expected = encode(weight, lowering.format(4, 32, 64)).column_scale
    assert any(np.array_equal(onnx.numpy_helper.to_array(scale).reshape(-1), expected) for scale in scales)
