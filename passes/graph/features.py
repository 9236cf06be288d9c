"""Newer operators that a runtime may lack at whatever opset; for each of them there is another form."""

from __future__ import annotations

from enum import StrEnum

# Sub-byte types, and blockwise QuantizeLinear and DequantizeLinear.
OPSET_INT4 = 21


class Feature(StrEnum):
    """What a form is made of, in the words of reports."""

    BLOCKWISE = "blockwise QuantizeLinear and DequantizeLinear"
    EXPERTS = "QMoE"
    INT4_CASTS = "Cast of int4"
    GATHER_BLOCKS = "GatherBlockQuantized"
    GATHER_BLOCKS_2 = "GatherBlockQuantized of 2 bits"
    NBITS_2 = "MatMulNBits of 2 bits"
    NBITS_8 = "MatMulNBits of 8 bits"


Lacks = frozenset[Feature]
NOTHING: Lacks = frozenset()
# The lowest opset, of features that are standard operators.
FIRST_OPSET = {Feature.BLOCKWISE: OPSET_INT4, Feature.INT4_CASTS: OPSET_INT4}
