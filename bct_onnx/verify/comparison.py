"""Run the input model and the compressed model on the same feeds and compare what they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from bct_onnx.arrays import Array, Feed, Outputs, Value
from bct_onnx.errors import BctError, VerificationError
from bct_onnx.inputs.feeds import load_feeds
from bct_onnx.inputs.made import Answered, made_feeds
from bct_onnx.measure.outputs import FeedError, OutputError, find_mismatch, measure, pool
from bct_onnx.session import Latency, OrtError, Session, Thrift

# From how many bits on: least cosine of a float output, least share of equal values without float outputs.
_DEFAULTS = ((6, 0.98, 0.5), (4, 0.90, 0.25), (0, 0.50, None))


@dataclass(frozen=True)
class Bound:
    """What an output must keep to; None: anything.

    `min_cosine` and `max_rel_error` (`rel_l2`) hold for every float output. Integers, booleans and
    strings are decisions that flip at small differences (tokens of a beam search): their share of equal
    values is reported and must reach `min_same` only where the model has no float output.
    """

    min_cosine: float | None
    max_rel_error: float | None
    min_same: float | None = None


def default_bound(bits: int) -> Bound:
    """Return the bound for codes of so many bits: cosine 0.98 from 6 bits, 0.90 for 4 and 5, 0.50 below."""
    cosine, same = next((cosine, same) for least, cosine, same in _DEFAULTS if bits >= least)
    return Bound(min_cosine=cosine, max_rel_error=None, min_same=same)


@dataclass(frozen=True)
class Reference:
    """The input model's answers: feeds, outputs by name for each feed, what kind of input each feed is, the feed timed
    and its latency.

    `latency` is None for a model that was loaded thriftily: its time says nothing.
    """

    feeds: tuple[Feed, ...]
    outputs: tuple[Outputs, ...]
    kinds: tuple[str, ...]
    timed: int
    latency: Latency | None


@dataclass(frozen=True)
class Verification:
    """What the compressed model answered: error by output, differences in kind, latencies on one feed.

    `mismatches` are sentences (output, what differs); `timed_shapes` the shapes of the timed feed by input.
    Both latencies are None where the reference has none.
    """

    feeds: int
    outputs: Mapping[str, OutputError]
    mismatches: tuple[str, ...]
    reference_latency: Latency | None
    latency: Latency | None
    timed_shapes: Mapping[str, tuple[int, ...]]

    def check(self, bound: Bound) -> None:
        """Raise VerificationError, naming output, figure and bound, unless every output keeps to it."""
        if self.mismatches:
            raise VerificationError(self.mismatches[0])
        only_exact = all(error.cosine is None for error in self.outputs.values())
        for name, error in sorted(self.outputs.items(), key=lambda item: item[1].cosine or 0.0):
            if _below(error.cosine, bound.min_cosine):
                _fail(name, "cosine to the input model's", error.cosine, "below", bound.min_cosine)
            if _below(bound.max_rel_error, error.rel_l2):
                _fail(name, "relative error", error.rel_l2, "above", bound.max_rel_error)
            if only_exact and _below(error.same, bound.min_same):
                _fail(name, "share of equal values", error.same, "below", bound.min_same)

    def to_dict(self) -> dict[str, object]:
        """Return the record as JSON data: feeds, outputs, mismatches, latency (milliseconds)."""
        errors = {name: asdict(error) for name, error in self.outputs.items()}
        return {
            "feeds": self.feeds,
            "outputs": {
                name: {key: figure for key, figure in error.items() if figure is not None}
                for name, error in errors.items()
            },
            "mismatches": list(self.mismatches),
            "latency": {
                "shapes": {name: list(shape) for name, shape in self.timed_shapes.items()},
                "reference": asdict(self.reference_latency) if self.reference_latency else None,
                "compressed": asdict(self.latency) if self.latency else None,
            },
        }


def run_reference(
    path: str | Path,
    model: ModelProto,
    feeds_file: str | Path | None = None,
    seed: int = 0,
    budget_seconds: float = 60.0,
    thrift: Thrift = Thrift.NONE,
) -> Reference:
    """Run the input model on feeds from `feeds_file` (.npz) or on feeds made for it; keep its answers.

    `model` is the same model; its tensors need no data. Once a feed has run, no other is begun after
    `budget_seconds`. BctError when the feeds do not fit into memory, ONNX Runtime does not load the model, a given feed
    does not run, or no feed that could be made runs and gives a finite number.
    """
    try:
        session = Session(path, thrift)
    except OrtError as error:
        raise BctError(f"{path}: ONNX Runtime does not load the model: {error}") from error
    if feeds_file is None:
        try:
            answered = made_feeds(session.run, path, model, seed, budget_seconds)
        except MemoryError as error:
            raise BctError(
                f"{path}: inputs of the sizes it declares do not fit into memory; give smaller ones with --feeds"
            ) from error
    else:
        feeds = load_feeds(feeds_file, model)
        answered = Answered(feeds, [], [f"feed {number} of {feeds_file}" for number in range(len(feeds))])
        for number, feed in enumerate(feeds):
            try:
                answered.outputs.append(session.run(feed))
            except OrtError as error:
                raise BctError(f"{feeds_file}: the model does not run on feed {number}: {error}") from error
    feeds, outputs, kinds = answered
    timed = max(range(len(feeds)), key=lambda i: _elements(feeds[i]))
    latency = session.latency(feeds[timed]) if thrift is Thrift.NONE else None
    return Reference(tuple(feeds), tuple(outputs), tuple(kinds), timed, latency)


def compare(reference: Reference, path: str | Path) -> Verification:
    """Run the compressed model on the reference's feeds; VerificationError when it does not load or run.

    It is loaded thriftily, and not timed, if the reference was.
    """
    outputs: dict[str, list[FeedError]] = {}
    mismatches: dict[str, str] = {}
    try:
        session = Session(path, Thrift.NONE if reference.latency else Thrift.UNFOLDED)
        for feed, expected in zip(reference.feeds, reference.outputs, strict=True):
            answered = session.run(feed)
            for name, array in expected.items():
                mismatch = find_mismatch(array, answered[name]) if name in answered else "is missing"
                if mismatch is None:
                    outputs.setdefault(name, []).append(measure(array, answered[name]))
                else:
                    mismatches.setdefault(name, f"output {name!r} of the compressed model {mismatch}")
        latency = session.latency(reference.feeds[reference.timed]) if reference.latency else None
    except OrtError as error:
        raise VerificationError(f"{path}: ONNX Runtime does not run the compressed model: {error}") from error
    return Verification(
        feeds=len(reference.feeds),
        outputs={name: pool(errors) for name, errors in outputs.items() if name not in mismatches},
        mismatches=tuple(mismatches.values()),
        reference_latency=reference.latency,
        latency=latency,
        timed_shapes={n: np.shape(_first(v)) for n, v in reference.feeds[reference.timed].items()},
    )


def _elements(feed: Feed) -> int:
    return sum(int(np.size(_first(value))) for value in feed.values())


def _first(value: Value) -> Array | Sequence[Array]:
    return value[0] if isinstance(value, list) else value


def _below(figure: float | None, bound: float | None) -> bool:
    return figure is not None and bound is not None and not figure >= bound


def _fail(name: str, what: str, figure: float | None, side: str, bound: float | None) -> None:
    raise VerificationError(
        f"output {name!r}: {what} is {figure:.4g}, {side} the bound {bound:.4g}; keep more bits or relax the bound"
    )
