"""Folders at their task: scores of the pipelines of small models, with truths that they say themselves."""

import json
import wave

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optimum.onnxruntime")

from click.testing import CliRunner

from bct_onnx import BctError
from bct_onnx.evaluate import (
    Settings,
    evaluate_questions,
    evaluate_speech,
    evaluate_texts,
    evaluate_tokens,
    questions,
    speech,
    tokens,
)
from bct_onnx.evaluate.__main__ import main
from bct_onnx.package import compress_folder, examples, export
from bct_onnx.package.tasks import load_pipeline
from tests.export.checkpoints import save

pytestmark = pytest.mark.filterwarnings("default")

SETTINGS = Settings(resamples=50)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that gives the folders of a small checkpoint: float, and compressed."""
    place, made = tmp_path_factory.mktemp("models"), {}

    def get(name, task):
        if name not in made:
            checkpoint = save(name, place / name)
            exported = place / f"{name}-float"
            export.export(checkpoint, exported, task)
            compress_folder(exported, place / f"{name}-fast", preset="fast", task=task)
            made[name] = [exported, place / f"{name}-fast"]
        return made[name]

    return get


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def check(found, folders, best):
    """Check that the float model, which said the truth, has the best scores, and what stands beside them."""
    reference, other = found.models
    assert [score.value for score in reference.scores] == pytest.approx([best] * len(reference.scores))
    assert reference.same_decisions == 1
    assert reference.bytes == sum(path.stat().st_size for path in models(folders[0]))
    assert other.ratio == pytest.approx(reference.bytes / sum(path.stat().st_size for path in models(folders[1])))
    assert other.ratio > 2
    for score in other.scores:
        assert np.isfinite(score.value)
        assert score.low <= score.difference <= score.high


def models(folder):
    """Return the models that are loaded: the merged decoder holds the others."""
    names = {path.name for path in folder.glob("*.onnx")}
    merged = {"decoder_model.onnx", "decoder_with_past_model.onnx"} if "decoder_model_merged.onnx" in names else set()
    return [folder / name for name in names - merged]


def test_tokens(folders, tmp_path):
    both = folders("deberta", "token-classification")
    words = [text.split() for text in examples.TEXTS]
    pipeline = load_pipeline("token-classification", both[0])
    pipeline.model.config.id2label |= {0: "O", 1: "B-PER", 2: "I-PER"}
    pipeline.model.config.save_pretrained(both[0])
    pipeline.model.config.save_pretrained(both[1])
    said = [tokens.tags_of_words(one, pipeline(" ".join(one), ignore_labels=[])) for one in words]
    assert {tag for one in said for tag in one} > {"B-PER"}
    # As the tokenizer itself tells tokens of words apart.
    for one, tags in zip(words, said, strict=True):
        first = {}
        encoded = pipeline.tokenizer(" ".join(one), return_offsets_mapping=True)
        labels = pipeline.model(**pipeline.tokenizer(" ".join(one), return_tensors="pt")).logits[0].argmax(-1).tolist()
        for label, (start, end) in zip(labels, encoded["offset_mapping"], strict=True):
            word = len(" ".join(one)[:end].split()) - 1
            if end > start and " ".join(one)[start:end].strip():
                first.setdefault(word, pipeline.model.config.id2label[label])
        assert tags == [first[number] for number in range(len(one))]
    data = lines(tmp_path / "d.jsonl", [{"words": one, "tags": tags} for one, tags in zip(words, said, strict=True)])
    found = evaluate_tokens(data, both, settings=SETTINGS)
    check(found, both, 100)
    assert found.samples == sum(map(len, words))
    lines(data, [{"words": ["a"], "tags": ["B-LOC"]}])
    with pytest.raises(BctError, match=r"deberta-float: tags B-PER, I-PER, O, the data has B-LOC: none is the same"):
        evaluate_tokens(data, both)


def test_questions(folders, tmp_path):
    both = folders("electra", "question-answering")
    pipeline = load_pipeline("question-answering", both[0])
    rows = [
        {"question": question, "context": text, "answers": [pipeline(question=question, context=text)["answer"]]}
        for question, text in examples.QUESTIONS
    ]
    data = lines(tmp_path / "d.jsonl", rows)
    found = evaluate_questions(data, both, settings=SETTINGS)
    check(found, both, 100)
    assert [score.metric for score in found.models[0].scores] == ["exact match", "F1"]
    # A file is one model of its folder.
    files = [folder / "model.onnx" for folder in both]
    again = evaluate_questions(data, files, settings=SETTINGS)
    assert [model.scores for model in again.models] == [model.scores for model in found.models]


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("the Red house", ("red house.",), 1, 1),
        ("a red house", ("blue house", "house"), 0, 2 / 3),
        ("", (), 1, 1),
        ("house", (), 0, 0),
        ("", ("house",), 0, 0),
    ],
)
def test_answers_are_scored_as_squad_does(answer, right, exact, f1):
    assert questions.scores(questions.Question("?", "house", right), answer) == pytest.approx((exact, f1))


@pytest.mark.parametrize("task", ["translation", "summarization"])
def test_texts(folders, tmp_path, task):
    both = folders("t5", "text2text-generation-with-past")
    pipeline = load_pipeline("text2text-generation", both[0])
    said = [pipeline(f"say: {text}", max_new_tokens=8, do_sample=False)[0]["generated_text"] for text in examples.TEXTS]
    rows = [{"source": text, "target": target} for text, target in zip(examples.TEXTS, said, strict=True)]
    data = lines(tmp_path / "d.jsonl", rows)
    found = evaluate_texts(task, data, both, prefix="say: ", tokens=8, settings=SETTINGS)
    best = [score.value for score in found.models[0].scores]
    assert found.models[0].same_decisions == 1
    # What a random model writes may have too few words for BLEU's four, and none of letters for ROUGE.
    assert max(best) == pytest.approx(100)
    assert evaluate_texts(task, data, both[:1], tokens=2).models[0].scores[-1].value < best[-1]


def sounds(folder, seconds=(1, 2, 1.5)):
    folder.mkdir()
    for number, length in enumerate(seconds):
        tone = np.sin(2 * np.pi * 300 * (number + 1) * np.arange(int(16000 * length)) / 16000)
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((2**14 * tone).astype("<i2").tobytes())
    return folder


def test_speech_of_one_model(folders, tmp_path):
    both = folders("wav2vec2", "automatic-speech-recognition")
    place = sounds(tmp_path / "sounds")
    pipeline = load_pipeline("automatic-speech-recognition", both[0])
    rate = pipeline.feature_extractor.sampling_rate
    for path in place.glob("*.wav"):
        heard = pipeline({"raw": speech.read_sound(path, rate).astype(np.float32), "sampling_rate": rate})["text"]
        path.with_suffix(".txt").write_text(heard.upper())
    found = evaluate_speech(place, both, settings=SETTINGS)
    check(found, both, 0)
    assert found.notes[0].startswith("texts normalized by BasicTextNormalizer; ")
    found = evaluate_speech(place, both, language="en", settings=SETTINGS)
    assert found.notes[0].startswith("texts normalized by EnglishTextNormalizer (")


def test_longer_speech_is_heard_in_pieces(folders, tmp_path):
    both = folders("wav2vec2", "automatic-speech-recognition")
    place = sounds(tmp_path / "sounds", (31,))
    (place / "0.txt").write_text("nothing")
    assert evaluate_speech(place, both[:1], settings=SETTINGS).samples == 1


def test_speech_of_an_encoder_and_a_decoder(tmp_path):
    """A random Whisper; one for English says so. Its bytes are those of the models that are loaded."""
    folder = tmp_path / "float"
    export.export(save("whisper", tmp_path / "whisper"), folder, "automatic-speech-recognition-with-past")
    place = sounds(tmp_path / "sounds", (1,))
    (place / "0.txt").write_text("rain in the north")
    found = evaluate_speech(place, [folder], settings=SETTINGS)
    assert found.notes[0].startswith("texts normalized by EnglishTextNormalizer")
    assert found.notes[0].endswith("; 4 words")
    assert found.models[0].bytes == sum(path.stat().st_size for path in models(folder))


def test_the_command_is_silent_but_for_its_table(folders, tmp_path):
    both = folders("electra", "question-answering")
    rows = [{"question": question, "context": text, "answers": []} for question, text in examples.QUESTIONS]
    data = lines(tmp_path / "d.jsonl", rows)
    run = CliRunner().invoke(main, ["questions", str(data), *map(str, both), "--json", str(tmp_path / "r.json")])
    assert run.exit_code == 0, run.output
    assert run.stderr == ""
    assert run.stdout.split()[:2] == ["questions:", "d.jsonl,"]
    assert len(json.loads((tmp_path / "r.json").read_text())["models"]) == 2


def test_a_pipeline_that_does_not_run_is_one_line(folders, tmp_path):
    both = folders("electra", "question-answering")
    data = lines(tmp_path / "d.jsonl", [{"words": ["a"], "tags": ["B-PER"]}])
    run = CliRunner().invoke(main, ["speech", str(sounds(tmp_path / "s")), *map(str, both)])
    assert (run.exit_code, run.stderr.count("\n")) == (2, 1)
    run = CliRunner().invoke(main, ["tokens", str(data), str(both[0])])
    assert (run.exit_code, run.stderr.count("\n")) == (2, 1)
    assert "error: " in run.stderr
