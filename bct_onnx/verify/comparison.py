"""Run the input model and the compressed model on the same feeds and compare what they answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from bct_onnx.arrays import Array, Feed, Outputs, Run, Value
from bct_onnx.errors import BctError, InaccurateError, VerificationError
from bct_onnx.fidelity import Answers, Kind, OutputError, output_errors, round_error
from bct_onnx.inputs import InputSource, made_inputs
from bct_onnx.sessions import Latency, MemoryUse, OrtError, Session
from bct_onnx.verify.randomness import random_outputs, with_seeds

# From how many bits on: largest error of an output, least share of equal values without float outputs.
_DEFAULTS = ((6, 0.25, 0.5), (4, 0.7, 0.25), (0, 1.0, None))
# A cache is no answer: what an error in it does is seen in the outputs. Beyond this it holds nothing of use.
_LARGEST_CACHE_ERROR = 1.0


# Takes what runs a model, and its answers to the feeds of a reference.
Also = Callable[[Run, Sequence[Outputs]], None]


@dataclass(frozen=True)
class Bound:
    """What an output must keep to; None: anything.

    `max_error` holds for every float output, as `fidelity.outputs` defines it; caches may err by 1. Integers,
    booleans and strings are decisions that flip at small differences (tokens of a beam search): their share of equal
    values is reported and must reach `min_same` only where the model has no float output.
    """

    max_error: float | None
    min_same: float | None = None


def default_bound(bits: int) -> Bound:
    """Return the bound for codes of so many bits: an error of 0.25 from 6 bits, 0.7 for 4 and 5, 1 below."""
    error, same = next((error, same) for least, error, same in _DEFAULTS if bits >= least)
    return Bound(max_error=error, min_same=same)


@dataclass(frozen=True)
class Reference:
    """The input model's answers.

    Attributes:
        feeds: its feeds.
        outputs: outputs by name for each feed.
        kinds: what kind of input each feed is, in words.
        timed: the feed that is timed.
        latency: of that; None for a model that was loaded to spare memory: its time says nothing.
        seeded: whether operators that draw numbers were given seeds, so that both models draw the same.
        random: outputs that differ from run to run all the same; they are not compared.
    """

    feeds: tuple[Feed, ...]
    outputs: tuple[Outputs, ...]
    kinds: tuple[str, ...]
    timed: int
    latency: Latency | None
    seeded: bool = False
    random: tuple[str, ...] = ()

    @property
    def answers(self) -> Answers:
        """The answers that can be compared."""
        kept = [{name: a for name, a in each.items() if name not in self.random} for each in self.outputs]
        return Answers(self.feeds, kept)


@dataclass(frozen=True)
class Verification:
    """What the compressed model answered.

    Attributes:
        feeds: what kind of input each feed is, in words.
        outputs: error by output.
        mismatches: what differs in kind, as sentences, by output.
        random: outputs that were not compared, since they differ from run to run.
        reference_latency, latency: of both models on one feed; None where the reference has none.
        timed_shapes: the shapes of that feed by input.
    """

    feeds: tuple[str, ...]
    outputs: Mapping[str, OutputError]
    mismatches: Mapping[str, str]
    random: tuple[str, ...]
    reference_latency: Latency | None
    latency: Latency | None
    timed_shapes: Mapping[str, tuple[int, ...]]

    def check(self, bound: Bound) -> None:
        """Raise InaccurateError, naming output, kind of input, figure and bound, unless every output keeps to it."""
        for name, mismatch in self.mismatches.items():
            raise InaccurateError(f"output {name!r} of the compressed model {mismatch}")
        only_exact = all(error.error is None for error in self.outputs.values())
        for name, error in sorted(self.outputs.items(), key=lambda item: -(item[1].error or 0.0)):
            most = self.most(name, bound)
            # As shown, and as a search counts: further digits are the order in which threads add.
            if error.error is not None and most is not None and not round_error(error.error) <= most:
                where = f" (on {self.feeds[error.worst]})" if error.worst is not None else ""
                said = "of the next token's distribution" if error.divergence is not None else "of its spread"
                raise InaccurateError(f"output {name!r}: errs by {error.error:.3g} {said}, above {most:.3g}{where}")
            if only_exact and error.same is not None and bound.min_same is not None and error.same < bound.min_same:
                raise InaccurateError(
                    f"output {name!r}: {error.same:.1%} of its values are equal, below {bound.min_same:.1%}"
                )

    def most(self, name: str, bound: Bound) -> float | None:
        """Return what a float output may err by under a bound."""
        cache = self.outputs[name].kind == Kind.CACHE.value and len(self.outputs) > 1
        return max(bound.max_error, _LARGEST_CACHE_ERROR) if cache and bound.max_error is not None else bound.max_error

    def meets(self, bound: Bound) -> bool:
        """Tell whether every output keeps to a bound."""
        try:
            self.check(bound)
        except InaccurateError:
            return False
        return True

    def to_dict(self, bound: Bound | None = None) -> dict[str, object]:
        """Return the record as JSON data: feeds, outputs with their bounds, mismatches, latency (milliseconds)."""
        errors = {
            name: {**asdict(error), "bound": self.most(name, bound) if bound and error.error is not None else None}
            for name, error in self.outputs.items()
        }
        return {
            "feeds": list(self.feeds),
            "outputs": {
                name: {key: figure for key, figure in error.items() if figure is not None}
                for name, error in errors.items()
            },
            "mismatches": [f"output {name!r} of the compressed model {text}" for name, text in self.mismatches.items()],
            "random": list(self.random),
            "latency": {
                "shapes": {name: list(shape) for name, shape in self.timed_shapes.items()},
                "reference": asdict(self.reference_latency) if self.reference_latency else None,
                "compressed": asdict(self.latency) if self.latency else None,
            },
        }


def run_reference(
    path: str | Path,
    model: ModelProto,
    source: InputSource = made_inputs,
    use: MemoryUse = MemoryUse.FULL,
    mapped: Path | None = None,
) -> Reference:
    """Run the input model on inputs made for it, or of another source, and keep its answers.

    `model` is the same model; its tensors need no data. `mapped` is the same in a file whose weights can be mapped: it
    is loaded instead. BctError where ONNX Runtime does not load the model, and where the source gives no input that
    runs.
    """
    path = Path(path)
    try:
        session = Session(mapped or path, use)
    except OrtError as error:
        raise BctError(f"{path}: ONNX Runtime does not load the model: {error}") from error
    feeds, outputs, kinds = source(session.run, path, model)
    timed = max(range(len(feeds)), key=lambda i: _elements(feeds[i]))
    latency = session.latency(feeds[timed]) if use is MemoryUse.FULL else None
    try:
        random = random_outputs(session, feeds[0], outputs[0])
        if not random or use is not MemoryUse.FULL:
            return Reference(tuple(feeds), tuple(outputs), tuple(kinds), timed, latency, random=random)
        # Each operator draws one series of numbers a session: both models must begin it anew, and run the same feeds.
        session = Session(with_seeds(path))
        outputs = [session.run(feed) for feed in feeds]
        repeated = Session(with_seeds(path)).run(feeds[0])
    except OrtError as error:
        raise BctError(f"{path}: does not run a second time: {error}") from error
    random = tuple(name for name in random if not np.array_equal(outputs[0][name], repeated[name]))
    return Reference(tuple(feeds), tuple(outputs), tuple(kinds), timed, latency, seeded=True, random=random)


def compare(reference: Reference, path: str | Path, also: Also | None = None) -> Verification:
    """Run the compressed model on the reference's feeds; VerificationError when it does not load or run.

    It is loaded to spare memory, and not timed, if the reference was. `also` looks at it while it is loaded.
    """
    try:
        session = Session(with_seeds(path) if reference.seeded else path, _memory_use_of(reference))
        answered = [session.run(feed) for feed in reference.feeds]
        errors, mismatches = output_errors(reference.answers, answered)
        if also:
            also(session.run, answered)
        latency = session.latency(reference.feeds[reference.timed]) if reference.latency else None
    except OrtError as error:
        raise VerificationError(f"ONNX Runtime does not run the compressed model: {error}") from error
    return Verification(
        feeds=reference.kinds,
        outputs=errors,
        mismatches=mismatches,
        random=reference.random,
        reference_latency=reference.latency,
        latency=latency,
        timed_shapes={n: np.shape(_first(v)) for n, v in reference.feeds[reference.timed].items()},
    )


def _memory_use_of(reference: Reference) -> MemoryUse:
    return MemoryUse.FULL if reference.latency else MemoryUse.UNFOLDED


def _elements(feed: Feed) -> int:
    return sum(int(np.size(_first(value))) for value in feed.values())


def _first(value: Value) -> Array | Sequence[Array]:
    return value[0] if isinstance(value, list) else value
