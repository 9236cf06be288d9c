"""How far the compressed model's answers are from the input model's: one definition for verification and search."""

from bct_onnx.fidelity.answers import Answers, output_errors, overall_error, round_error
from bct_onnx.fidelity.kinds import Kind
from bct_onnx.fidelity.outputs import OutputError, class_errors

__all__ = ["Answers", "Kind", "OutputError", "class_errors", "output_errors", "overall_error", "round_error"]
