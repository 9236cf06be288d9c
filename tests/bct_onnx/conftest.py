"""What tests of the package share: the file of a small model."""

from pathlib import Path

import onnx
import pytest

from tests.helpers import MLP, K, model, random


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the file of a small model."""
    path = tmp_path / "in.onnx"
    onnx.save(model(MLP, opset=17, ir_version=8, w=random(K, K, seed=1), v=random(K, K, seed=2)), path)
    return path
