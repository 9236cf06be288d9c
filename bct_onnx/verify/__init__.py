"""Verification: the compressed model must answer like the input model on the same feeds."""

from bct_onnx.fidelity import OutputError
from bct_onnx.sessions import Latency
from bct_onnx.verify.comparison import Bound, Reference, Verification, compare, default_bound, run_reference

__all__ = [
    "Bound",
    "Latency",
    "OutputError",
    "Reference",
    "Verification",
    "compare",
    "default_bound",
    "run_reference",
]
