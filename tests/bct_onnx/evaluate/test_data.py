"""What sets of speech, tagged words and questions look like in files."""

import json
import wave

import numpy as np
import pytest

from bct_onnx import BctError
from bct_onnx.evaluate.questions import Question, read_questions
from bct_onnx.evaluate.speech import Clip, normalizer, read_clips
from bct_onnx.evaluate.tokens import Sentence, read_sentences, tags_of_words
from bct_onnx.samples.read import read_sound


def sound(path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.zeros(80, "<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.tsv", "a\tone\nb.wav\ttwo\n"),
        ("t.tsv", "path\ttext\na\tone\nb.wav\ttwo\n"),
        ("t.tsv", "sentence\tid\tfile\none\t7\ta\ntwo\t8\tb.wav\n"),
        ("t.jsonl", '{"file_name": "a.wav", "transcription": "one"}\n{"file_name": "b", "transcription": "two"}\n'),
        ("t.jsonl", '{"audio_filepath": "a.wav", "text": "one"}\n{"audio_filepath": "b", "text": "two"}\n'),
    ],
)
def test_clips_are_in_a_table(tmp_path, name, table):
    clips = [Clip(sound(tmp_path / "a.wav"), "one"), Clip(sound(tmp_path / "b.wav"), "two")]
    (tmp_path / name).write_text(table)
    assert read_clips(tmp_path) == clips
    assert read_clips(tmp_path / name) == clips
    assert read_clips(tmp_path, 1) == clips[:1]


def test_clips_have_texts_beside_them(tmp_path):
    for name in ("b", "a"):
        sound(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(f"text {name}\n")
    assert read_clips(tmp_path) == [Clip(tmp_path / "a.wav", "text a"), Clip(tmp_path / "b.wav", "text b")]
    (tmp_path / "b.txt").unlink()
    with pytest.raises(BctError, match=r"b\.wav: no readable text beside it, b\.txt"):
        read_clips(tmp_path)


def test_clips_that_are_not_there(tmp_path):
    with pytest.raises(BctError, match=r"holds no sounds \(\.wav, \.flac\) and no table"):
        read_clips(tmp_path)
    (tmp_path / "t.tsv").write_text("a\tone\n")
    with pytest.raises(BctError, match=r"a: no such sound, with or without \.wav or \.flac"):
        read_clips(tmp_path)
    (tmp_path / "u.tsv").write_text("a\tone\n")
    with pytest.raises(BctError, match=r"several tables, t\.tsv, u\.tsv: name one"):
        read_clips(tmp_path)
    with pytest.raises(BctError, match=r"x\.tsv: no such file"):
        read_clips(tmp_path / "x.tsv")


def test_flac_is_read_as_wav_is(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    tone = (2**14 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.int16)
    for end in ("wav", "flac"):
        soundfile.write(str(tmp_path / f"a.{end}"), tone, 8000, subtype="PCM_16")
    np.testing.assert_array_equal(read_sound(tmp_path / "a.flac", 16000), read_sound(tmp_path / "a.wav", 16000))
    soundfile.write(str(tmp_path / "b.flac"), np.stack([tone, tone], -1), 8000)
    with pytest.raises(BctError, match=r"b\.flac: has other than one channel"):
        read_sound(tmp_path / "b.flac", 8000)
    (tmp_path / "b.flac").write_bytes(b"fLaC")
    with pytest.raises(BctError, match=r"b\.flac: cannot be read as sound"):
        read_sound(tmp_path / "b.flac", 8000)


def test_english_has_a_normalizer_of_its_own():
    pytest.importorskip("transformers")
    normalize, name = normalizer("en", {"colour": "color"})
    assert name == "EnglishTextNormalizer"
    assert normalize("Mr. Smith's twenty-one colours, the COLOUR") == "mister smith is 21 colours the color"
    assert "no normalizer.json" in normalizer("English", {})[1]
    for language in ("de", None):
        normalize, name = normalizer(language, {})
        assert name == "BasicTextNormalizer"
        assert normalize("Mr. Smith's").split() == ["mr", "smith", "s"]


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
"""


def test_sentences_of_tagged_words(tmp_path):
    expected = [Sentence(("EU", "rejects"), ("B-ORG", "O")), Sentence(("Peter",), ("B-PER",))]
    (tmp_path / "test.txt").write_text(CONLL)
    rows = [{"tokens": one.words, "ner_tags": one.tags} for one in expected]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_sentences(tmp_path / "test.txt") == expected
    assert read_sentences(tmp_path / "test.jsonl") == expected
    assert read_sentences(tmp_path / "test.txt", 1) == expected[:1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "EU\n", "line 1 has one column"),
        ("a.txt", "\n", "no sentences"),
        ("a.jsonl", '{"words": ["a"], "tags": [3]}', "sentence 1 has not as many tags, in text, as words"),
        ("a.jsonl", '{"words": ["a"], "tags": ["O", "O"]}', "sentence 1 has not as many tags"),
        ("a.jsonl", '{"words": [], "tags": []}', "sentence 1 has not"),
        ("b.txt", None, "no readable text"),
    ],
)
def test_sentences_that_are_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BctError, match=message):
        read_sentences(tmp_path / name)


def test_a_word_has_the_tag_of_its_first_token():
    def token(tag, start, end):
        return {"entity": tag, "start": start, "end": end}

    words = ("New", "Yorkers", "in", "Rome")  # at 0, 4, 12, 15
    found = [token("B", 0, 3), token("I", 4, 8), token("x", 8, 11), token("O", 12, 14), token("B", 15, 19)]
    assert tags_of_words(words, found) == ["B", "I", "O", "B"]
    # Tokens that hold the space before a word, or are nothing but it.
    found = [token("B", 0, 3), token("x", 3, 4), token("I", 3, 8), token("x", 8, 11), token("O", 11, 14)]
    assert tags_of_words(words, found) == ["B", "I", "O", "O"]
    # A word of which the tokenizer makes nothing has no token.
    assert tags_of_words(("a", "\u200b", "b"), [token("A", 0, 1), token("B", 4, 5)]) == ["A", "O", "B"]
    assert tags_of_words(words, []) == ["O"] * 4


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "The sky is blue.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "What is blue?",
                            "answers": [{"text": "The sky", "answer_start": 0}, {"text": "sky", "answer_start": 4}],
                        },
                        {"id": "2", "question": "What is red?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_questions_are_in_squads_format_or_records(tmp_path):
    expected = [
        Question("What is blue?", "The sky is blue.", ("The sky", "sky")),
        Question("What is red?", "The sky is blue.", ()),
    ]
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    assert read_questions(tmp_path / "dev.json") == expected
    assert read_questions(tmp_path / "dev.json", 1) == expected[:1]
    plain = {"question": "What is blue?", "context": "The sky is blue."}
    forms = (["The sky", "sky"], {"text": ["The sky", "sky"], "answer_start": [0, 4]}, [{"text": "The sky"}, "sky"])
    (tmp_path / "dev.jsonl").write_text("\n".join(json.dumps({**plain, "answers": form}) for form in forms))
    assert read_questions(tmp_path / "dev.jsonl") == expected[:1] * 3
    (tmp_path / "one.jsonl").write_text(json.dumps({**plain, "answer": "sky"}))
    assert read_questions(tmp_path / "one.jsonl")[0].answers == ("sky",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"data": [{"title": "x"}]}', "not in SQuAD's format"),
        ("a.json", "[", "cannot be read as JSON"),
        ("a.json", '{"data": []}', "no questions"),
        ("a.jsonl", '{"question": "a", "context": "b", "answers": 7}', "question 1 has answers that are no texts"),
        ("a.jsonl", '{"question": "a", "context": "b", "answers": [7]}', "question 1 has answers that are no texts"),
        ("a.jsonl", '{"question": 1, "context": "b", "answers": ["b"]}', "something else than text"),
        ("a.jsonl", '{"question": "a"}', "wanted are question, context, answers"),
    ],
)
def test_questions_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(BctError, match=message):
        read_questions(tmp_path / name)
