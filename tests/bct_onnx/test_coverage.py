"""Coverage: what became codes, in bytes, and a reason for each node that did not."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import compress, table
from bct_onnx.errors import BctError
from tests.helpers import model, random

# x [batch, 4, 64] -- two products, a residual sum, a softmax over scores, a mask that reaches a float Add, the output.
TEXT = """g (float[batch, 4, 64] x, int64[4] seen) => (float[batch, 4, 64] y)
<float least = {-10000.0}> {
    h = MatMul (x, w)
    r = Add (h, x)
    t = Transpose <perm = [0, 2, 1]> (r)
    s = MatMul (r, t)
    f = Cast <to = 1> (seen)
    mask = Mul (f, least)
    m = Add (s, mask)
    p = Softmax <axis = -1> (m)
    v = MatMul (p, r)
    y = Tanh (v)
}"""
WEIGHT = random(64, 64, seed=1)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.onnx"
    onnx.save(model(TEXT, w=WEIGHT), path)
    return path


def compressed(source: Path, **options):
    report = compress(source, source.with_name("out.onnx"), preset="paper", **options)
    assert report.coverage is not None
    return report


def test_everything_is_covered(source):
    coverage = compressed(source).coverage
    assert coverage.weight_bytes == WEIGHT.nbytes + 4
    assert coverage.weight_codes == WEIGHT.nbytes
    rows = {row.op: row for row in coverage.operators}
    assert {op: row.nodes for op, row in rows.items()} == {
        "MatMul": 3,
        "Add": 2,
        "Transpose": 1,
        "Softmax": 1,
        "Tanh": 1,
    }
    assert rows["MatMul"].replaced == 3
    assert rows["Softmax"].replaced == 1
    assert rows["Add"].between == 2
    assert rows["Transpose"].moves == 1
    assert not coverage.left
    assert coverage.result_codes == coverage.result_bytes > 0


def test_bytes_per_token(source):
    # The smallest feed's rows: 64 floats each of h, r, t and v, 4 of s, m and p; a token is a row of 64.
    coverage = compressed(source).coverage
    assert coverage.result_bytes == pytest.approx(4 * (4 * 64 + 3 * 4))


def test_what_is_left_has_its_reason(source):
    coverage = compressed(source, keep=["^m$"]).coverage
    assert {node.op: node.reason for node in coverage.left} == {
        "Softmax": "softmax: kept by the pattern '^m$'",
        "Add": "m: may hold a mask's huge values, which no block's scale should stretch to",
    }
    assert {row.op: row.left for row in coverage.operators if row.left} == {"Softmax": 1, "Add": 1}


def test_without_the_softmax_the_mask_is_what_is_left(source):
    coverage = compressed(source, operators=["intermediates"]).coverage
    assert [edge.tensor for edge in coverage.results_left] == ["m"]
    assert {node.op for node in coverage.left} == {"Add", "MatMul", "Softmax"}
    assert coverage.result_codes < coverage.result_bytes


def test_sizes_are_unknown_without_a_run(source):
    coverage = compressed(source, verify=False).coverage
    assert coverage.result_bytes == 0
    assert coverage.shapes == {}


def test_the_report_says_it_as_data_and_as_a_table(source, capsys):
    report = compressed(source)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["coverage"]["result_codes"] == data["coverage"]["result_bytes"]
    assert {row["op"] for row in data["coverage"]["operators"]} >= {"MatMul", "Softmax"}
    assert data["options"]["activations"] == "int8"
    table.show(report)
    shown = capsys.readouterr().out
    assert "Coverage" in shown
    assert "Softmax" in shown


def test_other_presets_do_not_count(source):
    report = compress(source, source.with_name("out.onnx"), preset="small")
    assert report.coverage is None
    assert report.to_dict()["coverage"] is None


def test_an_unknown_operator_is_a_bad_request(source):
    with pytest.raises(BctError, match=r"operator 'soft' does not exist; choose of .*softmax"):
        compress(source, source.with_name("out.onnx"), operators=["soft"])


def test_an_unknown_code_type_is_a_bad_request(source):
    with pytest.raises(BctError, match="activations must be one of int8, int4, float8e4m3, not 'int3'"):
        compress(source, source.with_name("out.onnx"), preset="paper", activations="int3")


@pytest.mark.parametrize("activations", ["int4", "float8e4m3"])
def test_other_code_types_verify(source, activations):
    report = compressed(source, activations=activations, max_rel_error=0.5)
    types = {
        attribute.i
        for node in onnx.load(source.with_name("out.onnx")).graph.node
        if node.op_type == "CodeBlocks"
        for attribute in node.attribute
        if attribute.name == "output_dtype"
    }
    assert {"int4": onnx.TensorProto.INT4, "float8e4m3": onnx.TensorProto.FLOAT8E4M3FN}[activations] in types
    assert np.isfinite(report.coverage.result_codes)
