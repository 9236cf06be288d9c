"""A model brought to what the runtime asked for accepts: opset and IR version lowered, newer attention taken apart."""

from __future__ import annotations

from dataclasses import replace

import passes
from passes import Options

from . import files
from .attempt import Attempt
from .errors import BctError
from .opset import ConversionError, lower_opset, opset_of, with_ir_version
from .runtimes import Limits

# Attention as one node, the standard operator of opset 23 and MultiHeadAttention, as products and Softmax.
OPENED = Options(operators=frozenset({"open_attention"}))


def fit(model: files.ModelFile, limits: Limits, attempt: Attempt, notes: list[str]) -> files.ModelFile:
    """Return the model at an opset and IR version that the runtime accepts; what is done to it is noted.

    Raises BctError where its opset cannot be lowered. Operators that are newer still are left for the check of what is
    written.
    """
    has, source = opset_of(model.proto), model.path
    fitting = replace(model, proto=with_ir_version(model.proto, limits.ir_version))
    if has <= limits.opset and not limits.newer(fitting.proto):
        return fitting
    said = []
    opened, count = _open_attention(fitting, attempt)
    if count:
        fitting = opened
        said.append(f"attention as one node is taken apart ({count} times)")
    try:
        if has > limits.opset:
            lowered = with_ir_version(lower_opset(fitting.proto, limits.opset), limits.ir_version)
            fitting = replace(fitting, proto=lowered)
            said.append(f"opset {has} is lowered to {limits.opset}")
        attempt.check_raised(fitting)
    except ConversionError as error:
        if has <= limits.newest_opset:
            return replace(model, proto=with_ir_version(model.proto, limits.ir_version))
        raise BctError(
            f"{source}: its opset {has} cannot be lowered to {limits.opset} for ONNX Runtime {limits.release}:"
            f" {error}; export it at opset {limits.opset}, or ask for a later --runtime"
        ) from error
    notes.extend(f"{what} for ONNX Runtime {limits.release}" for what in said)
    return fitting


def _open_attention(model: files.ModelFile, attempt: Attempt) -> tuple[files.ModelFile, int]:
    """Return the model, in a file of its own, without attention as one node, and how many nodes that were."""
    graph = model.graph()
    (report,) = passes.run(graph, OPENED)
    if not report.replaced:
        return model, 0
    path = attempt.path.with_name(f"opened-{attempt.path.name}")
    path.unlink(missing_ok=True)
    files.write(graph, model, path, external_data=attempt.external_data)
    return files.read(path), report.replaced
