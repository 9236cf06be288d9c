"""Nodes in the order of their reading: what ONNX Runtime takes in any order, native code of ONNX does not."""

import random as shuffling

import numpy as np
import onnx
import pytest

from bct_onnx import compress, files
from bct_onnx.errors import BctError
from bct_onnx.files.order import CycleError, sort_model
from tests.helpers import model, run

CHAIN = "g (float[4] x) => (float[4] y) { a = Relu(x) b = Neg(a) c = Add(a, b) d = Abs(c) y = Mul(d, a) }"
BODY = """g (float[4] x, bool flag) => (float[4] y) {
    a = Relu(x)
    b = Neg(a)
    y = If(flag) <then_branch = t () => (float[4] p) { q = Abs(b) p = Add(q, a) },
                  else_branch = e () => (float[4] r) { s = Exp(a) r = Neg(s) }> }"""


def shuffled(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    nodes = list(proto.graph.node)
    shuffling.Random(seed).shuffle(nodes)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("text", [CHAIN, BODY])
def test_any_order_becomes_one_that_the_checker_takes(text, seed):
    proto = shuffled(model(text, 17, 8), seed)
    sort_model(proto)
    onnx.checker.check_model(proto)
    assert sorted(map(str, proto.graph.node)) == sorted(map(str, model(text, 17, 8).graph.node))


def test_what_is_sorted_stays_as_it_is():
    proto = model(BODY, 17, 8)
    before = proto.SerializeToString()
    sort_model(proto)
    assert proto.SerializeToString() == before


def test_bodies_and_functions_are_sorted_too():
    proto = model(BODY, 17, 8)
    branch = proto.graph.node[2].attribute[0].g
    inner = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(branch.node)]
    del branch.node[:]
    branch.node.extend(inner)
    outside = [onnx.helper.make_opsetid("", 17)]
    last, first = onnx.helper.make_node("Neg", ["h"], ["o"]), onnx.helper.make_node("Abs", ["i"], ["h"])
    proto.functions.append(onnx.helper.make_function("local", "f", ["i"], ["o"], [last, first], outside))
    sort_model(proto)
    assert [node.op_type for node in proto.graph.node[2].attribute[0].g.node] == ["Abs", "Add"]
    assert [node.op_type for node in proto.functions[0].node] == ["Abs", "Neg"]


def test_a_circle_is_named(tmp_path):
    proto = model("g (float[4] x) => (float[4] y) { a = Add(x, b) b = Neg(a) y = Abs(b) }", 17, 8)
    with pytest.raises(CycleError, match="reads what is computed from its own result"):
        sort_model(proto)
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(BctError, match=r"in\.onnx: node 'Add' reads"):
        files.read(tmp_path / "in.onnx")


@pytest.mark.parametrize("opset", [12, 17, 21])
def test_a_model_out_of_order_is_compressed(tmp_path, opset):
    """Below opset 21 it goes through ONNX's converter, which dies of nodes that come before what they read."""
    proto = shuffled(model(CHAIN, opset, 8), 3)
    onnx.save(proto, tmp_path / "in.onnx")
    compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    x = np.array([-1, 0, 2, 3], np.float32)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x=x), run(proto, x=x))
