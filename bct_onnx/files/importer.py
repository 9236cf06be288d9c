"""ONNX models to onnx-graphsurgeon graphs, without the losses of its own importer; back in exporter.py.

Kept beyond its own: default values of inputs (variables here), types other than tensors (`Variable.dtype` is
then the TypeProto), attributes that have no Python form (the AttributeProto itself), the type of empty lists,
tensors of the same name in and outside of a subgraph, under different ones, and constants that only subgraphs read
(written once). Not kept: value_info of tensors, documentation of nodes.
"""

from collections import ChainMap
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import SparseValues

from bct_onnx.errors import BctError

from .native import NativeError, inline
from .tensors import DTYPES, TensorValues

# From IR version 4 on, initializers need not be inputs, and those that are can be overridden by the caller.
OVERRIDABLE_IR = 4

Kind = onnx.AttributeProto
_PYTHON_FORMS: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    Kind.FLOAT: lambda attribute: attribute.f,
    Kind.INT: lambda attribute: attribute.i,
    Kind.STRING: lambda attribute: attribute.s.decode(),
    Kind.FLOATS: lambda attribute: list(attribute.floats),
    Kind.INTS: lambda attribute: list(attribute.ints),
    Kind.STRINGS: lambda attribute: [text.decode() for text in attribute.strings],
}

# Returns the mapped bytes of a tensor that refers to external data, None for one that holds its data.
Contents = Callable[[onnx.TensorProto], memoryview | None]


class EmptyList(list[Any]):
    """An empty list attribute that remembers its attribute type, which onnx cannot infer."""

    def __init__(self, kind: int) -> None:
        """Remember the AttributeProto type of the list."""
        super().__init__()
        self.kind = kind


def default_inputs(model: onnx.ModelProto) -> set[str]:
    """Return the names of the main graph's inputs that have a default value which the caller may override."""
    if model.ir_version < OVERRIDABLE_IR:
        return set()
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return constants & {value.name for value in model.graph.input}


def to_graph(model: onnx.ModelProto, contents: Contents, path: Path) -> gs.Graph:
    """Return the graph of a checked model without functions; raises BctError for what it cannot keep."""
    imports = {"" if opset.domain == "ai.onnx" else opset.domain: opset.version for opset in model.opset_import}
    header = {
        "opset": imports.get(""),
        "import_domains": [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()],
        "producer_name": model.producer_name,
        "producer_version": model.producer_version,
        "ir_version": model.ir_version,
    }
    return _Importer(contents, path, header).graph(model.graph, ChainMap(), default_inputs(model))


def inline_functions(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Return a model without functions, itself if it has none; raises BctError where a function cannot be inlined."""
    inlined = model
    for convert_version in (False, True):
        if not inlined.functions:
            break
        try:
            inlined = inline(inlined, convert_version)
        except NativeError as error:
            raise BctError(f"{path}: its functions cannot be inlined: {error}") from error
    if inlined.functions:
        names = [function.name for function in inlined.functions]
        raise BctError(f"{path}: cannot inline the functions {names}; export the model without functions")
    return inlined


class _Importer:
    def __init__(self, contents: Contents, path: Path, header: dict[str, Any]) -> None:
        self.contents = contents
        self.path = path
        self.header = header

    def graph(
        self,
        proto: onnx.GraphProto,
        outer: ChainMap[str, gs.Tensor],
        variables: set[str],
        taken: frozenset[str] = frozenset(),
    ) -> gs.Graph:
        """Import a graph that sees the tensors of `outer`; initializers named in `variables` are inputs.

        What its nodes make of the names `taken` further out gets another name: ONNX's shape inference mixes them up.
        Its inputs and outputs, which some operators know by name, keep theirs.
        """
        own: dict[str, gs.Tensor] = {}
        names = taken | _defined(proto)
        scope = outer.new_child(own)
        for tensor in proto.initializer:
            if tensor.name not in variables:
                own[tensor.name] = self.constant(tensor)
        for sparse in proto.sparse_initializer:
            if sparse.values.name not in variables:
                own[sparse.values.name] = gs.Constant(sparse.values.name, SparseValues(sparse))
        infos = {value.name: value for value in chain(proto.value_info, proto.input, proto.output)}
        renamed = taken - {value.name for value in chain(proto.input, proto.output)}

        def define(name: str) -> gs.Tensor:
            if not name:
                return gs.Variable.empty()
            if name not in own:
                own[name] = variable(name, infos.get(name))
                own[name].name = _fresh(name, names) if name in renamed else name
            return own[name]

        inputs = [define(value.name) for value in proto.input if not isinstance(own.get(value.name), gs.Constant)]
        outputs = [define(value.name) for value in proto.output]
        nodes = [
            gs.Node(
                node.op_type,
                node.name,
                {attribute.name: self.attribute(attribute, node, scope, names) for attribute in node.attribute},
                [scope[name] if name and name in scope else define(name) for name in node.input],
                [define(name) for name in node.output],
                node.domain if node.domain not in ("", "ai.onnx") else None,
            )
            for node in proto.node
        ]
        return gs.Graph(nodes, inputs, outputs, proto.name, proto.doc_string, **self.header)

    def constant(self, tensor: onnx.TensorProto) -> gs.Constant:
        return gs.Constant(tensor.name, TensorValues(tensor, self.contents(tensor)))

    def attribute(
        self,
        attribute: onnx.AttributeProto,
        node: onnx.NodeProto,
        scope: ChainMap[str, gs.Tensor],
        names: frozenset[str],
    ) -> Any:
        """Return the Python form of an attribute, or a copy of itself when it has none."""
        referring = bool(attribute.ref_attr_name)
        if attribute.type == Kind.TENSOR and attribute.HasField("t") and not referring:
            return self.constant(attribute.t)
        if attribute.type == Kind.GRAPH and attribute.HasField("g") and not referring:
            return self.graph(attribute.g, scope, set(), names)
        if attribute.type in (Kind.TENSOR, Kind.GRAPH, Kind.GRAPHS, Kind.UNDEFINED):
            kind = Kind.AttributeType.Name(attribute.type)
            raise BctError(
                f"{self.path}: node {node.name!r} ({node.op_type!r}): attribute {attribute.name!r} of type"
                f" {kind} cannot be kept; export the model without it"
            )
        try:
            value = _PYTHON_FORMS[attribute.type](attribute)
        except (KeyError, UnicodeDecodeError):
            value = None
        if value is None or referring:
            kept = onnx.AttributeProto()
            kept.CopyFrom(attribute)
            return kept
        return EmptyList(attribute.type) if value == [] else value


def _defined(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the names that a graph itself defines."""
    made = chain.from_iterable(node.output for node in graph.node)
    return frozenset({*made, *(entry.name for entry in chain(graph.input, graph.output, graph.initializer))})


def _fresh(name: str, taken: frozenset[str]) -> str:
    """Return a name like the given one that is none of those taken."""
    return next(other for number in count(1) if (other := f"{name}.inner{number}") not in taken)


def variable(name: str, info: onnx.ValueInfoProto | None) -> gs.Variable:
    """Return a Variable with what is known of its type; `dtype` is the TypeProto when that is no tensor."""
    kind = info.type.WhichOneof("value") if info is not None else None
    if info is None or kind is None:
        return gs.Variable(name)
    if kind != "tensor_type":
        return gs.Variable(name, info.type, type=kind)
    tensor = info.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = [getattr(size, size.WhichOneof("value") or "", None) for size in tensor.shape.dim]
    return gs.Variable(name, DTYPES.get(tensor.elem_type), shape)
