"""MiniLM from its package's weights: every weight is in its place, answers lie next to their questions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from models import minilm
from models.demo import open_session, sentences


def test_every_weight_is_in_its_place_and_answers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = minilm.source()
    if folder is None:
        pytest.skip("the package with MiniLM's weights is not installed (see make demo)")
    monkeypatch.setattr("models.demo.FOLDER", tmp_path)
    example = sentences(folder)
    model, trained = onnx.load(example.model), load_file(folder / "model.safetensors")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.name == "/encoder/layer.3/attention/self/key/MatMul")
    np.testing.assert_array_equal(stored[node.input[1]], trained["encoder.layer.3.attention.self.key.weight"].T)
    np.testing.assert_array_equal(stored["embeddings.LayerNorm.bias"], trained["embeddings.LayerNorm.bias"])
    np.testing.assert_array_equal(example.decide(open_session(example.model)), example.right)
