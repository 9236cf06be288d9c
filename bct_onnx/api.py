"""The whole way: read, check, rewrite, write, compare, put in place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from passes import Progress

from . import files, kernels
from .compression import MARK, Workspace, compress_at_opset
from .errors import BctError, VerificationError
from .inputs import InputSource, file_inputs, made_inputs
from .presets import DEFAULT_PRESET, Request, check_promise
from .report import InputRecord, OutputRecord, Report
from .runtimes import min_onnxruntime
from .samples import sample_inputs
from .search import DEFAULT_SECONDS, PRESET_GOALS, Goal
from .sessions import MemoryUse, available_bytes, give_back, plan_memory
from .targets import DEFAULT_TARGET
from .verify import Reference, run_reference


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
    runtime: str | None = None,
    target_runtime: str | None = None,
    inline: bool = False,
    verify: bool = True,
    feeds: str | Path | None = None,
    data: str | Path | None = None,
    processor: str | Path | None = None,
    max_rel_error: float | None = None,
    max_drop: float | None = None,
    target_ratio: float | None = None,
    target_bytes: int | None = None,
    search_seconds: float = DEFAULT_SECONDS,
    again: bool = False,
    external_data: files.ExternalData = "auto",
    progress: Progress | None = None,
) -> Report:
    """Compress the model `source` into the new file `target` and return the report.

    Args:
        source: an ONNX file.
        target: the file to write; it appears whole, checked, or not at all.
        preset: fast, balanced, small, portable or paper. Balanced is what `max_drop` of 0.09 makes, and small the
            least error in the bytes that 4 bits for every weight take, where nothing of the request is against it.
        bits: width of a weight's codes, 2 to 8, instead of the preset's.
        block_size: neighbours that share a scale, a multiple of 8, or 0 for a whole column, instead of the preset's.
        lowering: auto, dense, dense7, packed, both, qdq or shifts.
        keep: regular expressions; nodes and weights whose name one of them finds are left alone.
        operators: names of passes to run besides those for weights, instead of the preset's; or, each with a minus,
            names of those to leave out of the preset's.
        activations: code type of intermediate results, int8, int4 or float8e4m3, instead of the preset's.
        runtime: the oldest ONNX Runtime that must run `target`, such as "1.20" or "1.20.1": opset and forms follow, and
            the notes say what that costs.
        target_runtime: where it runs, onnxruntime (None), web or openvino: the preset's bits in the forms that are fast
            there.
        inline: write what compressed operators do in place of calls of their ONNX functions, for tools that know no
            functions.
        verify: compare both models in ONNX Runtime before `target` appears; without, it is loaded only. What memory
            does not allow is not done and said in the notes.
        feeds: an .npz file to compare on, instead of feeds made from the model's inputs; codes of fewer than 8 bits are
            fitted to them, so give samples like those to come.
        data: or real samples, for the same: a .txt (one a line), .jsonl, or a folder of texts, pictures or sounds,
            at most 64 of them; transformers' tokenizer or processor in the model's folder makes inputs of them.
        processor: another folder for that tokenizer or processor.
        max_rel_error: largest error of an output, as `fidelity.outputs` defines it, instead of the default bound.
        max_drop: choose the bits of every weight by measurement: the smallest file whose outputs have at most this
            relative error.
        target_ratio: or the file this many times smaller with the least error.
        target_bytes: or the file of at most so many bytes with the least error.
        search_seconds: time for the measurements that a goal asks for, by count at a nominal speed: the file does not
            depend on the clock.
        again: go on if `source` is compressed already.
        external_data: auto, always or never: whether weights go to a file of their own.
        progress: called as progress(what, done, total) while weights are encoded, and with a total of 0 when a
            stage of unknown length begins.

    Raises:
        BctError: a bad request or a bad input; the message says what to do.
        VerificationError: the compressed model does not answer like the input model.
    """
    chosen = None if operators is None else tuple(operators)
    where = target_runtime or DEFAULT_TARGET
    request = Request(preset, bits, block_size, lowering, tuple(keep), chosen, activations, runtime, where, inline)
    goal = goal_for(request, verify, (max_drop, target_ratio, target_bytes), search_seconds)
    request = replace(request, searched=goal is not None)
    if feeds is not None and data is not None:
        raise BctError("--feeds and --data both say what to compare on; leave one out")
    source, target = Path(source), Path(target)
    model = files.read(source)
    files.check_target(source, target)
    if not again and any(entry.key == MARK for entry in model.proto.metadata_props):
        raise BctError(f"{source}: is compressed already; use the original, or --again to go on all the same")
    model.hash_ahead()
    kernels.offer_encoder()
    memory = plan_memory(model.bytes, available_bytes())
    progress = progress or ignore_progress
    inputs = _inputs(feeds, data, processor)
    given = feeds is not None or data is not None
    with files.staged(target) as stage:
        progress("running the input model", 0, 0)
        reference = _reference(model, inputs, memory.use, stage.path) if verify and memory.use else None
        workspace = Workspace(stage.path, reference, given, memory, goal, external_data, progress, max_rel_error)
        result = compress_at_opset(request, model, workspace)
        made = files.read(stage.path)
        _check_output(made, model, request)
        oldest = min_onnxruntime(made.proto)
        notes = tuple(map(stage.public, result.notes))
        stage.commit()
    written = result.written
    return Report(
        input=InputRecord(source, model.bytes, model.sha256),
        output=OutputRecord(target, written.bytes, written.sha256, written.opset, written.ir_version, oldest),
        preset=preset,
        runtime=request.limits.release,
        target=where,
        options=result.options,
        notes=(*notes, *([memory.note] if memory.note and verify else [])),
        passes=result.passes,
        left=result.left,
        verification=result.verification,
        bound=result.bound,
        coverage=result.coverage,
        search=result.search,
    )


def _reference(model: files.ModelFile, inputs: InputSource, use: MemoryUse, path: Path) -> Reference:
    """Return the input model's answers; what it takes to map its weights lies at the new file `path` meanwhile."""
    mapped = None
    # Where the disk has no room for that, weights are copied.
    with suppress(BctError):
        mapped = None if files.is_mapped(model) else files.write_mapped(model, path)
    try:
        return run_reference(model.path, model.proto, inputs, use, mapped=mapped.path if mapped else None)
    finally:
        if mapped:
            mapped.remove()
        give_back()


def _inputs(feeds: str | Path | None, data: str | Path | None, processor: str | Path | None) -> InputSource:
    """Return where the inputs that a model is verified on come from."""
    if feeds is not None:
        return partial(file_inputs, file=feeds)
    return made_inputs if data is None else partial(sample_inputs, data=data, processor=processor)


def _check_output(made: files.ModelFile, model: files.ModelFile, request: Request) -> None:
    """Raise BctError where what is written has operators that the request excludes.

    VerificationError where ONNX's checker takes the input and refuses it.
    """
    check_promise(request, made.proto, model.path)
    request.limits.check(made.proto, model.path)
    refusal = files.refusal(made.proto)
    if refusal and files.is_accepted(model.proto):
        raise VerificationError(f"{model.path}: onnx.checker refuses the compressed model: {refusal}")


def goal_for(request: Request, verify: bool, goals: Sequence[float | None], seconds: float) -> Goal | None:
    """Return what bits are chosen for, or None for the same bits everywhere.

    Some presets have a goal of their own, unless bits or a lowering are given or nothing is verified.
    """
    if all(value is None for value in goals):
        goal = PRESET_GOALS.get(request.preset)
        if goal is None or not verify or request.bits is not None or request.lowering != "auto":
            return None
        return replace(goal, seconds=seconds)
    if request.bits is not None:
        raise BctError("bits are chosen by measurement: leave out --bits, or the goal")
    if not verify:
        raise BctError("a goal is met by measurement: leave out --no-verify, or the goal")
    drop, ratio, size = goals
    return Goal(drop, ratio, None if size is None else int(size), seconds=seconds)


def ignore_progress(*_: object) -> None:
    """Stand for a progress that nobody asked for."""
