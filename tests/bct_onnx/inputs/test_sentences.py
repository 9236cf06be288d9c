"""Sentences for models of text whose tokenizer lies beside them."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx.inputs import made_inputs
from bct_onnx.inputs.sentences import read_sentences
from bct_onnx.sessions import Session
from tests.helpers import model, random

tokenizers = pytest.importorskip("tokenizers")

TEXT = """g (int64[b, s] input_ids, int64[b, s] attention_mask) => (float[b, s, 8] y) {
  e = Gather(table, input_ids) m = Cast <to = 1> (attention_mask) u = Unsqueeze(m, last) y = Mul(e, u) }"""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def save_tokenizer(folder: Path, words: list[str], unknown: str = "[UNK]") -> Path:
    """Save a tokenizer of whole words that puts [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=unknown))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    )
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


def english() -> list[str]:
    """Return all words of the sentences, those with marks apart, in order of their names."""
    from importlib import resources

    text = resources.files("bct_onnx.inputs").joinpath("sentences.txt").read_text("utf-8").lower()
    from tokenizers import pre_tokenizers

    return sorted({word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    weights = {"table": random(len(WORDS) + len(english()), 8, seed=1), "last": np.array([-1])}
    onnx.save(model(TEXT, **weights), path)
    return path


def feeds(source: Path) -> list[dict[str, np.ndarray]]:
    return list(made_inputs(Session(source).run, source, onnx.load(source)).feeds)


def test_rows_are_sentences_between_their_marks(source: Path) -> None:
    words = WORDS + english()
    save_tokenizer(source.parent, words)
    made = made_inputs(Session(source).run, source, onnx.load(source))
    lines = [" ".join(words[number] for number in row) for feed in made.feeds for row in feed["input_ids"]]
    assert all(line.startswith("[CLS] ") and line.endswith(" [SEP]") for line in lines)
    assert len(set(lines)) == len(lines)
    assert "[UNK]" not in " ".join(lines)
    found = read_sentences(source.parent / "tokenizer.json")
    assert found is not None
    text = " ".join(words[number] for _ in range(2) for sentence in found.texts for number in sentence)
    assert all(line.removeprefix("[CLS] ").removesuffix(" [SEP]") in text for line in lines)
    assert all(kind.startswith("English sentences, input_ids [") for kind in made.kinds)
    assert [feed["input_ids"].tolist() for feed in feeds(source)] == [f["input_ids"].tolist() for f in made.feeds]


@pytest.mark.parametrize("known", ["other language", "letters", "larger than the table", "no tokenizer"])
def test_what_does_not_know_the_sentences_draws_numbers(source: Path, known: str) -> None:
    drawn = feeds(source)
    if known == "other language":
        save_tokenizer(source.parent, [*WORDS, "der", "die", "das"])
    elif known == "letters":
        from tokenizers import Tokenizer, models

        vocabulary = {chr(number): number for number in range(32, 127)}
        Tokenizer(models.BPE(vocabulary, [])).save(str(source.parent / "tokenizer.json"))
    elif known == "larger than the table":
        save_tokenizer(source.parent, [*WORDS, *(f"[unused{number}]" for number in range(99)), *english()])
    else:
        (source.parent / "tokenizer.json").write_text("{}")
    again = feeds(source)
    assert [feed["input_ids"].tolist() for feed in again] == [feed["input_ids"].tolist() for feed in drawn]


def test_short_rows_are_cut(tmp_path: Path) -> None:
    found = read_sentences(save_tokenizer(tmp_path, WORDS + english()))
    assert found is not None
    rng = np.random.default_rng(0)
    for length in (1, 2, 3, 5, 200, 3000):
        rows = found.rows((2, 3, length), rng)
        assert rows.shape == (2, 3, length)
        assert (rows[..., 0] == WORDS.index("[CLS]")).all()
    assert found.rows((0, 4), rng).shape == (0, 4)
