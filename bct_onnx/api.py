"""The whole way: read, check, rewrite, write, compare, put in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

import passes
from passes import Options, PassReport, Progress

from . import files
from .coverage import Coverage, count, measure_sizes
from .errors import BctError, VerificationError
from .opset import ConversionError, operators_of, opset_of, raise_opset
from .presets import DEFAULT_PRESET, Request
from .report import InputRecord, OutputRecord, Report
from .runtimes import min_onnxruntime
from .verify import Bound, Reference, Verification, compare, default_bound, run_reference
from .verify.memory import Means, available_bytes, means_for
from .verify.session import OrtError, Session, Thrift
from .version import __version__

# Metadata key by which a compressed model is known.
MARK = "bct_onnx"


def compress(
    source: str | Path,
    target: str | Path,
    *,
    preset: str = DEFAULT_PRESET,
    bits: int | None = None,
    block_size: int | None = None,
    lowering: str = "auto",
    keep: Sequence[str] = (),
    operators: Sequence[str] | None = None,
    activations: str | None = None,
    verify: bool = True,
    feeds: str | Path | None = None,
    max_rel_error: float | None = None,
    again: bool = False,
    external_data: files.ExternalData = "auto",
    progress: Progress | None = None,
) -> Report:
    """Compress the model `source` into the new file `target` and return the report.

    Args:
        source: an ONNX file.
        target: the file to write; it appears whole, checked, or not at all.
        preset: fast, balanced, small, portable or paper.
        bits: width of a weight's codes, 2 to 8, instead of the preset's.
        block_size: neighbours that share a scale, a multiple of 8, or 0 for a whole column, instead of the preset's.
        lowering: auto, dense, packed or qdq.
        keep: regular expressions; nodes and weights whose name one of them finds are left alone.
        operators: names of passes to run besides those for weights, instead of the preset's.
        activations: code type of intermediate results, int8, int4 or float8e4m3, instead of the preset's.
        verify: compare both models in ONNX Runtime before `target` appears; without, it is loaded only. What memory
            does not allow is not done and said in the notes.
        feeds: an .npz file to compare on, instead of feeds made from the model's inputs.
        max_rel_error: largest relative error (L2) of an output, instead of the default bound on its cosine.
        again: go on if `source` is compressed already.
        external_data: auto, always or never: whether weights go to a file of their own.
        progress: called as progress(what, done, total) while weights are encoded, and with a total of 0 when a
            stage of unknown length begins.

    Raises:
        BctError: a bad request or a bad input; the message says what to do.
        VerificationError: the compressed model does not answer like the input model.
    """
    request = Request(
        preset, bits, block_size, lowering, tuple(keep), None if operators is None else tuple(operators), activations
    )
    source, target = Path(source), Path(target)
    model = files.read(source)
    files.check_target(source, target)
    if not again and any(entry.key == MARK for entry in model.proto.metadata_props):
        raise BctError(f"{source}: is compressed already; use the original, or --again to go on all the same")
    means = means_for(model.bytes, available_bytes())
    say = progress or _tell_nobody
    say("running the input model", 0, 0)
    reference = run_reference(source, model.proto, feeds, thrift=means.thrift) if verify and means.thrift else None
    with files.staged(target) as stage:
        result = _compress(request, model, stage.path, reference, means, max_rel_error, external_data, say)
        oldest = min_onnxruntime(files.read(stage.path).proto)
        stage.commit()
    written = result.written
    return Report(
        input=InputRecord(source, model.bytes, model.sha256),
        output=OutputRecord(target, written.bytes, written.sha256, written.opset, written.ir_version, oldest),
        preset=preset,
        options=result.options,
        notes=(*result.notes, *([means.note] if means.note and verify else [])),
        passes=result.passes,
        verification=result.verification,
        coverage=result.coverage,
    )


def _tell_nobody(*_: object) -> None:
    """Stand for a progress that nobody asked for."""


@dataclass(frozen=True)
class _Result:
    written: files.WrittenFile
    options: Options
    notes: tuple[str, ...]
    passes: tuple[PassReport, ...]
    verification: Verification | None
    coverage: Coverage | None


def _compress(
    request: Request,
    model: files.ModelFile,
    path: Path,
    reference: Reference | None,
    means: Means,
    max_rel_error: float | None,
    external_data: files.ExternalData,
    progress: Progress,
) -> _Result:
    """Compress into `path`, and hold the answers to their bound."""

    def attempt(model: files.ModelFile, options: Options, notes: list[str]) -> _Result:
        sizes = measure_sizes(model, path, reference) if "intermediates" in options.operators else None
        graph = model.graph()
        with closing(files.Scratch(path)) as scratch:
            reports = passes.run(graph, options, progress, scratch.keep)
        if broken := sorted({name for report in reports for name in report.not_finite}):
            notes.append(f"weights that hold NaN or infinity are kept exact: {', '.join(broken)}")
        model.proto.metadata_props.append(onnx.StringStringEntryProto(key=MARK, value=__version__))
        path.unlink(missing_ok=True)
        progress("writing", 0, 0)
        written = files.write(graph, model, path, external_data=external_data)
        progress("verifying", 0, 0)
        verification = compare(reference, path) if reference else None
        if verification is None and means.thrift:
            _load(model.path, path, means.thrift)
        coverage = count(sizes, reports) if sizes else None
        return _Result(written, options, tuple(notes), tuple(reports), verification, coverage)

    result = _at_the_right_opset(request, model, attempt)
    if result.verification:
        bound = default_bound(result.options.bits) if max_rel_error is None else Bound(None, max_rel_error)
        result.verification.check(bound)
    return result


def _at_the_right_opset(
    request: Request,
    model: files.ModelFile,
    attempt: Callable[[files.ModelFile, Options, list[str]], _Result],
) -> _Result:
    """Attempt with the best opset for the codes; where that cannot be had or does not run, with the model's own."""
    options, notes = request.options(model.proto)
    has = opset_of(model.proto)
    better = [opset for opset in passes.preferred_opsets(options, operators_of(model.proto)) if opset > has]
    for opset in better:
        try:
            return attempt(replace(model, proto=raise_opset(model.proto, opset)), options, notes)
        except (ConversionError, VerificationError) as error:
            notes.append(f"opset {has} cannot be raised to {opset}: {error}")
    if passes.required_opset(options) > has:
        options = request.options_for("packed", options.bits)
        notes.append(f"opset {has} has no place for these codes: {options.bits}-bit packed weights instead")
    if passes.required_opset(options) > has:
        raise BctError(f"{model.path}: {'; '.join(notes)}; export the model at opset {better[-1]}")
    return attempt(model, options, notes)


def _load(source: Path, path: Path, thrift: Thrift) -> None:
    """See that the written model loads."""
    try:
        Session(path, Thrift.NONE if thrift is Thrift.NONE else Thrift.UNFOLDED)
    except OrtError as error:
        try:
            Session(source, thrift)
        except OrtError as cause:
            raise BctError(f"{source}: ONNX Runtime does not load the model: {cause}") from cause
        raise VerificationError(f"{source}: ONNX Runtime does not load the compressed model: {error}") from error
