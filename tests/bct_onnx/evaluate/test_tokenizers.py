"""Tokenizers read from their files."""

import itertools
import json
import struct
from pathlib import Path

import pytest

from bct_onnx.errors import BctError
from bct_onnx.evaluate.tokenizers import read_encoder, read_tokenizer

# Pieces of a llama2.c file: three special, the 256 bytes, then joined pieces and characters, the best score first.
JOINED = {" t": 0.0, "he": -1.0, " the": -2.0, "the": -3.0, " ": -4.0, "t": -5.0, "h": -6.0, "e": -7.0}


def write_llama2c(file: Path) -> Path:
    pieces = {"<unk>": 0.0, "\n<s>\n": 0.0, "\n</s>\n": 0.0} | {f"<0x{b:02X}>": 0.0 for b in range(256)} | JOINED
    packed = (struct.pack("<fi", score, len(piece.encode())) + piece.encode() for piece, score in pieces.items())
    file.write_bytes(struct.pack("<i", 7) + b"".join(packed))
    return file


def number(piece: str) -> int:
    return 259 + list(JOINED).index(piece)


def test_llama2c_joins_the_best_scores_first(tmp_path: Path) -> None:
    encoder = read_encoder(write_llama2c(tmp_path / "tok.bin"))
    assert encoder.begin == 1
    assert encoder.encode("the") == [number(" the")]
    assert encoder.encode("hethe") == [number(" "), number("he"), number("the")]
    assert encoder.encode("t\né") == [number(" t"), 3 + 0x0A, 3 + 0xC3, 3 + 0xA9]  # what has no piece, by bytes


def test_llama2c_agrees_with_joining_pair_by_pair(data: Path) -> None:
    file = data / "stories260k" / "tok512.bin"
    text = (data / "text" / "tinystories_valid_head.txt").read_text("utf-8")[:1500]
    raw, place, scores = file.read_bytes(), 4, {}
    while place < len(raw):
        score, size = struct.unpack_from("<fi", raw, place)
        scores[raw[place + 8 : place + 8 + size].decode()] = (score, len(scores))
        place += 8 + size
    pieces = [" ", *text]
    while True:
        joins = [(scores[a + b][0], -i) for i, (a, b) in enumerate(itertools.pairwise(pieces)) if a + b in scores]
        if not joins:
            break
        at = -max(joins)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    expected = [scores[piece][1] if piece in scores else piece.encode()[0] + 3 for piece in pieces]
    assert read_encoder(file).encode(text) == expected


@pytest.mark.parametrize("content", [b"\0\0\0\0garbage", b"\0\0\0\0\0\0\0\0\xff\xff\xff\x7fab", b"\0\0\0\0" + bytes(8)])
def test_a_broken_llama2c_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tok.bin").write_bytes(content)
    with pytest.raises(BctError, match=r"tok\.bin: not a llama2\.c tokenizer"):
        read_encoder(tmp_path / "tok.bin")


@pytest.mark.parametrize(("words", "config", "expected"), [("good", None, 4), ("Good", None, 4), ("Good", True, 1)])
def test_word_pieces_fold_case_as_their_vocabulary_does(
    tmp_path: Path, words: str, config: bool | None, expected: int
) -> None:
    (tmp_path / "vocab.txt").write_text(f"[PAD]\n[UNK]\n[CLS]\n[SEP]\n{words}")
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": config}))
    assert read_tokenizer(tmp_path).encode("Good").ids == [2, expected, 3]


def test_a_folder_offers_its_best_file(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood")
    assert read_encoder(tmp_path).encode("good") == [4]
    assert read_encoder(tmp_path).begin is None
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BctError, match=r"tokenizer\.json: not a tokenizer"):
        read_encoder(tmp_path)


def test_sentencepiece_has_its_own_beginning(data: Path) -> None:
    encoder = read_encoder(data / "babyllama105" / "tokenizer.model")
    assert encoder.begin == 1
    assert len(encoder.encode("once upon")) == 10  # a character each, and one for the space before


def test_a_broken_sentencepiece_file_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(BctError, match="not a sentencepiece model"):
        read_encoder(tmp_path)
