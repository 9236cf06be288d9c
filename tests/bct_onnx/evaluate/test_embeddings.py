"""Embeddings of sentences: pooled as is usual, ranked against labels, compared with another model."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx.errors import BctError
from bct_onnx.evaluate import Settings, evaluate_embeddings
from bct_onnx.evaluate.sentences import Pooling

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "dog", "car", "bus"]
# Cats are like dogs, cars like buses, and padding like nothing else.
VECTORS = np.array([[9, 0, 9], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [0.9, 0.3, 0], [0, 1, 0], [0.1, 1, 0]])
PAIRS = [("cat cat", "cat", 5), ("dog", "cat cat", 4), ("car", "bus", 4.5), ("dog", "car", 1), ("cat", "car", 0)]


def embedder(path: Path, table: np.ndarray) -> Path:
    """Write a model whose hidden states are rows of a table."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (int64[n, s] input_ids) => (float[n, s, w] last_hidden_state) {
            last_hidden_state = Gather(table, input_ids)
        }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(table.astype(np.float32), "table"))
    onnx.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    rows = [json.dumps({"sentence1": a, "sentence2": b, "label": y}) for a, b, y in PAIRS]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    return tmp_path / "data.jsonl"


def test_padding_is_no_part_of_the_mean():
    output = np.array([[[3.0, 0], [0, 4], [7, 7]]])
    np.testing.assert_allclose(Pooling().pool(output, np.array([[1, 1, 0]])), [[0.6, 0.8]])


def test_a_model_that_pools_itself_is_scaled_only():
    np.testing.assert_allclose(Pooling().pool(np.array([[3.0, 4.0]]), np.ones((1, 5))), [[0.6, 0.8]])


def test_similar_sentences_lie_close(data: Path, tmp_path: Path) -> None:
    exact = embedder(tmp_path / "a.onnx", VECTORS)
    turned = embedder(tmp_path / "b.onnx", VECTORS @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    settings = Settings(resamples=20)
    found = evaluate_embeddings(data, [exact, turned], tokenizer=tmp_path / "vocab.txt", settings=settings)
    (spearman, distance), (same_spearman, far) = (model.scores for model in found.models)
    assert spearman.value == pytest.approx(100)
    assert same_spearman.value == pytest.approx(100)
    assert distance.value == 0
    # Cats lie where cars lay: a root of two away, others less.
    assert 1 < far.value <= 2**0.5
    assert far.low <= far.difference <= far.high
    assert found.models[1].same_decisions == 1


def test_single_sentences_are_refused(data: Path, tmp_path: Path) -> None:
    data.write_text(json.dumps({"sentence1": "cat", "label": 1}))
    model = embedder(tmp_path / "a.onnx", VECTORS)
    with pytest.raises(BctError, match="single sentences"):
        evaluate_embeddings(data, [model], tokenizer=tmp_path / "vocab.txt")


def test_other_widths_are_refused(data: Path, tmp_path: Path) -> None:
    models = [embedder(tmp_path / f"{i}.onnx", VECTORS[:, : 3 - i]) for i in range(2)]
    with pytest.raises(BctError, match=r"1\.onnx: embeds in 2 numbers, the first model in 3"):
        evaluate_embeddings(data, models, tokenizer=tmp_path / "vocab.txt")
