"""Progress names every stage, and counts the weights."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bct_onnx import compress


def test_stages_and_weights_are_told_in_order(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64] x) => (float[2, 64] y) {
            t = MatMul(x, w)
            u = Tanh(t)
            y = MatMul(u, v) }"""
    )
    for name in ("w", "v"):
        model.graph.initializer.append(numpy_helper.from_array(np.eye(64, dtype=np.float32), name))
    onnx.save(model, tmp_path / "in.onnx")
    told: list[tuple[str, int, int]] = []
    compress(tmp_path / "in.onnx", tmp_path / "out.onnx", bits=6, progress=lambda *step: told.append(step))
    names = ("running the input model", "comparing with the raised opset", "writing", "verifying")
    stages = [(name, 0, 0) for name in names]
    assert [step for step in told if step[2] == 0] == stages
    assert told[0] == stages[0]
    assert told[-1] == stages[-1]
    assert [step[1:] for step in told if step[0] == "matmul"] in ([(0, 2), (1, 2)], [(0, 1)])
