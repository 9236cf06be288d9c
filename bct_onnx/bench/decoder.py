"""A decoder that generates: prompt in, tokens out, greedily, with the time of the first token and of those after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.errors import BctError
from bct_onnx.files import read
from bct_onnx.inputs import InputPlan, ModelInput, Role
from bct_onnx.inputs.feeds import UNPADDED_OPS
from bct_onnx.inputs.flow import flatten
from bct_onnx.inputs.roles import find_inputs
from bct_onnx.inputs.sentences import with_sentences
from bct_onnx.inputs.text import LOGITS, pair_caches
from bct_onnx.inputs.values import make_value, numpy_type

# Names of files in a folder, the likeliest first: all of a decoder, or the first step's and that of the others.
WHOLE = ("decoder_model_merged.onnx", "model.onnx")
SPLIT = ("decoder_model.onnx", "decoder_with_past_model.onnx")
ENCODER = "encoder_model.onnx"
# Places of text that an encoder reads, where its input has no fixed length.
SOURCE = 128


@dataclass(frozen=True)
class DecoderFiles:
    """The models of a decoder: of the first step, of the later ones (perhaps the same), and an encoder's, if any."""

    first: Path
    later: Path
    encoder: Path | None = None

    @classmethod
    def find(cls, path: Path) -> DecoderFiles:
        """Return the decoder in a file or a folder; BctError where there is none."""
        if not path.is_dir():
            return cls(path, path)
        encoder = path / ENCODER if (path / ENCODER).exists() else None
        for name in WHOLE:
            if (path / name).exists():
                return cls(path / name, path / name, encoder)
        first, later = (path / name for name in SPLIT)
        if not first.exists() or not later.exists():
            raise BctError(f"{path}: no decoder: none of {', '.join(WHOLE)}, nor {' with '.join(SPLIT)}")
        return cls(first, later, encoder)

    def all(self) -> tuple[Path, ...]:
        """Return every file once."""
        return tuple(dict.fromkeys(path for path in (self.first, self.later, self.encoder) if path))


@dataclass(frozen=True)
class Step:
    """What one model takes: its inputs, and whether its caches are buffers that it writes in place."""

    path: Path
    plan: InputPlan
    outputs: tuple[str, ...]
    in_place: bool

    @classmethod
    def read(cls, path: Path, folder: Path | None = None) -> Step:
        """Read the inputs of a model; token numbers are of sentences where the folder has a tokenizer."""
        model = read(path).proto
        flow = flatten(model)
        inputs = with_sentences(find_inputs(model, flow), folder)
        in_place = any(node.op in UNPADDED_OPS for node in flow.nodes)
        counts = {"batch": 1, "sequence": 1, "past": 0, "encoder": SOURCE, "feed": 0}
        outputs = tuple(value.name for value in model.graph.output)
        return cls(path, InputPlan(inputs, counts, (0,), frozenset({Role.MASK, Role.LENGTHS})), outputs, in_place)

    def with_sizes(self, known: Mapping[str, Mapping[int, int]]) -> Step:
        """Return the step with the sizes of axes that are known of inputs by name."""
        inputs = [replace(entry, axis_sizes=known.get(entry.name, entry.axis_sizes)) for entry in self.plan.inputs]
        return replace(self, plan=replace(self.plan, inputs=tuple(inputs)))

    def caches(self) -> list[ModelInput]:
        """Return the inputs of earlier keys and values."""
        return [entry for entry in self.plan.inputs if entry.role is Role.CACHE]

    def tokens(self) -> ModelInput:
        """Return the input of token numbers; BctError where there is none."""
        found = next((entry for entry in self.plan.inputs if entry.role is Role.IDS), None)
        if found is None:
            raise BctError(f"{self.path}: no input of token numbers")
        return found

    def logits(self) -> str:
        """Return the output of which tokens are chosen; BctError where there is none."""
        found = next((name for name in self.outputs if LOGITS.search(name)), None)
        if found is None:
            raise BctError(f"{self.path}: no output named logits")
        return found

    def sizes(self, count: int, past: int, places: int) -> dict[str, int]:
        """Return the sizes of a step of so many tokens behind `past` others; an encoder has so many places."""
        counts = {"sequence": count, "uncached": count, "past": past, "encoder": places, "total": past + count}
        sizes = self.plan.sizes(**counts)
        return {**sizes, "sequence": count, "cached": int(past > 0)}

    def feed(self, count: int, past: int, places: int = SOURCE) -> dict[str, Array]:
        """Make what follows from sizes: all inputs but caches, numbers and tokens."""
        sizes = self.sizes(count, past, places)
        shapes, values = self.plan.shapes(sizes), {**sizes, "past": past}
        made = (Role.CACHE, Role.NUMBERS, Role.IDS)
        return {
            entry.name: np.asarray(make_value(entry, shapes[entry.name], values, np.random.default_rng(0), plain=True))
            for entry in self.plan.inputs
            if entry.role not in made
        }

    def empty_caches(self, length: int | None, places: int) -> dict[str, Array]:
        """Make caches of nothing: of no length, or what a flag wants that is off; or buffers of a length."""
        sizes = self.sizes(1, 0, places)
        shapes = self.plan.shapes(sizes if length is None else {**sizes, "past": length})
        return {entry.name: np.zeros(shapes[entry.name], numpy_type(entry)) for entry in self.caches()}


def _inputs(files: DecoderFiles) -> Iterator[ModelInput]:
    for path in files.all():
        yield from Step.read(path).plan.inputs


def _sizes(entry: ModelInput) -> dict[int, int]:
    """Return the sizes that an input's shape or the weights say, by axis counted from the end."""
    fixed = {axis - len(entry.shape): size for axis, size in enumerate(entry.shape) if isinstance(size, int)}
    return {**fixed, **entry.axis_sizes}


class Runner(Protocol):
    """A loaded model."""

    def __call__(self, feed: Mapping[str, Any], in_place: Mapping[str, str]) -> dict[str, Any]:
        """Return the outputs by name, in whatever form the runner takes them again.

        Outputs of `in_place`, by the input that has the memory, are written there.
        """

    def array(self, value: Any) -> Array:
        """Return an output as an array."""


@dataclass(frozen=True)
class Generation:
    """What came of a prompt: the tokens, seconds to the first of them, and seconds of all others."""

    tokens: list[int]
    first_seconds: float
    later_seconds: float


@dataclass
class Decoder:
    """A decoder that is loaded."""

    files: DecoderFiles
    load: Callable[[Path], Runner]
    like: DecoderFiles | None = None
    _runners: dict[Path, Runner] = field(default_factory=dict)
    _steps: dict[Path, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Load every model; sizes that its weights do not tell are those of `like`, the model that it was made of."""
        known = {} if self.like is None else {entry.name: _sizes(entry) for entry in _inputs(self.like)}
        for path in self.files.all():
            self._runners[path] = self.load(path)
            self._steps[path] = Step.read(path).with_sizes(known)

    def generate(self, prompt: list[int], count: int) -> Generation:
        """Return the `count` likeliest tokens behind a prompt, one after the other, whatever they are.

        Seconds are those of the runs, without the making of masks and positions between them.
        """
        first, later = self._steps[self.files.first], self._steps[self.files.later]
        hidden, seconds = self._encoded()
        places = hidden.shape[1] if hidden is not None else SOURCE
        length = len(prompt) + count if first.in_place else None
        feed = self._feed(first, prompt, 0, hidden, places)
        caches: dict[str, Any] = first.empty_caches(length, places)
        outcome, spent = self._run(first, {**feed, **caches}, length is not None)
        tokens = [self._choice(first, outcome)]
        first_seconds, later_seconds = seconds + spent, 0.0
        taken = pair_caches([entry.name for entry in later.caches()], outcome)
        caches = {name: outcome[output] for name, output in taken.items()}
        # What a later step does not give again, as of an encoder's output, stays.
        pairs = {name: output for name, output in taken.items() if output in later.outputs}
        while len(tokens) < count:
            past = len(prompt) + len(tokens) - 1
            feed = self._feed(later, tokens[-1:], past, hidden, places)
            outcome, spent = self._run(later, {**feed, **caches}, length is not None)
            later_seconds += spent
            tokens.append(self._choice(later, outcome))
            caches = {name: self._kept(name, caches, outcome, pairs) for name in caches}
        return Generation(tokens, first_seconds, later_seconds)

    def _encoded(self) -> tuple[Array | None, float]:
        """Return what the encoder makes of something made for it, [1, places, width], and the seconds it took."""
        if self.files.encoder is None:
            return None, 0.0
        step, runner = self._steps[self.files.encoder], self._runners[self.files.encoder]
        feed = step.plan.feed(sequence=SOURCE)
        start = perf_counter()
        outcome = runner(feed, {})
        seconds = perf_counter() - start
        return runner.array(outcome[step.outputs[0]]), seconds

    def _feed(self, step: Step, tokens: list[int], past: int, hidden: Array | None, places: int) -> dict[str, Any]:
        feed = step.feed(len(tokens), past, places)
        entry = step.tokens()
        feed[entry.name] = np.asarray([tokens], numpy_type(entry))
        for other in step.plan.inputs:
            if other.role is Role.NUMBERS and hidden is not None:
                feed[other.name] = hidden
            elif other.role is Role.NUMBERS:
                raise BctError(f"{step.path}: input {other.name} is of an encoder: give the folder that has it")
        return feed

    def _run(self, step: Step, feed: dict[str, Any], in_place: bool) -> tuple[dict[str, Any], float]:
        names = pair_caches([entry.name for entry in step.caches()], step.outputs) if in_place else {}
        runner = self._runners[step.path]
        start = perf_counter()
        outcome = runner(feed, names)
        return outcome, perf_counter() - start

    def _choice(self, step: Step, outcome: dict[str, Any]) -> int:
        logits = self._runners[step.path].array(outcome[step.logits()])
        return int(logits.reshape(-1, logits.shape[-1])[-1].argmax())

    def _kept(self, name: str, caches: dict[str, Any], outcome: dict[str, Any], pairs: Mapping[str, str]) -> Any:
        """Return a cache for the next step: what a step gave, where it gave anything."""
        given = outcome[pairs[name]] if name in pairs else None
        empty = given is None or not self._runners[self.files.later].array(given).size
        return caches[name] if empty else given
