"""A model whose weights cannot be measured is compressed all the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bct_onnx import compress, search
from bct_onnx.verify.session import OrtError


def test_a_search_that_does_not_run_gives_way_to_the_same_bits_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OrtError("Unrecognized attribute")

    monkeypatch.setattr(search, "measure", refuse)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64] x) => (float[2, 96] y) { y = MatMul(x, w) }'
    )
    values = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    onnx.save(model, tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", max_drop=0.1)
    assert [note for note in report.notes if "cannot be measured" in note] == [
        "its weights cannot be measured (Unrecognized attribute): 6 bits everywhere"
    ]
    assert report.verification is not None
