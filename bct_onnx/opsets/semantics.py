"""Standard operators that mean something else from some opset on, where ONNX's converter leaves them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from bct_onnx.arrays import Array
from bct_onnx.files.order import bodies, graphs_of, nodes_of

STANDARD = ("", "ai.onnx")
# Newest opset whose Resize and Upsample divide a pixel's place by the scale, and nothing else.
LAST_ASYMMETRIC = 10
# Newest opset whose Hardmax looks for the largest of all that its axis and those behind it hold.
LAST_FLATTENED = 12
# Opsets whose GroupNormalization has a scale a group; from 21 on it is one a channel.
SCALE_A_GROUP = range(18, 21)
# Newest opset whose Scan goes through every row of a batch by itself.
LAST_BATCHED_SCAN = 8
# Newest opset whose Pad has its value as an attribute, which the converter leaves where nothing is filled with it.
LAST_VALUED_PAD = 10
# Newest opset whose Dropout, which drops nothing here, has a mask of zeros; then of ones.
LAST_EMPTY_MASK = 11


class _Names:
    """Makes names that nothing in a model has."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.taken = {name for node in nodes_of(graph) for name in (*node.input, *node.output)}

    def __call__(self, stem: str) -> str:
        while stem in self.taken:
            stem += "_"
        self.taken.add(stem)
        return stem


@dataclass(frozen=True)
class Rewrite:
    """Old operators in words that mean the same in every opset.

    Attributes:
        op: the operator.
        opsets: those in which it has the old meaning.
        write: from the node and a maker of names to the nodes in its place.
    """

    op: str
    opsets: range
    write: Callable[[NodeProto, _Names], Iterator[NodeProto]]


def preserve_semantics(model: onnx.ModelProto, opset: int) -> str | None:
    """Rewrite what the converter would change in a model at `opset`; return what cannot be kept, in words."""
    if lost := next(filter(None, (_lost(node, opset) for node in nodes_of(model.graph))), None):
        return lost
    rewrites = {each.op: each for each in REWRITES if opset in each.opsets}
    if any(node.op_type in rewrites for node in nodes_of(model.graph)):
        _rewrite(model.graph, rewrites, _Names(model.graph))
    return None


def _lost(node: NodeProto, opset: int) -> str | None:
    """Return which meaning of a node cannot be kept, in words."""
    if node.domain not in STANDARD:
        return None
    if node.op_type == "Dropout" and opset <= LAST_EMPTY_MASK and any(node.output[1:]):
        return f"the mask of Dropout {node.name or node.output[0]!r} has another meaning from opset 12 on"
    if node.op_type == "Scan" and opset <= LAST_BATCHED_SCAN:
        return f"Scan {node.name or ''.join(node.output[:1])!r} has an axis for batches until opset 8"
    return None


def mend_resize(graph: onnx.GraphProto, before: int) -> str | None:
    """Let Resize, and what was Upsample, place pixels as before opset 11; return what cannot be kept, in words.

    The converter leaves that to defaults. ONNX Runtime took the nearest pixel before a place where pictures grow, the
    one behind it where they shrink; Upsample only lets them grow.
    """
    if before > LAST_ASYMMETRIC:
        return None
    constants = _constants(graph)
    for node in nodes_of(graph):
        if node.op_type != "Resize" or node.domain not in STANDARD:
            continue
        scales, nearest = constants.get("".join(node.input[2:3])), "floor"
        if before == LAST_ASYMMETRIC and _mode(node, b"nearest") == b"nearest":
            if scales is None or scales.min() < 1 < scales.max():
                return f"Resize {node.name or node.output[0]!r} has other nearest pixels from opset 11 on"
            nearest = "ceil" if scales.min() < 1 else "floor"
        named = {attribute.name for attribute in node.attribute}
        old = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": nearest}
        node.attribute.extend(helper.make_attribute(k, v) for k, v in old.items() if k not in named)
    return None


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Return the constants of a graph and its bodies that are floats and hold their data."""
    made = (node for node in nodes_of(graph) if node.op_type == "Constant")
    tensors = {node.output[0]: a.t for node in made for a in node.attribute if a.HasField("t")}
    tensors |= {tensor.name: tensor for each in graphs_of(graph) for tensor in each.initializer}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.data_type == onnx.TensorProto.FLOAT}
    return {name: numpy_helper.to_array(tensor) for name, tensor in floats.items() if not tensor.external_data}


def _rewrite(graph: onnx.GraphProto, rewrites: dict[str, Rewrite], names: _Names) -> None:
    """Rewrite a graph's nodes and those of its bodies, which keep their order."""
    nodes: list[NodeProto] = []
    for node in graph.node:
        for body in bodies(node):
            _rewrite(body, rewrites, names)
        rewrite = rewrites.get(node.op_type) if node.domain in STANDARD else None
        nodes.extend(rewrite.write(node, names) if rewrite else [node])
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def _hardmax(node: NodeProto, names: _Names) -> Iterator[NodeProto]:
    """Write Hardmax over [rows, all that its axis and those behind it hold]."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    flat = names(f"{node.output[0]}/flat")
    yield helper.make_node("Flatten", node.input, [flat], axis=axis)
    yield from _shaped_back(node, helper.make_node("Hardmax", [flat], [""], node.name, axis=1), names)


def _group_normalization(node: NodeProto, names: _Names) -> Iterator[NodeProto]:
    """Write a normalization of every group as one of a channel, [n, groups, all that a group holds]."""
    groups = next(a.i for a in node.attribute if a.name == "num_groups")
    kept = [a for a in node.attribute if a.name == "epsilon" and a.type == AttributeProto.FLOAT]
    grouped, shape = names(f"{node.output[0]}/groups"), names(f"{node.output[0]}/grouped")
    yield helper.make_node("Constant", [], [shape], value_ints=[0, groups, -1])
    yield helper.make_node("Reshape", [node.input[0], shape], [grouped])
    normalized = helper.make_node("InstanceNormalization", [grouped, *node.input[1:]], [""], node.name)
    normalized.attribute.extend(kept)
    yield from _shaped_back(node, normalized, names)


def _pad(node: NodeProto, _: _Names) -> Iterator[NodeProto]:
    """Write Pad without the value that it does not read."""
    kept = [a for a in node.attribute if a.name != "value" or _mode(node, b"constant") == b"constant"]
    del node.attribute[:]
    node.attribute.extend(kept)
    yield node


def _mode(node: NodeProto, default: bytes) -> bytes:
    return next((a.s for a in node.attribute if a.name == "mode"), default)


def _shaped_back(node: NodeProto, inner: NodeProto, names: _Names) -> Iterator[NodeProto]:
    """Write a node's stand-in, and its result in the shape that the node's input has."""
    shape, result = names(f"{node.output[0]}/shape"), names(f"{node.output[0]}/result")
    inner.output[0] = result
    yield inner
    yield helper.make_node("Shape", node.input[:1], [shape])
    yield helper.make_node("Reshape", [result, shape], node.output)


REWRITES = (
    Rewrite("Hardmax", range(1, LAST_FLATTENED + 1), _hardmax),
    Rewrite("Pad", range(2, LAST_VALUED_PAD + 1), _pad),
    Rewrite("GroupNormalization", SCALE_A_GROUP, _group_normalization),
)
