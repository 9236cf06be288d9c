"""A model of which one weight matters more than the other."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.helpers import model, random

# The second product sees a thousandth of the first one's output: its codes hardly matter.
UNEVEN = """g (float[m, 64] x) => (float[m, 64] y) {
  a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Mul(c, small) y = Add(a, d) }"""
K = 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    weights = {"w": random(K, K, seed=1), "v": random(K, K, seed=2), "small": np.array(1e-3, np.float32)}
    onnx.save(model(UNEVEN, opset=21, **weights), path)
    return path
