"""The input model with weights that can be switched from run to run, in one session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock

import numpy as np
import onnx
import onnx_graphsurgeon as gs

import passes
from bct_onnx import files
from bct_onnx.arrays import Array, Feed, Outputs
from bct_onnx.search.ends import Ends, make_late
from bct_onnx.search.floats import FloatLowering, JoinedFloats, Switch, uncoded
from bct_onnx.search.work import is_size, nominal_seconds, products_of, with_sizes
from bct_onnx.sessions import MemoryUse, Session, give_back
from passes import Options, make_lowering
from passes.constant import LARGEST_MAGNITUDE, SMALLEST_CODED_BYTES, reads_weight
from passes.formats.block import BlockFormat
from passes.graph.constants import load
from passes.graph.walk import walk
from passes.lowerings.base import Apart
from passes.written import BLOCK_SIZE, as_rows

# The passes that store weights through the lowering; the rest stays as the input model has it.
STORING = frozenset({"tied", "gather", "matmul"})
# First input version of IR in which an initializer may be an input with a default value.
DEFAULTS_IR = 4


class SwitchableModel:
    """The input model in one session; a run computes with its own weights but for those given."""

    def __init__(self, model: files.ModelFile, options: Options, path: Path, use: MemoryUse = MemoryUse.FULL) -> None:
        """Write the model with its weights as optional inputs to the new file `path`; the first run loads it.

        The weights lie in `<path>.<hash>.data` beside it, as `files.write` has it.
        """
        graph = model.graph()
        self.opset = int(graph.opset)
        floats = JoinedFloats() if options.form.apart is Apart.NEVER else FloatLowering()
        asked = replace(options, operators=STORING, bits_for={})
        reports = passes.run(graph, asked, coder=uncoded, lowering=floats)
        tensors = [tensor for report in reports for tensor in report.tensors if tensor.lowering == floats.name]
        named = [replace(s, name=t.name) for s, t in zip(floats.switches, tensors, strict=True)]
        switches = [*named, *_constants(graph, options, {switch.tensor for switch in named})]
        # ONNX Runtime maps weights that lie in a file of their own: neither it nor the model holds copies of them.
        files.write(graph, model, path, external_data="always", lasting=False)
        model.let_go()
        self._file = files.read(path)
        proto = onnx.load_model(path, load_external_data=False)
        inside = _read_inside(proto)
        lifted = _lift(proto, {switch.tensor for switch in switches})
        graphs = files.graphs_of(self._file.proto.graph)
        kept = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
        known = [switch for switch in switches if switch.tensor in lifted]
        self._inside = sum(switch.matrix.size for switch in known if switch.tensor in inside)
        self.switches = [switch.mapped(self._file.values(kept[switch.tensor])) for switch in known]
        _add_inputs(proto, [switch.tensor for switch in self.switches])
        make_late(proto, {switch.tensor for switch in self.switches})
        self._proto, self._path, self._use = proto, path, use
        self._outputs = [value.name for value in proto.graph.output]
        # What crosses the places of `ends` for the feeds to which there are answers, as far as they tell.
        self.crossed: list[Outputs] = []
        self._loaded: Session | None = None
        self._lock = Lock()

    @cached_property
    def ends(self) -> Ends:
        """The model from places in it on."""
        return Ends(self._proto, self._path, self._use)

    @property
    def threads(self) -> int:
        """Threads of a session: one, where runs go on side by side."""
        return 1 if self._use is MemoryUse.FULL else 0

    @property
    def session(self) -> Session:
        """One that tells what crosses the places of `ends`, too."""
        with self._lock:
            if self._loaded is None:
                files.write_proto(self._telling(), self._path)
                self._loaded = Session(self._path, self._use, self.threads)
            return self._loaded

    def _telling(self) -> onnx.ModelProto:
        """Return the model with what crosses the places of `ends` as outputs, too."""
        told = onnx.ModelProto()
        told.CopyFrom(self._proto)
        names = [name for name in self.ends.crossing if name not in self._outputs]
        told.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return told

    def run(self, feed: Feed, instead: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Return the outputs with the named tensors replaced; several threads may ask at once."""
        return self.session.run({**feed, **(instead or {})}, self._outputs)

    def unload(self) -> None:
        """Drop the session; the next run loads it again."""
        self._loaded = None

    def answers_and_costs(self, feeds: Sequence[Feed]) -> tuple[list[Outputs], list[float]]:
        """Return the outputs for each feed, and what a run of it takes at a nominal speed.

        The session that tells the sizes of products keeps all of them in memory: where that is scarce, every weight is
        taken to be multiplied with every row of the answers.
        """
        if self._use is not MemoryUse.FULL:
            rough = [self.run(feed) for feed in feeds]
            numbers = sum(switch.matrix.size for switch in self.switches)
            return list(rough), [nominal_seconds([], len(self._proto.graph.node), each, numbers) for each in rough]
        files.write_proto(with_sizes(self._telling()), self._path)
        session = Session(self._path, MemoryUse.MAPPED)
        told = [session.run(feed) for feed in feeds]
        del session
        give_back()
        crossing = set(self.ends.crossing)
        self.crossed = [{name: each[name] for name in each if name in crossing} for each in told]
        others = crossing.difference(self._outputs)
        answers = [{name: each[name] for name in each if name not in others} for each in told]
        products, nodes = products_of(self._proto), len(self._proto.graph.node)
        costs = [nominal_seconds(products, nodes, answer, self._inside) for answer in answers]
        return [{name: answer[name] for name in answer if not is_size(name)} for answer in answers], costs

    def let_go(self) -> None:
        """Give back the memory that what was read of the weights takes."""
        self._file.let_go()


def formats(switch: Switch, options: Options, opset: int) -> dict[int, BlockFormat]:
    """Return the formats that a weight can have at an opset, by width."""
    if switch.stored:
        return {bits: BlockFormat.fine(bits, BLOCK_SIZE) for bits in range(2, 9)}
    lowering = make_lowering(options.lowering, options.lacks)
    form = partial(lowering.table_format, opset=opset) if switch.by_rows else lowering.format
    widths = [bits for bits in range(2, 9) if switch.by_rows or lowering.opset(bits) <= opset]
    asked = {bits: form(bits, options.block_size, len(switch.matrix)) for bits in widths}
    return {bits: fmt for bits, fmt in asked.items() if fmt.bits == bits}


def stored_bytes(fmt: BlockFormat, shape: Sequence[int]) -> int:
    """Return the bytes of codes, exponents and column scales of a [k, n] weight."""
    k, n = shape
    blocks, rows = fmt.blocks(k)
    exponent_bits = 0
    if fmt.max_exponent:
        exponent_bits = 8 if fmt.steps > 1 else next(width for width in (1, 2, 4) if fmt.max_exponent < 1 << width)
    zero_bits = fmt.bits if fmt.offset else 0
    return -(-n * blocks * (rows * fmt.bits + exponent_bits + zero_bits) // 8) + 2 * n


def _constants(graph: gs.Graph, options: Options, taken: set[str]) -> list[Switch]:
    """Return the weights that no lowering takes but whose width can be chosen."""
    found: dict[str, Switch] = {}
    for _, node in walk(graph):
        for tensor in node.inputs if reads_weight(node) else ():
            if not isinstance(tensor, gs.Constant) or tensor.name in taken or tensor.name in found:
                continue
            if options.keeps(node.name, tensor.name):
                continue
            values = load(tensor)
            if values.dtype != np.float32 or values.ndim < 2 or values.nbytes < SMALLEST_CODED_BYTES:
                continue
            # False for NaN, too: what is not coded cannot be chosen for.
            if np.abs(values).max() <= LARGEST_MAGNITUDE:
                rows = as_rows(values)
                found[tensor.name] = Switch(
                    tensor.name, tensor.name, rows.T, True, tuple(values.shape), None, stored=True
                )
    return list(found.values())


def _read_inside(proto: onnx.ModelProto) -> set[str]:
    """Return what is read in bodies of If, Loop and Scan, but for tables that are looked up."""
    bodies = list(files.graphs_of(proto.graph))[1:]
    return {name for body in bodies for node in body.node if node.op_type != "Gather" for name in node.input}


def _lift(proto: onnx.ModelProto, names: set[str]) -> set[str]:
    """Move the named initializers of bodies of If, Loop and Scan to the main graph: an input can replace them there.

    Return the names of those that are there now: all but those that several bodies have.
    """
    graphs = list(files.graphs_of(proto.graph))
    counts = Counter(tensor.name for graph in graphs for tensor in graph.initializer)
    single = {name for name in names if counts[name] == 1}
    for graph in graphs[1:]:
        every = list(graph.initializer)
        del graph.initializer[:]
        for tensor in every:
            (proto.graph if tensor.name in single else graph).initializer.append(tensor)
    return single


def _add_inputs(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    """Make initializers of the main graph inputs with a default value."""
    proto.ir_version = max(proto.ir_version, DEFAULTS_IR)
    initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
    inputs = {value.name for value in proto.graph.input}
    for name in names:
        if name not in inputs:
            tensor = initializers[name]
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
