"""Examples that a task is tried with: the user's texts, pictures and sounds, or made ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.samples.read import MOST, PICTURES, SOUNDS, find_files, read_picture, read_sound

from .export import library

TEXTS = (
    "The film was a delight from start to finish, and the cast has never been better.",
    "Heavy rain is expected in the north on Tuesday, with floods along the river.",
    "She opened the letter, read it twice and put it back without a word.",
    "The committee will publish its report on prices and wages next month.",
    "Water boils at a lower temperature in the mountains than at the sea.",
    "I waited for an hour, the soup was cold and nobody said sorry.",
)
QUESTIONS = (
    ("Where is rain expected?", TEXTS[1]),
    ("What will the committee publish?", TEXTS[3]),
    ("What did she open?", TEXTS[2]),
)
LABELS = ("a red field", "a blue field", "stripes", "a bright circle")
_SIDE, _SECONDS = 224, 2


def texts(given: Path | None) -> Sequence[str]:
    """Return the lines of a file that are not empty, or made sentences; raises BctError for what is no text."""
    if given is None:
        return TEXTS
    try:
        lines = [line.strip() for line in given.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BctError(f"{given}: cannot be read as text, one example a line: {error}") from error
    return _some(lines, given, "lines of text")


def pictures(given: Path | None) -> Sequence[Any]:
    """Return the pictures of a folder, or made ones: fields of colour, stripes, a circle, noise."""
    image = library("PIL.Image")
    if given is not None:
        return [read_picture(path) for path in _files(given, PICTURES, "pictures")]
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    ones = np.ones((_SIDE, _SIDE))
    fields = (
        np.stack([ones, 0.2 * ones, x], -1),
        np.stack([0.1 * ones, y, ones], -1),
        np.repeat((np.sin(40 * x)[..., None] + 1) / 2, 3, -1),
        np.repeat(((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)[..., None].astype(float), 3, -1),
        np.random.default_rng(0).random((_SIDE, _SIDE, 3)),
    )
    return [image.fromarray((255 * field).astype(np.uint8)) for field in fields]


def sounds(given: Path | None, rate: int) -> Sequence[dict[str, Any]]:
    """Return the sounds of a folder at `rate` samples a second, or made tones that swell as speech does."""
    if given is not None:
        found = [read_sound(path, rate) for path in _files(given, SOUNDS, "sounds")]
    else:
        time = np.arange(_SECONDS * rate) / rate
        swell = 0.3 * np.sin(np.pi * 3 * time) ** 2
        found = [swell * np.sin(2 * np.pi * (tone * time + 40 * time**2)) for tone in (110, 180, 260)]
    return [{"raw": sound.astype(np.float32), "sampling_rate": rate} for sound in found]


def _files(folder: Path, endings: Sequence[str], what: str) -> Sequence[Path]:
    return _some(find_files(folder, endings), folder, f"{what} ({', '.join(endings)})")


def _some(found: Sequence[Any], place: Path, what: str) -> Sequence[Any]:
    if not found:
        raise BctError(f"{place}: holds no {what}; give examples of the kind that the task takes")
    return found[:MOST]
