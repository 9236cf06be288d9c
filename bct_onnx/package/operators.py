"""The operators that models need of ONNX Runtime, for builds that have no others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

_HEADER = (
    "# Operators of {}, as they stand in the files and as ONNX Runtime fuses them: build.sh --include_ops_by_config"
)


@dataclass(frozen=True)
class Operators:
    """Operators by domain and version of the operator set, and the text of ONNX Runtime's configuration for them."""

    by_domain: Mapping[str, Mapping[str, Sequence[str]]]
    config: str


def find_operators(models: Sequence[Path], scratch: Path) -> Operators | None:
    """Return what models need, by ONNX Runtime's own tool; None where it does not take one of them.

    `scratch` is a folder with room for two copies of every model.
    """
    command = [sys.executable, "-m", f"{__package__}.list_operators", str(scratch), *map(str, models)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        return None
    found = json.loads(run.stdout)
    header = _HEADER.format(", ".join(model.name for model in models))
    return Operators(found["operators"], "\n".join([header, *found["lines"]]) + "\n")


def element_types(model: onnx.ModelProto) -> set[str]:
    """Return the element types of a model's inputs, outputs, weights and named results, in ONNX's words."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {tensor.data_type for tensor in graph.initializer} | {v.type.tensor_type.elem_type for v in values}
    return {onnx.TensorProto.DataType.Name(kind).lower() for kind in types if kind}
