"""The opset at which a model is compressed: the best for its codes that can be had and that its runtime accepts."""

from __future__ import annotations

from dataclasses import replace

import passes
from passes import Feature, Options
from passes.attention import BEST_OPSET as OPSET_ATTENTION

from . import files
from .attempt import Attempt, Result
from .errors import BctError, InaccurateError, VerificationError
from .fit import fit
from .opset import ConversionError, operators_of, opset_of, raise_opset, with_ir_version
from .presets import Request
from .runtimes import Limits

# What it costs that a runtime lacks a feature.
COSTS = {
    Feature.BLOCKWISE: "activations, or blocks of weights, are scaled by an operator of their own",
    Feature.INT4_CASTS: "codes of 4 bits lie two in a byte and take more operators, and time, to load",
    Feature.GATHER_BLOCKS: "looked-up rows are unpacked operator by operator",
    Feature.GATHER_BLOCKS_2: "looked-up rows are unpacked operator by operator",
}


def attempt_at_opset(request: Request, model: files.ModelFile, attempt: Attempt) -> Result:
    """Attempt with the best opset for the codes; where that cannot be had or does not run, with the model's own.

    A model whose own is too new for the runtime asked for is lowered first. Raises BctError where that cannot be done.
    """
    options, notes = request.options(model.proto)
    limits = request.limits
    source, model = model.path, fit(model, limits, attempt, notes)
    has = opset_of(model.proto)
    preferred = passes.preferred_opsets(options, operators_of(model.proto))
    better = [opset for opset in _within(preferred, limits.opset) if opset > has]
    for opset in better:
        try:
            raised = replace(model, proto=with_ir_version(raise_opset(model.proto, opset), limits.ir_version))
            attempt.check_raised(raised)
            return _told(attempt(raised, options, notes), limits, opset, preferred)
        except InaccurateError:
            raise
        except (ConversionError, VerificationError) as error:
            notes.append(f"opset {has} cannot be raised to {opset}: {error}")
    if passes.required_opset(options) > has:
        options, note = request.options_at(has, options)
        notes.append(note)
    if passes.required_opset(options) > has:
        raise BctError(f"{source}: {'; '.join(notes)}; {_advice(options, limits, better)}")
    return _told(attempt(model, options, notes), limits, has, preferred)


def _within(opsets: list[int], most: int) -> list[int]:
    """Return those of some opsets, the best first, that are not above the most; that itself where all are."""
    return [opset for opset in opsets if opset <= most] or [most]


def _advice(options: Options, limits: Limits, better: list[int]) -> str:
    needed = passes.required_opset(options)
    if needed > limits.opset:
        return (
            f"its operators need opset {needed}, which ONNX Runtime {limits.release} does not run: ask for a later one"
        )
    return f"export the model at opset {better[-1]}"


def _told(result: Result, limits: Limits, opset: int, preferred: list[int]) -> Result:
    """Return the result with a sentence on what was written otherwise for the sake of the runtime."""
    avoided = frozenset[Feature]().union(*(report.avoided for report in result.passes))
    costs = [f"no {feature}: {COSTS[feature]}" for feature in Feature if feature in avoided]
    if preferred[0] > limits.opset:
        split = ": attention is several operators" if preferred[0] >= OPSET_ATTENTION > opset else ""
        costs.insert(0, f"opset {opset}, not {preferred[0]}{split}")
    if not costs:
        return result
    return replace(result, notes=(*result.notes, f"for ONNX Runtime {limits.release}: {'; '.join(costs)}"))
