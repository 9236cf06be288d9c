"""What is left in float is said, with bytes and the reason."""

import numpy as np
import onnx
import pytest

import passes
from bct_onnx import files
from tests.helpers import SERIAL, model, random

NAN = random(40, 64)
NAN[3, 4] = np.nan
CASES = {
    "holds NaN": ("y = MatMul(x, w)", NAN, ("w", 10240, "MatMul", "w holds NaN or infinity")),
    "small": ("y = Add(x, w)", random(40), ("w", 160, "Add", "it has 160 bytes, fewer than 256")),
    "transposed": (
        "u = Transpose(w) y = MatMul(x, u)",
        NAN.T.copy(),
        ("w", 10240, "MatMul", "w holds NaN or infinity"),
    ),
    "beyond": (
        "y = Add(x, w)",
        random(60, 40) * np.float32(1e9),
        ("w", 9600, "Add", "w holds values beyond 65504: a mask"),
    ),
    "taken": ("y = MatMul(x, w)", random(40, 64), None),
}


@pytest.mark.parametrize("case", CASES)
def test_every_constant_that_stays_is_said(tmp_path, case):
    text, weight, expected = CASES[case]
    onnx.save(model(f"g (float[m, 40] x) => (float[m, n] y) {{ {text} }}", w=weight), tmp_path / "in.onnx")
    graph = files.read(tmp_path / "in.onnx").graph()
    reports = passes.run(graph, passes.Options(bits=8, block_size=0, **SERIAL), checked=True)
    left = [(each.name, each.bytes, each.op, each.reason) for each in passes.left_in_float(graph, reports)]
    assert left == ([expected] if expected else [])


READ = {
    "product": ("y = MatMul(x, w)", random(40, 64), ("w", "MatMul", "here")),
    "behind Transpose": ("u = Transpose(w) y = MatMul(x, u)", random(64, 40), ("w", "MatMul", "here")),
    "sum": ("y = Add(x, w)", random(40), ("w", "Add", "here")),
}


@pytest.mark.parametrize("case", READ)
def test_reports_say_what_reads_a_weight(tmp_path, case):
    text, weight, expected = READ[case]
    if case == "sum":
        weight = np.repeat(weight[None], 40, axis=0)
    source = model(f"g (float[m, 40] x) => (float[m, n] y) {{ {text} }}", w=weight)
    source.graph.node[-1].name = "here"
    onnx.save(source, tmp_path / "in.onnx")
    reports = passes.run(
        files.read(tmp_path / "in.onnx").graph(), passes.Options(bits=8, block_size=0, **SERIAL), checked=True
    )
    tensors = [tensor for report in reports for tensor in report.tensors]
    assert [(tensor.name, tensor.op, tensor.node) for tensor in tensors] == [expected]
