"""The operators, one a line."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...formats.numbers import erf
from ...functions.function import DOMAIN, FUNCTIONS
from ..shapes.sizes import equal, quotient
from . import moving_rules as moving
from . import rules
from . import shape_rules as shape
from . import value_rules as value
from .record import Operator, Trait, qualified

FLOAT, INT32, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.UINT8
# Inputs whose values are moved: the first; all; those behind a condition; data and updates.
FIRST, ALL, CHOICES, UPDATED = slice(1), slice(None), slice(1, None), slice(0, None, 2)
# Facts that often go together.
BOUNDED, POSITIVE = Trait.BOUNDED, Trait.NOT_NEGATIVE
MIXED_ROWS = Trait.KEEPS_ROWS | Trait.MIXES
NORMALIZATION = Trait.NORMALIZES | MIXED_ROWS
PRODUCT = Trait.MULTIPLIES | Trait.MIXES
CODED_ROWS = Trait.CODES | Trait.KEEPS_ROWS
QUANTIZED = Trait.CODES | Trait.QUANTIZES

# Rules by what functions say of their axes.
_AXES = {"rows": rules.rows_of_first, "first": rules.first, "picked": moving.looked_up, "flat": moving.row}


def _placewise(name: str, traits: Trait = Trait.NONE, **facts: Any) -> Operator:
    return Operator(name, rules.all_joined, Trait.ELEMENTWISE | traits, **facts)


def _reduction(name: str, traits: Trait = Trait.NONE, **facts: Any) -> Operator:
    return Operator(name, shape.reduced, Trait.REDUCES | traits, **facts)


# Place by place, and nothing more to say.
_PLACEWISE = (
    "And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Celu", "Clip", "Elu", "Gelu",
    "Greater", "GreaterOrEqual", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
    "Mean", "Min", "Mish", "Mod", "Not", "Or", "PRelu", "Selu", "Sum", "Swish", "ThresholdedRelu", "Xor",
    "com.microsoft.BiasGelu", "com.microsoft.FastGelu", "com.microsoft.Gelu", "com.microsoft.QuickGelu",
)  # fmt: skip
_TABLE = (
    *map(_placewise, _PLACEWISE),
    # Place by place.
    _placewise("Abs", POSITIVE, function=np.abs),
    _placewise("Add", function=np.add, sizes=operator.add),
    Operator("Cast", rules.first, Trait.ELEMENTWISE, moves=FIRST, function=lambda x: x, values=value.cast),
    Operator("CastLike", rules.first, Trait.ELEMENTWISE, moves=FIRST),
    _placewise("Ceil", Trait.TURNS),
    _placewise("Cos", BOUNDED | Trait.TURNS),
    _placewise("Div", function=np.divide, sizes=quotient),
    Operator("Dropout", rules.first, Trait.ELEMENTWISE | Trait.RANDOM, moves=FIRST),
    _placewise("Equal", function=np.equal, sizes=equal),
    _placewise("Erf", BOUNDED, function=erf),
    _placewise("Exp", POSITIVE, function=np.exp),
    _placewise("Floor", Trait.TURNS),
    _placewise("HardSigmoid", BOUNDED | POSITIVE),
    Operator("Identity", rules.first, Trait.ELEMENTWISE, moves=FIRST, function=lambda x: x, values=value.same),
    _placewise("Mul", function=np.multiply, sizes=operator.mul),
    _placewise("Neg", function=np.negative),
    _placewise("Pow", function=np.power),
    _placewise("Reciprocal", function=np.reciprocal),
    _placewise("Relu", POSITIVE),
    _placewise("Round", Trait.TURNS),
    _placewise("Sigmoid", BOUNDED | POSITIVE, function=lambda x: 1 / (1 + np.exp(-x))),
    _placewise("Sign", BOUNDED),
    _placewise("Sin", BOUNDED | Trait.TURNS),
    _placewise("Softplus", POSITIVE),
    _placewise("Softsign", BOUNDED),
    _placewise("Sqrt", POSITIVE, function=np.sqrt),
    _placewise("Sub", function=np.subtract, sizes=operator.sub),
    _placewise("Tan", Trait.TURNS),
    _placewise("Tanh", BOUNDED, function=np.tanh),
    _placewise("Where", moves=CHOICES, values=value.selected),
    # Values, somewhere else.
    Operator("Compress", moves=FIRST),
    Operator("Concat", moving.concatenated, moves=ALL, values=value.concatenated),
    Operator("DepthToSpace", moving.same_rank, moves=FIRST),
    Operator("Expand", moving.expanded, moves=FIRST),
    Operator("Flatten", moving.flattened, moves=FIRST),
    Operator("Gather", moving.gathered, moves=FIRST, values=value.gathered),
    Operator("GatherElements", rules.like(1), moves=FIRST),
    Operator("GatherND", moving.gathered_parts, moves=FIRST),
    Operator("MaxPool", shape.pooled, moves=FIRST),
    Operator("Optional", moves=FIRST),
    Operator("OptionalGetElement", moves=FIRST),
    Operator("Pad", moving.padded, moves=FIRST),
    Operator("Reshape", moving.reshaped, moves=FIRST, values=value.reshaped),
    Operator("ReverseSequence", rules.first, moves=FIRST),
    Operator("ScatterElements", rules.first, moves=UPDATED),
    Operator("ScatterND", rules.first, moves=UPDATED),
    Operator("SequenceAt", moves=FIRST),
    Operator("SequenceConstruct", moves=ALL),
    Operator("Slice", moving.sliced, moves=FIRST, values=value.sliced),
    Operator("SpaceToDepth", moving.same_rank, moves=FIRST),
    Operator("Split", moving.split, moves=FIRST),
    Operator("Squeeze", moving.squeezed, moves=FIRST, values=value.squeezed),
    Operator("Tile", moving.tiled, moves=FIRST),
    Operator("Transpose", moving.transposed, moves=FIRST),
    Operator("Trilu", rules.first, moves=FIRST),
    Operator("Unsqueeze", moving.unsqueezed, moves=FIRST, values=value.unsqueezed),
    # Reductions.
    Operator("ArgMax", shape.found_along_axis),
    Operator("ArgMin", shape.found_along_axis),
    _reduction("ReduceL1", POSITIVE),
    _reduction("ReduceL2", POSITIVE),
    _reduction("ReduceLogSum"),
    _reduction("ReduceLogSumExp"),
    _reduction("ReduceMax", function=np.max),
    _reduction("ReduceMean", function=np.mean),
    _reduction("ReduceMin"),
    _reduction("ReduceProd"),
    _reduction("ReduceSum", function=np.sum),
    _reduction("ReduceSumSquare", POSITIVE),
    # Rows.
    Operator("BatchNormalization", rules.first, Trait.NORMALIZES),
    Operator("CumSum", rules.first, Trait.KEEPS_ROWS),
    Operator("GroupNormalization", rules.first, Trait.NORMALIZES),
    Operator("Hardmax", rules.first, MIXED_ROWS | BOUNDED | POSITIVE),
    Operator("InstanceNormalization", rules.first, Trait.NORMALIZES),
    Operator("LayerNormalization", shape.normalized, NORMALIZATION, types=(0, FLOAT, FLOAT)),
    Operator("LogSoftmax", rules.first, MIXED_ROWS),
    Operator("RMSNormalization", rules.first, NORMALIZATION),
    Operator("RotaryEmbedding", rules.first, Trait.KEEPS_ROWS),
    Operator("SimplifiedLayerNormalization", shape.normalized, NORMALIZATION),
    Operator("Softmax", rules.first, MIXED_ROWS | BOUNDED | POSITIVE),
    Operator("TopK", shape.along_axis),
    Operator("com.microsoft.EmbedLayerNormalization", shape.embedded, types=(0, INT32)),
    Operator("com.microsoft.RotaryEmbedding", rules.first, Trait.KEEPS_ROWS),
    Operator("com.microsoft.SkipLayerNormalization", shape.normalized_sum, NORMALIZATION),
    Operator("com.microsoft.SkipSimplifiedLayerNormalization", shape.normalized_sum, NORMALIZATION),
    # Products.
    Operator("Attention", shape.attended, PRODUCT | Trait.KEEPS_ROWS),
    Operator("Conv", shape.convolved(), Trait.MULTIPLIES),
    Operator("ConvTranspose", shape.convolved(axis=1), Trait.MULTIPLIES),
    Operator("Einsum", shape.summed, Trait.MULTIPLIES),
    Operator("GRU", None, Trait.MULTIPLIES),
    Operator("Gemm", rules.multiplied(), PRODUCT),
    Operator("LSTM", None, Trait.MULTIPLIES),
    Operator("MatMul", rules.matmul, PRODUCT),
    Operator("RNN", None, Trait.MULTIPLIES),
    Operator("com.microsoft.Attention", shape.merged_attention, PRODUCT),
    Operator("com.microsoft.DecoderMaskedMultiHeadAttention", shape.attended_rows, PRODUCT),
    Operator("com.microsoft.FusedConv", shape.convolved(), Trait.MULTIPLIES),
    Operator("com.microsoft.FusedGemm", rules.multiplied(), PRODUCT),
    Operator("com.microsoft.FusedMatMul", rules.multiplied(), PRODUCT),
    Operator("com.microsoft.GroupQueryAttention", shape.attended_rows, PRODUCT),
    Operator("com.microsoft.MoE", rules.first, Trait.MULTIPLIES),
    Operator("com.microsoft.MultiHeadAttention", shape.attended_rows, PRODUCT),
    # Codes.
    Operator("ConvInteger", shape.convolved(), Trait.MULTIPLIES),
    Operator("DequantizeLinear", rules.first, CODED_ROWS),
    Operator("DynamicQuantizeLinear", shape.quantized, Trait.QUANTIZES),
    Operator("MatMulInteger", rules.matmul, PRODUCT),
    Operator("QLinearConv", shape.convolved(3), Trait.MULTIPLIES | Trait.CODES, typed_by=7),
    Operator("QLinearMatMul", rules.multiplied(0, 3), PRODUCT | Trait.CODES, typed_by=7),
    Operator("QuantizeLinear", rules.first, CODED_ROWS | Trait.QUANTIZES),
    Operator("com.microsoft.DequantizeLinear", rules.first, CODED_ROWS),
    Operator("com.microsoft.DynamicQuantizeLSTM", None, Trait.MULTIPLIES | QUANTIZED),
    Operator("com.microsoft.DynamicQuantizeMatMul", rules.matmul, PRODUCT | CODED_ROWS | Trait.QUANTIZES),
    Operator("com.microsoft.GatherBlockQuantized", moving.gathered_blocks, Trait.CODES),
    Operator("com.microsoft.MatMulBnb4", rules.with_last_attribute("N"), PRODUCT | CODED_ROWS),
    Operator("com.microsoft.MatMulIntegerToFloat", rules.matmul, PRODUCT | Trait.CODES),
    Operator("com.microsoft.MatMulNBits", rules.with_last_attribute("N"), PRODUCT | CODED_ROWS | Trait.QUANTIZES),
    Operator("com.microsoft.QAttention", shape.merged_attention, PRODUCT | Trait.CODES),
    Operator("com.microsoft.QGemm", rules.multiplied(0, 3), PRODUCT | Trait.CODES, typed_by=8, types=(FLOAT,)),
    Operator("com.microsoft.QMoE", rules.first, Trait.MULTIPLIES | Trait.CODES),
    Operator("com.microsoft.QLinearAdd", rules.joined(0, 3), Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearAveragePool", shape.pooled, Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearConcat", None, Trait.CODES, typed_by=1),
    Operator("com.microsoft.QLinearGlobalAveragePool", shape.pooled_whole, Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearLeakyRelu", rules.first, Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearMul", rules.joined(0, 3), Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearReduceMean", None, Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearSigmoid", rules.first, Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearSoftmax", rules.first, Trait.CODES, typed_by=0),
    Operator("com.microsoft.QLinearWhere", rules.joined(0, 1, 4), Trait.CODES, typed_by=1),
    Operator(
        "com.microsoft.QuantizeLinear",
        rules.first,
        CODED_ROWS | Trait.QUANTIZES,
        typed_by=2,
        types=(UINT8,),
    ),
    # Shapes, and what is made of them.
    Operator("ConstantOfShape", moving.listed_first, Trait.SHAPES, values=value.filled),
    Operator("EyeLike", rules.first, Trait.SHAPES, typed_by=0),
    Operator("Range", shape.counted),
    Operator("Shape", shape.axes_of, Trait.SHAPES, values=value.sizes_of),
    Operator("Size", shape.number, Trait.SHAPES, values=value.count_of),
    # Windows.
    Operator("AveragePool", shape.pooled),
    Operator("GlobalAveragePool", shape.pooled_whole),
    Operator("GlobalMaxPool", shape.pooled_whole),
    Operator("Resize", moving.same_rank),
    # Random numbers.
    Operator("Bernoulli", rules.first, Trait.RANDOM, typed_by=0),
    Operator("Multinomial", None, Trait.RANDOM, types=(INT32,)),
    Operator("RandomNormal", None, Trait.RANDOM, types=(FLOAT,)),
    Operator("RandomNormalLike", rules.first, Trait.RANDOM | Trait.SHAPES, typed_by=0),
    Operator("RandomUniform", None, Trait.RANDOM, types=(FLOAT,)),
    Operator("RandomUniformLike", rules.first, Trait.RANDOM | Trait.SHAPES, typed_by=0),
    Operator("com.microsoft.BiasDropout", rules.first, Trait.RANDOM),
    Operator("com.microsoft.BitmaskBiasDropout", rules.first, Trait.RANDOM),
    Operator("com.microsoft.BitmaskDropout", rules.first, Trait.RANDOM),
    # Whole generations.
    Operator("com.microsoft.BeamSearch", types=(INT32,)),
    Operator("com.microsoft.GreedySearch", types=(INT32,)),
    Operator("com.microsoft.Sampling", None, Trait.RANDOM, types=(INT32,)),
    Operator("com.microsoft.WhisperBeamSearch", types=(INT32,)),
)
OPERATORS = {each.name: each for each in _TABLE}
UNKNOWN = Operator("")


def find_operator(name: str) -> Operator:
    """Return what is known of the operator of a qualified name, nothing perhaps."""
    return OPERATORS.get(name) or (_called(name) if name.startswith(DOMAIN) else UNKNOWN)


@lru_cache(maxsize=512)
def _called(name: str) -> Operator:
    """Return what is known of a compressed operator."""
    function = FUNCTIONS.get(name.removeprefix(f"{DOMAIN}."))
    if function is None:
        return UNKNOWN
    types = tuple(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in function.dtypes)
    traits = Trait.KEEPS_ROWS if function.axes == "rows" else Trait.NONE
    return Operator(name, _AXES.get(function.axes) or moving.listed_in(function.axes), traits, types=types)


def operator_of(node: gs.Node) -> Operator:
    """Return what is known of a node's operator, nothing perhaps."""
    return find_operator(qualified(node.op, node.domain))


def traits_of(node: gs.Node) -> Trait:
    """Return the facts known of a node's operator."""
    return operator_of(node).traits


def is_random(node: gs.Node) -> bool:
    """Tell whether two runs of a node, or of a node in its bodies, need not give the same."""
    return Trait.RANDOM in traits_of(node) or any(is_random(inner) for body in node.subgraphs() for inner in body.nodes)
