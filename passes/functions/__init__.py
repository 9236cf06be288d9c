"""Compressed operators: ONNX functions whose bodies are stock operators, one file each.

A file holds the signature and the body as ONNX text, the numpy function that says exactly what is computed, and the
bound of its error. `FUNCTIONS` has them all by name, of which a model holds those that it calls (see `protos`).
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from . import (
    block_gather,
    block_matmul,
    block_scales,
    decode_blocks,
    dequantize_blocks,
    gelu,
    integer_matmul,
    layer_normalization,
    nbits,
    quantize_blocks,
    quantize_rows,
    softmax,
    table_values,
    turn,
    unpack,
)
from .function import DOMAIN, Function

__all__ = ["DOMAIN", "FUNCTIONS", "Function", "protos"]

MODULES = (
    quantize_rows,
    turn,
    unpack,
    decode_blocks,
    block_matmul,
    block_gather,
    block_scales,
    nbits,
    dequantize_blocks,
    table_values,
    quantize_blocks,
    integer_matmul,
    gelu,
    softmax,
    layer_normalization,
)
FUNCTIONS: dict[str, Function] = {function.name: function for module in MODULES for function in module.FUNCTIONS}


def protos(names: Iterable[str], opset: int) -> list[onnx.FunctionProto]:
    """Return functions by name, sorted, for a model of an opset."""
    return [FUNCTIONS[name].proto(opset) for name in sorted(set(names))]
