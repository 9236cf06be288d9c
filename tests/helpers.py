"""What several tests need: graphs from text with weights, silent sessions, runs of the passes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import numpy_helper

import passes
from bct_onnx import files
from bct_onnx.sessions import Options, OrtSession, open_session
from passes.formats.block import decode
from passes.formats.encode import encode

Array = NDArray[Any]
# One worker: tests run side by side on busy machines.
SERIAL = {"workers": 1}
# A small model and the width of its weights w and v, [K, K].
K = 64
MLP = "g (float[m, 64] x) => (float[m, 64] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"


def model(text: str, opset: int = 21, ir_version: int = 10, **weights: Array) -> onnx.ModelProto:
    """Return the model of a graph in ONNX's text form, with initializers by name."""
    domains = f'["" : {opset}, "com.microsoft" : 1]'
    proto = onnx.parser.parse_model(f"<ir_version: {ir_version}, opset_import: {domains}> {text}")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def entries(folder: Path) -> set[str]:
    """Return the names of what is in a folder."""
    return {path.name for path in folder.iterdir()}


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Return normal numbers of a size that keeps products near 1."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1] or 1), dtype)


def session(source: onnx.ModelProto | Path, optimize: bool = True, to: Path | None = None) -> OrtSession:
    """Load a model with the runtime's default optimizations, or with none at all; `to` is a file for the result."""
    options = Options(1, optimize="all" if optimize else "none", optimized=to)
    return open_session(source if isinstance(source, Path) else source.SerializeToString(), options)


def run(source: onnx.ModelProto | Path, optimize: bool = True, **feeds: Array) -> list[Array]:
    """Return the outputs of a model."""
    return [np.asarray(output) for output in session(source, optimize).run(None, feeds)]


def optimized(source: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return the model as the runtime runs it, after its default optimizations."""
    path = folder / "optimized.onnx"
    session(source, to=path)
    return onnx.load(path)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield all nodes, those of bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def operators(source: onnx.ModelProto) -> list[str]:
    """Return the operators of a model in graph order, those of bodies after the node that holds them."""
    return [node.op_type for node in nodes(plain(source).graph)]


def plain(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with what functions do in place of their calls, constants as initializers."""
    inlined = onnx.inliner.inline_local_functions(source) if source.functions else source
    for graph in graphs(inlined.graph) if source.functions else ():
        rest = [node for node in graph.node if node.op_type != "Constant"]
        for node in graph.node:
            if node.op_type == "Constant":
                graph.initializer.append(_tensor(node))
        del graph.node[:]
        graph.node.extend(rest)
    return inlined


def _tensor(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return what a Constant holds."""
    values = onnx.helper.get_node_attr_value(node, node.attribute[0].name)
    if isinstance(values, onnx.TensorProto):
        values.name = node.output[0]
        return values
    dtype = np.float32 if "float" in node.attribute[0].name else np.int64
    return numpy_helper.from_array(np.array(values, dtype), node.output[0])


def constant_nodes(source: onnx.ModelProto) -> list[str]:
    """Return the operators whose inputs are all constants: what the runtime left unfolded."""
    return [
        node.op_type
        for node in _depending_on_constants(plain(source).graph, set())
        if node.op_type != "Constant" and any(node.input)
    ]


def _depending_on_constants(graph: onnx.GraphProto, outer: set[str]) -> Iterator[onnx.NodeProto]:
    known = outer | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        if not bodies and all(name in known for name in node.input if name):
            known |= set(node.output)
            yield node
        for body in bodies:
            yield from _depending_on_constants(body, known)


@dataclass(frozen=True)
class Rewritten:
    """A model after the passes: the file's model and the reports by name of the pass."""

    proto: onnx.ModelProto
    reports: Mapping[str, passes.PassReport]

    def skips(self, name: str) -> dict[str, str]:
        """Return why a pass left nodes alone, by node."""
        return {skipped.node: skipped.reason for skipped in self.reports[name].skipped}

    @property
    def replaced(self) -> dict[str, int]:
        """Return how many nodes each pass replaced, where any."""
        return {name: report.replaced for name, report in self.reports.items() if report.replaced}


def rewrite(
    source: onnx.ModelProto, folder: Path, ranges: Mapping[str, passes.ChannelRange] | None = None, **options: Any
) -> Rewritten:
    """Send a model through its file, the passes, and a file again; hold both graph forms to ONNX's checker."""
    onnx.save(source, folder / "source.onnx")
    read = files.read(folder / "source.onnx")
    graph = read.graph()
    reports = passes.run(graph, passes.Options(**(SERIAL | options)), ranges=ranges, checked=True)
    target = folder / "rewritten.onnx"
    target.unlink(missing_ok=True)
    files.write(graph, read, target)
    proto = onnx.load(target)
    onnx.checker.check_model(proto, full_check=True)
    return Rewritten(proto, {report.name: report for report in reports})


def activation_bound(x: Array, weight: Array) -> Array:
    """Bound a product's error by that of int8 activations: half a step of a row's largest value, for every weight."""
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.asarray(0.51 * step * np.abs(weight).sum(axis=0))


def relative_error(output: Array, reference: Array) -> float:
    """Return the norm of the difference over the norm of the reference."""
    reference = np.asarray(reference, np.float64)
    return float(np.linalg.norm(output - reference) / np.linalg.norm(reference))


def decoded(weight: Array, bits: int, block_size: int = 32, lowering: str = "dense", opset: int = 0) -> Array:
    """Return what a lowering's codes of a [k, n] weight stand for, in the weight's type; at an opset, of a table."""
    form = passes.make_lowering(lowering)
    fmt = form.format(bits, block_size, weight.shape[0])
    fmt = form.table_format(bits, block_size, weight.shape[0], opset) if opset else fmt
    return decode(encode(weight, fmt)).astype(weight.dtype)


def with_weights(source: onnx.ModelProto, **weights: Array) -> onnx.ModelProto:
    """Return the model with other values in some initializers, those of bodies too."""
    copy = onnx.ModelProto.FromString(source.SerializeToString())
    for graph in graphs(copy.graph):
        for tensor in graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copy


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def as_constant_nodes(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with Constant nodes in place of initializers, as some exporters write it."""
    copy = onnx.ModelProto.FromString(source.SerializeToString())
    for graph in graphs(copy.graph):
        written = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
        rest = list(graph.node)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(written + rest)
    return copy


def emitted(graph: gs.Graph, folder: Path, opset: int = 21) -> onnx.ModelProto:
    """Return the model of a graph that was made by hand."""
    shell = folder / "shell.onnx"
    onnx.save(model("g (float[1] x) => (float[1] y) { y = Identity(x) }", opset), shell)
    target = folder / "emitted.onnx"
    target.unlink(missing_ok=True)
    files.write(graph, files.read(shell), target)
    return onnx.load(target)
