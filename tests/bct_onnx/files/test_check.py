"""What ONNX's checker says of a model whose weights are elsewhere, and of what is written."""

import numpy as np
import onnx
import pytest

from bct_onnx import VerificationError, compress, files
from bct_onnx.files import writer
from tests.helpers import MLP, K, as_constant_nodes, model, random

LOOP = """g (float[2, 64] x) => (float[2, 64] y) {
    n = Constant <value = int64 {3}> ()
    go = Constant <value = bool {1}> ()
    y = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 64] s) => (bool c2, float[2, 64] s2) {
        c2 = Identity(c)
        s2 = MatMul(s, w) }> }"""


def read(folder, proto: onnx.ModelProto) -> files.ModelFile:
    onnx.save(proto, folder / "in.onnx")
    return files.read(folder / "in.onnx")


def test_weights_elsewhere_are_no_fault(tmp_path):
    assert files.refusal(read(tmp_path, model(MLP, w=random(K, K), v=random(K, K))).proto) is None
    inside = model(LOOP, w=random(K, K))
    body = inside.graph.node[2].attribute[0].g
    body.initializer.append(inside.graph.initializer.pop())
    source = read(tmp_path, inside)
    before = source.proto.SerializeToString()
    assert files.refusal(source.proto) is None
    assert source.proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("g (float[m, 64] x) => (float[m, 64] y) { a = NoSuch(x) y = MatMul(a, w) }", random(K, K)),
        ("g (float[m, 64] x) => (float[m, 64] y) { y = MatMul(x, w) }", random(K + 1, K)),
    ],
    ids=["operator", "shape"],
)
def test_a_fault_is_one_line(tmp_path, text, weight):
    said = files.refusal(read(tmp_path, model(text, w=weight)).proto)
    assert said
    assert "\n" not in said


def test_what_the_checker_refuses_is_not_put_in_place(tmp_path, source, monkeypatch):
    """ONNX Runtime loads nodes in any order, the checker does not."""
    to_model = writer.exporter.to_model

    def unsorted(*arguments):
        made, payloads = to_model(*arguments)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(made.graph.node)]
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        return made, payloads

    monkeypatch.setattr(writer.exporter, "to_model", unsorted)
    monkeypatch.setattr("bct_onnx.files.reader.sort_model", lambda _: None)
    with pytest.raises(VerificationError, match=r"onnx\.checker refuses the compressed model"):
        compress(source, tmp_path / "out.onnx", preset="fast")
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_that_the_checker_dies_of_is_refused_by_it(tmp_path):
    """Shape inference relies on sizes that are not negative."""
    numbers = {"start": np.array([0]), "stop": np.array([2**63 - 1]), "axis": np.array([0])}
    proto = model("g (int32[n, 7] x) => (int32[a, b] y) { y = Slice(x, start, stop, axis) }", 13, 7, **numbers)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert files.refusal(read(tmp_path, proto).proto)


def test_constants_in_nodes_hide_no_fault(tmp_path):
    """An output without a shape is refused by the checker alone, before and after."""
    weights = {"w": random(K, K, seed=1), "v": random(K, K, seed=2)}
    source = as_constant_nodes(model(MLP, **weights))
    assert files.is_accepted(read(tmp_path, source).proto)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    assert not files.is_accepted(read(tmp_path, source).proto)
    assert files.refusal(read(tmp_path, source).proto)
    compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast")


def test_a_model_that_the_checker_cannot_see_is_neither_accepted_nor_refused(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] y) { s = Shape(x) z = ConstantOfShape(s) y = Add(x, z) }"
    source = model(text)
    value = onnx.numpy_helper.from_array(np.ones(1, np.float32))
    source.graph.node[1].attribute.append(onnx.helper.make_attribute("value", value))
    proto = read(tmp_path, source).proto
    elsewhere = proto.graph.node[1].attribute[0].t
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    assert files.refusal(proto) is None
    assert not files.is_accepted(proto)
