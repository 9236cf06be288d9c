"""Products whose results leave as quantized rows: BlockMatMul4TrellisGeluQuantizeRowsAbove, ...

    q, row_scale, ... -- BlockMatMul, bias, Gelu -- QuantizeRowsAbove -> next_q [..., n], next_scale [..., 1]
    q, row_scale, ... -- BlockMatMul, bias, residual -- LayerNormalizationQuantizeRows -> y [..., n], next_q, next_scale

Bodies are the calls. A library of kernels makes codes of some rows while their floats are in the cache.
"""

from __future__ import annotations

from . import normalize_rows, quantize_rows
from .endings import FOLLOWED, GELU, GELU_TANH, QUICK_GELU, RELU, RESIDUAL, SILU
from .function import Function, call

# What a quantizer's names are where a product has the same.
NAMES = {"q": "next_q", "scale": "next_scale", "bias": "offset", "zero_point": "next_zero_point"}


def _function(product: Function, quantizer: Function) -> Function:
    x, *given = quantizer.inputs.split(", ")
    outputs = ", ".join(NAMES.get(name, name) for name in quantizer.outputs.split(", "))
    return Function(
        product.name + quantizer.name,
        ", ".join([product.inputs, *(NAMES.get(name, name) for name in given)]),
        outputs,
        f"floats = {call(product)}\n{outputs} = {call(quantizer, {**NAMES, x: 'floats'})}",
        f"{product.summary}. {quantizer.summary}",
        quantizer.dtypes,
        product.axes,
        calls=(quantizer, product),
        nested=product.nested,
    )


# What quantizes what an ending gives; calls of old opsets stay apart.
_ABOVE = (quantize_rows.OWN[True], quantize_rows.LIKE[True])
_ONCE = tuple(normalize_rows.BY_QUANTIZER[each[False].name] for each in (quantize_rows.OWN, quantize_rows.LIKE))
_NORMALIZED = (*_ONCE, *(normalize_rows.EVEN[each.name] for each in _ONCE))
_QUANTIZERS = {
    RESIDUAL.name: _NORMALIZED,
    **{curve.name: _ABOVE for curve in (RELU, GELU, GELU_TANH, SILU, QUICK_GELU)},
}
# The function that quantizes what a product gives, by both names.
BY_BOTH = {
    (product.name, quantizer.name): _function(product, quantizer)
    for (_, ending), product in FOLLOWED.items()
    for quantizer in _QUANTIZERS.get(ending, ())
}
