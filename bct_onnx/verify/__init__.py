"""Verification: the compressed model must answer like the input model on the same feeds."""

from bct_onnx.verify.comparison import Also, Bound, Reference, Verification, compare, default_bound, run_reference

__all__ = [
    "Also",
    "Bound",
    "Reference",
    "Verification",
    "compare",
    "default_bound",
    "run_reference",
]
