"""Models at another version of the standard operators: ONNX's converter, and what it leaves out or changes."""

from bct_onnx.opsets.convert import (
    ConversionError,
    lower_opset,
    operators_of,
    opset_of,
    raise_opset,
    with_ir_version,
)

__all__ = ["ConversionError", "lower_opset", "operators_of", "opset_of", "raise_opset", "with_ir_version"]
