"""Compress transformers in ONNX: several times smaller, several times faster, the same answers."""

__version__ = "0.1.0"
