"""Texts, pictures and sounds in files."""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.errors import BctError
from bct_onnx.extras import extra

# Most samples that are taken: a model's answers to all of them are in memory at once.
MOST = 64
PICTURES, SOUNDS, TEXTS = (".jpg", ".jpeg", ".png", ".webp", ".bmp"), (".wav", ".flac"), (".txt", ".jsonl")
# Fields of a record that hold text; the first two that are there make a pair.
_FIELDS = ("sentence1", "question1", "question", "premise", "sentence", "text", "sentence2", "question2", "hypothesis")
_SAMPLE_BYTES = 2

Text = str | tuple[str, str]


def library(module: str) -> Any:
    """Return a module of the extra `data`; raises BctError where it is absent."""
    return extra(module, "data", "which turns data into inputs")


def find_files(place: Path, endings: Sequence[str]) -> Sequence[Path]:
    """Return a file, or the files below a folder, that end so, sorted; raises BctError where nothing is there."""
    if not place.exists():
        raise BctError(f"{place}: is not there; name a file of texts, or a folder of texts, pictures or sounds")
    paths = [place] if place.is_file() else sorted(place.rglob("*"))
    return [path for path in paths if path.suffix.lower() in endings]


def read_texts(path: Path) -> list[Text]:
    """Return the first lines of a text, empty ones left out, or the sentences and pairs of the records of a .jsonl."""
    texts: list[Text] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                texts.append(_fields(path, json.loads(line)) if path.suffix == ".jsonl" else line.strip())
                if len(texts) == MOST:
                    break
    except (OSError, ValueError) as error:
        raise BctError(f"{path}: cannot be read as text, one sample a line: {error}") from error
    return texts


def _fields(path: Path, record: Any) -> Text:
    found = [record[name] for name in _FIELDS if name in record] if isinstance(record, dict) else []
    if not found or not all(isinstance(text, str) for text in found):
        raise BctError(f"{path}: a record has no text; wanted is sentence1 or text, and sentence2 for pairs")
    return found[0] if len(found) == 1 else (found[0], found[1])


def read_picture(path: Path) -> Any:
    """Return a picture in red, green and blue; raises BctError for what is none."""
    try:
        return library("PIL.Image").open(path).convert("RGB")
    except OSError as error:
        raise BctError(f"{path}: cannot be read as a picture: {error}") from error


def read_sound(path: Path, rate: int) -> Array:
    """Return a mono sound, [samples] from -1 to 1, at another rate: its spectrum is cut.

    Raises BctError for a .wav of other than 16 bits, and for a .flac where the package soundfile is absent.
    """
    samples, own = _read_wave(path) if path.suffix.lower() == ".wav" else _read_flac(path)
    count = round(len(samples) * rate / own)
    return np.asarray(np.fft.irfft(np.fft.rfft(samples)[: count // 2 + 1], count) * (count / len(samples)))


def _read_wave(path: Path) -> tuple[Array, int]:
    try:
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, _SAMPLE_BYTES):
                raise BctError(f"{path}: has other than one channel of 16 bits; convert it, with sox or ffmpeg")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15, file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise BctError(f"{path}: cannot be read as sound: {error}") from error


def _read_flac(path: Path) -> tuple[Array, int]:
    sounds = library("soundfile")
    try:
        samples, rate = sounds.read(str(path), always_2d=True)
    except (OSError, sounds.SoundFileError) as error:
        raise BctError(f"{path}: cannot be read as sound: {error}") from error
    if samples.shape[1] != 1:
        raise BctError(f"{path}: has other than one channel; convert it, with sox or ffmpeg")
    return np.asarray(samples[:, 0]), rate
