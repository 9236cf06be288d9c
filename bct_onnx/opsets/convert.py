"""Raise or lower a model's opset by ONNX's own converter, weights left out and foreign operators hidden from it."""

from __future__ import annotations

import onnx

from bct_onnx.files.importer import OVERRIDABLE_IR
from bct_onnx.files.native import NativeError, convert, inline
from bct_onnx.files.order import nodes_of
from bct_onnx.opsets.semantics import mend_resize, preserve_semantics

# Where operators hide that the converter does not know, such as LayerNormalization before opset 17, which ONNX
# Runtime runs all the same.
_HIDDEN = "bct.hidden"


class ConversionError(Exception):
    """The converter cannot change the model's opset; the message is one line."""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators, 1 where the model imports none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def operators_of(model: onnx.ModelProto) -> set[str]:
    """Return the names of a model's operators, those of bodies too."""
    return {node.op_type for node in nodes_of(model.graph)}


def raise_opset(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """Return the model at opset `target`; raises ConversionError.

    The result shares nothing with `model`. Initializers that refer to external data go through untouched; functions
    are inlined.
    """
    try:
        # The converter leaves functions at their old version.
        skeleton = inline(model) if model.functions else onnx.ModelProto()
        if not model.functions:
            skeleton.CopyFrom(model)
        if model.ir_version < OVERRIDABLE_IR:
            _drop_defaults(skeleton.graph)
            # The converter looks for an older file's initializers among its inputs.
            skeleton.ir_version = OVERRIDABLE_IR
        if changed := preserve_semantics(skeleton, opset_of(model)):
            raise ConversionError(changed)
        inputs = {value.name for value in skeleton.graph.input}
        weights = _take_weights(skeleton.graph)
        _hide(skeleton)
        converted = convert(skeleton, target)
    except NativeError as error:
        raise ConversionError(str(error)) from error
    for node in nodes_of(converted.graph):
        if node.domain == _HIDDEN:
            node.domain = ""
    if changed := mend_resize(converted.graph, opset_of(model)):
        raise ConversionError(changed)
    _give_weights_back(converted.graph, weights, inputs)
    return _with_header(model, converted, target)


def lower_opset(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """Return the model at the lower opset `target`, as `raise_opset` does; the error names a node that has no place."""
    for node in nodes_of(model.graph):
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, target):
            raise ConversionError(f"opset {target} has no {node.op_type}, which {node.name or node.output[0]!r} is")
    return raise_opset(model, target)


def with_ir_version(model: onnx.ModelProto, newest: int) -> onnx.ModelProto:
    """Return the model with an IR version of at most `newest`, whatever that leaves out."""
    if model.ir_version <= newest:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = newest
    return result


def _restore_interface(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Give a converted graph back what the converter does not keep: documentation, denotations, annotations."""
    for values, originals in ((graph.input, before.input), (graph.output, before.output)):
        names = {value.name for value in values}
        del values[:]
        values.extend(value for value in originals if value.name in names)
    graph.name, graph.doc_string = before.name, before.doc_string
    for field in ("metadata_props", "quantization_annotation"):
        graph.ClearField(field)
        getattr(graph, field).extend(getattr(before, field))


def _drop_defaults(graph: onnx.GraphProto) -> None:
    """Drop the inputs that old files have for every initializer: in newer ones the caller could override them."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)


def _take_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto | onnx.SparseTensorProto]:
    """Take sparse initializers and those without data out of the graph and let them be inputs meanwhile."""
    weights: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = {}
    kinds = dict[str, int]()
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weights[tensor.name], kinds[tensor.name] = onnx.TensorProto(), tensor.data_type
            weights[tensor.name].CopyFrom(tensor)
    for sparse in graph.sparse_initializer:
        # The converter does not know them.
        weights[sparse.values.name], kinds[sparse.values.name] = onnx.SparseTensorProto(), sparse.values.data_type
        weights[sparse.values.name].CopyFrom(sparse)
    inputs = {value.name for value in graph.input}
    for name, tensor in weights.items():
        if name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(name, kinds[name], tensor.dims))
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    del graph.initializer[:], graph.sparse_initializer[:]
    graph.initializer.extend(kept)
    return weights


def _give_weights_back(
    graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto | onnx.SparseTensorProto], inputs: set[str]
) -> None:
    """Put the weights back; of the graph's inputs those stay that were `inputs` before."""
    kept = [value for value in graph.input if value.name not in weights or value.name in inputs]
    del graph.input[:]
    graph.input.extend(kept)
    for tensor in weights.values():
        if isinstance(tensor, onnx.SparseTensorProto):
            graph.sparse_initializer.append(tensor)
        else:
            graph.initializer.append(tensor)


def _hide(model: onnx.ModelProto) -> None:
    """Move standard operators that the model's opset does not have to a domain of their own; name all domains."""
    opset, domains = opset_of(model), {_HIDDEN}
    for node in nodes_of(model.graph):
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, opset):
            node.domain = _HIDDEN
        domains.add(node.domain)
    known = {o.domain for o in model.opset_import}
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in sorted(domains - known - {""}))


def _with_header(model: onnx.ModelProto, converted: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """Return the converted graph under everything else that the model says of itself."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ClearField("functions")
    result.graph.CopyFrom(converted.graph)
    _restore_interface(result.graph, model.graph)
    imports = [o for o in model.opset_import if o.domain not in ("", "ai.onnx")]
    del result.opset_import[:]
    result.opset_import.extend([onnx.helper.make_opsetid("", target), *imports])
    result.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for(result.opset_import, True))
    return result
