"""Sizes of axes as sums and products of numbers and names, and small tensors of such sizes."""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Names = tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """A whole number that depends on the sizes of a model's inputs: a polynomial in their names.

    Two that are equal as records are equal in every run; others may be.

    Attributes:
        terms: names that are multiplied, sorted, and their factor, which is not 0; in order of the names.
    """

    terms: tuple[tuple[Names, int], ...]

    @classmethod
    def of(cls, terms: Mapping[Names, int]) -> Size:
        """Return the sum of products of names with their factors."""
        return cls(tuple(sorted((names, factor) for names, factor in terms.items() if factor)))

    @classmethod
    def known(cls, number: int) -> Size:
        """Return a number."""
        return cls.of({(): int(number)})

    @classmethod
    def named(cls, name: str) -> Size:
        """Return a size, above 0, that goes by a name."""
        return cls.of({(name,): 1})

    @property
    def static(self) -> int | None:
        """The number, or None where names are part of it."""
        if len(self.terms) > 1 or any(names for names, _ in self.terms):
            return None
        return self.terms[0][1] if self.terms else 0

    @property
    def is_positive(self) -> bool:
        """Tell whether the number is above 0 in every run."""
        return bool(self.terms) and all(factor > 0 for _, factor in self.terms)

    def __add__(self, other: Size) -> Size:
        """Return the sum."""
        terms = Counter(dict(self.terms))
        for names, factor in other.terms:
            terms[names] += factor
        return Size.of(terms)

    def __sub__(self, other: Size) -> Size:
        """Return the difference."""
        return self + other * Size.known(-1)

    def __mul__(self, other: Size) -> Size:
        """Return the product."""
        terms: Counter[Names] = Counter()
        for (names, factor), (others, by) in itertools.product(self.terms, other.terms):
            terms[tuple(sorted(names + others))] += factor * by
        return Size.of(terms)

    def over(self, other: Size) -> Size | None:
        """Return the quotient by one product of names where nothing remains in any run, or None."""
        if self == other and self.is_positive:
            return ONE
        if len(other.terms) != 1:
            return None
        (names, by), quotient = other.terms[0], {}
        for term, factor in self.terms:
            rest = Counter(term)
            rest.subtract(names)
            if factor % by or min(rest.values(), default=0) < 0:
                return None
            quotient[tuple(sorted(rest.elements()))] = factor // by
        return Size.of(quotient)

    def __str__(self) -> str:
        """Return the sum of products as text."""
        return "+".join("*".join(map(str, (factor, *names))) for names, factor in self.terms) or "0"


ZERO, ONE = Size.known(0), Size.known(1)
Shape = tuple[Size, ...]
# A small tensor: Size for whole numbers and truth values, float, or None for what is not known, as dtype object.
Values = NDArray[Any]
_Element = Size | float | None


def product(sizes: Iterable[Size]) -> Size:
    """Return the product of sizes."""
    return reduce(operator.mul, sizes, ONE)


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape of what several tensors are broadcast to; a number above 1 beats a name."""
    rank = max(map(len, shapes))
    columns = zip(*[(ONE,) * (rank - len(shape)) + shape for shape in shapes], strict=True)
    return tuple(reduce(_wider, column) for column in columns)


def values_of(array: NDArray[Any]) -> Values:
    """Return the elements of a small array of numbers."""
    element: Callable[[Any], _Element] = float if array.dtype.kind == "f" else Size.known
    return each(element, array)


def each(function: Callable[..., _Element], *arrays: Any) -> Values:
    """Return a function of the elements of small arrays, broadcast."""
    return np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), object)


def number(element: _Element) -> float | None:
    """Return an element as a number, or None."""
    return element.static if isinstance(element, Size) else element


def as_whole(element: _Element) -> _Element:
    """Return an element cast to an integer type."""
    return Size.known(int(element)) if isinstance(element, float) and math.isfinite(element) else element


def as_float(element: _Element) -> _Element:
    """Return an element cast to a float type."""
    known = number(element)
    return None if known is None else float(known)


def _wider(a: Size, b: Size) -> Size:
    if b in (a, ONE):
        return a
    if a == ONE or b.static is not None:
        return b
    return a if a.static is not None else Size.named("|".join(sorted({*_choices(a), *_choices(b)})))


def _choices(size: Size) -> list[str]:
    """Return the sizes that a broadcast one may be."""
    (names, factor), *more = size.terms or [((), 0)]
    return names[0].split("|") if not more and factor == 1 and len(names) == 1 else [str(size)]


def lifted(function: Callable[..., Any], sizes: Callable[..., _Element] | None) -> Callable[..., _Element]:
    """Return a function of elements from one of floats and, perhaps, one of sizes."""

    def of_elements(*elements: _Element) -> _Element:
        if all(isinstance(element, Size) for element in elements):
            return sizes(*elements) if sizes else None
        known = [number(element) for element in elements]
        try:
            with np.errstate(all="raise", under="ignore"):
                return None if None in known else float(function(*known))
        except (ArithmeticError, ValueError):
            return None

    return of_elements


def quotient(a: Size, b: Size) -> _Element:
    """Return a / b rounded towards zero, or None."""
    whole, (up, down) = a.over(b), (a.static, b.static)
    if whole is None and up is not None and down is not None and up >= 0 and down > 0:
        return Size.known(up // down)
    return whole


def equal(a: Size, b: Size) -> _Element:
    """Return whether two sizes are equal, as 1 or 0, or None."""
    difference = a - b
    unequal = difference.is_positive or (b - a).is_positive
    return ZERO if unequal else (ONE if not difference.terms else None)


def chosen(condition: _Element, a: _Element, b: _Element) -> _Element:
    """Return one of two elements."""
    known = number(condition)
    return (a if known else b) if known is not None else (a if a == b else None)
