"""Products of weights that lie side by side, each with bits of its own: BlockMatMulJoined2Trellis5Trellis8, ...

    shifts0, codes0... -- DecodeBlocks2Trellis --|
    shifts1, codes1... -- DecodeBlocks5Trellis --|-- Concat -> weight [k, n0 + n1 + n2] -- BlockMatMul8 -> y
    weight2 int8 ---------------------------------|

There are as many as there are orders of widths: a function is made when a model calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from .block_matmul import INT8
from .decode_blocks import BY_SUFFIX
from .function import Function, call
from .unpack import PACKINGS

# The suffix of a part that is int8 as it lies in the file.
STORED = "8"


def can_join(product: Function, suffixes: Sequence[str]) -> bool:
    """Tell whether parts of these suffixes may be decoded in a call: int4 in no call within a call."""
    return len(suffixes) > 1 and not (_has_int4(suffixes) and product.calls)


def _has_int4(suffixes: Sequence[str]) -> bool:
    return any(suffix in PACKINGS and PACKINGS[suffix].has_int4 for suffix in suffixes)


@cache
def joined(product: Function, suffixes: tuple[str, ...]) -> Function:
    """Return `product`, BlockMatMul8 with any ending, of a weight that it decodes and joins itself.

    The inputs and attributes of a part have its number behind their names, from 0 on. ValueError if not `can_join`.
    """
    if not can_join(product, suffixes):
        raise ValueError(f"no parts to decode in one call: {suffixes}")
    inputs, parts, lines, decoders = [], [], [], []
    for number, suffix in enumerate(suffixes):
        if suffix == STORED:
            inputs.append(f"weight{number}")
            parts.append(f"weight{number}")
            continue
        decoder = BY_SUFFIX[suffix]
        names = {name: f"{name}{number}" for name in (*decoder.inputs.split(", "), *decoder.attributes)}
        lines.append(f"part{number} = {call(decoder, names)}")
        inputs += [names[name] for name in decoder.inputs.split(", ")]
        parts.append(f"part{number}")
        decoders.append(decoder)
    lines += [f"weight = Concat <axis = 1> ({', '.join(parts)})", f"{product.outputs} = {call(product)}"]
    return Function(
        product.name.replace(INT8.name, f"BlockMatMulJoined{''.join(suffixes)}", 1),
        ", ".join(", ".join(inputs) if name == "weight" else name for name in product.inputs.split(", ")),
        product.outputs,
        "\n".join(lines),
        f"{product.summary}, decoded apart",
        product.dtypes,
        product.axes,
        calls=(product, *dict.fromkeys(decoders)),
        nested=not _has_int4(suffixes),
    )
