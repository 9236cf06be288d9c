"""Where a compressed model is made: rewritten, written and verified, as often as somebody wants it done."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

import passes
from bct_onnx import files, search
from bct_onnx.arrays import Outputs
from bct_onnx.compression.coverage import Coverage, count_coverage, measure_sizes
from bct_onnx.errors import BctError, VerificationError
from bct_onnx.fidelity import output_errors
from bct_onnx.inputs import own_texts
from bct_onnx.opsets import ConversionError
from bct_onnx.search import Goal, Grams, SearchRecord, product_inputs
from bct_onnx.sessions import MemoryPlan, MemoryUse, OrtError, Session, give_back
from bct_onnx.verify import Also, Bound, Reference, Verification, compare, default_bound
from bct_onnx.version import __version__
from passes import ChannelRange, Coder, LeftInFloat, Options, PassReport, Progress
from passes.context import plain_codes
from passes.graph.editor import Move

# Metadata key by which a compressed model is known.
MARK = "bct_onnx"
# What the order of additions may change.
SAME = 1e-3
# Width of codes that need no making up for.
EXACT_BITS = 8
# Rows of a weight that no format is cut short for.
LONG_SUM = 1024


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
class Workspace:
    """All that a compressed model is made with besides model and options.

    Attributes:
        path: file to write.
        reference: answers of the input model, or None where nothing is verified.
        real: whether its feeds are the user's, so that codes may rely on them.
        memory: how models can be loaded.
        goal: what bits are chosen for, or None for the same bits everywhere.
        external_data: whether weights go to a file of their own.
        progress: told of every stage.
        max_error: what outputs may err by instead of the default bounds, or None.
        found: what was found out about the input model, once for all that is written.
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

    def write(
        self, model: files.ModelFile, options: Options, notes: list[str], coder: Coder, also: Also | None = None
    ) -> Result:
        """Rewrite, write and compare; raises VerificationError where the result does not run.

        `also` looks at the result while it is loaded to be compared.
        """
        sizes = measure_sizes(model, self.path, self.reference) if "intermediates" in options.operators else None
        written, reports, left = self.encode(model, options, coder, notes)
        # A session that decodes weights takes more memory than all else: it need not come on top of the input and the
        # graph, whose nodes and tensors refer to each other.
        model.let_go()
        give_back()
        self.progress("verifying", 0, 0)
        verification = compare(self.reference, self.path, also) if self.reference else None
        give_back()
        if verification is None and self.memory.use:
            _load(model.path, self.path, self.memory.use)
        coverage = count_coverage(sizes, reports) if sizes else None
        return Result(written, options, tuple(notes), tuple(reports), tuple(left), verification, coverage)

    def encode(
        self, model: files.ModelFile, options: Options, coder: Coder, notes: list[str], lasting: bool = True
    ) -> tuple[files.WrittenFile, list[PassReport], list[LeftInFloat]]:
        """Rewrite the model and write it, marked, in place of what was written before.

        `lasting` is what `files.write` says of it.
        """
        graph = model.graph()

        def progress(what: str, done: int, total: int) -> None:
            # What was read of the weights so far.
            model.let_go()
            self.progress(what, done, total)

        with closing(files.Scratch(self.path)) as scratch:
            ranges = self._ranges(model, options)
            reports = passes.run(graph, options, progress, scratch.move, coder, ranges=ranges)
            if broken := sorted({name for report in reports for name in report.not_finite}):
                notes.append(f"weights that hold NaN or infinity are kept exact: {', '.join(broken)}")
            left = passes.left_in_float(graph, reports)
            self.progress("writing", 0, 0)
            return self._put(graph, model, options.inline, lasting), reports, left

    def _put(self, graph: gs.Graph, model: files.ModelFile, inline: bool, lasting: bool) -> files.WrittenFile:
        """Write the graph, marked, in place of what an earlier attempt left."""
        if not any(entry.key == MARK for entry in model.proto.metadata_props):
            model.proto.metadata_props.append(onnx.StringStringEntryProto(key=MARK, value=__version__))
        self.clear()
        return files.write(graph, model, self.path, external_data=self.external_data, inline=inline, lasting=lasting)

    def bound(self, result: Result) -> Bound:
        """Return what the outputs of a result have to keep to."""
        if self.max_error is not None:
            return Bound(self.max_error)
        # Bits that nobody asked for are no reason for a lower bound.
        chosen = self.goal is not None and not self.goal.asked
        bound = default_bound(result.options.bits if chosen else min(result.options.widths))
        drop = self.goal.max_drop if self.goal else None
        return bound if drop is None else replace(bound, max_error=min(drop, bound.max_error or drop))

    def checked(self, result: Result) -> Result:
        """Return a result with the bound that it meets, where it was verified; raises InaccurateError."""
        if result.verification is None:
            return result
        bound = self.bound(result)
        result.verification.check(bound)
        return replace(result, bound=bound)

    def check_converted(self, model: files.ModelFile, options: Options) -> None:
        """Raise ConversionError unless a model whose opset was changed answers as it did before.

        What `_ranges` will look for is seen on the way.
        """
        if self.reference is None or self.memory.use is not MemoryUse.FULL or self.reference.seeded:
            return
        self.progress("comparing with the raised opset", 0, 0)
        # What was written at another opset.
        self.clear()
        try:
            told, ranges = self._told(model, self.reference, options)
            errors, mismatches = output_errors(self.reference.answers, told)
        except OrtError as error:
            raise ConversionError(f"ONNX Runtime does not run what the converter makes: {error}") from error
        finally:
            self.clear()
            model.let_go()
            give_back()
        wrong = [name for name, error in errors.items() if (error.error or 0.0) > SAME or (error.same or 1.0) < 1]
        if changed := [*mismatches, *wrong]:
            raise ConversionError(f"the converter changes the values of output {changed[0]!r}")
        if ranges:
            self.found["ranges"] = ranges

    def _told(
        self, model: files.ModelFile, reference: Reference, options: Options
    ) -> tuple[list[Outputs], Mapping[str, ChannelRange]]:
        """Return a model's answers to the feeds of a reference and, where a pass will ask, what its channels hold."""
        graph = model.graph()
        names = search.normalized_inputs(model.graph()) if self._looks(options) else []
        made = {tensor.name: tensor for node in graph.nodes for tensor in node.outputs if tensor.name in names}
        added = made.keys() - {tensor.name for tensor in graph.outputs}
        graph.outputs += [made[name] for name in made if name in added]
        # In a file of their own weights are mapped.
        files.write(graph, model, self.path, external_data="always", lasting=False)
        model.let_go()
        run, told = Session(self.path).run, list[Outputs]()

        def answers() -> Iterator[Outputs]:
            for feed in reference.feeds:
                answer = run(feed)
                told.append({name: array for name, array in answer.items() if name not in added})
                yield answer

        ranges = search.ranges_of(answers(), made, len(reference.feeds))
        return told, ranges

    @property
    def is_small(self) -> bool:
        """Tell whether memory holds the model's floats several times."""
        return self.memory.use is MemoryUse.FULL

    def coder(self, model: files.ModelFile, options: Options, move: Move | None = None) -> Coder:
        """Return the coder: one that makes up for errors as the user's feeds show them, or text of the model's own.

        That is not enough to better codes in a trellis. What it knows is kept where `move` puts it.
        """
        if self.reference is None or min(options.widths) >= EXACT_BITS or not (self.real or _is_uniform(options)):
            return plain_codes
        widths = product_inputs(model.graph())
        if self.real:
            return search.compensating_coder(Grams(model.path, widths, self.reference.feeds, move=move))
        try:
            texts = own_texts(Session(model.path).run, model.path, model.proto)
            return search.compensating_coder(Grams(model.path, widths, texts, False, move)) if texts else plain_codes
        except (BctError, OrtError):
            return plain_codes

    def _ranges(self, model: files.ModelFile, options: Options) -> Mapping[str, ChannelRange]:
        """Return what the channels of the products' inputs hold, where a pass asks for it and memory allows."""
        if self.reference is None or not self._looks(options):
            return {}
        if "ranges" not in self.found:
            try:
                names = search.normalized_inputs(model.graph())
                self.found["ranges"] = search.channel_ranges(model.path, names, self.reference.feeds, self.path)
                give_back()
            except OrtError:
                self.found["ranges"] = {}
        return self.found["ranges"]

    def _looks(self, options: Options) -> bool:
        """Tell whether a pass asks for what channels hold, and memory allows to look."""
        fitted = self.real and min(options.widths) < EXACT_BITS
        asked = "even_channels" in options.operators and options.form.integer_rows
        return asked and not fitted and self.is_small

    def clear(self) -> None:
        """Remove what an earlier attempt left."""
        for path in (self.path, *self.path.parent.glob(f"{glob.escape(self.path.name)}.*.data")):
            path.unlink(missing_ok=True)


def _is_uniform(options: Options) -> bool:
    """Tell whether all codes that a request's products have stand for themselves."""
    formats = (options.form.format(bits, options.block_size, LONG_SUM) for bits in options.widths)
    return not any(fmt.trellis for fmt in formats)


def _load(source: Path, path: Path, use: MemoryUse) -> None:
    """See that the written model loads."""
    try:
        Session(path, MemoryPlan(use).compressed)
    except OrtError as error:
        try:
            Session(source, use)
        except OrtError as cause:
            raise BctError(f"{source}: ONNX Runtime does not load the model: {cause}") from cause
        raise VerificationError(f"{source}: ONNX Runtime does not load the compressed model: {error}") from error
