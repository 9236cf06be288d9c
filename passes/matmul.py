"""MatMul and Gemm with a constant weight: the weight as codes, the multiplication in integers.

    Before: x [..., k], weight float [k, n] -- MatMul or Gemm -> [..., n]
    After:  x -- lowering.multiply(codes) -- (Mul alpha) -- (Add bias) -> [..., n]

Products of the same x (query, key and value) become one, with the columns side by side:

    Before: x -- MatMul(q) -- Add(bias q),  x -- MatMul(k) -- Add(bias k),  x -- MatMul(v) -- Add(bias v)
    After:  x -- lowering.multiply(q | k | v) -- Add(bias q | k | v) -- Split -> three outputs

or, where some have none, Split before the Adds of the others. Where their codes have widths of their own, they are
decoded apart and joined when the session is made.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from dataclasses import replace as with_changes

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .channels import (
    MOST_LARGE,
    Channels,
    even_rows,
    fill_rows,
    has_units,
    large_channels,
    raw_origin,
    usual_peak,
    without,
)
from .context import Context, weight_key
from .functions.quantize_rows import least_peak
from .graph.editor import Emitter
from .graph.linear import Linear, added_bias, as_vector, match_linear
from .graph.shapes import rank
from .lowerings.base import StoredWeight
from .lowerings.join import join_columns
from .lowerings.operators import reshape, split_last
from .patterns.floor import lowest
from .report import TOGETHER, Skip

COMPUTES = True
# Query, key and value, or gate and up. More readers of one tensor (the cross-attentions of a whole decoder) stay apart:
# their products are needed at different times.
MOST_MERGED = 3
MATRIX = 2
# Below this the codes and their decoding outweigh the floats.
SMALLEST_WEIGHT_BYTES = 1024
# Errors of codes average out over a sum; of two or three coordinates each one counts, and there is nothing to gain.
SHORTEST_SUM = 9


@dataclass(frozen=True)
class Product:
    """A product with a constant weight, and the Add of a constant bias that follows it.

    Attributes:
        scope: the graph or body.
        linear: the product.
        bias: the constant that is added, [n], or None.
        add: the node that adds it, or None.
        raw: whether its activation has floats as the graph's inputs bring them.
        units: whether its activation's channels have units of their own.
        floor: how low its activation falls at most, where that is of use, or None.
    """

    scope: gs.Graph
    linear: Linear
    bias: NDArray[np.floating] | None
    add: gs.Node | None
    raw: bool
    units: bool
    floor: float | None

    @property
    def node(self) -> gs.Node:
        """The MatMul or Gemm."""
        return self.linear.node

    @property
    def merges(self) -> bool:
        """Tell whether the columns can stand beside those of another product."""
        linear = self.linear
        plain = not (linear.batch or linear.transpose_x or linear.alpha != 1 or linear.beta != 1)
        return plain and (linear.bias is None or self.bias is not None)

    @property
    def last(self) -> gs.Node:
        """The node whose output the rewrite produces."""
        return self.add or self.linear.node


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Product | Skip | None:
    """Return the product a MatMul or Gemm stands for."""
    linear = match_linear(node)
    if not isinstance(linear, Linear):
        return linear
    if linear.weight.nbytes < SMALLEST_WEIGHT_BYTES:
        return Skip(f"its weight has {linear.weight.nbytes} bytes, fewer than {SMALLEST_WEIGHT_BYTES}")
    if linear.batch and not context.lowering.batches:
        return Skip(f"its weight of shape {list(linear.weight.shape)} is a batch of matrices")
    if is_short(linear):
        return Skip(f"its sums have {linear.k} products, fewer than {SHORTEST_SUM}: too few to even out errors")
    bias, add = _bias(context, scope, linear)
    origin = raw_origin(linear.x, linear.k)
    units = any(origin) or has_units(linear)
    return Product(scope, linear, bias, add, origin.floats, units, _floor(context, linear))


def is_short(linear: Linear) -> bool:
    """Tell whether a product sums up too few numbers to be computed with codes: its weight stays as it is."""
    return linear.k < SHORTEST_SUM


def groups(matches: list[Product]) -> list[list[Product]]:
    """Return the products that become one multiplication together, in graph order of their first."""
    readers: defaultdict[tuple[object, ...], list[Product]] = defaultdict(list)
    for product in matches:
        linear = product.linear
        alone = () if product.merges else (id(linear.node),)
        readers[(linear.x.name, id(product.scope), linear.k, linear.weight.dtype, *alone)].append(product)
    merged = {id(group[0]): group for group in readers.values() if 1 < len(group) <= MOST_MERGED}
    taken = {id(product) for group in merged.values() for product in group[1:]}
    return [merged.get(id(product), [product]) for product in matches if id(product) not in taken]


def replace(context: Context, matches: list[Product]) -> Skip | None:
    """Rewrite one product, or several of the same x as one."""
    linears = [product.linear for product in matches]
    first, several = linears[0], len(linears) > 1
    matrix = np.hstack([linear.matrix() for linear in linears]) if several else first.matrix()
    channels = _channels(context, matches[0], matrix)
    if isinstance(channels, Skip):
        return channels
    weight = _stored(context, linears, matrix, channels)
    if isinstance(weight, Skip):
        return weight
    at = context.editor.before(matches[0].scope, first.node)
    x, name = _activation(context, at, matches[0]), weight.name
    node = TOGETHER.join(match.node.name for match in matches)
    if first.batch:
        weight = _batched(at, weight, first, name)
    if channels:
        y = context.lowering.multiply(at, channels.scale(at, x), weight, name, node)
        y = channels.add_apart(at, y, x, matrix, name)
    else:
        y = context.lowering.multiply(at, x, weight, name, node, matches[0].floor)
    if several:
        _split(at, matches, y, name)
    else:
        _finish(at, matches[0], y, name)
    return None


def _stored(
    context: Context, linears: list[Linear], matrix: NDArray[np.floating], channels: Channels | None
) -> StoredWeight | Skip:
    """Return the weight of one product, or of several of the same x side by side, as `matrix` holds it."""
    sources = [linear.weight.source for linear in linears]
    keys = [weight_key(linear.weight, linear.transpose_weight) for linear in linears]
    x = None if channels else linears[0].x.name
    if channels is None and context.stores_apart(sources):
        # All of them or none: what is stored stays in the file.
        for linear, source in zip(linears, sources, strict=True):
            if reason := context.uncodable(linear.matrix(), [source]):
                return reason
        parts = [
            context.store(key, [source], linear.matrix, activation=x)
            for key, source, linear in zip(keys, sources, linears, strict=True)
        ]
        return join_columns(context.editor.at_load(), [part for part in parts if isinstance(part, StoredWeight)])
    key = tuple(keys) if len(keys) > 1 else keys[0]
    return context.store(
        (*key, channels.divisor.tobytes()) if channels and channels.scaled else key,
        sources,
        lambda: channels.rows(matrix) if channels else matrix,
        activation=x,
    )


def _bias(context: Context, scope: gs.Graph, linear: Linear) -> tuple[NDArray[np.floating] | None, gs.Node | None]:
    """Return the constant bias vector of a product and the Add that adds it, if there is one."""
    if linear.node.op == "Gemm":
        return (None if linear.bias is None else as_vector(linear.bias, linear.n)), None
    added = None if context.is_output(linear.node.outputs[0]) else added_bias(linear)
    inside = added is not None and any(node is added[1] for node in scope.nodes)
    return added if added is not None and inside else (None, None)


def _channels(context: Context, product: Product, matrix: NDArray[np.floating]) -> Channels | Skip | None:
    """Return what is done about the channels of a product's activation, or why it stays float."""
    linear = product.linear
    if product.units:
        return even_rows(matrix, 0 if linear.batch else MOST_LARGE * linear.k)
    large = large_channels(linear.x, linear.k, context.is_output)
    if len(large) > MOST_LARGE * linear.k or (len(large) and linear.batch):
        return Skip(f"{len(large)} of its activation's {linear.k} channels are many times as large as the others")
    return without(large, linear.k)


def _activation(context: Context, at: Emitter, product: Product) -> gs.Tensor:
    """Return a product's activation as float32 [..., k], with NaN and infinity such that codes do not lose them."""
    linear = product.linear
    x = context.as_float(at, linear.x, linear.weight.dtype)
    if linear.transpose_x:
        x = at.op("Transpose", x, name=f"{linear.x.name}.transposed", perm=[1, 0])
    return context.once("filled", at, x, fill_rows) if product.raw else x


def _floor(context: Context, linear: Linear) -> float | None:
    """Return a value that no element of an activation is below, where its rows reach up to as many codes as it wants.

    A step is then the same for all rows that stay low: where all do, their values would be lost in it.
    """
    found = lowest(linear.x, context.is_output)
    if found is None or not found.floor:
        return None if found is None else found.floor
    return found.floor if usual_peak(found.x, context.is_output) >= least_peak(found.floor) else None


def _batched(at: Emitter, weight: StoredWeight, linear: Linear, name: str) -> StoredWeight:
    """Return a weight stored as [k, batch * n] seen as [*batch, k, n], and its scale as [*batch, 1, n]."""
    load, batch = at.at_load(), linear.batch
    values = reshape(load, weight.values, (linear.k, *batch, linear.n), f"{name}.apart")
    order = [*range(1, len(batch) + 1), 0, len(batch) + 1]
    return with_changes(
        weight,
        values=load.op("Transpose", values, name=f"{name}.batch", perm=order),
        scale=reshape(load, weight.scale, (*batch, 1, linear.n), f"{name}.batch_scale"),
    )


def _split(at: Emitter, products: list[Product], y: gs.Variable, name: str) -> None:
    """Give each product its columns of y, [..., sum of n], with constant biases added: at once where all have one."""
    sizes = [product.linear.n for product in products]
    dtype = products[0].linear.weight.dtype
    biases = [product.bias for product in products if product.bias is not None]
    together = len(biases) == len(products)
    if together:
        bias = np.concatenate(biases).astype(np.float32)
        y = at.op("Add", y, at.exact(bias, f"{name}.bias"), name=f"{name}.biased", dtype=np.float32)
    outputs = [at.take(product.last) for product in products]
    for product in products:
        product.linear.node.outputs.clear()
    alone = [not together and product.bias is not None for product in products]
    parts = [
        at.variable(f"{name}.part", np.dtype(dtype)) if add else output
        for add, output in zip(alone, outputs, strict=True)
    ]
    split_last(at, at.as_type(y, dtype, name), parts, sizes)
    for product, part, output in zip(products, parts, outputs, strict=True):
        if part is not output:
            assert product.bias is not None
            row = at.constant(product.bias.astype(dtype)[None, :], f"{name}.bias")
            at.op("Add", part, row, name=output.name, output=output)


def _finish(at: Emitter, product: Product, y: gs.Variable, name: str) -> None:
    """Apply alpha and beta * bias, or the bias of the Add that follows, and write the product's output."""
    linear = product.linear
    dtype = np.dtype(linear.weight.dtype)
    if linear.alpha != 1:
        y = at.op("Mul", y, at.constant(np.array(linear.alpha, np.float32), "alpha"), name=f"{name}.alpha")
    y, bias = at.as_type(y, dtype.name, name), linear.bias
    if product.add is not None and product.bias is not None and (rank(linear.x) or 0) >= MATRIX:
        # A row, not a vector: with a vector the session fuses Add and Gelu into BiasGelu, which is slower than the two.
        # Exact: what is shifted into biases makes them large, and float16 would err for every row alike.
        row = at.exact(product.bias[None, :], f"{name}.bias")
        at.deliver(at.op("Add", y, row, name=f"{name}.biased"), product.add)
        return
    if bias is not None:
        if linear.beta != 1:
            bias = at.op("Mul", bias, at.constant(np.array(linear.beta, dtype), "beta"), name=f"{name}.bias")
        y = at.op("Add", y, bias, name=f"{name}.biased")
    at.deliver(y, linear.node)
