"""What a node computes from given values: ONNX Runtime runs it alone, so the numbers are those of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray

from .constants import load

Array = NDArray[Any]
_FATAL = 4


class NotComputedError(Exception):
    """ONNX Runtime does not compute a node; the message is one line."""


def evaluate(node: gs.Node, values: Sequence[Array | None], opset: int) -> list[Array | None]:
    """Return a node's outputs, None for those left out; `values` are its inputs, None where they are left out.

    Bit for bit what a session without optimizations computes. Raises NotComputedError.
    """
    names = [f"i{number}" if value is not None else "" for number, value in enumerate(values)]
    outputs = [f"o{number}" if output.name else "" for number, output in enumerate(node.outputs)]
    feeds = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    try:
        session = ort.InferenceSession(
            _model(node, names, outputs, feeds, opset).SerializeToString(), _settings(), ["CPUExecutionProvider"]
        )
        results = iter(session.run([name for name in outputs if name], feeds))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise NotComputedError(f"ONNX Runtime does not compute {node.op}: {str(error).splitlines()[0]}") from error
    return [np.asarray(next(results)) if name else None for name in outputs]


def _settings() -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Sums in one order, whatever the machine.
    settings.intra_op_num_threads = 1
    return settings


def _model(node: gs.Node, names: list[str], outputs: list[str], feeds: dict[str, Array], opset: int) -> onnx.ModelProto:
    made = onnx.helper.make_node(node.op, names, outputs, domain=node.domain or "")
    made.attribute.extend(_attribute(name, value) for name, value in node.attrs.items())
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    imports = [onnx.helper.make_opsetid("", opset)]
    if node.domain:
        imports.append(onnx.helper.make_opsetid(node.domain, 1))
    version = onnx.helper.find_min_ir_version_for(imports, True)
    graph = onnx.helper.make_graph([made], "node", infos, results)
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=version)


def _attribute(name: str, value: Any) -> onnx.AttributeProto:
    if isinstance(value, onnx.AttributeProto):
        return value
    if isinstance(value, gs.Constant):
        value = onnx.numpy_helper.from_array(load(value))
    return onnx.helper.make_attribute(name, value, attr_type=getattr(value, "kind", None))
