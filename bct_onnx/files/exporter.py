"""onnx-graphsurgeon graphs to ONNX models, without the losses of its own exporter; see importer.py."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from bct_onnx.errors import BctError
from passes.functions.function import DOMAIN, FUNCTIONS, function_of, protos
from passes.graph.new import PackedValues

from . import native
from .importer import OVERRIDABLE_IR, Contents, Kind, default_inputs, variable
from .order import graphs_of, nodes_of
from .tensors import DATA_TYPES, PACKED_BITS, TensorValues, raw_size
from .wire import refer

# Below this many bytes a tensor's data stays in the model message; above, it is read and written apart from
# it.
SMALL = 1024
# From this IR version on, models hold functions.
FUNCTIONS_IR = 8
# From this opset on, Constant has the numbers of an attribute: what bodies of functions are made of.
FUNCTIONS_OPSET = 12


class Payload:
    """The raw data of a tensor in its final form, made when written; its length is known before."""

    def __init__(self, length: int, load: Callable[[], Any], *, in_attribute: bool) -> None:
        """Take the length in bytes, what returns that many bytes, and whether a node's attribute has it."""
        self.length = length
        self.load = load
        self.in_attribute = in_attribute

    def __len__(self) -> int:
        """Return the length in bytes."""
        return self.length


def to_model(
    graph: gs.Graph, source: onnx.ModelProto, contents: Contents, inline: bool
) -> tuple[onnx.ModelProto, list[Payload]]:
    """Return the model of a graph in the shell of `source`, and its large data by index (`offset`).

    `inline`: calls of functions are replaced by what they do; else the model holds the functions that it calls.
    Raises BctError where the graph holds what ONNX cannot express.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source)
    for name in ("graph", "functions", "training_info", "opset_import"):
        model.ClearField(name)
    exporter = _Exporter(graph)
    model.graph.CopyFrom(exporter.graph(graph))
    model.graph.metadata_props.extend(source.graph.metadata_props)
    _restore_annotations(model.graph, source.graph)
    _restore_inputs(model.graph, source, exporter, contents)
    _restore_infos(model.graph.input, source.graph.input)
    _restore_infos(model.graph.output, source.graph.output)
    calls = {node.op_type for node in nodes_of(model.graph) if node.domain == DOMAIN} & FUNCTIONS.keys()
    model.functions.extend(protos(calls, int(graph.opset)) if calls else ())
    model.opset_import.extend(_opset_imports(graph, model))
    model.ir_version = max(graph.ir_version or 0, FUNCTIONS_IR if calls else OVERRIDABLE_IR)
    return _inlined(model) if calls and (inline or graph.opset < FUNCTIONS_OPSET) else model, exporter.payloads


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with what functions do in place of their calls, their constants as initializers."""
    inlined = native.inline(model)
    imports = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(imports)
    for graph in graphs_of(inlined.graph):
        constants = [node for node in graph.node if node.op_type == "Constant" and not node.domain]
        graph.initializer.extend(map(_initializer, constants))
        others = [node for node in graph.node if node.op_type != "Constant" or node.domain]
        for node in others:
            node.name = node.name or node.output[0]
        del graph.node[:]
        graph.node.extend(others)
    return inlined


def _initializer(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return the tensor that a Constant is, whichever its attribute."""
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    return onnx.numpy_helper.from_array(np.array(value, dtype), node.output[0])


def _restore_inputs(graph: onnx.GraphProto, source: onnx.ModelProto, exporter: "_Exporter", contents: Contents) -> None:
    """Give inputs with a default value their default again."""
    names = default_inputs(source) & {value.name for value in graph.input}
    for tensor in source.graph.initializer:
        if tensor.name in names:
            values = TensorValues(tensor, contents(tensor))
            graph.initializer.append(exporter.tensor(gs.Constant(tensor.name, values), in_attribute=False))
    graph.sparse_initializer.extend(sparse for sparse in source.graph.sparse_initializer if sparse.values.name in names)


def _restore_infos(infos: Iterable[onnx.ValueInfoProto], originals: Iterable[onnx.ValueInfoProto]) -> None:
    """Give unchanged inputs or outputs back what a Variable cannot hold: documentation, denotations."""
    known = {value.name: value for value in originals}
    for info in infos:
        original = known.get(info.name)
        if original is not None and _value_info(variable(original.name, original)) == info:
            info.CopyFrom(original)


def _restore_annotations(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Keep the quantization annotations of tensors that are there still, with all that they refer to."""
    names = {value.name for value in chain(graph.input, graph.initializer)}
    names.update(chain.from_iterable(node.output for node in graph.node))
    graph.quantization_annotation.extend(
        annotation
        for annotation in source.quantization_annotation
        if names.issuperset(
            (annotation.tensor_name, *(entry.value for entry in annotation.quant_parameter_tensor_names))
        )
    )


def _opset_imports(graph: gs.Graph, model: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    """Return the graph's imports, the opset as raised by passes and domains that came in with nodes."""
    imports = {opset.domain: opset.version for opset in graph.import_domains or ()}
    bodies = chain.from_iterable(function.node for function in model.functions)
    domains = {node.domain for node in chain(nodes_of(model.graph), bodies)}
    if "" in imports or "" in domains:
        imports[""] = max(graph.opset, imports.get("", 0))
    for domain in sorted(domains - imports.keys()):
        imports[domain] = 1
    return [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()]


class _Exporter:
    def __init__(self, graph: gs.Graph) -> None:
        self.payloads: list[Payload] = []
        self.homes = _homes(graph)

    def graph(self, graph: gs.Graph) -> onnx.GraphProto:
        proto = onnx.GraphProto(name=graph.name, doc_string=graph.doc_string or None)
        constants = self.homes.get(id(graph), [])
        names = [constant.name for constant in constants]
        if len(set(names)) < len(names):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise BctError(f"graph {graph.name!r}: two constants are named {twice!r}; give one of them another name")
        for constant in constants:
            if isinstance(constant._values, SparseValues):
                proto.sparse_initializer.append(constant._values.tensor)
                proto.sparse_initializer[-1].values.name = constant.name
            else:
                proto.initializer.append(self.tensor(constant, in_attribute=False))
        proto.node.extend(self.node(node) for node in graph.nodes)
        proto.input.extend(map(_value_info, graph.inputs))
        proto.output.extend(map(_value_info, graph.outputs))
        listed = {value.name for value in chain(proto.input, proto.output)}
        # ONNX's own inference goes wrong behind a function that holds operators of another domain. Sizes are left out:
        # what is known of them rests on how models are usually made.
        proto.value_info.extend(
            _value_info(gs.Variable(tensor.name, tensor.dtype))
            for node in graph.nodes
            for tensor in node.outputs
            if isinstance(tensor.dtype, onnx.TypeProto) or (_is_untyped(node) and tensor.dtype is not None)
            if tensor.name not in listed
        )
        return proto

    def node(self, node: gs.Node) -> onnx.NodeProto:
        proto = onnx.NodeProto(op_type=node.op, name=node.name or None, domain=node.domain or None)
        proto.input.extend(tensor.name for tensor in node.inputs)
        proto.output.extend(tensor.name for tensor in node.outputs)
        proto.attribute.extend(self.attribute(name, value) for name, value in node.attrs.items())
        return proto

    def attribute(self, name: str, value: Any) -> onnx.AttributeProto:
        if isinstance(value, onnx.AttributeProto):
            return value
        if isinstance(value, list) and not value:
            return onnx.AttributeProto(name=name, type=getattr(value, "kind", Kind.INTS))
        if isinstance(value, gs.Constant):
            value = self.tensor(value, in_attribute=True)
        elif isinstance(value, gs.Graph):
            value = self.graph(value)
        elif isinstance(value, type | np.dtype):
            value = DATA_TYPES[np.dtype(value)]
        return onnx.helper.make_attribute(name, value)

    def tensor(self, constant: gs.Constant, *, in_attribute: bool) -> onnx.TensorProto:
        """Return a constant's tensor, its data left out and put among the payloads when it is not small."""
        values = constant._values
        if not isinstance(values, LazyValues):
            return self.array(constant.name, np.asarray(values), in_attribute)
        proto = onnx.TensorProto()
        proto.CopyFrom(values.tensor)
        proto.name = constant.name
        content = values.content if isinstance(values, TensorValues | PackedValues) else None
        if content is not None:
            self.place(proto, len(content), lambda: content, in_attribute)
        elif len(proto.raw_data) >= SMALL:
            self.place(proto, len(proto.raw_data), lambda: values.tensor.raw_data, in_attribute)
        return proto

    def array(self, name: str, values: np.ndarray[Any, Any], in_attribute: bool) -> onnx.TensorProto:
        if values.dtype.kind in "OUS":
            return onnx.numpy_helper.from_array(values, name)
        proto = onnx.TensorProto(name=name, dims=values.shape, data_type=DATA_TYPES[values.dtype])
        size = raw_size(values.dtype, values.shape)
        self.place(proto, size, lambda: _raw_data(values), in_attribute)
        return proto

    def place(self, proto: onnx.TensorProto, length: int, load: Callable[[], Any], in_attribute: bool) -> None:
        if length < SMALL:
            proto.ClearField("external_data")
            proto.ClearField("data_location")
            proto.raw_data = bytes(load())
            return
        refer(proto, offset=len(self.payloads))
        self.payloads.append(Payload(length, load, in_attribute=in_attribute))


def _is_untyped(node: gs.Node) -> bool:
    """Tell whether a node calls a function of whose results ONNX does not find out the types."""
    function = function_of(node)
    return function is not None and not function.is_typed


def _homes(graph: gs.Graph) -> dict[int, list[gs.Constant]]:
    """Return by id of graph the constants to define there: the innermost graph that holds all uses."""
    uses: dict[int, tuple[gs.Constant, tuple[gs.Graph, ...]]] = {}

    def visit(graph: gs.Graph, outer: tuple[gs.Graph, ...]) -> None:
        path = (*outer, graph)
        for tensor in chain(chain.from_iterable(node.inputs for node in graph.nodes), graph.outputs):
            if isinstance(tensor, gs.Constant):
                _, known = uses.get(id(tensor), (tensor, path))
                uses[id(tensor)] = tensor, tuple(a for a, b in zip(known, path, strict=False) if a is b)
        for node in graph.nodes:
            for value in node.attrs.values():
                if isinstance(value, gs.Graph):
                    visit(value, path)

    visit(graph, ())
    homes: dict[int, list[gs.Constant]] = {}
    for constant, path in uses.values():
        homes.setdefault(id(path[-1]), []).append(constant)
    return homes


def _value_info(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    info = onnx.ValueInfoProto(name=tensor.name)
    if isinstance(tensor.dtype, onnx.TypeProto):
        info.type.CopyFrom(tensor.dtype)
    elif tensor.dtype is not None:
        number = tensor.dtype if isinstance(tensor.dtype, int) else DATA_TYPES[np.dtype(tensor.dtype)]
        shape = tensor.shape
        if shape is not None:
            shape = [size if size is None or isinstance(size, str) else int(size) for size in shape]
        info.type.CopyFrom(onnx.helper.make_tensor_type_proto(number, shape))
    return info


def _raw_data(values: np.ndarray[Any, Any]) -> Any:
    """Return the bytes of an array as ONNX stores them, a view where possible."""
    if values.dtype in PACKED_BITS:
        return onnx.numpy_helper.from_array(values).raw_data
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
