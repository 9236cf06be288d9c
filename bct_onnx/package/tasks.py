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
from bct_onnx.errors import BctError, VerificationError, first_line

from . import examples
from .export import PAST, exporter_is_installed, library, silence

# Most tokens that are generated for an example: enough to compare. A sentence that is spoken has about forty.
NEW_TOKENS, SPEECH_TOKENS = 24, 64

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

    examples: Callable[[Any, Path | None], Sequence[Any]]
    figures: Callable[[Pairs], Figures]
    call: Mapping[str, Any]


def compare_tasks(task: str, source: Path, target: Path, given: Path | None = None) -> tuple[EndToEnd | None, str]:
    """Run a task with the models of both folders; returns None and a sentence where that cannot be done.

    `given` has the user's examples: lines of a text file, or a folder's pictures or sounds. Raises BctError for other
    ones, VerificationError where the float models can do it and the compressed ones cannot.
    """
    name = task.removesuffix(PAST)
    if not exporter_is_installed():
        return None, "not tried at its task: optimum is not installed"
    if name not in TASKS:
        return None, f"not tried at its task: no pipeline of optimum is known here for {name}"
    how = TASKS[name]
    with silence():
        try:
            pipeline = load_pipeline(name, source)
            tried = how.examples(pipeline, given)
            expected = _answer(pipeline, tried, how)
            loss = _perplexity(pipeline, tried) if name == "text-generation" else None
        except BctError:
            raise
        except Exception as error:  # whatever transformers, torch and ONNX Runtime raise
            return None, f"not tried at its task: the float models' pipeline does not run: {first_line(error)}"
        del pipeline
        try:
            pipeline = load_pipeline(name, target)
            answered = _answer(pipeline, tried, how)
            figures = dict(how.figures(list(zip(expected, answered, strict=True))))
            if loss is not None:
                figures |= {"perplexity, float": loss, "perplexity": _perplexity(pipeline, tried)}
        except Exception as error:
            raise VerificationError(
                f"{target.name}: the pipeline for {name} runs with the float models, not with the compressed ones:"
                f" {first_line(error)}"
            ) from error
    if not all(np.isfinite(list(figures.values()))):
        raise VerificationError(f"{target.name}: the pipeline for {name} answers with what is no number: {figures}")
    return EndToEnd(name, len(tried), figures), ""


def load_pipeline(task: str, folder: Path, **loading: Any) -> Any:
    """Return transformers' pipeline for a task, with optimum's class of the models of a folder.

    `loading` are arguments of that class's `from_pretrained`. Raises what these libraries raise.
    """
    pipeline = library("optimum.onnxruntime").pipeline(task, model=str(folder), model_kwargs=loading or None)
    if not hasattr(pipeline.model, "main_input_name"):
        # optimum-onnx 0.1 does not say it of CTC models, and the pipeline for speech asks.
        pipeline.model.main_input_name = "input_values"
    return pipeline


def _answer(pipeline: Any, tried: Sequence[Any], how: Task) -> list[Any]:
    # A pipeline takes apart what it is given.
    return [pipeline(copy(example), **how.call) for example in tried]


def _texts(_: Any, given: Path | None) -> Sequence[Any]:
    return examples.texts(given)


def _masked(pipeline: Any, given: Path | None) -> Sequence[Any]:
    """Return texts, the fourth word of each hidden."""
    mask = pipeline.tokenizer.mask_token
    words = [text.split() for text in examples.texts(given)]
    return [" ".join([*line[:3], mask, *line[4:]]) for line in words if len(line) > 3]


def _questions(_: Any, __: Path | None) -> Sequence[Any]:
    return [{"question": question, "context": context} for question, context in examples.QUESTIONS]


def _pictures(_: Any, given: Path | None) -> Sequence[Any]:
    return examples.pictures(given)


def _sounds(pipeline: Any, given: Path | None) -> Sequence[Any]:
    return examples.sounds(given, pipeline.feature_extractor.sampling_rate)


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
    "automatic-speech-recognition": Task(_sounds, _sentences, {"generate_kwargs": {"max_new_tokens": SPEECH_TOKENS}}),
    "feature-extraction": Task(_texts, _vectors, {}),
    "fill-mask": Task(_masked, _labels, {}),
    "image-classification": Task(_pictures, _labels, {}),
    "image-to-text": Task(_pictures, _sentences, {"max_new_tokens": NEW_TOKENS}),
    "question-answering": Task(_questions, _sentences, {}),
    "text-classification": Task(_texts, _labels, _ALL_LABELS),
    "text-generation": Task(_texts, _sentences, _GREEDY | {"return_full_text": False}),
    "text2text-generation": Task(_texts, _sentences, _GREEDY),
    "token-classification": Task(_texts, _entities, {}),
    "zero-shot-image-classification": Task(_pictures, _labels, {"candidate_labels": list(examples.LABELS)}),
}
