"""Recognition of speech: the share of words that are wrong."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.extras import extra
from bct_onnx.samples.read import SOUNDS, read_sound

from .compare import Outcome, compare
from .folders import bytes_on_disk
from .metrics import Array, ratio
from .pipelines import check_folders, run_pipeline
from .read import read_records, text_fields
from .records import DEFAULTS, Evaluation, Settings

TASK = "automatic-speech-recognition"
# Statistics of a clip: words that are substituted, left out or put in, and words of the text.
WORD_ERROR_RATE = ratio("word error rate", lambda sums: sums[:, 0], lambda sums: sums[:, 1])
_TABLES = (".tsv", ".jsonl")
_PATH = ("path", "file", "file_name", "audio", "audio_filepath")
_TEXT = ("text", "sentence", "transcription", "transcript")
# Whisper hears so many seconds at a time; longer clips it hears in pieces of its own choice, other models in these.
_SECONDS = 30


@dataclass(frozen=True)
class Clip:
    """A sound in a file, and what is said in it."""

    path: Path
    text: str


def read_clips(data: str | Path, samples: int | None = None) -> list[Clip]:
    """Return the first clips of a folder or a table; raises BctError.

    A table is a .jsonl or .tsv file of path and text, paths as seen from its folder, with or without their ending; a
    .tsv file may lack the names of columns. A folder holds such a table, or a .txt beside each sound.
    """
    data = Path(data)
    if not data.is_dir():
        return _read_table(data, samples)
    tables = sorted(path for path in data.iterdir() if path.suffix in _TABLES)
    if len(tables) > 1:
        raise BctError(f"{data}: holds several tables, {', '.join(t.name for t in tables)}: name one of them")
    if tables:
        return _read_table(tables[0], samples)
    sounds = sorted(path for path in data.rglob("*") if path.suffix.lower() in SOUNDS)[:samples]
    if not sounds:
        raise BctError(f"{data}: holds no sounds ({', '.join(SOUNDS)}) and no table of them ({', '.join(_TABLES)})")
    return [Clip(path, _text_beside(path)) for path in sounds]


def _text_beside(sound: Path) -> str:
    try:
        return sound.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BctError(f"{sound}: no readable text beside it, {sound.stem}.txt: {error}") from error


def _read_table(file: Path, samples: int | None) -> list[Clip]:
    bare = file.suffix == ".tsv" and file.is_file() and not _has_names(file)
    records = read_records(file, samples, (_PATH[0], _TEXT[0]) if bare else None)
    paths, texts = text_fields(file, records, _PATH, _TEXT)
    return [Clip(_sound(file.parent / path), text) for path, text in zip(paths, texts, strict=True)]


def _has_names(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        first = next(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), [])
    return bool({*_PATH} & {*first})


def _sound(path: Path) -> Path:
    """Return a sound's path, with its ending added where that is left out; raises BctError where there is none."""
    found = next((p for p in (path, *(path.with_name(path.name + end) for end in SOUNDS)) if p.is_file()), None)
    if found is None:
        raise BctError(f"{path}: no such sound, with or without {' or '.join(SOUNDS)}")
    return found


@dataclass(frozen=True)
class Transcripts:
    """What a model heard in each clip, and the language of it, None where the folder does not say."""

    texts: Sequence[str]
    language: str | None
    spelling: dict[str, str]


def _listen(pipeline: Any, clips: Sequence[Clip], language: str | None) -> Transcripts:
    """Return what a pipeline hears; a Whisper of many languages is told which one, where that is known."""
    multilingual = getattr(getattr(pipeline.model, "generation_config", None), "is_multilingual", None)
    call: dict[str, Any] = {}
    if language and multilingual:
        call = {"generate_kwargs": {"language": language, "task": "transcribe"}}
    rate = pipeline.feature_extractor.sampling_rate
    texts = []
    for clip in clips:
        sound = read_sound(clip.path, rate).astype(np.float32)
        pieces: dict[str, Any] = {}
        if len(sound) > _SECONDS * rate:
            whisper = pipeline.type == "seq2seq_whisper"
            pieces = {"return_timestamps": True} if whisper else {"chunk_length_s": _SECONDS}
        texts.append(pipeline({"raw": sound, "sampling_rate": rate}, **call, **pieces)["text"])
    said = getattr(pipeline.tokenizer, "language", None) or ("en" if multilingual is False else None)
    return Transcripts(texts, language or said, getattr(pipeline.tokenizer, "english_spelling_normalizer", None) or {})


def normalizer(language: str | None, spelling: dict[str, str]) -> tuple[Callable[[str], str], str]:
    """Return Whisper's normalizer of texts, for English or for any language, and its name."""
    module = extra("transformers.models.whisper.english_normalizer", "export")
    if language is not None and language.lower() in ("en", "english"):
        name = "EnglishTextNormalizer" + ("" if spelling else " (the folder has no normalizer.json of spellings)")
        return module.EnglishTextNormalizer(spelling), name
    return module.BasicTextNormalizer(), "BasicTextNormalizer"


def word_errors(texts: Sequence[str], heard: Sequence[str]) -> Array:
    """Return [clips, 2]: words that are wrong, left out or too many, as jiwer counts them, and words of the text."""
    count = extra("jiwer").process_words
    found = [count(text, other) for text, other in zip(texts, heard, strict=True)]
    return np.array(
        [
            (one.substitutions + one.deletions + one.insertions, one.hits + one.substitutions + one.deletions)
            for one in found
        ],
        float,
    )


def evaluate_speech(
    data: str | Path,
    models: Sequence[str | Path],
    *,
    language: str | None = None,
    samples: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return the word error rate of models, folders of Whisper's kind or of CTC, on clips with texts (`read_clips`).

    The first folder is the reference. Texts are normalized by Whisper's normalizer for English where `language`, or the
    reference's tokenizer, says so, else by that for any language; a note says which. A Whisper of many languages is
    told the `language`. The decision on a clip is the normalized text. Raises BctError for what cannot be read or run.
    """
    extra("jiwer")
    paths = check_folders(models)
    clips = read_clips(data, samples)
    heard = [
        run_pipeline(TASK, path, settings.threads, partial(_listen, clips=clips, language=language)) for path in paths
    ]
    normalize, name = normalizer(heard[0].language, heard[0].spelling)
    texts = [normalize(clip.text).strip() for clip in clips]
    outcomes = []
    for path, one in zip(paths, heard, strict=True):
        said = [normalize(text).strip() for text in one.texts]
        outcomes.append(Outcome(path, bytes_on_disk(path), word_errors(texts, said), np.array(said, object)))
    words = int(outcomes[0].answers_for(WORD_ERROR_RATE)[:, 1].sum())
    notes = [f"texts normalized by {name}; {words:,} words"]
    return compare("speech", data, outcomes, [WORD_ERROR_RATE], settings, notes=notes)
