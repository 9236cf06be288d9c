"""How much the answers change with the codes of each weight: one run a weight, the other widths in proportion."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bct_onnx import files
from bct_onnx.search import answers
from bct_onnx.search.answers import Outputs
from bct_onnx.search.choice import Curve, Weight
from bct_onnx.search.switchable import Switch, Switchable, formats, stored_bytes
from bct_onnx.verify.feeds import Feed
from passes import Options, Progress
from passes.formats.block import decode
from passes.formats.encode import encode

# Width at which a weight is run: its error stands out of float rounding and is not yet out of proportion.
PROBE_BITS = 4
# Columns that tell how the error of a weight goes with the width of its codes.
SAMPLE_COLUMNS = 128


@dataclass(frozen=True)
class Sensitivity:
    """What was measured.

    Attributes:
        curve: size against error.
        measured: weights that were run.
        seconds: time that took.
        feeds: the inputs.
        expected: the input model's answers to them.
    """

    curve: Curve
    measured: int
    seconds: float
    feeds: Sequence[Feed]
    expected: Sequence[Outputs]


def measure(
    model: files.ModelFile,
    options: Options,
    feeds: Sequence[Feed],
    path: Path,
    seconds: float,
    progress: Progress | None = None,
    own_text: bool = False,
) -> Sensitivity:
    """Code one weight after the other, the largest first, and compare the model's outputs on the feeds.

    `path` is a new file for the model with switchable weights. With `own_text` the token numbers that a language model
    reads are drawn from its own answers. The first feeds that time allows are run for every weight; after `seconds` the
    weights left are taken to be as sensitive as the median of those measured. Errors at other widths follow from the
    weight's own error there.
    """
    start = time.monotonic()
    switchable = Switchable(model, options, path)
    if own_text:
        feeds = answers.with_own_text(feeds, lambda feed: switchable.run(feed, {}))
    expected, times = _timed(switchable, feeds)
    count = _affordable(times, len(switchable.switches), seconds)
    switches = sorted(switchable.switches, key=lambda switch: -switch.matrix.size)
    probed: list[float | None] = []
    for number, switch in enumerate(switches):
        if progress:
            progress("measuring", number, len(switches))
        late = time.monotonic() - start > seconds
        probed.append(None if late and number else _probe(switchable, switch, options, feeds[:count], expected[:count]))
    shapes = [_relative_errors(switch, options) for switch in switches]
    pairs = [(error, shape[_probe_bits(shape)]) for error, shape in zip(probed, shapes, strict=True)]
    known = [error / own for error, own in pairs if error is not None and own]
    typical = statistics.median(known) if known else 1.0
    weights = [
        _weight(switch, options, error, shape, typical)
        for switch, error, shape in zip(switches, probed, shapes, strict=True)
    ]
    return Sensitivity(
        Curve(weights), sum(weight.measured for weight in weights), time.monotonic() - start, feeds, expected
    )


def _timed(switchable: Switchable, feeds: Sequence[Feed]) -> tuple[list[Outputs], list[float]]:
    """Return the answers to the feeds with the model's own weights, and the seconds of each."""
    expected: list[Outputs] = []
    times: list[float] = []
    for feed in feeds:
        start = time.monotonic()
        expected.append(switchable.run(feed, {}))
        times.append(time.monotonic() - start)
    return expected, times


def _affordable(times: Sequence[float], runs: int, seconds: float) -> int:
    """Return how many of the feeds, at least one, can be run for every weight in half the time."""
    return max(1, int((np.cumsum(times) * runs <= seconds / 2).sum()))


def _probe(
    switchable: Switchable,
    switch: Switch,
    options: Options,
    feeds: Sequence[Feed],
    expected: Sequence[Outputs],
) -> float:
    """Return the squared relative error of the outputs with this one weight coded."""
    available = formats(switch, options)
    fmt = available[_probe_bits(available)]
    coded = switch.laid_out(decode(encode(switch.matrix, fmt, options.workers)))
    return answers.error(expected, [switchable.run(feed, {switch.tensor: coded}) for feed in feeds]) ** 2


def _probe_bits(widths: Mapping[int, object]) -> int:
    return min(widths, key=lambda bits: abs(bits - PROBE_BITS))


def _relative_errors(switch: Switch, options: Options) -> dict[int, float]:
    """Return the weight's own relative squared error by width, from some of its columns."""
    n = switch.matrix.shape[1]
    columns: NDArray[np.int64] = np.unique(np.linspace(0, n - 1, min(n, SAMPLE_COLUMNS)).astype(np.int64))
    sample = np.ascontiguousarray(switch.matrix[:, columns], np.float32)
    coded = {bits: encode(sample, fmt, options.workers) for bits, fmt in formats(switch, options).items()}
    return {bits: tensor.noise / tensor.signal if tensor.signal else 0.0 for bits, tensor in coded.items()}


def _weight(
    switch: Switch, options: Options, probed: float | None, shape: Mapping[int, float], typical: float
) -> Weight:
    at_probe = shape[_probe_bits(shape)]
    sensitivity = typical if probed is None or not at_probe else probed / at_probe
    sizes = {bits: stored_bytes(fmt, switch.matrix.shape) for bits, fmt in formats(switch, options).items()}
    errors = {bits: sensitivity * error for bits, error in shape.items()}
    return Weight(switch.name, sizes, errors, measured=probed is not None)
