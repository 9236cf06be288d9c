"""What is written for a runtime that lacks newer operators: none of them, and the same values."""

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from passes.formats.block import decode
from passes.formats.encode import encode
from passes.graph.editor import Editor, Emitter
from passes.graph.features import FIRST_OPSET, NOTHING, Feature
from passes.lowerings.base import StoredWeight
from passes.lowerings.scales import expand_scales
from passes.lowerings.stored import store_codes
from passes.lowerings.table import make_lowering
from passes.lowerings.unpack import opset_for
from tests.helpers import activation_bound, constant_nodes, emitted, operators, optimized, plain, random, run
from tests.passes.lowerings.test_lowerings import FLOAT, SHAPES, Write, as_float, encoded

ALL = frozenset(Feature)
NOTHING_FED = np.zeros(1, np.float32)
INT4 = {onnx.TensorProto.INT4, onnx.TensorProto.UINT4}
# Above the lowest opset of bytes of two codes, and where only the runtime lacks what the opset has.
OPSETS = (18, 20, 21)
every_opset = pytest.mark.parametrize("opset", OPSETS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")


def build(
    folder: Path, write: Write, lacks: frozenset[Feature], opset: int, x_type: type = np.float32
) -> onnx.ModelProto:
    """Return the model of what `write` wrote for a runtime that lacks some features."""
    x = gs.Variable("x", x_type, None)
    graph = gs.Graph(inputs=[x], opset=opset, import_domains=[onnx.helper.make_opsetid("com.microsoft", 1)])
    graph.import_domains.append(onnx.helper.make_opsetid("", opset))
    editor = Editor(graph, lacks=lacks)
    at = Emitter(editor, graph, graph.nodes)
    graph.outputs = [at.op("Identity", tensor, name=f"y{i}", dtype=np.float32) for i, tensor in enumerate(write(at, x))]
    editor.flush()
    return emitted(graph, folder, opset)


def holds_none(proto: onnx.ModelProto) -> bool:
    """Tell whether a model is free of int4, of blockwise quantization and of GatherBlockQuantized."""
    proto = plain(proto)
    blocks = [a for node in proto.graph.node if node.op_type != "MatMulNBits" for a in node.attribute]
    return (
        not INT4 & {tensor.data_type for tensor in proto.graph.initializer}
        and "GatherBlockQuantized" not in operators(proto)
        and not any(attribute.name == "block_size" for attribute in blocks)
    )


@every_shape
@every_opset
@pytest.mark.parametrize("by_rows", [False, True], ids=["columns", "rows"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_dense_decodes_bit_for_bit_and_folds(tmp_path, bits, by_rows, opset, shape):
    lowering = make_lowering("dense", ALL)
    tensor = encoded(lowering, bits, 8, shape)
    stored: list[StoredWeight] = []

    def write(at: Emitter, _: gs.Variable) -> list[gs.Tensor]:
        stored.append(lowering.store(at.at_load(), tensor, "w", by_rows))
        return [as_float(at, stored[0].values), as_float(at, stored[0].scale)]

    proto = build(tmp_path, write, ALL, opset)
    assert holds_none(proto)
    values, scale = run(proto, optimize=False, x=NOTHING_FED)
    scale = scale * np.float32(stored[0].tensor_scale)
    expected = decode(tensor)
    np.testing.assert_array_equal(values * (scale[:, None] if by_rows else scale), expected.T if by_rows else expected)
    assert constant_nodes(optimized(proto, tmp_path)) == []


@every_shape
@every_opset
@pytest.mark.parametrize(("name", "bits"), [("dense", 4), ("dense", 8), ("packed", 4), ("qdq", 4), ("qdq", 8)])
def test_products(tmp_path, name, bits, opset, shape):
    """Within the bound of int8 activations, and with nothing left for every run of what depends on constants alone."""
    lowering = make_lowering(name, ALL)
    tensor = encoded(lowering, bits, 32, shape)

    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        return [lowering.multiply(at, x, lowering.store(at.at_load(), tensor, "w", by_rows=False), "w")]

    proto = build(tmp_path, write, ALL, opset)
    assert holds_none(proto)
    weight = decode(tensor)
    x = np.random.default_rng(1).standard_normal((3, 4, shape[0])).astype(np.float32)
    for optimize in (False, True):
        (y,) = run(proto, optimize, x=x)
        assert np.all(np.abs(y - x @ weight) <= activation_bound(x, weight) + 1e-5 * np.abs(x @ weight).max())
    assert constant_nodes(optimized(proto, tmp_path)) == []


@every_shape
@every_opset
@pytest.mark.parametrize(("name", "bits"), [("dense", 4), ("packed", 2), ("packed", 4), ("packed", 8), ("qdq", 4)])
def test_looked_up_rows_are_those_of_newer_operators(tmp_path, name, bits, opset, shape):
    """Indices of any shape, negative ones, none at all: to the last bits the values of the decoded table."""
    lacks = ALL - {Feature.NBITS_2, Feature.NBITS_8}
    lowering = make_lowering(name, lacks)
    tensor = encode(random(*shape), lowering.table_format(bits, 16, shape[0], opset=1))
    table = decode(tensor).T

    def write(at: Emitter, x: gs.Variable) -> list[gs.Tensor]:
        return [lowering.lookup(at, lowering.store(at.at_load(), tensor, "w", by_rows=True), x, "w")]

    proto = build(tmp_path, write, lacks, opset, np.int64)
    assert holds_none(proto)
    for indices in (np.array(0), np.array([[0, shape[1] - 1], [-1, 0]]), np.zeros((0, 3), np.int64)):
        for optimize in (False, True):
            (rows,) = run(proto, optimize, x=indices.astype(np.int64))
            np.testing.assert_allclose(rows, table[indices], rtol=1e-6)


@every_opset
@pytest.mark.parametrize("size", [1, 7, 8, 33])
@pytest.mark.parametrize("lacks", [NOTHING, ALL], ids=["newest", "oldest"])
def test_scales_of_half_a_byte(tmp_path, opset, size, lacks):
    """Odd numbers of exponents, which do not fill their bytes."""
    fmt = make_lowering("packed").format(8, 16, 64)
    exponents = np.arange(size, dtype=np.uint8)[:, None] % 16
    fmt = type(fmt).shifted(4, 16) if fmt.max_exponent > 15 else fmt
    column = np.ones((1, 1), np.float16)

    def write(at: Emitter, _: gs.Variable) -> list[gs.Tensor]:
        return [expand_scales(at.at_load(), exponents % (fmt.max_exponent + 1), column, 1.0, fmt, "s")[0]]

    (scales,) = run(build(tmp_path, write, lacks, opset), optimize=False, x=NOTHING_FED)
    expected = np.float32(2) ** (exponents % (fmt.max_exponent + 1) / np.float32(fmt.steps))
    np.testing.assert_allclose(scales, expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_stored_constants_are_those_of_int4(tmp_path, bits):
    tensor = encoded(make_lowering("qdq"), 4, 32, (64, 24))
    tensor = tensor if bits == 4 else encoded(make_lowering("dense"), bits, 32, (64, 24))

    def write(at: Emitter, _: gs.Variable) -> list[gs.Tensor]:
        return [store_codes(at.at_load(), tensor, (24, 64), FLOAT, "c")[0]]

    newest, oldest = build(tmp_path, write, NOTHING, 21), build(tmp_path, write, ALL, 21)
    assert holds_none(oldest)
    np.testing.assert_array_equal(run(newest, x=NOTHING_FED)[0], run(oldest, x=NOTHING_FED)[0])


@pytest.mark.parametrize("name", ["packed", "shifts"])
def test_widths_that_the_runtime_lacks_are_not_chosen(name):
    def bits(asked: int, *lacks: Feature) -> int:
        return make_lowering(name, frozenset(lacks)).format(asked, 32, 64).bits

    assert [bits(asked) for asked in (2, 4, 8)] == [2, 4, 8]
    assert bits(2, Feature.NBITS_2) == 4
    assert bits(8, Feature.NBITS_8) == bits(6, Feature.NBITS_8, Feature.NBITS_2) == 4


def test_what_was_avoided_is_noted_and_what_nobody_asked_for_is_not():
    graph = gs.Graph(opset=21)
    editor = Editor(graph, lacks=frozenset({Feature.BLOCKWISE, Feature.INT4_CASTS}))
    assert editor.has(Feature.GATHER_BLOCKS)
    assert not editor.has(Feature.INT4_CASTS)
    assert editor.avoided == {Feature.INT4_CASTS}


@pytest.mark.parametrize(("feature", "opset"), FIRST_OPSET.items())
def test_an_opset_without_a_feature_has_it_not(feature, opset):
    assert Editor(gs.Graph(opset=opset)).has(feature)
    assert not Editor(gs.Graph(opset=opset - 1)).has(feature)


def test_codes_below_a_byte_need_operators_on_bits():
    assert {opset_for(bits) for bits in range(2, 8)} == {18}
    assert opset_for(8) == 1
