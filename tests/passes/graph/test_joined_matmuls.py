"""Calls that decode the parts of a weight themselves, beside those that decode a whole one."""

from passes.functions.block_matmul import INT8
from passes.functions.joined_matmul import joined
from tests.helpers import model, random, rewrite

ONE = "g (float[2, 64] x) => (float[2, 48] y) { y = MatMul(x, w) }"


def test_functions_of_parts_take_no_place_of_others(tmp_path):
    """A function is made when a model calls it: what other models call must not depend on that."""
    for suffixes in (("4Trellis", "4Trellis"), ("7", "7"), ("4Trellis", "8")):
        joined(INT8, suffixes)
    result = rewrite(model(ONE, w=random(64, 48)), tmp_path, bits=4)
    calls = [node.op_type for node in result.proto.graph.node if "MatMul" in node.op_type]
    assert calls == ["BlockMatMul4Trellis"]
    result = rewrite(model(ONE, w=random(64, 48)), tmp_path, bits=7)
    calls = [node.op_type for node in result.proto.graph.node if "MatMul" in node.op_type]
    assert calls == ["BlockMatMul7"]
