"""What a compressed operator is: an ONNX function of the project's own domain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import onnx
import onnx_graphsurgeon as gs

DOMAIN = "bct_onnx"
# Bodies know of one difference between opsets: the axes of a reduction are an input from this one on.
OPSET_AXES = 18


# Every function by its name, of which a model holds those that it calls.
FUNCTIONS: dict[str, Function] = {}
# Those that `compose` made, by the names of what they do together: the outer and the inner function.
COMPOSED: dict[tuple[str, str], Function] = {}


@dataclass(frozen=True)
class Function:
    """A compressed operator; one that is made is in `FUNCTIONS` from then on.

    Attributes:
        name: the operator's type.
        inputs: names of the inputs, separated by commas; all of them must be given.
        outputs: names of the outputs.
        body: nodes in ONNX's text form, or what returns them for an opset. `kind = @name` is an attribute of the call.
        summary: what it computes, in a line.
        dtypes: types of the outputs, where a call does not say otherwise.
        axes: the axes of all outputs: those of the first input ("first"), but for the length of the last ("rows");
            those of the last input and one more ("picked"); one ("flat"); those that an attribute of this name lists.
        reads_floats: whether results depend on the first input's floats beyond the codes that are made of them.
        calls: the functions that the body calls; their nodes take the calls' places.
        nested: whether these calls stay, so that a model that has several such functions holds what they call once.
            ONNX Runtime lets no int4 through a call in a call.
    """

    name: str
    inputs: str
    outputs: str
    body: str | Callable[[int], str]
    summary: str
    dtypes: tuple[type[np.generic], ...] = (np.float32,)
    axes: str = "rows"
    reads_floats: bool = False
    calls: tuple[Function, ...] = ()
    nested: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where the name is taken."""
        if FUNCTIONS.setdefault(self.name, self) is not self:
            raise ValueError(f"two functions are named {self.name}")

    def text(self, opset: int) -> str:
        """Return the body for an opset."""
        return self.body if isinstance(self.body, str) else self.body(opset)

    @cached_property
    def attributes(self) -> dict[str, str]:
        """The attributes that a call must have, and their types in ONNX's text form: int, ints, float."""
        own = {name: kind for kind, name in re.findall(r"(\w+) = @(\w+)", self.text(OPSET_AXES))}
        called = [name for function in self.calls for name in function.attributes]
        return {name: own[name] for name in called if name in own} | own

    @cached_property
    def is_typed(self) -> bool:
        """Tell whether ONNX finds out the types of the outputs: it knows the operators of its own domain only."""
        return "com.microsoft" not in self.text(OPSET_AXES) and all(function.is_typed for function in self.calls)

    def proto(self, opset: int) -> onnx.FunctionProto:
        """Return the function as a model of an opset holds it."""
        return _proto(self, opset)


@cache
def _proto(function: Function, opset: int) -> onnx.FunctionProto:
    domains = f'["" : {opset}, "com.microsoft" : 1, "{DOMAIN}" : 1]'
    attributes = f" <{', '.join(function.attributes)}>" if function.attributes else ""
    proto = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: {domains}>'
        f"{function.name}{attributes} ({function.inputs}) => ({function.outputs}) {{ {function.text(opset)} }}"
    )
    called = {part.name: _proto(part, opset) for part in function.calls if not function.nested}
    taken = {name for node in _with_branches(proto.node) for name in (*node.input, *node.output)}
    nodes = [each for node in proto.node for each in _inlined(node, called, taken)]
    _name_slices(nodes)
    del proto.node[:]
    proto.node.extend(nodes)
    used = {node.domain for node in _with_branches(nodes)}
    imports = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.doc_string = function.summary
    return proto


def _name_slices(nodes: Iterable[onnx.NodeProto]) -> None:
    """Name Slices of the same value: ONNX Runtime makes one node of them, up to 1.21 named after the first alone."""
    slices = [node for node in nodes if node.op_type == "Slice"]
    sliced = Counter(node.input[0] for node in slices)
    for node in slices:
        if sliced[node.input[0]] > 1:
            node.name = node.output[0]


def _with_branches(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _with_branches(attribute.g.node)


def _inlined(node: onnx.NodeProto, called: Mapping[str, onnx.FunctionProto], taken: set[str]) -> list[onnx.NodeProto]:
    """Return a node, or those of the function that it calls; values keep their names where these are not taken."""
    if node.domain != DOMAIN or node.op_type not in called:
        return [node]
    inner, nodes = called[node.op_type], []
    names = dict(zip([*inner.input, *inner.output], [*node.input, *node.output], strict=True))
    for name in {name for each in inner.node for name in each.output} - names.keys():
        names[name] = name if name not in taken else f"{node.output[0]}_{name}"
    taken.update(names.values())
    attributes = {attribute.name: attribute.ref_attr_name for attribute in node.attribute}
    for each in inner.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(each)
        for attribute in copy.attribute:
            if attribute.ref_attr_name:
                attribute.ref_attr_name = attributes[attribute.ref_attr_name]
        for tensors in (copy.input, copy.output):
            tensors[:] = [names[name] for name in tensors]
        nodes.append(copy)
    return nodes


def call(function: Function, names: Mapping[str, str] | None = None) -> str:
    """Return the call of a function in the body of another.

    Values and attributes of the other have the same names, or those that `names` gives them.
    """
    names = names or {}
    attributes = ", ".join(f"{name}: {kind} = @{names.get(name, name)}" for name, kind in function.attributes.items())
    inputs = ", ".join(names.get(name, name) for name in function.inputs.split(", "))
    return f"{DOMAIN}.{function.name}{f' <{attributes}>' if attributes else ''} ({inputs})"


def compose(outer: Function, given: str, inner: Function, name: str, summary: str) -> Function:
    """Return the function that computes the input `given` of `outer` by `inner`.

    Its inputs are those of the two, the inner ones in the place of the one that is computed.
    """
    inputs = [inner.inputs if name == given else name for name in outer.inputs.split(", ")]
    body = f"{given} = {call(inner)}\n{outer.outputs} = {call(outer)}"
    both = Function(
        name, ", ".join(inputs), outer.outputs, body, summary, outer.dtypes, outer.axes, calls=(outer, inner)
    )
    return COMPOSED.setdefault((outer.name, inner.name), both)


def reduce_last(op: str, x: str, opset: int) -> str:
    """Return the call of a reduction over the last axis, which is kept, of an opset; `last` is [-1]."""
    return f"{op} <keepdims = 1> ({x}, last)" if opset >= OPSET_AXES else f"{op} <axes = [-1], keepdims = 1> ({x})"


def function_of(node: gs.Node) -> Function | None:
    """Return the function that a node calls, or None for others, unknown ones of the same domain among them."""
    return FUNCTIONS.get(node.op) if node.domain == DOMAIN else None


def protos(names: Iterable[str], opset: int) -> list[onnx.FunctionProto]:
    """Return functions by name, and those that they call, sorted, for a model of an opset."""
    found, waiting = set[str](), list(names)
    while waiting:
        function = FUNCTIONS[waiting.pop()]
        found.add(function.name)
        waiting += [called.name for called in function.calls if function.nested]
    return [FUNCTIONS[name].proto(opset) for name in sorted(found)]
