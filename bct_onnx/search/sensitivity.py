"""How much the answers change with the codes of each weight: one run a weight, the other widths in proportion."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from bct_onnx import files
from bct_onnx.arrays import Array, Feed, Outputs, Run
from bct_onnx.fidelity import Answers, OutputError, output_errors, overall_error, round_error
from bct_onnx.inputs import more_feeds
from bct_onnx.search.choice import Curve, Weight
from bct_onnx.search.ends import End
from bct_onnx.search.floats import Switch
from bct_onnx.search.roles import filled, spread_order, told_by_others
from bct_onnx.search.stand_in import disturbed, take_sample
from bct_onnx.search.switchable import SwitchableModel, formats, stored_bytes
from bct_onnx.search.work import affordable
from bct_onnx.sessions import MemoryUse
from passes import Options, Progress
from passes.formats.threads import in_order

# Part of a weight's squares that is noise when it is run, what codes of 4 bits err by: it stands out of float rounding
# and is not yet out of proportion.
PROBE_NOISE = 2.0**-7
# Squared relative error of outputs that rounding explains: what a branch does not read changes them no more than that.
ROUNDING = 1e-10
# Times the given seconds after which the clock stops a search after all.
PATIENCE = 4
# Times that made feeds are drawn anew, and the part of the time that the answers to them may take.
ROUNDS, ANSWERS_SHARE = 8, 0.05


@dataclass(frozen=True)
class Sensitivity:
    """What was measured.

    Attributes:
        curve: size against error.
        measured: weights that were run.
        late: whether the clock stopped it before all that was planned was run.
        seconds: time that took.
        feeds: the inputs on which files are measured; the weights were run on the first of them.
        verified: how many of them verification uses, the first: their error counts by itself, too.
        expected: the input model's answers to them.
    """

    curve: Curve
    measured: int
    late: bool
    seconds: float
    feeds: Sequence[Feed]
    verified: int
    expected: Sequence[Outputs]

    def error(self, run: Run, answered: Sequence[Outputs] = ()) -> float:
        """Return the error of a model that `run` answers with; `answered` has what it said to the first feeds already.

        Feeds that were drawn like the same one of those verified are judged as one: the worst of many draws would be
        the larger the more there are.
        """
        answered = [*answered, *(run(feed) for feed in self.feeds[len(answered) :])]
        first = slice(self.verified)
        alone = output_errors(Answers(self.feeds[first], self.expected[first]), answered[first])
        errors, mismatches = output_errors(Answers(self.feeds, self.expected), answered)
        together = {name: _by_kind(error, self.verified) for name, error in errors.items()}
        return round_error(max(overall_error(*alone, worst=True), overall_error(together, mismatches, worst=True)))


def measure_sensitivity(
    model: files.ModelFile,
    options: Options,
    feeds: Sequence[Feed],
    path: Path,
    seconds: float,
    progress: Progress | None = None,
    made: bool = False,
    use: MemoryUse = MemoryUse.FULL,
) -> Sensitivity:
    """Code one weight after the other and compare the model's outputs on the feeds.

    `path` is a new file for the model with switchable weights, loaded as `use` says. With `made` the feeds are
    nobody's: where memory is not scarce more are drawn like them, and the token numbers that a language model reads
    from its own answers. The first feeds that `seconds` allow at a nominal speed are run for every weight but those of
    every second layer; these, and weights for which there is no time, are taken to be as sensitive as those of their
    role in other layers. Errors at other widths follow from the weight's own error there. Nothing but the arguments
    decides what is run, unless it takes four times as long as it should.
    """
    start = time.monotonic()
    switchable = SwitchableModel(model, options, path, use)
    expected, costs = switchable.answers_and_costs(feeds)
    costs *= ROUNDS if made else 1
    planned = affordable(costs, len(switchable.switches), seconds)
    verified, switches = len(feeds), switchable.switches
    # Where memory is scarce, one copy of a weight at a time.
    workers = options.workers if use is MemoryUse.FULL else 1
    if made and use is MemoryUse.FULL:
        answered = max(verified, planned.feeds, int((np.cumsum(costs) <= ANSWERS_SHARE * seconds).sum()))
        known = feeds, expected
        feeds, expected = more_feeds(switchable.run, model.path, model.proto, known, answered, workers)
    # Feeds of other kinds take other branches of the model.
    counts = [planned.feeds, *range(planned.feeds + 1, verified + 1)]
    probes = _Probes(switchable, feeds[: counts[-1]], expected[: counts[-1]], counts, workers)
    spared = told_by_others(switches)
    order = [place for place in spread_order(switches) if place not in spared][: planned.weights]
    probed = probes.run(order, start + PATIENCE * seconds, partial(progress, "measuring") if progress else None)
    sensitivities = enumerate(zip(switches, filled(switches, probed), strict=True))
    found = [(switch, sensitivity, place in probed) for place, (switch, sensitivity) in sensitivities]
    weights = list(in_order(partial(_weight, switchable, options), found, options.workers))
    took = time.monotonic() - start
    curve = Curve(sorted(weights, key=lambda weight: -max(weight.bytes.values())))
    return Sensitivity(curve, len(probed), len(probed) < len(order), took, feeds, verified, expected)


def _by_kind(error: OutputError, kinds: int) -> OutputError:
    """Return an error whose worst feed is one of `kinds`: every so many feeds are of the same kind."""
    if error.by_feed is None:
        return error
    parts = [[each for each in error.by_feed[kind::kinds] if each is not None] for kind in range(kinds)]
    return replace(error, error=max(math.sqrt(float(np.square(part).mean())) for part in parts if part))


@dataclass
class _Probes:
    """Runs with one weight noisy.

    Attributes:
        switchable: the model.
        feeds, expected: what it is run on, and what it answers.
        counts: the first so many feeds are run together; where they do not tell, those up to the next count.
        workers: weights that are run at a time.
    """

    switchable: SwitchableModel
    feeds: Sequence[Feed]
    expected: Sequence[Outputs]
    counts: Sequence[int]
    workers: int

    def run(self, order: Sequence[int], until: float, progress: Callable[[int, int], None] | None) -> dict[int, float]:
        """Return what `_error` finds of the weights at some places, of all that begin before the clock says `until`.

        The first is run whatever the clock says. Those that begin at one place are run together, in the order given.
        """
        ends, switches = self.switchable.ends, self.switchable.switches
        whole = self.switchable
        ends.look(lambda: whole.session, self.feeds, self.expected, self.workers, whole.crossed)
        groups = sorted({ends.of(switches[place].tensor) for place in order})
        by_end = [(group, [place for place in order if ends.of(switches[place].tensor) == group]) for group in groups]
        first = by_end[0][1][:1] if by_end else []
        probed: dict[int, float] = {}
        for group, places in by_end:
            if group:
                self.switchable.unload()
            end = ends.load(group, self.switchable.threads) if group else None

            def probe(place: int, end: End | None = end) -> float | None:
                late = place not in first and time.monotonic() > until
                return None if late else self._error(end, switches[place])

            for place, error in zip(places, in_order(probe, places, self.workers), strict=False):
                if progress:
                    progress(len(probed), len(switches))
                if error is None:
                    return probed
                probed[place] = error
        return probed

    def _error(self, end: End | None, switch: Switch) -> float:
        """Return the squared relative error of the outputs with a weight noisy, for each part of its own error."""
        # Noise is quickly made: an error of the same size does the same harm.
        noisy, part = disturbed(switch.matrix, PROBE_NOISE)
        self.switchable.let_go()
        instead, error = {switch.tensor: switch.laid_out(noisy)}, 0.0
        for start, stop in pairwise([0, *self.counts]):
            answers = Answers(self.feeds[start:stop], self.expected[start:stop])
            answered = [self._answer(end, number, instead) for number in range(start, stop)]
            error = max(error, round_error(overall_error(*output_errors(answers, answered), worst=False)) ** 2)
            if error > ROUNDING or not part:
                break
        return error / part if part else 0.0

    def _answer(self, end: End | None, number: int, instead: Mapping[str, Array]) -> Outputs:
        """Return the outputs for one of the feeds; those that are made before the end are as expected."""
        if end is None:
            return self.switchable.run(self.feeds[number], instead)
        return {**self.expected[number], **end.run(number, instead)}


def _weight(switchable: SwitchableModel, options: Options, found: tuple[Switch, float, bool]) -> Weight:
    """Return what every width of a weight takes and does, from the error of some of its columns.

    `found` is the weight, its sensitivity, and whether that was measured.
    """
    switch, sensitivity, measured = found
    sample, known = take_sample(switch.matrix), formats(switch, options, switchable.opset)
    switchable.let_go()
    sizes = {bits: stored_bytes(fmt, switch.matrix.shape) for bits, fmt in known.items()}
    errors = {bits: sensitivity * sample.error(fmt, 1) for bits, fmt in known.items()}
    return Weight(switch.name, sizes, errors, measured)
