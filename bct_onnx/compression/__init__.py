"""From a request to a compressed model in its file: opset and bits chosen, rewritten, written, verified, mended."""

from bct_onnx.compression.coverage import Coverage
from bct_onnx.compression.opset import compress_at_opset
from bct_onnx.compression.workspace import MARK, Workspace

__all__ = ["MARK", "Coverage", "Workspace", "compress_at_opset"]
