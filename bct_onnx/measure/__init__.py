"""How far the compressed model's answers are from the input model's: one measure for verification, search and bench."""

from bct_onnx.measure.answers import Answers, errors_of, figure, rounded
from bct_onnx.measure.kinds import Kind, kind_of
from bct_onnx.measure.outputs import OutputError, find_mismatch, measure

__all__ = ["Answers", "Kind", "OutputError", "errors_of", "figure", "find_mismatch", "kind_of", "measure", "rounded"]
