"""The shapes of what operators compute."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..shapes import ONE, Shape, Shapes, Size, parameter
from .record import ShapeRule
from .rules import MATRIX, of, unknown, with_axis, without


@of()
def summed(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape of Einsum, where its equation spells out all axes."""
    terms, arrow, output = node.attrs["equation"].replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return None
    known: dict[str, Size] = {}
    for term, tensor in zip(terms.split(","), node.inputs, strict=True):
        known |= dict(zip(term, found.shape(tensor) or (), strict=False))
    return tuple(known.get(letter) or found.fresh() for letter in output)


@of(0, 2)
def attended(found: Shapes, node: gs.Node, query: Shape, value: Shape) -> Shape:
    """Return the shape of Attention."""
    width = value[-1]
    if "kv_num_heads" in node.attrs:  # heads side by side
        heads, groups = (Size.known(node.attrs[name]) for name in ("q_num_heads", "kv_num_heads"))
        width = (width.over(groups) or found.fresh()) * heads
    return (*query[:-1], width)


@of(0)
def attended_rows(found: Shapes, node: gs.Node, query: Shape) -> Shape | None:
    """Return the shape of attention of heads side by side: queries, and values with as many heads or fewer."""
    value = found.shape(node.inputs[2]) if len(node.inputs) > MATRIX and node.inputs[2].name else None
    if len(query) != 3 or value is None or len(value) != len(query):
        return None
    return query if node.op == "GroupQueryAttention" else (*query[:2], value[-1])


@of(0, 1)
def merged_attention(found: Shapes, node: gs.Node, x: Shape, weight: Shape) -> Shape:
    """Return the shape of the runtime's own Attention, which multiplies with weights first."""
    sizes = node.attrs.get("qkv_hidden_sizes")
    return (*x[:-1], Size.known(sizes[2]) if sizes else weight[-1].over(Size.known(3)) or found.fresh())


@of(0, 2)
def embedded(_found: Shapes, _node: gs.Node, ids: Shape, table: Shape) -> Shape:
    """Return the shape of EmbedLayerNormalization: token ids [b, s] and a table [n, width]."""
    return (*ids, table[-1])


def convolved(weight: int = 1, axis: int = 0) -> ShapeRule:
    """Return the rule of Conv and its kin, whose channels are an axis of the weight."""

    @of(0, weight)
    def rule(found: Shapes, node: gs.Node, x: Shape, filters: Shape) -> Shape:
        groups = Size.known(node.attrs.get("group", 1) if axis else 1)
        return (x[0], filters[axis] * groups, *unknown(found, len(x) - MATRIX))

    return rule


@of(0)
def pooled(found: Shapes, _node: gs.Node, x: Shape) -> Shape:
    """Return the shape of AveragePool and its kin, [n, channels, ...]."""
    return (*x[:MATRIX], *unknown(found, len(x) - MATRIX))


@of(0)
def pooled_whole(_found: Shapes, _node: gs.Node, x: Shape) -> Shape:
    """Return the shape of GlobalAveragePool and its kin."""
    return (*x[:MATRIX], *[ONE] * (len(x) - MATRIX))


@of(0)
def along_axis(found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of TopK: one axis of the first input has an unknown size."""
    return with_axis(x, int(node.attrs.get("axis", -1)) % len(x), found.fresh())


@of()
def counted(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape of Range."""
    start, limit, step = (None if v is None else v.reshape(-1)[0] for v in map(found.values, node.inputs))
    if isinstance(start, Size) and isinstance(limit, Size) and step == ONE and (limit - start).is_positive:
        return (limit - start,)
    return (found.fresh(),)


@of()
def axes_of(found: Shapes, node: gs.Node) -> Shape:
    """Return the shape of Shape."""
    x, part = found.shape(node.inputs[0]), slice(node.attrs.get("start"), node.attrs.get("end"))
    return (found.fresh() if x is None else Size.known(len(x[part])),)


@of()
def number(_found: Shapes, _node: gs.Node) -> Shape:
    """Return the shape of one number."""
    return ()


@of()
def reduced(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape of a reduction, over the axes that it is told or all."""
    shape, keeps = found.shape(node.inputs[0]), node.attrs.get("keepdims", 1)
    told = "axes" in node.attrs or (len(node.inputs) > 1 and bool(node.inputs[1].name))
    axes = parameter(found, node, 1, "axes") if told else []
    whole = axes == [] and not node.attrs.get("noop_with_empty_axes")
    if shape is None:
        return () if whole and not keeps else None
    if axes is None:
        return unknown(found, len(shape)) if keeps else None
    return without(shape, [*range(len(shape))] if whole else axes, keeps)


@of(0)
def found_along_axis(_found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of ArgMax and ArgMin."""
    return without(x, [int(node.attrs.get("axis", 0))], node.attrs.get("keepdims", 1))


def normalized(found: Shapes, node: gs.Node) -> list[Shape | None]:
    """Return the shapes of LayerNormalization and its kin: of the result, and of the statistics of rows."""
    x, axis = found.shape(node.inputs[0]), int(node.attrs.get("axis", -1))
    statistics = None if x is None else (*x[:axis], *[ONE] * len(x[axis:]))
    return [x, statistics, statistics]


def normalized_sum(found: Shapes, node: gs.Node) -> list[Shape | None]:
    """Return the shapes of SkipLayerNormalization: of the result and, last, of the sum."""
    x = found.shape(node.inputs[0])
    return [x, None, None, x]


def quantized(found: Shapes, node: gs.Node) -> list[Shape | None]:
    """Return the shapes of DynamicQuantizeLinear: of the codes, of one scale, of one zero point."""
    return [found.shape(node.inputs[0]), (), ()]
