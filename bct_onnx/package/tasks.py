"""A folder's models at their task: what transformers' own pipeline answers, float against compressed."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.errors import VerificationError

from .export import PAST, exporter_is_installed, first_line, library, silence

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
NEW_TOKENS = 24
_SIDE, _SECONDS = 224, 2

# Pairs of what the float and the compressed pipeline answered to an example.
Pairs = Sequence[tuple[Any, Any]]
Figures = Mapping[str, float]


@dataclass(frozen=True)
class EndToEnd:
    """The answers of the task's pipeline, float against compressed: figures by name, shares from 0 to 1."""

    task: str
    examples: int
    figures: Figures


@dataclass(frozen=True)
class Task:
    """How a task is tried: examples for a pipeline, words to call it with, figures of what it answers."""

    examples: Callable[[Any], Sequence[Any]]
    figures: Callable[[Pairs], Figures]
    call: Mapping[str, Any]


def compare_tasks(task: str, source: Path, target: Path) -> tuple[EndToEnd | None, str]:
    """Run a task with the models of both folders; returns None and a sentence where that cannot be done.

    Raises VerificationError where the float models can do it and the compressed ones cannot.
    """
    name = task.removesuffix(PAST)
    if not exporter_is_installed():
        return None, "not tried at its task: optimum is not installed"
    if name not in TASKS:
        return None, f"not tried at its task: no pipeline of optimum is known here for {name}"
    how = TASKS[name]
    with silence():
        try:
            pipeline = _pipeline(name, source)
            examples = how.examples(pipeline)
            expected = _answer(pipeline, examples, how)
            loss = _perplexity(pipeline, examples) if name == "text-generation" else None
        except Exception as error:  # whatever transformers, torch and ONNX Runtime raise
            return None, f"not tried at its task: the float models' pipeline does not run: {first_line(error)}"
        del pipeline
        try:
            pipeline = _pipeline(name, target)
            answered = _answer(pipeline, examples, how)
            figures = dict(how.figures(list(zip(expected, answered, strict=True))))
            if loss is not None:
                figures |= {"perplexity, float": loss, "perplexity": _perplexity(pipeline, examples)}
        except Exception as error:
            raise VerificationError(
                f"{target.name}: the pipeline for {name} runs with the float models, not with the compressed ones:"
                f" {first_line(error)}"
            ) from error
    if not all(np.isfinite(list(figures.values()))):
        raise VerificationError(f"{target.name}: the pipeline for {name} answers with what is no number: {figures}")
    return EndToEnd(name, len(examples), figures), ""


def _pipeline(task: str, folder: Path) -> Any:
    return library("optimum.onnxruntime").pipeline(task, model=str(folder))


def _answer(pipeline: Any, examples: Sequence[Any], how: Task) -> list[Any]:
    # A pipeline takes apart what it is given.
    return [pipeline(copy(example), **how.call) for example in examples]


def _texts(_: Any) -> Sequence[Any]:
    return TEXTS


def _masked(pipeline: Any) -> Sequence[Any]:
    """Return the texts, the fourth word of each hidden."""
    mask = pipeline.tokenizer.mask_token
    return [" ".join(mask if place == 3 else word for place, word in enumerate(text.split())) for text in TEXTS]


def _questions(_: Any) -> Sequence[Any]:
    return [{"question": question, "context": context} for question, context in QUESTIONS]


def _pictures(_: Any) -> Sequence[Any]:
    """Return pictures: fields of colour, stripes, a circle, and noise."""
    image = library("PIL.Image")
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    ones, noise = np.ones((_SIDE, _SIDE)), np.random.default_rng(0).random((_SIDE, _SIDE, 3))
    fields = (
        np.stack([ones, 0.2 * ones, x], -1),
        np.stack([0.1 * ones, y, ones], -1),
        np.repeat((np.sin(40 * x)[..., None] + 1) / 2, 3, -1),
        np.repeat(((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)[..., None].astype(float), 3, -1),
        noise,
    )
    return [image.fromarray((255 * field).astype(np.uint8)) for field in fields]


def _sounds(pipeline: Any) -> Sequence[Any]:
    """Return sounds: tones that rise and swell as speech does, at the rate that the model hears."""
    rate = pipeline.feature_extractor.sampling_rate
    time = np.arange(_SECONDS * rate) / rate
    swell = np.sin(np.pi * 3 * time) ** 2
    return [
        {
            "raw": (0.3 * swell * np.sin(2 * np.pi * (tone * time + 40 * time**2))).astype(np.float32),
            "sampling_rate": rate,
        }
        for tone in (110, 180, 260)
    ]


def _labels(pairs: Pairs) -> Figures:
    """Compare lists of labels with scores: the share of equal first labels, the largest change of a score."""
    same, changes = [], []
    for expected, answered in pairs:
        first, second = (
            {entry.get("label", entry.get("token_str")): entry["score"] for entry in one}
            for one in (expected, answered)
        )
        same.append(max(first, key=first.__getitem__) == max(second, key=second.__getitem__))
        changes += [abs(score - second[label]) for label, score in first.items() if label in second]
    return {"same label": statistics.fmean(same), "largest change of a score": float(max(changes, default=0.0))}


def _entities(pairs: Pairs) -> Figures:
    same = [{(e["word"], e["entity"]) for e in one} == {(e["word"], e["entity"]) for e in two} for one, two in pairs]
    return {"same entities": statistics.fmean(same)}


def _vectors(pairs: Pairs) -> Figures:
    """Compare vectors of tokens or pictures, each pooled to one: cosines."""
    cosines = [_cosine(_pool(one), _pool(two)) for one, two in pairs]
    return {"least cosine": min(cosines), "mean cosine": statistics.fmean(cosines)}


def _pool(vectors: Any) -> Array:
    array = np.asarray(vectors, np.float64)
    return np.asarray(array.reshape(-1, array.shape[-1]).mean(axis=0))


def _cosine(one: Array, two: Array) -> float:
    return float(one @ two / np.sqrt((one @ one) * (two @ two)))


def _sentences(pairs: Pairs) -> Figures:
    """Compare texts: the share of equal ones, and of words that both have in the same order."""
    texts = [(_text(one), _text(two)) for one, two in pairs]
    words = [difflib.SequenceMatcher(None, one.split(), two.split(), autojunk=False).ratio() for one, two in texts]
    return {"same text": statistics.fmean(one == two for one, two in texts), "same words": statistics.fmean(words)}


def _text(answer: Any) -> str:
    """Return the text in a pipeline's answer, whatever the task calls it."""
    answer = answer[0] if isinstance(answer, list) else answer
    names = ("text", "generated_text", "summary_text", "translation_text", "answer")
    return str(next(answer[name] for name in names if name in answer))


def _perplexity(pipeline: Any, texts: Sequence[str]) -> float:
    """Return the perplexity of texts by the model of a pipeline."""
    losses: list[float] = []
    for text in texts:
        tokens = pipeline.tokenizer(text, return_tensors="pt")
        logits = np.asarray(pipeline.model(**tokens).logits[0], np.float64)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        following = np.asarray(tokens["input_ids"][0])[1:]
        losses += list(-logs[np.arange(len(following)), following])
    return float(np.exp(statistics.fmean(losses)))


_GREEDY = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
_ALL_LABELS = {"top_k": None}
TASKS: Mapping[str, Task] = {
    "audio-classification": Task(_sounds, _labels, {}),
    "automatic-speech-recognition": Task(_sounds, _sentences, {}),
    "feature-extraction": Task(_texts, _vectors, {}),
    "fill-mask": Task(_masked, _labels, {}),
    "image-classification": Task(_pictures, _labels, {}),
    "image-to-text": Task(_pictures, _sentences, {"max_new_tokens": NEW_TOKENS}),
    "question-answering": Task(_questions, _sentences, {}),
    "text-classification": Task(_texts, _labels, _ALL_LABELS),
    "text-generation": Task(_texts, _sentences, _GREEDY),
    "text2text-generation": Task(_texts, _sentences, _GREEDY),
    "token-classification": Task(_texts, _entities, {}),
    "zero-shot-image-classification": Task(_pictures, _labels, {"candidate_labels": list(LABELS)}),
}
