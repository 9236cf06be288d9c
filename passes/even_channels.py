"""Channels of a normalization that products read, shifted by their mean and brought nearer to one size.

    Before: x -- LayerNormalization(g, b) -- y -- MatMul(W) -- Add(c),     y -- other readers
    After:  x -- LayerNormalization(g / s, (b - m) / s) -- MatMul(s * W) -- Add(c + m @ W)
            x -- LayerNormalization(g, b) -- y -- other readers

The same products exactly. A few large channels set the step in which a whole row is quantized; what the channels are
like on inputs made for the model tells m and s: a power of each channel's largest distance from its mean (SmoothQuant,
arXiv 2211.10438, without data) is where a descent begins. A second normalization is cheaper than a pass over its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .base import Rewrite
from .channel_sizes import least_noise
from .channels import large_channels
from .context import ChannelRange, Context
from .formats.column_scale import TINY
from .formats.numbers import half_holds
from .graph.linear import Linear, match_linear
from .layer_normalization.form import Normalization, match_normalization
from .lowerings.stored import store_short
from .moving_biases import MOVED, Biased, biased_product, put_bias, renewed
from .report import Skip

# LayerNormalization as one operator.
OPSET_LAYER_NORMALIZATION = 17
# Powers of the channels' sizes that are tried. Beyond the root, the weight's rows become as uneven as channels were.
POWERS = (0.0, 0.25, 0.5)
# Part of the noise that has to go: less is not worth a second normalization. Measured on photographs and sentences, 0.3
# helps all-MiniLM-L6-v2 as much, and takes from ViT-Tiny more than it gives: biases are then no longer absorbed.
LEAST_GAIN = 0.5


@dataclass(frozen=True)
class Evened:
    """A normalization, and the products that read its evened channels.

    Attributes:
        node: the last node of the normalization.
        form: the normalization.
        mean, size: float64 [width]: what is taken from each channel, and what it is divided by.
        readers: the products, all with biases where a mean is taken.
        biases: the biases of those that have one.
    """

    node: gs.Node
    form: Normalization
    mean: NDArray[np.float64]
    size: NDArray[np.float64]
    readers: tuple[Linear, ...]
    biases: tuple[Biased, ...]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Evened] | None:
    """Return the normalization whose channels, made even, are quantized with less noise."""
    channels = _channels(node, context)
    found = None if channels is None else _evened(channels)
    return None if channels is None or found is None else Rewrite(scope, channels.evened(*found))


def replace(context: Context, matches: list[Rewrite[Evened]]) -> Skip | None:
    """Write the second normalization and change what reads it."""
    rewrite = renewed(matches[0], match, context)
    if rewrite is None:
        return MOVED
    form, evened = rewrite.form.form, rewrite.form
    assert form.bias is not None
    at = context.editor.before(rewrite.scope, evened.node)
    name = evened.node.outputs[0].name
    # Rounded to what the file holds, and sizes and means taken from that: the products stay as they were.
    scale = _as_stored(form.scale / evened.size)
    size = np.divide(form.scale, scale, out=evened.size.copy(), where=scale != 0)
    bias, shifted = (form.bias - evened.mean) / size, len(evened.biases) == len(evened.readers)
    # Where no biases make up for it, nothing is rounded.
    bias = _as_stored(bias) if shifted else bias
    mean = form.bias - bias * size
    values, called = bias.astype(np.float32), f"{name}.even_bias"
    even = at.op(
        "LayerNormalization",
        form.x,
        store_short(at.at_load(), scale.astype(np.float32), f"{name}.even_scale"),
        (store_short(at.at_load(), values, called) if shifted else at.exact(values, called)),
        name=f"{name}.even",
        dtype=np.float32,
        axis=-1,
        epsilon=form.epsilon,
    )
    for biased in evened.biases:
        put_bias(at, biased.holder, biased.index, biased.bias + biased.through(mean))
    for linear in evened.readers:
        matrix = (linear.matrix() * size[:, None]).astype(linear.weight.dtype)
        stored = np.ascontiguousarray(matrix.T) if linear.transpose_weight else matrix
        linear.node.inputs[0] = even
        linear.node.inputs[1] = context.changed(at.constant(stored, linear.weight.source.name), linear.weight.source)
    return None


def _as_stored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers as `store_short` leaves them."""
    return values.astype(np.float16 if half_holds(values, each=True) else np.float32).astype(np.float64)


def _product(node: gs.Node, y: gs.Tensor, context: Context) -> Linear | None:
    """Return the product of y and a weight of its own that a node is."""
    linear = match_linear(node)
    if not isinstance(linear, Linear) or linear.batch or linear.x is not y or linear.transpose_x or context.kept(node):
        return None
    return linear if len(linear.weight.source.outputs) == 1 and linear.weight.dtype == "float32" else None


@dataclass(frozen=True)
class _Channels:
    """A normalization whose channels can be changed, what is known of them, and what reads them, as in `Evened`."""

    node: gs.Node
    form: Normalization
    known: ChannelRange
    readers: tuple[Linear, ...]
    biases: tuple[Biased, ...]

    @property
    def shifted(self) -> bool:
        """Tell whether all products have biases, which make up for what is taken from channels."""
        return len(self.biases) == len(self.readers)

    def evened(self, mean: NDArray[np.float64], size: NDArray[np.float64]) -> Evened:
        """Return the normalization with channels shifted and divided so."""
        return Evened(self.node, self.form, mean, size, self.readers, self.biases)


def _channels(node: gs.Node, context: Context) -> _Channels | None:
    """Return the channels of a normalization that products read, where they can be changed."""
    y = node.outputs[0] if node.outputs else None
    known = None if y is None else context.ranges.get(y.name)
    if y is None or known is None or not context.lowering.integer_rows:
        return None
    if context.editor.opset < OPSET_LAYER_NORMALIZATION:
        return None
    readers = tuple(linear for linear in (_product(each, y, context) for each in y.outputs) if linear)
    form = match_normalization(node, context.is_output) if readers else None
    if not isinstance(form, Normalization) or not form.centered or form.bias is None or form.addends:
        return None
    if form.dtype not in (None, "float32") or any(linear.k != form.width for linear in readers):
        return None
    if len(large_channels(y, form.width, context.is_output)):
        return None  # multiplied apart, in float, which is nearer still
    biases = tuple(biased for biased in (biased_product(linear.node, context) for linear in readers) if biased)
    return _Channels(node, form, known, readers, biases)


def _evened(channels: _Channels) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the means and sizes with the least noise of the products, or None where little is gained.

    One normalization after the other: calls to numpy are so short here that threads wait for each other instead.
    """
    known, readers, shifted = channels.known, channels.readers, channels.shifted
    # Weights that were changed since have other names.
    key = (shifted, *(linear.weight.source.name for linear in readers))
    if key not in known.found:
        known.found[key] = _least_noise_of_products(known, readers, shifted)
    mean, size, left = known.found[key]
    return (mean, size) if left < 1 - LEAST_GAIN else None


def _least_noise_of_products(
    known: ChannelRange, readers: tuple[Linear, ...], shifted: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return means, sizes and the part of the noise that they leave: 1 where nothing is to be done."""
    rows = known.rows.astype(np.float64)
    mean = known.mean.astype(np.float64) if shifted else np.zeros(rows.shape[1])
    distance = np.maximum(known.highest - mean, mean - known.lowest).astype(np.float64)
    nothing = np.zeros_like(mean), np.ones_like(mean), 1.0
    weights = [linear.matrix().astype(np.float32, copy=False) for linear in readers]
    # Noise counts beside what a product tells: its spread over rows.
    with np.errstate(over="ignore", invalid="ignore"):
        centred = (rows - rows.mean(axis=0)).astype(np.float32)
        spreads = [float(np.sqrt(np.square(centred @ weight, dtype=np.float64).mean())) for weight in weights]
    if not np.all(distance > 0) or not all(np.isfinite(spread) and spread > TINY for spread in spreads):
        return nothing
    every = np.hstack([weight / np.float32(spread) for weight, spread in zip(weights, spreads, strict=True)])
    even = distance / np.exp(np.log(distance).mean())
    return least_noise(rows, every, [(mean, even**power) for power in POWERS], shifted)
