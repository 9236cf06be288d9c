"""The opset at which a model is compressed: the best for its codes that can be had and that its runtime accepts."""

from __future__ import annotations

from dataclasses import replace

import passes
from bct_onnx import files
from bct_onnx.compression.attempt import attempt
from bct_onnx.compression.workspace import Result, Workspace
from bct_onnx.errors import BctError, InaccurateError, VerificationError
from bct_onnx.opsets import ConversionError, lower_opset, operators_of, opset_of, raise_opset, with_ir_version
from bct_onnx.presets import Request
from bct_onnx.runtimes import Limits
from passes import Feature, Options
from passes.attention import BEST_OPSET as OPSET_ATTENTION

# Attention as one node, the standard operator of opset 23 and MultiHeadAttention, as products and Softmax.
OPENED = Options(operators=frozenset({"open_attention"}))
# What it costs that a runtime lacks a feature.
COSTS = {
    Feature.BLOCKWISE: "activations, or blocks of weights, are scaled by an operator of their own",
    Feature.INT4_CASTS: "codes of 4 bits lie two in a byte and take more operators, and time, to load",
    Feature.GATHER_BLOCKS: "looked-up rows are unpacked operator by operator",
    Feature.GATHER_BLOCKS_2: "looked-up rows are unpacked operator by operator",
}


def compress_at_opset(request: Request, model: files.ModelFile, workspace: Workspace) -> Result:
    """Compress with the best opset for the codes; where that cannot be had or does not run, with the model's own.

    A model whose own is too new for the runtime asked for is lowered first. Raises BctError where that cannot be done.
    """
    options, notes = request.options(model.proto)
    limits = request.limits
    source, model = model.path, _fitted(model, options, limits, workspace, notes)
    has = opset_of(model.proto)
    preferred = passes.preferred_opsets(options, operators_of(model.proto))
    better = [opset for opset in _within(preferred, limits.opset) if opset > has]
    for opset in better:
        try:
            raised = replace(model, proto=with_ir_version(raise_opset(model.proto, opset), limits.ir_version))
            workspace.check_converted(raised, options)
            return _noted(attempt(workspace, raised, options, notes), limits, opset, preferred)
        except InaccurateError:
            raise
        except (ConversionError, VerificationError) as error:
            notes.append(f"opset {has} cannot be raised to {opset}: {error}")
    if passes.required_opset(options) > has:
        options, note = request.options_at(has, options)
        notes.append(note)
    if passes.required_opset(options) > has:
        raise BctError(f"{source}: {'; '.join(notes)}; {_advice(options, limits, better)}")
    return _noted(attempt(workspace, model, options, notes), limits, has, preferred)


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


def _noted(result: Result, limits: Limits, opset: int, preferred: list[int]) -> Result:
    """Return the result with a sentence on what was written otherwise for the sake of the runtime."""
    avoided = frozenset[Feature]().union(*(report.avoided for report in result.passes))
    costs = [f"no {feature}: {COSTS[feature]}" for feature in Feature if feature in avoided]
    if preferred[0] > limits.opset:
        split = ": attention is several operators" if preferred[0] >= OPSET_ATTENTION > opset else ""
        costs.insert(0, f"opset {opset}, not {preferred[0]}{split}")
    if not costs:
        return result
    return replace(result, notes=(*result.notes, f"for ONNX Runtime {limits.release}: {'; '.join(costs)}"))


def _fitted(
    model: files.ModelFile, options: Options, limits: Limits, workspace: Workspace, notes: list[str]
) -> files.ModelFile:
    """Return the model at an opset and IR version that the runtime accepts; what is done to it is noted.

    Raises BctError where its opset cannot be lowered. Operators that are newer still are left for the check of what is
    written.
    """
    has, source = opset_of(model.proto), model.path
    fitting = replace(model, proto=with_ir_version(model.proto, limits.ir_version))
    if has <= limits.opset and not limits.newer(fitting.proto):
        return fitting
    said = []
    opened, count = _open_attention(fitting, workspace)
    if count:
        fitting = opened
        said.append(f"attention as one node is taken apart ({count} times)")
    try:
        if has > limits.opset:
            lowered = with_ir_version(lower_opset(fitting.proto, limits.opset), limits.ir_version)
            fitting = replace(fitting, proto=lowered)
            said.append(f"opset {has} is lowered to {limits.opset}")
        workspace.check_converted(fitting, options)
    except ConversionError as error:
        if has <= limits.newest_opset:
            return replace(model, proto=with_ir_version(model.proto, limits.ir_version))
        raise BctError(
            f"{source}: its opset {has} cannot be lowered to {limits.opset} for ONNX Runtime {limits.release}:"
            f" {error}; export it at opset {limits.opset}, or ask for a later --runtime"
        ) from error
    notes.extend(f"{what} for ONNX Runtime {limits.release}" for what in said)
    return fitting


def _open_attention(model: files.ModelFile, workspace: Workspace) -> tuple[files.ModelFile, int]:
    """Return the model, in a file of its own, without attention as one node, and how many nodes that were."""
    graph = model.graph()
    (report,) = passes.run(graph, OPENED)
    if not report.replaced:
        return model, 0
    path = workspace.path.with_name(f"opened-{workspace.path.name}")
    path.unlink(missing_ok=True)
    files.write(graph, model, path, external_data=workspace.external_data)
    return files.read(path), report.replaced
