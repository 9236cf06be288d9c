"""Channels of an activation that one scale a row does not suit: which they are, and what is done about them.

raw        rows that a graph's input brings, mixed by no product or normalization: their channels have units of their
           own, and the weight's rows tell which, as small values meet large rows. Each channel is multiplied with a
           power of two, and its row divided by it, so that all rows are of one size: x @ W = (x * f) @ (W / f).
           A few large rows are multiplied apart, as below.
           So is what another product makes in such units.
large      channels that a normalization's own scale and bias make many times the others: their few rows of the weight
           stay float, x @ W = (x * f) @ W + x[large] @ W[large], where f is 0 for them and 1 for the others.
table      columns of a table that are many times the others, as some channels of embeddings are: what is looked up is
           multiplied with their powers of two.
NaN        or infinity in one place of a row: integers would lose it. A row that is NaN as a whole has a scale of NaN,
           and so its product; what is raw is filled, x + sum(|x - x|), which adds 0 to every other row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .graph.axes import reduced_axes
from .graph.constants import FLOATS, resolve
from .graph.editor import Emitter
from .graph.linear import Linear, added_bias, as_vector, match_linear
from .graph.operators import Trait, traits_of
from .graph.types import element_type
from .graph.walk import is_standard
from .layer_normalization.form import Normalization, match_normalization
from .lowerings.operators import reduce_last
from .patterns.region import IsOutput

# Rows of a raw activation's weight are brought to one size where the largest is this many times the smallest.
# Trained layers further in reach thousands with units that died, whose values are as small: they are left alone.
WIDEST_ROWS = 64
# A channel is large from this many times the median on. Trained normalizations (BERT, Whisper, Llama) reach 14.
LARGE = 16
# At most this part of the channels is multiplied in float; beyond, the whole product is.
MOST_LARGE = 1 / 8
# Powers of two that factors stay between, far within float32.
LEAST_POWER = -60
# Between two products, what leaves channels about as large as they were.
BETWEEN = frozenset({"Add", "Cast", "Dropout", "Gelu", "Identity", "LeakyRelu", "Mul", "Relu", "Sub"})
# Between a row's statistic and the row that it normalizes.
AFTER_STATISTICS = frozenset({"Add", "Clip", "Div", "Max", "Pow", "Reciprocal", "Sqrt"})


@dataclass(frozen=True)
class Channels:
    """What is done about the channels of one activation.

    Attributes:
        factor: powers of two, or zeros for channels apart, float32 [k].
        divisor: what the rows of the weight are divided by, float32 [k]: infinity where they are left out.
        apart: channels whose product is float, [few].
    """

    factor: NDArray[np.float32]
    divisor: NDArray[np.float32]
    apart: NDArray[np.int64]

    @property
    def scaled(self) -> bool:
        """Tell whether the weight is another one than without factors."""
        return bool(np.any(self.divisor != 1))

    def rows(self, matrix: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the weight [k, n] that the scaled activation is multiplied with."""
        with np.errstate(over="ignore"):  # what becomes infinite is refused where weights are stored
            return matrix / self.divisor[:, None] if self.scaled else matrix

    def scale(self, at: Emitter, x: gs.Tensor) -> gs.Variable:
        """Write the activation [..., k] with its channels scaled."""
        return at.op("Mul", x, at.exact(self.factor, f"{x.name}.factors"), name=f"{x.name}.even", dtype=np.float32)

    def add_apart(
        self, at: Emitter, y: gs.Variable, x: gs.Tensor, matrix: NDArray[np.floating], name: str
    ) -> gs.Variable:
        """Write y [..., n] with the product of the channels apart, of `x` as it was."""
        if not len(self.apart):
            return y
        large = at.op("Gather", x, at.constant(self.apart, f"{name}.large"), name=f"{x.name}.large", axis=-1)
        rows = at.exact(matrix[self.apart].astype(np.float32), f"{name}.large_rows")
        product = at.op("MatMul", large, rows, name=f"{name}.large_product")
        return at.op("Add", y, product, name=f"{name}.whole", dtype=np.float32)


def even_rows(matrix: NDArray[np.floating], most_apart: float) -> Channels | None:
    """Return the factors that bring the rows of a raw activation's weight, [k, n], to one size; None where they are.

    A few large rows, at most `most_apart`, are multiplied apart: should their values be no smaller than the others, the
    steps that these ask for would be too large for all rows. Rows of zeros, whose channels do not matter, get the
    smallest factor.
    """
    size = _sizes(matrix, axis=1)
    if _spread(size) < WIDEST_ROWS:
        return None
    large = size > LARGE * np.median(size[size > 0])
    large &= large.sum() <= most_apart
    rest = size[~large]
    powers = np.zeros(len(size))
    if _spread(rest) >= WIDEST_ROWS:
        powers[~large] = np.floor(np.log2(np.where(rest > 0, rest, rest[rest > 0].min()) / rest.max()))
    factor = np.exp2(np.maximum(powers, LEAST_POWER)).astype(np.float32)
    found = Channels(np.where(large, 0, factor), np.where(large, np.inf, factor), np.flatnonzero(large))
    return found if found.scaled else None


def even_large_rows(matrix: NDArray[np.floating]) -> Channels | None:
    """Return the factors that bring the few large rows of a matrix, [k, n], to the size of most; None where none are.

    `rows(matrix)` then has them even, and what is looked up in it is multiplied with the factors.
    """
    size = _sizes(matrix, axis=1)
    median = np.median(size[size > 0]) if size.any() else 1.0
    large = size > LARGE * median
    if not large.any() or not np.isfinite(size).all():
        return None
    powers = np.where(large, np.floor(np.log2(np.maximum(size, median) / median)), 0)
    factor = np.exp2(np.minimum(powers, -LEAST_POWER)).astype(np.float32)
    return Channels(factor, factor, np.zeros(0, np.int64))


def large_channels(x: gs.Tensor, k: int, is_output: IsOutput) -> NDArray[np.int64]:
    """Return the channels, [few], that the normalization which makes x, [..., k], makes many times the others."""
    form = match_normalization(x.inputs[0], is_output) if x.inputs else None
    if not isinstance(form, Normalization) or form.width != k:
        return np.zeros(0, np.int64)
    size = np.hypot(form.scale, 0 if form.bias is None else form.bias)
    median = np.median(size[size > 0]) if size.any() else 1.0
    return np.flatnonzero(size > LARGE * median)


def usual_peak(x: gs.Tensor, is_output: IsOutput) -> float:
    """Return what rows of a product of a normalization usually reach: n normal numbers reach sqrt(2 ln n) deviations.

    0 where x is no such product (and perhaps a bias): nothing is known of its size.
    """
    node = x.inputs[0] if x.inputs else None
    bias: NDArray[np.floating] | float = 0.0
    if node is not None and node.op == "Add":
        product = next((each.inputs[0] for each in node.inputs if each.inputs and each.inputs[0].op == "MatMul"), None)
        linear = match_linear(product) if product is not None else None
        added = added_bias(linear) if isinstance(linear, Linear) else None
        bias, node = (added[0], product) if added is not None and added[1] is node else (0.0, None)
    linear = match_linear(node) if node is not None else None
    if not isinstance(linear, Linear) or linear.batch or not linear.x.inputs:
        return 0.0
    form = match_normalization(linear.x.inputs[0], is_output)
    if not isinstance(form, Normalization) or form.width != linear.k:
        return 0.0
    matrix = linear.matrix().astype(np.float32, copy=False)
    # Sizes beyond float32 come out as infinity or NaN: neither is a reason to rely on.
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.sqrt(np.square(form.scale) @ np.square(matrix))
        offset = (0.0 if form.bias is None else form.bias @ matrix) + bias
        if linear.bias is not None:
            gemm = as_vector(linear.bias, linear.n)
            offset = offset + (0.0 if gemm is None else gemm)
        peak = float(np.max(offset + np.sqrt(2 * np.log(linear.n)) * spread, initial=0))
    return peak if np.isfinite(peak) else 0.0


def without(large: NDArray[np.int64], k: int) -> Channels | None:
    """Return how `large` of k channels are multiplied apart, or None for none of them."""
    factor, whole = np.ones(k, np.float32), np.ones(k, np.float32)
    factor[large] = 0
    # Their rows stay in the weight, which may be that of other products, too: it is as even as it was.
    return Channels(factor, whole, large) if len(large) else None


class Origin(NamedTuple):
    """What an activation is made of before anything mixes its rows: floats, or whole numbers, that inputs bring."""

    floats: bool
    integers: bool


def raw_origin(x: gs.Tensor, k: int) -> Origin:
    """Return which of a graph's inputs reach x, [..., k], before anything mixes the values of its rows."""
    seen, new, floats, integers = {id(x)}, [x], False, False
    while new:
        tensor = new.pop()
        if isinstance(tensor, gs.Constant) or not tensor.name:
            continue
        if not tensor.inputs:
            is_float = element_type(tensor) in (None, *FLOATS)
            floats, integers = floats or is_float, integers or not is_float
            continue
        node = tensor.inputs[0]
        if Trait.SHAPES in traits_of(node) or _mixes(node, k):
            continue
        # What is looked up is data, not the indices.
        read = node.inputs[:1] if node.op == "Gather" else node.inputs
        for each in read:
            if id(each) not in seen:
                seen.add(id(each))
                new.append(each)
    return Origin(floats, integers)


def has_units(linear: Linear) -> bool:
    """Tell whether a product's activation is another product whose columns are large where its own rows are small."""
    node = linear.x.inputs[0] if linear.x.inputs else None
    while node is not None and node.op in BETWEEN:
        behind = [each for each in node.inputs if each.inputs and resolve(each) is None]
        node = behind[0].inputs[0] if len(behind) == 1 else None
    before = match_linear(node) if node is not None else None
    if not isinstance(before, Linear) or before.batch or before.n != linear.k:
        return False
    rows = _sizes(linear.matrix(), axis=1)
    if _spread(rows) < WIDEST_ROWS:
        return False
    columns = _sizes(before.matrix(), axis=0)
    return bool(_spread(rows * columns) * np.sqrt(WIDEST_ROWS) <= _spread(rows))


def fill_rows(at: Emitter, x: gs.Tensor) -> gs.Variable:
    """Write float32 x [..., k] with rows that hold NaN or infinity all NaN, and the others as they are."""
    nothing = at.op("Sub", x, x, name=f"{x.name}.nothing", dtype=np.float32)
    poison = reduce_last(at, "ReduceMean", nothing, f"{x.name}.poison")
    # Not Add, which is taken for a reader of floats: what reads this are quantizers.
    return at.op("Sum", x, poison, name=f"{x.name}.filled", dtype=np.float32)


def _sizes(matrix: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """Return the largest magnitudes along an axis, without a copy of the matrix."""
    size: NDArray[np.float64] = np.maximum(matrix.max(axis=axis), -matrix.min(axis=axis)).astype(np.float64)
    return size


def _spread(sizes: NDArray[np.float64]) -> float:
    """Return how many times the smallest size that is not 0 the largest is; 1 where one is no number, or all are 0."""
    found = sizes[sizes > 0]
    return float(found.max() / found.min()) if found.size and np.isfinite(sizes).all() else 1.0


def _mixes(node: gs.Node, k: int) -> bool:
    """Tell whether what a node makes has NaN in all of a row of k values, or in none."""
    linear = match_linear(node)
    if isinstance(linear, Linear):
        return linear.n >= k  # flattened, rows are of several
    if Trait.MIXES in traits_of(node):
        scale = resolve(node.inputs[1]) if Trait.NORMALIZES in traits_of(node) else None
        return scale is None or scale.shape == () or scale.shape[-1] >= k
    if reduced_axes(node) == [-1]:
        return True  # one value for all of a row
    # (x - mean(x)), x / root(mean(x^2)): normalizations in parts
    return is_standard(node) and node.op in ("Div", "Mul", "Sub") and any(map(_is_statistic, node.inputs))


def _is_statistic(tensor: gs.Tensor) -> bool:
    """Tell whether a tensor is made of one sum over rows, and constants."""
    while tensor.inputs:
        node = tensor.inputs[0]
        if Trait.REDUCES in traits_of(node):
            return True
        variables = [each for each in node.inputs if each.name and resolve(each) is None]
        if node.op not in AFTER_STATISTICS or len(variables) != 1:
            return False
        tensor = variables[0]
    return False
