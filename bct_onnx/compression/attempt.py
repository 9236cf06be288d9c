"""One compressed model, from the options: bits chosen, written, verified, and mended where a few weights do harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bct_onnx import files, search
from bct_onnx.compression.mend import harmful_weights, keep_weights
from bct_onnx.compression.workspace import EXACT_BITS, Result, Workspace
from bct_onnx.errors import InaccurateError
from bct_onnx.search import Goal, SearchRecord
from bct_onnx.sessions import OrtError, Session
from bct_onnx.verify import Reference
from passes import Options
from passes.context import plain_codes
from passes.graph.walk import walk

# Models with these are searched only for a goal that was asked for.
LOOPS = frozenset({"Loop", "Scan"})
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
    goal, small = workspace.goal, workspace.is_small(model)
    if goal is None or workspace.reference is None or not (goal.asked or options.form.decoded_at_load):
        return workspace.write(model, options, notes, workspace.coder(model, options) if small else plain_codes)
    if not small:
        notes.append(f"the model is too large to measure its weights: {options.bits} bits everywhere")
        return workspace.write(model, options, notes, plain_codes)
    if not goal.asked and (workspace.reference.seeded or any(node.op in LOOPS for _, node in walk(model.graph()))):
        what = "a model that draws numbers loses" if workspace.reference.seeded else "a loop costs"
        notes.append(f"what {what} cannot be told beforehand: {options.bits} bits everywhere")
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
    coder = search.memoized(workspace.coder(model, replace(options, bits=min(options.bits, EXACT_BITS - 1))))

    def put(bits: Mapping[str, int]) -> files.WrittenFile:
        return workspace.encode(model, replace(options, bits_for=bits), coder, [])[0]

    # A model that does not load at this opset is not worth a search.
    plain_bytes = put({}).bytes
    Session(workspace.path)
    # In place of the result: what sweeps up after an interrupt knows it.
    workspace.path.unlink(missing_ok=True)
    measured = search.measure_sensitivity(
        model, options, reference.feeds, workspace.path, goal.seconds, workspace.progress, not workspace.real
    )
    if not measured.curve.weights:
        return workspace.write(model, options, notes, plain_codes)

    def error_of(bits: Mapping[str, int]) -> float:
        return measured.error(Session(put(bits).path).run)

    limit = goal.limit_bytes(model.bytes, plain_bytes)
    if limit is not None:
        choice, met = search.within_bytes(measured.curve, limit, lambda bits: put(bits).bytes)
        if goal.plain_bytes:
            plain = measured.curve.everywhere(options.bits)
            better = met and error_of(choice.bits) < error_of(plain.bits)
            choice, met = choice if better else plain, True
    else:
        assert goal.max_drop is not None
        choice, met = search.within_error(measured.curve, goal.max_drop, error_of)
    result = workspace.write(model, replace(options, bits_for=choice.bits), notes, coder)
    error = measured.error(Session(result.written.path).run)
    record = SearchRecord(goal, measured.curve, choice, error, met, measured.measured, measured.seconds)
    said = [_missed(goal, error, result.written.bytes)] if not met else []
    said += [_LATE] if measured.late else []
    return replace(result, search=record, notes=(*result.notes, *said))


def _missed(goal: Goal, error: float, size: int) -> str:
    if goal.max_drop is not None:
        return f"no width of codes keeps the relative error below {goal.max_drop:g}: it is {error:.3g} at the most bits"
    return f"the smallest file has {size} bytes, more than the goal"
