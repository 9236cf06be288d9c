"""How far one output of the compressed model is from the input model's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bct_onnx.arrays import Array

_ROW = 16  # values from which a row is centred: logits, hidden states
_FLAT = 1e-2  # rows that vary by less than this part of their size are not centred
_ZERO_RMS = 1e-6  # an output below this is zero, its direction is noise
_ZERO_TOLERANCE = 1e-3  # how large (root mean square) an answer to zero may be
_HUGE = 1e30  # values written for "masked", like the least float32
_HUGE_FLOAT16 = 65000.0


Products = tuple[float, float, float]  # means of reference squared, reference by output, output squared


@dataclass(frozen=True)
class OutputError:
    """The error of one output over all feeds; None where a figure has no meaning.

    `max_abs`: largest difference. `rel_l2`: norm of the difference over the norm of the reference.
    `cosine`: between the two, rows of 16 and more values centred first, because an offset common to
    a row of logits says nothing (unless rows are flat). Both weigh every feed the same, however many
    values it has.
    `same_argmax`: share of rows (last axis) of all feeds with the same largest value. `same`: share of
    equal values, for integers, booleans and strings, which have none of the others.
    """

    max_abs: float | None = None
    rel_l2: float | None = None
    cosine: float | None = None
    same_argmax: float | None = None
    same: float | None = None


@dataclass(frozen=True)
class FeedError:
    """The sums over one feed from which `pool` makes an OutputError; means over the values of the feed."""

    count: int
    equal: int
    exact: bool  # values that are equal or not: integers, booleans, strings
    max_abs: float = 0.0
    difference: float = 0.0  # mean square
    products: Products = (0.0, 0.0, 0.0)
    centred: Products = (0.0, 0.0, 0.0)
    rows: int = 0
    same_rows: int = 0


def find_mismatch(reference: Array, output: Array) -> str | None:
    """Return what differs in kind: type, shape, places of NaN and infinity; None when nothing does."""
    if reference.dtype != output.dtype:
        return f"has type {output.dtype}, the input model's has {reference.dtype}"
    if reference.shape != output.shape:
        return f"has shape {list(output.shape)}, the input model's has {list(reference.shape)}"
    if reference.dtype.kind != "f":
        return None
    wrong = _marks(reference) != _marks(output)
    if wrong.any():
        return f"has NaN or infinity in other places than the input model's ({int(wrong.sum())} of {wrong.size})"
    return None


def measure(reference: Array, output: Array) -> FeedError:
    """Compare an output of one feed with a reference of the same type and shape."""
    if reference.dtype.kind != "f":
        return FeedError(reference.size, int((reference == output).sum()), exact=True)
    finite = _marks(reference) == 0
    r = np.where(finite, reference, 0).astype(np.float64)
    o = np.where(finite, output, 0).astype(np.float64)
    count = max(1, int(finite.sum()))
    difference = o - r
    has_rows = r.ndim > 0 and r.shape[-1] > 1 and r.size > 0
    same_rows = _argmax(r, finite) == _argmax(o, finite) if has_rows else np.empty(0)
    rc, oc = (_centre(r, finite), _centre(o, finite)) if has_rows and r.shape[-1] >= _ROW else (r, o)
    return FeedError(
        count=r.size,
        equal=int((difference == 0).sum()),
        exact=False,
        max_abs=float(np.abs(difference).max(initial=0.0)),
        difference=float(np.vdot(difference, difference)) / count,
        products=_products(r, o, count),
        centred=_products(rc, oc, count),
        rows=same_rows.size,
        same_rows=int(same_rows.sum()),
    )


def pool(errors: Sequence[FeedError]) -> OutputError:
    """Join the errors of one output over all feeds (at least one)."""
    count = sum(error.count for error in errors)
    if errors[0].exact:
        return OutputError(same=sum(error.equal for error in errors) / count if count else None)
    rows = sum(error.rows for error in errors)
    difference = math.sqrt(sum(error.difference for error in errors) / len(errors))
    reference = math.sqrt(sum(error.products[0] for error in errors) / len(errors))
    near_zero = reference <= _ZERO_RMS and difference <= _ZERO_TOLERANCE
    return OutputError(
        max_abs=max(error.max_abs for error in errors),
        rel_l2=0.0 if near_zero else difference / max(reference, _ZERO_RMS),
        cosine=1.0 if near_zero else _cosine(errors),
        same_argmax=sum(error.same_rows for error in errors) / rows if rows else None,
    )


def _products(reference: Array, output: Array, count: int) -> Products:
    pairs = ((reference, reference), (reference, output), (output, output))
    first, second, third = (float(np.vdot(one, other)) / count for one, other in pairs)
    return first, second, third


def _cosine(errors: Sequence[FeedError]) -> float:
    plain = np.sum([error.products for error in errors], axis=0)
    centred = np.sum([error.centred for error in errors], axis=0)
    rr, ro, oo = centred if centred[0] > _FLAT**2 * plain[0] else plain
    return float(ro / math.sqrt(rr * oo)) if rr > 0 and oo > 0 else 0.0


def _marks(values: Array) -> Array:
    """Return 0 for ordinary numbers, 2 for NaN, 1 and -1 for infinity and numbers as large."""
    limit = _HUGE_FLOAT16 if values.dtype == np.float16 else _HUGE
    return np.where(np.isnan(values), 2, (values > limit).astype(np.int8) - (values < -limit)).astype(np.int8)


def _argmax(values: Array, finite: Array) -> Array:
    return np.asarray(np.where(finite, values, -np.inf).argmax(axis=-1))


def _centre(values: Array, finite: Array) -> Array:
    mean = values.sum(axis=-1, keepdims=True) / np.maximum(1, finite.sum(axis=-1, keepdims=True))
    return np.asarray((values - mean) * finite)
