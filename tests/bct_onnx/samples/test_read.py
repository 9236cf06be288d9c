"""Texts and sounds in files, and what is said of files that hold none."""

import json
import wave

import numpy as np
import pytest

from bct_onnx import BctError, compress
from bct_onnx.samples.read import MOST, TEXTS, find_files, library, read_sound, read_texts


def test_lines_are_texts(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n" + "more\n" * 2 * MOST)
    assert read_texts(tmp_path / "a.txt") == ["one", "two", *["more"] * (MOST - 2)]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"text": "a", "label": 1}, "a"),
        ({"sentence1": "a", "sentence2": "b"}, ("a", "b")),
        ({"question": "a", "sentence": "b", "label": 0}, ("a", "b")),
    ],
)
def test_records_are_texts_or_pairs(tmp_path, record, text):
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    assert read_texts(tmp_path / "a.jsonl") == [text]


@pytest.mark.parametrize(("line", "reason"), [("{", "as text"), ('{"label": 1}', "no text"), ("3", "no text")])
def test_a_record_without_text(tmp_path, line, reason):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(BctError, match=rf"a\.jsonl: .*{reason}"):
        read_texts(tmp_path / "a.jsonl")


def test_files_are_found_below_a_folder_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.TXT", "b/a.jsonl", "c.wav"):
        (tmp_path / name).touch()
    assert find_files(tmp_path, TEXTS) == [tmp_path / "b/a.jsonl", tmp_path / "z.TXT"]
    with pytest.raises(BctError, match="is not there"):
        find_files(tmp_path / "x", TEXTS)


def test_a_sound_at_another_rate_is_the_same_tone(tmp_path):
    def tone(rate: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 100 * np.arange(rate) / rate)

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", "none"))
        file.writeframes(np.rint(tone(22050) * 2**15).astype("<i2").tobytes())
    # 16 bits: half a step of 2 ** -15.
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav", 16000), tone(16000), atol=2**-15)


def test_a_package_that_is_missing_is_named_with_what_installs_it():
    with pytest.raises(BctError, match=r"no_such_package is not installed.*bct-onnx\[data\]"):
        library("no_such_package")


def test_feeds_or_data_not_both(source, tmp_path):
    with pytest.raises(BctError, match="leave one out"):
        compress(source, tmp_path / "out.onnx", feeds="f.npz", data="d.txt")
