"""Arrays from samples, by the tokenizer and the processors that a model's folder describes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.errors import BctError, first_line
from bct_onnx.samples.read import (
    MOST,
    PICTURES,
    SOUNDS,
    TEXTS,
    Text,
    find_files,
    library,
    read_picture,
    read_sound,
    read_texts,
)

# Longest text in tokens, where the model's own limit is not lower.
MOST_TOKENS = 128


@dataclass(frozen=True)
class Samples:
    """Samples in files, and the folder that says how they become numbers.

    Attributes:
        place: a file or a folder of them.
        folders: where tokenizer and processors may be, the likeliest first.
    """

    place: Path
    folders: tuple[Path, ...]

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; it pads with the end of a text where it has nothing else for that."""
        tokenizer = self._load("AutoTokenizer")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer

    @cached_property
    def texts(self) -> Sequence[Text]:
        """At most MOST texts, in their order."""
        texts = [text for path in find_files(self.place, TEXTS) for text in read_texts(path)]
        return self._some(texts, "texts", TEXTS)

    def tokens(self, texts: Sequence[Text], length: int | None) -> Mapping[str, Array]:
        """Return input_ids, attention_mask and so on, [texts, tokens], of a fixed length or of the longest one's."""
        limit = length or min(MOST_TOKENS, self.tokenizer.model_max_length)
        firsts = [text if isinstance(text, str) else text[0] for text in texts]
        seconds = [text[1] for text in texts if not isinstance(text, str)]
        if seconds and len(seconds) < len(texts):
            raise BctError(f"{self.place}: holds single texts and pairs of texts; give one kind")
        padding = "max_length" if length else "longest"
        options = {"padding": padding, "truncation": True, "max_length": limit, "return_tensors": "np"}
        return dict(self.tokenizer(firsts, seconds or None, return_token_type_ids=True, **options))

    def rows_of_tokens(self, width: int) -> Array:
        """Return the texts, one after the other, as rows of `width` tokens, the last ones left out."""
        texts = [text if isinstance(text, str) else " ".join(text) for text in self.texts]
        numbers = np.concatenate([np.asarray(ids, np.int64) for ids in self.tokenizer(texts)["input_ids"]])
        if not len(numbers) // width:
            raise BctError(f"{self.place}: holds fewer than {width} tokens; give longer texts")
        return numbers[: len(numbers) // width * width].reshape(-1, width)

    @cached_property
    def pictures(self) -> Mapping[str, Array]:
        """Arrays of at most MOST pictures, pixel_values say, [pictures, ...]."""
        paths = self._some(find_files(self.place, PICTURES), "pictures", PICTURES)
        return dict(self._load("AutoImageProcessor")(images=list(map(read_picture, paths)), return_tensors="np"))

    @cached_property
    def sounds(self) -> Mapping[str, Array]:
        """Arrays of at most MOST sounds, input_features say, [sounds, ...]."""
        paths = self._some(find_files(self.place, SOUNDS), "sounds", SOUNDS)
        extractor = self._load("AutoFeatureExtractor")
        rate = extractor.sampling_rate
        sounds = [read_sound(path, rate).astype(np.float32) for path in paths]
        # Some pad to the longest sound unless told, Whisper's to the 30 seconds that its model takes.
        padding = {} if hasattr(extractor, "n_samples") else {"padding": True}
        return dict(extractor(sounds, sampling_rate=rate, return_tensors="np", **padding))

    def _some(self, found: Sequence[Any], what: str, endings: Sequence[str]) -> Sequence[Any]:
        if not found:
            raise BctError(f"{self.place}: holds no {what} ({', '.join(endings)}), which the model takes")
        return found[:MOST]

    def _load(self, kind: str) -> Any:
        return load_processor(kind, *self.folders, hint="; name its folder with --processor")


def load_processor(kind: str, *folders: Path, hint: str = "") -> Any:
    """Return what a class of transformers (AutoTokenizer, AutoImageProcessor, ...) makes of the first folder it can.

    Raises BctError, with the hint what to do, where there is none.
    """
    # Without torch it says so when imported, which nobody here needs to know.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    library("transformers").logging.set_verbosity_error()
    reason = ""
    for folder in folders:
        try:
            return getattr(library("transformers"), kind).from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            reason = reason or first_line(error)
    raise BctError(f"{folders[0]}: no {kind.removeprefix('Auto')} of transformers there{hint} ({reason})")
