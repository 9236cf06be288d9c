"""A model laid flat (functions, If, Loop, Scan opened) to follow what becomes of a value."""

from collections import ChainMap, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from passes.graph.operators import find_operator, qualified
from passes.graph.operators.rules import first

# What is bounded is still the same value.
BOUNDS = {"Clip": slice(1), "Max": slice(None), "Min": slice(None)}


Attributes = Mapping[str, AttributeProto]


@dataclass(frozen=True)
class FlatNode:
    """One operator: its type (with the domain unless standard), unique value names in and out ("" absent)."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes = field(default_factory=dict)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return an integer or integer-list attribute, empty when absent."""
        attribute = self.attributes.get(name)
        if attribute is None:
            return ()
        return (attribute.i,) if attribute.type == AttributeProto.INT else tuple(attribute.ints)


@dataclass(frozen=True)
class Use:
    """A node that takes the followed value at input `index`."""

    node: FlatNode
    index: int

    @property
    def passes(self) -> bool:
        """Tell whether the node's output holds the value itself."""
        moved = BOUNDS.get(self.node.op, find_operator(self.node.op).moves)
        return moved is not None and self.index in range(*moved.indices(len(self.node.inputs)))


@dataclass
class Flow:
    """The flat nodes in order; by unique value name consumers, producers and shapes known without data."""

    nodes: list[FlatNode] = field(default_factory=list)
    consumers: dict[str, list[Use]] = field(default_factory=lambda: defaultdict(list))
    producers: dict[str, FlatNode] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def follow(self, name: str) -> Iterator[Use]:
        """Yield each use of a value that is reached through operators that only move or cast it."""
        seen, waiting = {name}, [name]
        while waiting:
            for use in self.consumers.get(waiting.pop(), ()):
                if use.passes:
                    fresh = [out for out in use.node.outputs if out not in seen]
                    seen.update(fresh)
                    waiting.extend(fresh)
                else:
                    yield use

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a constant, also behind casts, dequantization and transposition."""
        turns: list[tuple[int, ...]] = []
        while name not in self.shapes:
            producer = self.producers.get(name)
            if producer is None or (producer.op != "Transpose" and find_operator(producer.op).shapes is not first):
                return None
            if producer.op == "Transpose":
                turns.append(producer.integers("perm"))
            name = producer.inputs[0]
        shape = self.shapes[name]
        for turn in reversed(turns):
            shape = tuple(shape[axis] for axis in turn) if turn else shape[::-1]
        return shape


def flatten(model: ModelProto) -> Flow:
    """Lay a model flat; top-level values keep their names, tensors need no data."""
    flow = Flow()
    functions = {(f.domain, f.name): f for f in model.functions}
    for info in model.graph.value_info:
        tensor = info.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            flow.shapes[info.name] = tuple(d.dim_value for d in tensor.shape.dim)
    _Layer(flow, functions).lay(model.graph, ChainMap(), "", {})
    return flow


@dataclass(frozen=True)
class _Layer:
    flow: Flow
    functions: Mapping[tuple[str, str], FunctionProto]

    def lay(self, graph: GraphProto | FunctionProto, names: ChainMap[str, str], prefix: str, given: Attributes) -> None:
        """Add a graph or function; `names` maps names visible inside to unique ones and is extended.

        `given` are the attributes of a function's call, which its nodes refer to.
        """
        if isinstance(graph, GraphProto):
            names.update({i.name: prefix + i.name for i in graph.input if i.name not in names.maps[0]})
            for tensor in graph.initializer:
                self.define(tensor, tensor.name, names, prefix)
            for sparse in graph.sparse_initializer:
                names[sparse.values.name] = prefix + sparse.values.name
                self.flow.shapes[prefix + sparse.values.name] = tuple(sparse.dims)
        for node in graph.node:
            names.update({out: prefix + out for out in node.output if out})
        for node in graph.node:
            self.add(node, names, prefix, given)

    def define(self, tensor: TensorProto, name: str, names: ChainMap[str, str], prefix: str) -> None:
        """Note the shape of a constant."""
        names[name] = prefix + name
        self.flow.shapes[prefix + name] = tuple(tensor.dims)

    def add(self, node: NodeProto, names: ChainMap[str, str], prefix: str, given: Attributes) -> None:
        """Add one node with what it calls or holds."""
        inputs = tuple(names.get(name, prefix + name) if name else "" for name in node.input)
        outputs = tuple(names[name] if name else "" for name in node.output)
        inside = f"{prefix}{next((out for out in node.output if out), node.name)}/"
        named = ((each.name, given.get(each.ref_attr_name) if each.ref_attr_name else each) for each in node.attribute)
        attributes = {name: attribute for name, attribute in named if attribute is not None}
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            inner = ChainMap(dict(zip(function.input, inputs, strict=False)))
            defaults = {attribute.name: attribute for attribute in function.attribute_proto}
            self.lay(function, inner, inside, defaults | attributes)
            self.link([inner.get(out, "") for out in function.output], outputs)
            return
        op = qualified(node.op_type, node.domain)
        if op == "Constant" and "value" in attributes:
            self.define(attributes["value"].t, node.output[0], names, prefix)
        self.append(FlatNode(op, inputs, outputs, attributes))
        for attribute in node.attribute:
            for number, body in enumerate([attribute.g] if attribute.HasField("g") else attribute.graphs):
                formals = dict(_bind(op, body, inputs))
                scope = ChainMap(formals, names)  # the body sees the outer names, its own stay inside
                self.lay(body, scope, f"{inside}{attribute.name}{number}/", given)
                self.link([scope.get(name, "") for name in _results(op, body)], outputs)

    def append(self, node: FlatNode) -> None:
        """Index a flat node."""
        self.flow.nodes.append(node)
        self.flow.producers.update({out: node for out in node.outputs if out})
        for index, name in enumerate(node.inputs):
            self.flow.consumers[name].append(Use(node, index))

    def link(self, inner: Sequence[str], outer: Sequence[str]) -> None:
        """Let the values of a body flow out of the node that holds it."""
        for source, target in zip(inner, outer, strict=False):
            if source and target:
                self.append(FlatNode("Identity", (source,), (target,)))


def _bind(op: str, body: GraphProto, inputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair the inputs of a body with the values its node gives them."""
    formals = [value.name for value in body.input]
    if op == "Loop":  # formals: iteration number, condition, carried values; inputs: trip count, ...
        pairs = list(zip(formals, inputs, strict=False))[1:]
    elif op in ("com.microsoft.BeamSearch", "com.microsoft.GreedySearch", "com.microsoft.Sampling"):
        pairs = list(zip(formals[:1], inputs[:1], strict=False))  # token ids
    else:  # aligned at the end: Scan of opset 8 has one input more than its body
        pairs = list(zip(reversed(formals), reversed(inputs), strict=False))
    return ((formal, actual) for formal, actual in pairs if actual)


def _results(op: str, body: onnx.GraphProto) -> list[str]:
    """Return the body's outputs in the order of the node's."""
    names = [value.name for value in body.output]
    if op in ("If", "Scan", "SequenceMap"):
        return names
    return names[1:] if op == "Loop" else []
