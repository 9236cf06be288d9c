"""RowAttention and HeadAttention: scaled products of queries and keys, a mask, Softmax, products with values.

    q [b, s, h * d], k [b, t, g * d], v [b, t, g * e] -- RowAttention -> y [b, s, h * e]
    q [b, h, s, d], k [b, g, t, d], v [b, g, t, e] -- HeadAttention -> y [b, h, s, e]

Each of g heads of keys and values is shared by h / g heads of the query that are neighbours. What is added to the
scores is [s, t], or that of all heads, or of each, [b or 1, h or 1, s, t]. A query all of whose scores are the lowest
float or below gets zeros; where a score or a number that it is multiplied with is NaN, so is what comes of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .function import Function

LOWEST = np.finfo(np.float32).min
# A number by which kernels err that multiply in bfloat16, relative to it.
BFLOAT16 = 2.0**-8


def reference(
    q: NDArray[np.floating[Any]],
    k: NDArray[np.floating[Any]],
    v: NDArray[np.floating[Any]],
    mask: NDArray[np.floating[Any]] | float = 0.0,
    *,
    scale: float,
) -> NDArray[np.floating[Any]]:
    """Return y [b, h, s, e] of q [b, h, s, d], k [b, g, t, d], v [b, g, t, e] and what is added to the scores.

    In float32 products err by roundings of their sums. A kernel with products in bfloat16 (AMX) takes q, k, the shares
    and v with errors of at most 2^-9 each, so that scores err by 2^-8 * scale * |q| . |k|, and y, where scores are
    exact, by 2^-8 * share . |v|; numbers above 3.389e38 are infinite there.
    """
    shared = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, shared, axis=1) for x in (k, v))
    with np.errstate(all="ignore"):
        scores = q.dtype.type(scale) * (q @ np.swapaxes(k, 2, 3)) + mask
        highest = scores.max(axis=-1, keepdims=True)
        shares = np.exp(scores - highest)
        shares = np.where(highest <= LOWEST, 0, shares / shares.sum(axis=-1, keepdims=True))
        y: NDArray[np.floating[Any]] = (shares @ v).astype(q.dtype)
        return y


def apart(rows: NDArray[np.floating[Any]], heads: int) -> NDArray[np.floating[Any]]:
    """Return [b, h, s, d] of [b, s, h * d]."""
    return rows.reshape(*rows.shape[:2], heads, rows.shape[2] // heads).transpose(0, 2, 1, 3)


_COUNTS = ", q_num_heads: int = @q_num_heads, kv_num_heads: int = @kv_num_heads"


def _function(name: str, counts: str, inputs: str) -> Function:
    body = f"y = Attention <scale: float = @scale{counts}> ({inputs})"
    return Function(name, inputs, "y", body, "Softmax(scale * q @ k^T + mask) @ v, a head each")


# By whether heads come first, and whether there is a mask.
ATTENTION = {
    (False, False): _function("RowAttention", _COUNTS, "q, k, v"),
    (False, True): _function("RowAttentionMasked", _COUNTS, "q, k, v, mask"),
    (True, False): _function("HeadAttention", "", "q, k, v"),
    (True, True): _function("HeadAttentionMasked", "", "q, k, v, mask"),
}
