"""Element type of a tensor, where the graph tells."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

# Operators whose output has the type of an input other than the first.
_TYPED_BY = {
    "DequantizeLinear": 1,
    "EmbedLayerNormalization": 2,
    "GatherBlockQuantized": 2,
    "MatMulIntegerToFloat": 2,
    "Where": 1,
}


def element_type(tensor: gs.Tensor) -> str | None:
    """Return the name of a tensor's numpy type, or None where neither it nor what it comes from says."""
    while tensor.dtype is None and tensor.inputs:
        node = tensor.inputs[0]
        if node.op == "Cast":
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))).name
        index = _TYPED_BY.get(node.op, 0)
        if len(node.inputs) <= index:
            return None
        tensor = node.inputs[index]
    return None if tensor.dtype is None or isinstance(tensor.dtype, int) else np.dtype(tensor.dtype).name
