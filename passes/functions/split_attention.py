"""SplitRowAttention: RowAttention of a query, keys and values that lie side by side, as one product makes them.

    qkv [b, s, h * d + g * d + g * e] -- Split(sizes) -- q [b, s, h * d], k [b, s, g * d], v [b, s, g * e]
    q, k, v -- Add(q_bias [h * d]), Add(v_bias [g * e]) where there are such -- RowAttention -> y [b, s, h * e]

Bodies are these nodes. A library of kernels reads the three where they lie. Keys have none: Softmax does not see it.
"""

from __future__ import annotations

from .attention import ATTENTION
from .function import Function, call

PARTS = ("q", "k", "v")
# Which parts may have a bias, by the name that this adds.
BIASED = {"": (), "BiasQ": ("q",), "BiasV": ("v",), "BiasQV": ("q", "v")}


def _function(ending: str, biased: tuple[str, ...], masked: bool) -> Function:
    attention = ATTENTION[False, masked]
    split = ", ".join(f"{part}_part" if part in biased else part for part in PARTS)
    lines = [
        "lengths = Constant <value_ints: ints = @sizes> ()",
        f"{split} = Split <axis = -1> (qkv, lengths)",
        *(f"{part} = Add ({part}_part, {part}_bias)" for part in biased),
        f"y = {call(attention)}",
    ]
    return Function(
        attention.name.replace("RowAttention", f"SplitRowAttention{ending}"),
        ", ".join(["qkv", *(f"{part}_bias" for part in biased), *(["mask"] if masked else [])]),
        "y",
        "\n".join(lines),
        f"{attention.summary}, of query, keys and values side by side",
        calls=(attention,),
    )


# By the parts that have a bias, and whether there is a mask.
SPLIT_ATTENTION = {
    (biased, masked): _function(ending, biased, masked) for ending, biased in BIASED.items() for masked in (False, True)
}
