"""Scores, intervals, sessions and the command line, on models of a few nodes."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from bct_onnx.errors import BctError
from bct_onnx.evaluate import Preprocess, Settings, evaluate_glue, evaluate_images, evaluate_perplexity
from bct_onnx.evaluate.__main__ import main
from bct_onnx.evaluate.folders import bytes_on_disk
from bct_onnx.evaluate.images import logits, ranks, read_pictures
from bct_onnx.evaluate.model import Model, batches
from bct_onnx.evaluate.perplexity import windows
from bct_onnx.fidelity import Answers, output_errors

RAW = Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "plot"]


def write(path: Path, text: str, **arrays: np.ndarray) -> Path:
    """Write the graph in `text` with the arrays as initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def channel_model(path: Path, order: tuple[int, ...] = (0, 1, 2), batch: str = "n") -> Path:
    """Write a model that answers with the mean of each channel, in this order."""
    return write(
        path,
        f"""g (float[{batch}, 3, 4, 4] pixels) => (float[{batch}, {len(order)}] logits) {{
            means = ReduceMean<axes = [2, 3], keepdims = 0>(pixels)
            logits = Gather<axis = 1>(means, order)
        }}""",
        order=np.array(order),
    )


def word_model(path: Path, table: np.ndarray, *, mask: bool = True) -> Path:
    """Write a classifier that adds up a table's rows for the tokens that are not masked."""
    asks = ", int64[n, s] attention_mask" if mask else ""
    masked = "weight = Cast<to = 1>(attention_mask)" if mask else "weight = CastLike(one, rows)"
    return write(
        path,
        f"""g (int64[n, s] input_ids{asks}) => (float[n, c] logits) {{
            rows = Gather(table, input_ids)
            {masked}
            column = Unsqueeze(weight, last)
            product = Mul(rows, column)
            logits = ReduceSum<keepdims = 0>(product, axis)
        }}""",
        table=table.astype(np.float32),
        last=np.array([-1]),
        axis=np.array([1]),
        one=np.ones((1, 1), np.float32),
    )


def bigram_model(path: Path, table: np.ndarray, *, past: bool = False) -> Path:
    """Write a causal model whose logits are the table's row of the last token."""
    asks = ", float[batch, 2, past, 8] past_key_values_0_key, int64[batch, total] attention_mask" if past else ""
    gives = ", float[batch, 2, all, 8] present_0_key" if past else ""
    keeps = "present_0_key = Identity(past_key_values_0_key)" if past else ""
    return write(
        path,
        f"""g (int64[batch, s] input_ids{asks}) => (float[batch, s, v] logits{gives}) {{
            logits = Gather(table, input_ids)
            {keeps}
        }}""",
        table=table.astype(np.float32),
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return an .npz of 60 pictures whose label is their strongest channel, but for every tenth."""
    labels = np.arange(60) % 3
    images = np.full((60, 4, 4, 3), 20, np.uint8)
    images[np.arange(60), :, :, labels] = 200
    labels[::10] = (labels[::10] + 1) % 3
    np.savez(tmp_path / "pictures.npz", images=images, labels=labels)
    return tmp_path / "pictures.npz"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Return a folder of a word-piece vocabulary and of data.jsonl: good films 1, bad films 0, one wrong."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    texts = ["good film", "bad film", "bad", "good", "good good plot film", "bad plot film"]
    labels = [1, 0, 0, 1, 1, 1]
    rows = [json.dumps({"sentence1": t, "label": y}) for t, y in zip(texts, labels, strict=True)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    return tmp_path


def sentiment() -> np.ndarray:
    """Return a table [word, class]: good votes for class 1, bad for class 0, padding for class 0 by far."""
    table = np.zeros((len(WORDS), 2))
    table[WORDS.index("good"), 1] = table[WORDS.index("bad"), 0] = 1
    table[WORDS.index("[PAD]"), 0] = 9
    return table


def test_pictures_are_scored_and_compared(tmp_path: Path, pictures: Path) -> None:
    right, wrong = channel_model(tmp_path / "a.onnx"), channel_model(tmp_path / "b.onnx", (1, 2, 0))
    result = evaluate_images(pictures, [right, right, wrong], preprocess=RAW)
    reference, same, other = result.models
    assert result.samples == 60
    assert [score.metric for score in reference.scores] == ["top-1", "top-5", "error"]
    assert reference.scores[0].value == pytest.approx(90)
    assert same.same_decisions == 1
    assert (same.scores[0].difference, same.scores[0].low, same.scores[0].high) == (0, 0, 0)
    assert other.same_decisions == 0
    assert other.scores[0].difference == pytest.approx(other.scores[0].value - 90)
    assert other.scores[0].low < other.scores[0].difference < other.scores[0].high < 0
    assert other.ratio == reference.bytes / other.bytes
    assert [model.scores[2].value for model in (reference, same)] == [0, 0]


def test_the_error_of_logits_is_that_of_verification(tmp_path: Path, pictures: Path) -> None:
    models = [channel_model(tmp_path / "a.onnx"), channel_model(tmp_path / "b.onnx", (0, 2, 1))]
    exact, other = (logits(model, read_pictures(pictures), RAW) for model in models)
    expected = output_errors(Answers([{}], [{"logits": exact}]), [{"logits": other}])[0]["logits"]
    scored = evaluate_images(pictures, models, preprocess=RAW).models[1].scores[2]
    assert scored.value == pytest.approx(expected.mean)
    assert 0 < scored.low < scored.difference < scored.high


def test_models_of_other_classes_are_no_peers(tmp_path: Path, pictures: Path) -> None:
    models = [channel_model(tmp_path / "a.onnx"), channel_model(tmp_path / "b.onnx", (0, 1, 2, 0))]
    with pytest.raises(BctError, match=r"b.onnx: knows 4 classes, the first model 3"):
        evaluate_images(pictures, models, preprocess=RAW)


def test_mean_and_std_are_applied_per_channel(tmp_path: Path, pictures: Path) -> None:
    # Subtracting 10 from red and green leaves blue the strongest channel of every picture.
    model = channel_model(tmp_path / "a.onnx")
    biased = evaluate_images(pictures, [model], preprocess=Preprocess((10.0, 10.0, 0.0), (1.0, 1.0, 1.0)))
    labels = np.load(pictures)["labels"]
    assert biased.models[0].scores[0].value == pytest.approx(100 * np.mean(labels == 2))
    # Dividing red by very little makes red the strongest.
    scaled = evaluate_images(pictures, [model], preprocess=Preprocess((0.0, 0.0, 0.0), (1e-3, 1.0, 1.0)))
    assert scaled.models[0].scores[0].value == pytest.approx(100 * np.mean(labels == 0))


@pytest.mark.parametrize("layout", ["stem", "folder"])
def test_a_folder_labels_pictures_by_stem_or_sub_folder(tmp_path: Path, layout: str) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    for label in range(3):
        picture = np.zeros((6, 8, 3), np.uint8)
        picture[..., label] = 255
        file = folder / (f"{label:04}.png" if layout == "stem" else f"{label}/x.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(picture).save(file)
    result = evaluate_images(folder, [channel_model(tmp_path / "a.onnx")], preprocess=RAW)
    assert result.models[0].scores[0].value == 100  # and 6 x 8 was cut to the 4 x 4 of the model


def test_a_fixed_batch_is_filled_up(tmp_path: Path, pictures: Path) -> None:
    free, fixed = channel_model(tmp_path / "a.onnx"), channel_model(tmp_path / "b.onnx", batch="7")
    result = evaluate_images(pictures, [free, fixed], preprocess=RAW)
    assert result.models[1].same_decisions == 1


def test_ranks_count_better_classes_and_earlier_equals() -> None:
    logits = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert ranks(logits, np.array([0, 1, 2])).tolist() == [0, 2, 2]


def test_padding_is_masked_or_avoided(tmp_path: Path, reviews: Path) -> None:
    # Unmasked padding would turn every shorter text of a batch into class 0.
    masked = word_model(tmp_path / "a.onnx", sentiment())
    maskless = word_model(tmp_path / "b.onnx", sentiment(), mask=False)
    result = evaluate_glue("SST-2", reviews / "data.jsonl", [masked, maskless], tokenizer=reviews)
    assert result.models[0].scores[0].value == pytest.approx(100 * 5 / 6)
    assert result.models[1].same_decisions == 1


def test_limit_cuts_texts(tmp_path: Path, reviews: Path) -> None:
    (reviews / "one.jsonl").write_text(json.dumps({"sentence1": "good bad bad bad", "label": 1}))
    model = word_model(tmp_path / "a.onnx", sentiment())
    scores = [
        evaluate_glue("SST-2", reviews / "one.jsonl", [model], tokenizer=reviews, limit=n).models[0].scores[0].value
        for n in (3, 8)
    ]
    assert scores == [100, 0]  # [CLS] good [SEP], then all of it


def test_pairs_words_as_labels_and_published_columns(tmp_path: Path, reviews: Path) -> None:
    rows = "index\tquestion\tsentence\tlabel\n0\tfilm\tgood\tnot_entailment\n1\tbad\tplot\tentailment\n"
    (reviews / "dev.tsv").write_text(rows)
    model = word_model(tmp_path / "a.onnx", sentiment())
    result = evaluate_glue("QNLI", reviews / "dev.tsv", [model], tokenizer=reviews)
    assert result.models[0].scores[0].value == 100


def test_similarity_is_a_correlation(tmp_path: Path, reviews: Path) -> None:
    texts = ["bad bad", "bad", "film", "good", "good good"]
    rows = [
        json.dumps({"sentence1": t, "sentence2": "film", "label": y})
        for t, y in zip(texts, (0.0, 1.5, 2.5, 4.0, 5.0), strict=True)
    ]
    (reviews / "sts.jsonl").write_text("\n".join(rows))
    up = word_model(tmp_path / "a.onnx", sentiment() @ [[-1.0], [1.0]])
    down = word_model(tmp_path / "b.onnx", sentiment() @ [[1.0], [-1.0]])
    result = evaluate_glue("STS-B", reviews / "sts.jsonl", [up, down], tokenizer=reviews)
    assert [s.metric for s in result.models[0].scores] == ["Pearson", "Spearman"]
    assert [s.value for s in result.models[0].scores][1] == pytest.approx(100)
    assert [s.value for s in result.models[1].scores][1] == pytest.approx(-100)
    assert result.models[1].same_decisions == pytest.approx(1 / 5)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 1), (5, 3), (100, 50)])
@pytest.mark.parametrize("count", [2, 5, 17])
def test_windows_score_each_token_once(count: int, window: int, stride: int) -> None:
    tokens = np.arange(count)
    plan = windows(tokens, window, stride)
    scored = np.concatenate([part.tokens[1:][part.seen :] for part in plan])
    assert scored.tolist() == tokens[1:].tolist()
    assert all(len(part.tokens) <= window + 1 for part in plan)
    assert windows(np.arange(1), window, stride) == []


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """Return a folder of a vocabulary and of a text of 200 words in two lines."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    words = np.random.default_rng(0).choice(WORDS[4:], 200)
    (tmp_path / "story.txt").write_text(" ".join(words[:80]) + "\n" + " ".join(words[80:]))
    return tmp_path


@pytest.mark.parametrize("past", [False, True])
def test_perplexity_is_that_of_the_bigram_table(tmp_path: Path, story: Path, past: bool) -> None:
    table = np.random.default_rng(1).normal(size=(8, 8))
    model = bigram_model(tmp_path / "a.onnx", table, past=past)
    result = evaluate_perplexity(story / "story.txt", [model], tokenizer=story, window=16, stride=5, begin=2)
    ids = [2, *(WORDS.index(word) for word in (story / "story.txt").read_text().split())]
    rows = table[ids[:-1]]
    loss = np.mean(np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(200), ids[1:]])
    nats, perplexity = result.models[0].scores
    assert result.samples == 200
    assert nats.value == pytest.approx(loss, rel=1e-5)
    assert perplexity.value == pytest.approx(np.exp(loss), rel=1e-5)


def test_lines_are_documents_of_their_own(tmp_path: Path, story: Path) -> None:
    model = bigram_model(tmp_path / "a.onnx", np.eye(8))
    options: dict[str, Any] = {"tokenizer": story, "lines": True}
    assert evaluate_perplexity(story / "story.txt", [model], **options).samples == 198
    assert evaluate_perplexity(story / "story.txt", [model], **options, begin=2).samples == 200
    assert evaluate_perplexity(story / "story.txt", [model], **options, begin=2, limit=10).samples == 20


def test_batches_hold_every_sample_once_by_length() -> None:
    lengths = np.array([3, 1, 2, 3, 1, 3])
    mixed = list(batches(lengths, 4, equal=False))
    assert [lengths[b].tolist() for b in mixed] == [[1, 1, 2, 3], [3, 3]]
    even = list(batches(lengths, 2, equal=True))
    assert [lengths[b].tolist() for b in even] == [[1, 1], [2], [3, 3], [3]]
    assert sorted(np.concatenate(even)) == list(range(6))


def test_bytes_count_external_data(tmp_path: Path) -> None:
    model = onnx.load(bigram_model(tmp_path / "a.onnx", np.eye(64)))
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    total = (tmp_path / "b.onnx").stat().st_size + (tmp_path / "b.data").stat().st_size
    assert total > 64 * 64 * 4
    assert bytes_on_disk(tmp_path / "b.onnx") == total


def test_an_answer_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    model = Model(bigram_model(tmp_path / "a.onnx", np.full((2, 2), np.nan)), 1)
    with pytest.raises(BctError, match="NaN or infinity"):
        model.answer({"main": np.zeros((1, 1), np.int64)})


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_command_prints_a_table_and_writes_json(tmp_path: Path, pictures: Path) -> None:
    models = [channel_model(tmp_path / "a.onnx"), channel_model(tmp_path / "b.onnx", (1, 2, 0))]
    result = command("images", pictures, *models, "--mean", "0", "--std", "1,1,1", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "r.json").read_text())
    expected = evaluate_images(pictures, models, preprocess=RAW, settings=Settings())
    assert written == json.loads(json.dumps(expected.to_dict()))
    assert "90.00 %" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images", "{pictures}", "{none}"], "none.onnx: no such file"),
        (["images", "{none}", "{model}"], "none.onnx: neither a folder of pictures nor an .npz file"),
        (["images", "{vocab}", "{model}"], "neither a folder"),
        (["images", "{pictures}", "{vocab}"], "vocab.txt: ONNX Runtime does not load it"),
        (["glue", "SST-2", "{none}", "{model}", "--tokenizer", "{vocab}"], "none.onnx: no such file"),
        (["glue", "SST-2", "{vocab}", "{model}", "--tokenizer", "{vocab}"], "vocab.txt: line 1 is not JSON"),
        (["glue", "SST-2", "{data}", "{model}", "--tokenizer", "{none}"], "none.onnx: no tokenizer there"),
        (["glue", "STS-B", "{data}", "{words}", "--tokenizer", "{vocab}"], "gives 2 values a sample"),
        (["perplexity", "{vocab}", "{words}", "--tokenizer", "{vocab}"], "wanted is [batch, tokens, vocabulary]"),
        (["perplexity", "{vocab}", "{words}", "--tokenizer", "{data}"], "data.jsonl: not a tokenizer.json"),
    ],
)
def test_a_bad_request_is_one_line(
    tmp_path: Path, pictures: Path, reviews: Path, arguments: list[str], message: str
) -> None:
    places = {
        "pictures": pictures,
        "none": tmp_path / "none.onnx",
        "model": channel_model(tmp_path / "a.onnx"),
        "words": word_model(tmp_path / "w.onnx", sentiment()),
        "vocab": reviews / "vocab.txt",
        "data": reviews / "data.jsonl",
    }
    result = command(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_package_names_the_extra(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    model = channel_model(tmp_path / "a.onnx")
    monkeypatch.setattr(importlib, "import_module", absent)
    result = command("images", pictures, model)
    assert result.exit_code == 2
    assert result.stderr == "error: PIL is not installed: pip install 'bct-onnx[eval]'\n"


def test_real_models_score_as_known(data: Path) -> None:
    vit = evaluate_images(
        data / "imagenet_sample",
        [data / "vit_tiny" / "model.onnx"],
        preprocess=Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        samples=100,
    )
    assert 70 < vit.models[0].scores[0].value < 92  # 81.2 % of all 500
    folder = data / "bert_mini" / "sst2"
    bert = evaluate_glue("SST-2", data / "glue/SST-2/dev.jsonl", [folder / "model.onnx"], tokenizer=folder, limit=64)
    assert bert.models[0].scores[0].value == pytest.approx(80.39, abs=0.2)
