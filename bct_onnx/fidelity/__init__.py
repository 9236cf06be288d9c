"""How far the compressed model's answers are from the input model's: one definition for verification and search."""

from bct_onnx.fidelity.answers import Answers, output_errors, overall_error, round_error
from bct_onnx.fidelity.kinds import Kind, output_kind
from bct_onnx.fidelity.outputs import OutputError, find_mismatch, output_error

__all__ = [
    "Answers",
    "Kind",
    "OutputError",
    "find_mismatch",
    "output_error",
    "output_errors",
    "output_kind",
    "overall_error",
    "round_error",
]
