"""One way to a written model, from the options: rewrite, write, compare; with a goal, as often as the search asks."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

import passes
from passes import ChannelRange, Coder, LeftInFloat, Options, PassReport, Progress
from passes.context import plain_codes
from passes.graph.editor import walk

from . import files, search
from .blame import candidates, culprits, keep_patterns
from .coverage import Coverage, count, measure_sizes
from .errors import BctError, InaccurateError, VerificationError
from .measure import errors_of
from .opset import ConversionError
from .search import Goal, Grams, SearchRecord
from .search.grams import product_inputs
from .sessions import MemoryPlan, MemoryUse, OrtError, Session
from .verify import Bound, Reference, Verification, compare, default_bound
from .version import __version__

# Metadata key by which a compressed model is known.
MARK = "bct_onnx"
# A larger input is not searched: its floats would be in memory several times.
LARGEST_SEARCHED = 1 << 30
# Models with these are searched only for a goal that was asked for.
LOOPS = frozenset({"Loop", "Scan"})
# Weights to blame are looked for where that takes no more than so many bytes of models, and kept in float by
# themselves where they are at most this part of the model.
MOST_BLAME_BYTES, LARGEST_MENDED = 4 << 30, 0.1
# What the order of additions may change.
SAME = 1e-3
# Width of codes that need no making up for.
EXACT_BITS = 8
_LATE = "the clock stopped the search long after its time: another run may give another file"


@dataclass(frozen=True)
class Result:
    """A written model and what was found out on the way."""

    written: files.WrittenFile
    options: Options
    notes: tuple[str, ...]
    passes: tuple[PassReport, ...]
    left: tuple[LeftInFloat, ...]
    verification: Verification | None
    coverage: Coverage | None
    search: SearchRecord | None = None
    bound: Bound | None = None


@dataclass(frozen=True)
class Attempt:
    """All that an attempt needs besides model and options.

    Attributes:
        path: file to write.
        reference: answers of the input model, or None where nothing is verified.
        real: whether its feeds are the user's, so that codes may rely on them.
        memory: how models can be loaded.
        goal: what bits are chosen for, or None for the same bits everywhere.
        external_data: whether weights go to a file of their own.
        progress: told of every stage.
        max_error: what outputs may err by instead of the default bounds, or None.
        found: what was found out about the input model, once for all attempts.
    """

    path: Path
    reference: Reference | None
    real: bool
    memory: MemoryPlan
    goal: Goal | None
    external_data: files.ExternalData
    progress: Progress
    max_error: float | None = None
    found: dict[str, Mapping[str, ChannelRange]] = field(default_factory=dict)

    def __call__(self, model: files.ModelFile, options: Options, notes: list[str]) -> Result:
        """Write, verify and mend what can be; raises VerificationError where the result does not answer like the input.

        A few small weights whose codes do the harm are kept in float. Where they are large, the error names them.
        """
        result = self._once(model, options, notes)
        try:
            return self._checked(result)
        except InaccurateError as error:
            return self._mended(model, options, result, error)

    def bound(self, result: Result) -> Bound:
        """Return what the outputs of a result have to keep to."""
        if self.max_error is not None:
            return Bound(self.max_error)
        # Bits that nobody asked for are no reason for a lower bound.
        chosen = self.goal is not None and not self.goal.asked
        bound = default_bound(result.options.bits if chosen else min(result.options.widths))
        drop = self.goal.max_drop if self.goal else None
        return bound if drop is None else replace(bound, max_error=min(drop, bound.max_error or drop))

    def check_raised(self, model: files.ModelFile) -> None:
        """Raise ConversionError unless a model whose opset was raised answers as it did before."""
        if self.reference is None or self.memory.use is not MemoryUse.FULL or self.reference.seeded:
            return
        self.progress("comparing with the raised opset", 0, 0)
        # What an attempt at another opset may have left.
        self._remove()
        try:
            files.write(model.graph(), model, self.path, external_data=self.external_data)
            session = Session(self.path)
            errors, mismatches = errors_of(self.reference.answers, list(map(session.run, self.reference.feeds)))
        except OrtError as error:
            raise ConversionError(f"ONNX Runtime does not run what the converter makes: {error}") from error
        finally:
            self._remove()
        wrong = [name for name, error in errors.items() if (error.error or 0.0) > SAME or (error.same or 1.0) < 1]
        if changed := [*mismatches, *wrong]:
            raise ConversionError(f"the converter changes the values of output {changed[0]!r}")

    def _checked(self, result: Result) -> Result:
        """Return a result with the bound that it keeps, where it was verified; raises InaccurateError."""
        if result.verification is None:
            return result
        bound = self.bound(result)
        result.verification.check(bound)
        return replace(result, bound=bound)

    def _mended(self, model: files.ModelFile, options: Options, result: Result, error: InaccurateError) -> Result:
        """Return a result that keeps its bound with a few weights in float, or raise the error with what is known."""
        advice = "keep more bits (--preset fast), verify on real inputs (--feeds), or relax the bound (--max-rel-error)"
        tensors = [tensor for report in result.passes for tensor in report.tensors if tensor.bytes_after]
        sizes = candidates(tensors)
        if self.max_error == 0 or model.bytes * len(sizes).bit_length() > MOST_BLAME_BYTES:
            raise InaccurateError(f"{error}; {advice}") from error
        bound, coder = self.bound(result), search.remembering(self._coder(model, options))
        # What a search would choose for is not known yet: the most bits there are.
        plain = replace(options, bits=EXACT_BITS if self.goal else options.bits, bits_for={})

        def mends(names: Sequence[str]) -> bool:
            self.progress("finding the weights to blame", 0, 0)
            kept = replace(plain, keep=(*plain.keep, *keep_patterns(names)))
            try:
                found = self._write(model, kept, [], coder).verification
            except VerificationError:
                return False
            return found is not None and found.keeps(bound)

        found = culprits(list(sizes), mends)
        if not found:
            raise InaccurateError(f"{error}; no few weights are to blame: {advice}") from error
        taken, names = sum(sizes[name] for name in found), ", ".join(found)
        if taken > LARGEST_MENDED * model.bytes:
            options_said = " ".join(f"--keep '{pattern}'" for pattern in keep_patterns(found))
            raise InaccurateError(f"{error}; {names} in float ({taken:,} bytes) mend it: {options_said}") from error
        note = f"kept in float, since their codes harm the answers ({error}): {names}"
        kept = replace(options, keep=(*options.keep, *keep_patterns(found)))
        return self._checked(self._once(model, kept, [*result.notes, note]))

    def _once(self, model: files.ModelFile, options: Options, notes: list[str]) -> Result:
        """Write and verify; raises VerificationError where the result does not run."""
        goal, small = self.goal, self._is_small(model)
        if goal is None or self.reference is None or not (goal.asked or options.form.decoded_at_load):
            return self._write(model, options, notes, self._coder(model, options) if small else plain_codes)
        if not small:
            notes.append(f"the model is too large to measure its weights: {options.bits} bits everywhere")
            return self._write(model, options, notes, plain_codes)
        if not goal.asked and (self.reference.seeded or any(node.op in LOOPS for _, node in walk(model.graph()))):
            what = "a model that draws numbers loses" if self.reference.seeded else "a loop costs"
            notes.append(f"what {what} cannot be told beforehand: {options.bits} bits everywhere")
            return self._write(model, options, notes, self._coder(model, options))
        try:
            return self._search(goal, self.reference, model, options, notes)
        except OrtError as error:
            # At this opset, or with its weights as inputs, the model does not run: writing it tells which.
            notes = [*notes, f"its weights cannot be measured ({error}): {options.bits} bits everywhere"]
            return self._write(model, options, notes, plain_codes)

    def _is_small(self, model: files.ModelFile) -> bool:
        """Tell whether memory holds a model's floats several times."""
        return model.bytes <= LARGEST_SEARCHED and self.memory.use is MemoryUse.FULL

    def _search(
        self, goal: Goal, reference: Reference, model: files.ModelFile, options: Options, notes: list[str]
    ) -> Result:
        """Measure every weight, find the bits that the goal asks for and write them."""
        coder = search.remembering(self._coder(model, replace(options, bits=min(options.bits, EXACT_BITS - 1))))

        def put(bits: Mapping[str, int]) -> files.WrittenFile:
            return self._encode(model, replace(options, bits_for=bits), coder, [])[0]

        # A model that does not load at this opset is not worth a search.
        Session(put({}).path)
        # In place of the result: what sweeps up after an interrupt knows it.
        self.path.unlink(missing_ok=True)
        measured = search.measure(
            model, options, reference.feeds, self.path, goal.seconds, self.progress, not self.real
        )
        if not measured.curve.weights:
            return self._write(model, options, notes, plain_codes)

        def error_of(bits: Mapping[str, int]) -> float:
            return measured.error(Session(put(bits).path).run)

        limit = goal.limit_bytes(model.bytes)
        if limit is not None:
            choice, met = search.within_bytes(measured.curve, limit, lambda bits: put(bits).bytes)
        else:
            assert goal.max_drop is not None
            choice, met = search.within_error(measured.curve, goal.max_drop, error_of)
        result = self._write(model, replace(options, bits_for=choice.bits), notes, coder)
        error = measured.error(Session(result.written.path).run)
        record = SearchRecord(goal, measured.curve, choice, error, met, measured.measured, measured.seconds)
        said = [_missed(goal, error, result.written.bytes)] if not met else []
        said += [_LATE] if measured.late else []
        return replace(result, search=record, notes=(*result.notes, *said))

    def _coder(self, model: files.ModelFile, options: Options) -> Coder:
        """Return the coder: with feeds of the user's, one that makes up for errors."""
        if not self.real or self.reference is None or min(options.widths) >= EXACT_BITS:
            return plain_codes
        return search.compensating(Grams(model.path, product_inputs(model.graph()), self.reference.feeds))

    def _ranges(self, model: files.ModelFile, options: Options) -> Mapping[str, ChannelRange]:
        """Return what the channels of the products' inputs hold, where a pass asks for it and memory allows."""
        fitted = self.real and min(options.widths) < EXACT_BITS
        asked = "even_channels" in options.operators and options.form.integer_rows
        if self.reference is None or fitted or not asked or not self._is_small(model):
            return {}
        if "ranges" not in self.found:
            try:
                names = product_inputs(model.graph())
                self.found["ranges"] = search.channel_ranges(model.path, names, self.reference.feeds)
            except BctError:
                self.found["ranges"] = {}
        return self.found["ranges"]

    def _write(self, model: files.ModelFile, options: Options, notes: list[str], coder: Coder) -> Result:
        sizes = measure_sizes(model, self.path, self.reference) if "intermediates" in options.operators else None
        written, reports, left = self._encode(model, options, coder, notes)
        # A session that decodes weights takes more memory than all else: it need not come on top of the input and the
        # graph, whose nodes and tensors refer to each other.
        model.let_go()
        gc.collect()
        self.progress("verifying", 0, 0)
        verification = compare(self.reference, self.path) if self.reference else None
        if verification is None and self.memory.use:
            _load(model.path, self.path, self.memory.use)
        coverage = count(sizes, reports) if sizes else None
        return Result(written, options, tuple(notes), tuple(reports), tuple(left), verification, coverage)

    def _encode(
        self, model: files.ModelFile, options: Options, coder: Coder, notes: list[str]
    ) -> tuple[files.WrittenFile, list[PassReport], list[LeftInFloat]]:
        """Rewrite the model and write it."""
        graph, large = model.graph(), not self._is_small(model)

        def progress(what: str, done: int, total: int) -> None:
            if large:
                model.let_go()
            self.progress(what, done, total)

        with closing(files.Scratch(self.path)) as scratch:
            ranges = self._ranges(model, options)
            reports = passes.run(graph, options, progress, scratch.move, coder, ranges=ranges)
            if broken := sorted({name for report in reports for name in report.not_finite}):
                notes.append(f"weights that hold NaN or infinity are kept exact: {', '.join(broken)}")
            left = passes.left_in_float(graph, reports)
            self.progress("writing", 0, 0)
            return self._put(graph, model, options.inline), reports, left

    def _remove(self) -> None:
        """Remove what an earlier attempt left."""
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}.*.data")):
            path.unlink(missing_ok=True)

    def _put(self, graph: gs.Graph, model: files.ModelFile, inline: bool) -> files.WrittenFile:
        """Write the graph, marked, in place of what an earlier attempt left."""
        if not any(entry.key == MARK for entry in model.proto.metadata_props):
            model.proto.metadata_props.append(onnx.StringStringEntryProto(key=MARK, value=__version__))
        self._remove()
        return files.write(graph, model, self.path, external_data=self.external_data, inline=inline)


def _missed(goal: Goal, error: float, size: int) -> str:
    if goal.max_drop is not None:
        return f"no width of codes keeps the relative error below {goal.max_drop:g}: it is {error:.3g} at the most bits"
    return f"the smallest file has {size} bytes, more than the goal"


def _load(source: Path, path: Path, use: MemoryUse) -> None:
    """See that the written model loads."""
    try:
        Session(path, MemoryUse.FULL if use is MemoryUse.FULL else MemoryUse.UNFOLDED)
    except OrtError as error:
        try:
            Session(source, use)
        except OrtError as cause:
            raise BctError(f"{source}: ONNX Runtime does not load the model: {cause}") from cause
        raise VerificationError(f"{source}: ONNX Runtime does not load the compressed model: {error}") from error
