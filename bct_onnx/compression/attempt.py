"""One compressed model, from the options: bits chosen, written, verified, and mended where a few weights do harm."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from bct_onnx import files, search
from bct_onnx.compression.mend import harmful_weights, keep_weights
from bct_onnx.compression.tries import Tries, choose
from bct_onnx.compression.workspace import EXACT_BITS, Result, Workspace
from bct_onnx.errors import InaccurateError
from bct_onnx.search import Goal, SearchRecord
from bct_onnx.sessions import MemoryUse, OrtError, give_back
from bct_onnx.verify import Reference
from passes import Options
from passes.context import plain_codes

_LATE = "the clock stopped the search long after its time: another run may give another file"


def attempt(workspace: Workspace, model: files.ModelFile, options: Options, notes: list[str]) -> Result:
    """Write, verify and mend what can be; raises VerificationError where the result does not answer like the input.

    A few small weights whose codes do the harm are kept in float. Where they are large, the error names them.
    """
    result = _with_chosen_bits(workspace, model, options, notes)
    try:
        return workspace.checked(result)
    except InaccurateError as error:
        names = harmful_weights(workspace, model, options, result, error)
        note = f"kept in float, since their codes harm the answers ({error}): {', '.join(names)}"
        notes = [*result.notes, note]
        return workspace.checked(_with_chosen_bits(workspace, model, keep_weights(options, names), notes))


def _with_chosen_bits(workspace: Workspace, model: files.ModelFile, options: Options, notes: list[str]) -> Result:
    """Write with the bits that the goal asks for; raises VerificationError where the result does not run."""
    goal, small = workspace.goal, workspace.is_small
    if goal is None or workspace.reference is None or not (goal.asked or goal.bounded or options.form.decoded_at_load):
        return workspace.write(model, options, notes, workspace.coder(model, options) if small else plain_codes)
    if not goal.asked and workspace.reference.seeded:
        notes.append(f"what a model that draws numbers loses cannot be told beforehand: {options.bits} bits everywhere")
        return workspace.write(model, options, notes, workspace.coder(model, options))
    try:
        return _search(workspace, goal, workspace.reference, model, options, notes)
    except OrtError as error:
        # At this opset, or with its weights as inputs, the model does not run: writing it tells which.
        notes = [*notes, f"its weights cannot be measured ({error}): {options.bits} bits everywhere"]
        return workspace.write(model, options, notes, plain_codes)


def _search(
    workspace: Workspace, goal: Goal, reference: Reference, model: files.ModelFile, options: Options, notes: list[str]
) -> Result:
    """Measure every weight, find the bits that the goal asks for and write them."""
    # What is measured lies in place of the result: whatever sweeps up after an interrupt knows it.
    workspace.clear()
    measured = search.measure_sensitivity(
        model,
        options,
        reference.feeds,
        workspace.path,
        goal.seconds,
        workspace.progress,
        not workspace.real,
        workspace.memory.use or MemoryUse.FULL,
    )
    # The session that measured is gone with what it took.
    workspace.clear()
    give_back()
    with closing(files.Scratch(workspace.path)) as scratch:
        least = replace(options, bits=min(options.bits, EXACT_BITS - 1))
        coder = workspace.coder(model, least, scratch.move) if workspace.is_small else plain_codes
        coder = search.memoized(coder, scratch.move)
        if not measured.curve.weights:
            return workspace.write(model, options, notes, coder)
        # What a session decodes is the same in whole bytes.
        quick = search.decoded(coder, scratch.move) if options.form.decoded_at_load else None
        tries = Tries(workspace, model, options, coder, measured, quick)
        result, choice, met = choose(tries, goal, notes)
    error = tries.found(result)
    record = SearchRecord(goal, measured.curve, choice, error, met, measured.measured, measured.seconds)
    said = [_missed(goal, error, result.written.bytes)] if not met else []
    said += [_LATE] if measured.late else []
    return replace(result, search=record, notes=(*result.notes, *said))


def _missed(goal: Goal, error: float, size: int) -> str:
    if goal.max_drop is not None:
        return f"no width of codes keeps the relative error below {goal.max_drop:g}: it is {error:.3g} at the most bits"
    return f"the smallest file has {size} bytes, more than the goal"
