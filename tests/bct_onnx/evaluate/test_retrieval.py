"""Retrieval: collections in files, and figures against the libraries' and by hand."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from bct_onnx import BctError
from bct_onnx.evaluate import Settings, evaluate_retrieval
from bct_onnx.evaluate.__main__ import main
from bct_onnx.evaluate.retrieval import Collection, figures, read_collection

PAIRS = [("red?", "roses are red"), ("red?", "blood is red"), ("blue?", "the sky is blue")]


def lines(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    lines(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate(("red?", "x", "blue?"))])
    texts = [("", "roses are red"), ("Body", "blood is red"), ("", "grass"), ("", "the sky is blue")]
    lines(tmp_path / "corpus.jsonl", [{"_id": n, "title": a, "text": b} for n, (a, b) in enumerate(texts)])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t0\t1\nq0\t1\t2\nq0\t2\t0\nq2\t3\t1\n")
    return tmp_path


def test_a_folder_of_beir(beir):
    expected = Collection(
        ["red?", "blue?"],
        ["roses are red", "Body blood is red", "grass", "the sky is blue"],
        [{0: 1.0, 1: 2.0}, {3: 1.0}],
    )
    assert read_collection(beir) == expected
    assert read_collection(beir, 1).queries == ["red?"]
    assert len(read_collection(beir, 1).passages) == 4


def test_a_file_of_pairs(tmp_path):
    file = lines(tmp_path / "a.jsonl", [{"query": query, "passage": passage} for query, passage in PAIRS])
    assert read_collection(file) == Collection(
        ["red?", "blue?"], [passage for _, passage in PAIRS], [{0: 1.0, 1: 1.0}, {2: 1.0}]
    )
    # As GLUE has questions.
    file = lines(tmp_path / "b.jsonl", [{"sentence1": query, "sentence2": passage} for query, passage in PAIRS])
    assert read_collection(file).queries == ["red?", "blue?"]


def test_what_does_not_fit_together_is_said(beir):
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t77\t1\n")
    with pytest.raises(BctError, match="names query q0 and passage 77, of which one is not in"):
        read_collection(beir)
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t1\t0\n")
    with pytest.raises(BctError, match="no passage belongs to any query"):
        read_collection(beir)
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(BctError, match=r"lacks one of corpus\.jsonl, passages\.jsonl"):
        read_collection(beir)


def test_recall_and_gain_by_hand():
    similarity = np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]])
    found, closest = figures(similarity, [{1: 1.0, 2: 1.0}, {2: 1.0}])
    assert closest.tolist() == [0, 2]
    assert found["recall@1"].tolist() == [0, 1]
    assert found["recall@10"].tolist() == [1, 1]
    # The two that belong stand second and third, and would stand first and second.
    gain = (1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3))
    np.testing.assert_allclose(found["nDCG@10"], [gain, 1])


def test_gains_are_those_of_the_whole(seed=3):
    from sklearn.metrics import ndcg_score

    random = np.random.default_rng(seed)
    similarity, grades = (
        random.normal(size=(20, 50)),
        random.integers(3, size=(20, 50)) * (random.random((20, 50)) < 0.2),
    )
    grades[:, 0] = 1
    relevant = [{int(p): float(row[p]) for p in np.flatnonzero(row)} for row in grades]
    found, _ = figures(similarity, relevant)
    assert found["nDCG@10"].mean() == pytest.approx(ndcg_score(grades, similarity, k=10))
    closest = np.argsort(-similarity, axis=1)[:, :10]
    recall = [len({*row} & {*one}) / len(one) for row, one in zip(closest.tolist(), relevant, strict=True)]
    np.testing.assert_allclose(found["recall@10"], recall)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Return folders of two models whose hidden states are rows of a table: red and blue apart, and both the same."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "q", ":", "?"]
    for name, blue in (("a", (0, 1)), ("b", (1, 0.01))):
        table = np.zeros((len(words), 2), np.float32)
        table[4], table[5], table[6] = (1, 0), blue, (0, 50)
        model = onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            g (int64[n, s] input_ids) => (float[n, s, w] last_hidden_state) {
                last_hidden_state = Gather(table, input_ids)
            }"""
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
        (tmp_path / name).mkdir()
        onnx.save(model, tmp_path / name / "model.onnx")
        (tmp_path / name / "vocab.txt").write_text("\n".join(words))
    return [tmp_path / "a", tmp_path / "b"]


def test_models_are_compared(models, tmp_path):
    rows = [{"query": f"{colour} ?", "passage": colour} for colour in ("blue", "red")]
    result = evaluate_retrieval(lines(tmp_path / "d.jsonl", rows), models, settings=Settings(resamples=50))
    (first, *_), (other, *_) = (model.scores for model in result.models)
    assert (first.metric, first.value, other.value) == ("recall@1", 100, 100)
    assert result.notes == ("2 passages",)
    assert result.samples == 2
    # The queries' prompt, q, outweighs their words: both are blue.
    (models[0] / "modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    (models[0] / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "q "}}))
    result = evaluate_retrieval(tmp_path / "d.jsonl", models[:1], settings=Settings(resamples=50))
    assert result.models[0].scores[0].value == 50


def test_the_command(models, tmp_path):
    rows = [{"query": f"{colour} ?", "passage": colour} for colour in ("blue", "red")]
    file = lines(tmp_path / "d.jsonl", rows)
    run = CliRunner().invoke(main, ["retrieval", str(file), *map(str, models), "--resamples", "10"])
    assert run.exit_code == 0, run.output
    assert "nDCG@10" in run.output
    assert "2 passages" in run.output
