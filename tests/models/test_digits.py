"""The committed digits model is what its recipe promises, and the split it is scored on stays fixed."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx.sessions import OrtSession, open_session
from models.digits import load_split

MODEL = Path(__file__).parents[2] / "models" / "digits_vit.onnx"


@pytest.fixture(scope="module")
def session() -> OrtSession:
    return open_session(MODEL)


def test_split_is_stratified_and_disjoint() -> None:
    train_x, train_y, test_x, test_y = load_split()
    assert (train_x.shape, test_x.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert [str(part.dtype) for part in (train_x, train_y, test_x, test_y)] == ["float32", "int64"] * 2
    pixels = np.concatenate((train_x, test_x))
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert len(np.unique(pixels.reshape(1797, 64), axis=0)) == 1797
    # Ten near-equal classes in a stratified draw of 500: 48 to 51 pictures of each.
    counts = np.bincount(test_y)
    assert len(counts) == 10
    assert counts.min() >= 48
    assert counts.max() <= 51


def test_split_is_the_same_at_every_call() -> None:
    for first, second in zip(load_split(), load_split(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_signature(session: OrtSession) -> None:
    (pixel_values,) = session.get_inputs()
    (logits,) = session.get_outputs()
    assert (pixel_values.name, pixel_values.type) == ("pixel_values", "tensor(float)")
    assert pixel_values.shape == ["batch", 1, 8, 8]
    assert (logits.name, logits.type) == ("logits", "tensor(float)")
    assert logits.shape == ["batch", 10]


def test_graph_is_valid_opset_17_and_mostly_matmul_weights() -> None:
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    weights = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    multiplied = {name for node in model.graph.node if node.op_type in ("MatMul", "Gemm") for name in node.input[1:2]}
    assert sum(weights.get(name, 0) for name in multiplied) > 0.9 * MODEL.stat().st_size


def test_accuracy_on_held_out_pictures(session: OrtSession) -> None:
    _, _, pictures, labels = load_split()
    (logits,) = session.run(None, {"pixel_values": pictures})
    assert np.mean(logits.argmax(1) == labels) >= 0.97


@pytest.mark.parametrize("batch", [1, 7])
def test_answer_does_not_depend_on_the_batch(session: OrtSession, batch: int) -> None:
    _, _, pictures, _ = load_split()
    (whole,) = session.run(None, {"pixel_values": pictures})
    (part,) = session.run(None, {"pixel_values": pictures[:batch]})
    # Sums in another order at another batch: float32 rounding of logits of size about 10.
    np.testing.assert_allclose(part, whole[:batch], rtol=0, atol=1e-4)
