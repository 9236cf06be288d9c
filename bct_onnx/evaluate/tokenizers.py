"""Text to token numbers: tokenizer.json, WordPiece vocab.txt, sentencepiece .model and llama2.c .bin."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError
from bct_onnx.extras import extra

from .folders import config_folders

_NAMES = ("tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer.bin")
_BEGIN = ("<s>", "<bos>", "<|begin_of_text|>", "\n<s>\n")


@dataclass(frozen=True)
class Encoder:
    """Text to token numbers, without special ones, and the number that begins a document, if any does."""

    encode: Callable[[str], list[int]]
    begin: int | None


def find_tokenizer(path: str | Path) -> Path:
    """Return the tokenizer file at a path, or the best known one in a folder; raises BctError without one."""
    path = Path(path)
    found = next((path / name for name in _NAMES if (path / name).is_file()), path)
    if not found.is_file():
        raise BctError(f"{path}: no tokenizer there: give a file, or a folder with one of {', '.join(_NAMES)}")
    return found


def tokenizer_of(path: Path, reference: Path, given: str | Path | None) -> Path:
    """Return the tokenizer file of a model: the given one, else that beside it, else that beside the reference."""
    if given is not None:
        return find_tokenizer(given)
    found = next(
        (place / name for place in config_folders(path, reference) for name in _NAMES if (place / name).is_file()), None
    )
    if found is None:
        raise BctError(f"{path}: no tokenizer beside it: name one with --tokenizer")
    return found


def read_tokenizer(path: str | Path) -> Any:
    """Return a `tokenizers` tokenizer of tokenizer.json, vocab.txt or a llama2.c .bin; raises BctError."""
    file = find_tokenizer(path)
    readers = {".json": _read_json, ".txt": _read_word_pieces, ".bin": _read_llama2c}
    if file.suffix not in readers:
        raise BctError(f"{file}: not a tokenizer.json, vocab.txt or .bin tokenizer")
    try:
        return readers[file.suffix](file)
    except BctError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        raise BctError(f"{file}: not a tokenizer: {error}") from error


def read_encoder(path: str | Path) -> Encoder:
    """Return the encoder of any known tokenizer file; raises BctError."""
    file = find_tokenizer(path)
    if file.suffix == ".model":
        try:
            pieces = extra("sentencepiece").SentencePieceProcessor(model_file=str(file))
        except (RuntimeError, OSError) as error:
            raise BctError(f"{file}: not a sentencepiece model") from error
        return Encoder(pieces.encode, pieces.bos_id() if pieces.bos_id() >= 0 else None)
    tokenizer = read_tokenizer(file)
    numbers = (tokenizer.token_to_id(name) for name in _BEGIN)
    return Encoder(
        lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        next((number for number in numbers if number is not None), None),
    )


def _read_json(file: Path) -> Any:
    tokenizer = extra("tokenizers").Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_word_pieces(file: Path) -> Any:
    config = file.with_name("tokenizer_config.json")
    words = [word for word in file.read_text("utf-8").split() if not word.startswith("[")]
    lower = all(word == word.lower() for word in words)
    if config.is_file():
        lower = json.loads(config.read_text("utf-8")).get("do_lower_case", lower)
    return extra("tokenizers").BertWordPieceTokenizer.from_file(str(file), lowercase=lower)


def _read_llama2c(file: Path) -> Any:
    """Return byte-pair encoding over the pieces of a .bin file.

    It has scores where the encoding wants merges: two pieces that join to a third are a merge, and the best
    score comes first.
    """
    scores = _read_pieces(file)
    merges = [
        (score, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    merges.sort(key=lambda merge: -merge[0])
    tokenizers = extra("tokenizers")
    vocabulary = {piece: number for number, piece in enumerate(scores)}
    pairs = [(left, right) for _, left, right in merges]
    model = tokenizers.models.BPE(vocabulary, pairs, unk_token="<unk>", byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Prepend(" ")
    return tokenizer


def _read_pieces(file: Path) -> dict[str, float]:
    """Return the scores by piece; the file is an int32, then for each float32 score, int32 size, text."""
    data = file.read_bytes()
    scores: dict[str, float] = {}
    place = 4
    try:
        while place < len(data):
            score, size = struct.unpack_from("<fi", data, place)
            place += 8 + size
            if size <= 0 or place > len(data):
                raise ValueError(f"a piece of {size} bytes")
            scores[data[place - size : place].decode("utf-8")] = score
    except (struct.error, ValueError) as error:
        raise BctError(f"{file}: not a llama2.c tokenizer: {error}") from error
    return scores
