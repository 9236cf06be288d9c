"""Models of one call of a function, run by its body or by the native kernel."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from bct_onnx import kernels
from bct_onnx.sessions import Options, OrtSession, open_session
from passes.functions.function import DOMAIN, FUNCTIONS, protos

Array = NDArray[Any]
OPSET = 21


def call(
    name: str,
    feeds: Mapping[str, Array],
    constants: Mapping[str, Array | TensorProto],
    attributes: Mapping[str, Any],
    order: str = "",
) -> onnx.ModelProto:
    """Return the model of a call whose inputs are fed or constants, as the function names them."""
    function = FUNCTIONS[name]
    inputs = (order or function.inputs).split(", ")
    outputs = function.outputs.split(", ")
    node = onnx.helper.make_node(name, inputs, outputs, name="call", domain=DOMAIN, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [
            onnx.helper.make_tensor_value_info(
                key, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), [f"{key}{i}" for i in range(value.ndim)]
            )
            for key, value in feeds.items()
        ],
        [
            onnx.helper.make_tensor_value_info(key, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
            for key, kind in zip(outputs, function.dtypes, strict=True)
        ],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(value, key)
            for key, value in constants.items()
        ],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, 1)]
    opsets.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return onnx.helper.make_model(graph, functions=protos([function.name], OPSET), opset_imports=opsets, ir_version=10)


def session(model: onnx.ModelProto, native: bool = True, optimize: str = "all", threads: int = 2) -> OrtSession:
    """Return a session of a model: from a file, so that the library registers what the file's functions call."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model.SerializeToString())
        return open_session(path, Options(threads, optimize=optimize), kernels.library() if native else "")


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], native: bool = True, optimize: str = "all") -> list[Array]:
    """Return the outputs of a model."""
    return [np.asarray(y) for y in session(model, native, optimize).run(None, dict(feeds))]
