"""The portable preset in another runtime: OpenVINO loads what it writes and gives the same answers."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import compress
from tests.helpers import model, random, run

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")

ROWS, LONG = 300, 7
# A table, products and what lies between them; the table multiplies, too.
TEXT = """g (int64[batch, length] ids) => (float[batch, length, 300] y) {
    h = Gather(table, ids)
    n = LayerNormalization <axis = -1> (h, scale, bias)
    a = MatMul(n, w)
    b = Add(a, c)
    s = Relu(b)
    o = MatMul(s, v)
    r = Add(h, o)
    t = Transpose <perm = [1, 0]> (table)
    y = MatMul(r, t) }"""


def openvino_answers(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outcome = compiled(feeds)
    return [outcome[output] for output in compiled.outputs]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("width", [64, 48, 100])
def test_tables_and_products(tmp_path, width, opset, bits):
    """Widths that blocks of 32 part evenly, that smaller blocks do, and that none does."""
    weights = {"table": random(ROWS, width), "w": random(width, 96, seed=1), "v": random(96, width, seed=2)}
    vectors = {"scale": np.ones(width, np.float32), "bias": random(width, seed=3), "c": random(96, seed=4)}
    onnx.save(model(TEXT, opset, 8, **weights, **vectors), tmp_path / "in.onnx")
    compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="portable", bits=bits)
    ids = np.random.default_rng(5).integers(0, ROWS, (2, LONG))
    # ONNX Runtime without its optimizations computes in floats what is written.
    (expected,) = run(tmp_path / "out.onnx", optimize=False, ids=ids)
    (found,) = openvino_answers(tmp_path / "out.onnx", {"ids": ids})
    # OpenVINO may quantize activations in groups to a byte.
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("preset", ["fast", "small"])
def test_the_target_of_that_name(tmp_path, preset):
    weights = {"table": random(ROWS, 64), "w": random(64, 96, seed=1), "v": random(96, 64, seed=2)}
    vectors = {"scale": np.ones(64, np.float32), "bias": random(64, seed=3), "c": random(96, seed=4)}
    onnx.save(model(TEXT, 17, 8, **weights, **vectors), tmp_path / "in.onnx")
    compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset=preset, target_runtime="openvino")
    ids = np.random.default_rng(5).integers(0, ROWS, (2, LONG))
    (expected,) = run(tmp_path / "out.onnx", optimize=False, ids=ids)
    (found,) = openvino_answers(tmp_path / "out.onnx", {"ids": ids})
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
