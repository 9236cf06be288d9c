"""Verification: the compressed model must answer like the input model on the same feeds."""

from bct_onnx.verify.comparison import Bound, Reference, Verification, compare, default_bound, run_reference
from bct_onnx.verify.feeds import load_feeds
from bct_onnx.verify.measure import OutputError
from bct_onnx.verify.session import Latency

__all__ = [
    "Bound",
    "Latency",
    "OutputError",
    "Reference",
    "Verification",
    "compare",
    "default_bound",
    "load_feeds",
    "run_reference",
]
