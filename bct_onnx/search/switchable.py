"""The input model with weights that can be switched from run to run, in one session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

import passes
from bct_onnx import files
from bct_onnx.arrays import Array, Feed, Outputs
from bct_onnx.search.ends import Ends, Place, find_places
from bct_onnx.search.work import is_size, nominal_seconds, products_of, with_sizes
from bct_onnx.sessions import MemoryUse, Session, give_back
from passes import Options, make_lowering
from passes.constant import LARGEST_MAGNITUDE, SMALLEST_CODED_BYTES, reads_weight
from passes.formats.block import BlockFormat, BlockTensor
from passes.graph.constants import load
from passes.graph.editor import Emitter
from passes.graph.walk import walk
from passes.lowerings.base import Apart, StoredWeight
from passes.written import BLOCK_SIZE, as_rows

# The passes that store weights through the lowering; the rest stays as the input model has it.
STORING = frozenset({"tied", "gather", "matmul"})
# First input version of IR in which an initializer may be an input with a default value.
DEFAULTS_IR = 4


@dataclass(frozen=True)
class Switch:
    """A weight that a run can replace.

    Attributes:
        name: its name in the report.
        tensor: name of the input that replaces it.
        matrix: float [k, n], as it is encoded; mapped once the model is written.
        by_rows: True where the model holds it as [n, k].
        shape: shape in the model.
        activation: name of what multiplies with it, or None.
        stored: True for a weight that nothing multiplies in integers.
    """

    name: str
    tensor: str
    matrix: NDArray[np.floating]
    by_rows: bool
    shape: tuple[int, ...]
    activation: str | None = None
    stored: bool = False

    def mapped(self, values: NDArray[np.floating]) -> Switch:
        """Return the same with its matrix seen in `values`, which the model holds."""
        rows = as_rows(values) if self.stored else values
        return replace(self, matrix=rows.T if self.by_rows else rows)

    def laid_out(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a [k, n] matrix as the model holds it."""
        return np.ascontiguousarray(matrix.T if self.by_rows else matrix).reshape(self.shape)


@dataclass(frozen=True)
class Uncoded(BlockTensor):
    """A weight [k, n] as it is, in the place of its codes, and the name of what multiplies with it, or None."""

    weight: NDArray[np.floating]
    activation: str | None


def uncoded(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> Uncoded:
    """Return a weight with codes of zeros that take no memory."""
    del workers
    (k, n), (blocks, rows) = weight.shape, fmt.blocks(weight.shape[0])
    codes = np.broadcast_to(np.int8(0), (blocks, rows, n))
    exponents = np.broadcast_to(np.uint8(0), (blocks, n))
    scale = np.broadcast_to(np.float16(1), n)
    return Uncoded(fmt, k, codes, exponents, scale, 1.0, 0.0, 0.0, weight, activation)


@dataclass
class FloatLowering:
    """A lowering of one graph that writes weights as they are, those of `uncoded`, and lists them."""

    name: str = "floats"
    integer_rows: ClassVar[bool] = False
    decoded_at_load: ClassVar[bool] = False
    standard_only: ClassVar[bool] = True
    batches: ClassVar[bool] = False
    apart: ClassVar[Apart] = Apart.ALWAYS
    block_sizes: ClassVar[tuple[int, ...]] = ()
    switches: list[Switch] = field(default_factory=list)
    best_opset: int = 1

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return any format."""
        del k
        return BlockFormat.shifted(bits, block_size)

    def opset(self, bits: int) -> int:
        """Return the lowest opset: there is nothing to decode."""
        del bits
        return 1

    def store(
        self,
        load_at: Emitter,
        tensor: BlockTensor,
        name: str,
        by_rows: bool,
        only_rows: bool = False,  # noqa: ARG002 (whatever reads it)
    ) -> StoredWeight:
        """Write the weight as it is."""
        assert isinstance(tensor, Uncoded)
        matrix = tensor.weight.astype(np.float32, copy=False)
        values = load_at.constant(np.ascontiguousarray(matrix.T if by_rows else matrix), f"switch.{name}")
        shape = tuple(int(size) for size in values.shape)
        self.switches.append(Switch("", values.name, matrix, by_rows, shape, tensor.activation))
        return StoredWeight(name, values, values, tensor.format, tensor.k, tensor.n, by_rows, 1.0, 0)

    def multiply(
        self,
        at: Emitter,
        x: gs.Tensor,
        weight: StoredWeight,
        name: str,
        node: str = "",
        floor: float | None = None,
    ) -> gs.Variable:
        """Write MatMul."""
        del node, floor
        values = weight.values
        if weight.by_rows:
            values = at.op("Transpose", values, name=f"{name}.columns", perm=[1, 0])
        return at.op("MatMul", x, values, name=f"{name}.product", dtype=np.float32)

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str = "") -> gs.Variable:
        """Write Gather."""
        del node
        return at.op("Gather", table.values, indices, name=f"{name}.rows", dtype=np.float32, axis=0)


class JoinedFloats(FloatLowering):
    """The same, with weights of one input side by side, where their codes will have one width."""

    apart: ClassVar[Apart] = Apart.NEVER


class SwitchableModel:
    """The input model in one session; a run computes with its own weights but for those given."""

    def __init__(self, model: files.ModelFile, options: Options, path: Path, use: MemoryUse = MemoryUse.FULL) -> None:
        """Write the model with its weights as optional inputs to the new file `path`; the first run loads it.

        The weights lie in `<path>.<hash>.data` beside it, as `files.write` has it.
        """
        graph = model.graph()
        floats = JoinedFloats() if options.form.apart is Apart.NEVER else FloatLowering()
        asked = replace(options, operators=STORING, bits_for={})
        reports = passes.run(graph, asked, coder=uncoded, lowering=floats)
        tensors = [tensor for report in reports for tensor in report.tensors if tensor.lowering == floats.name]
        named = [replace(s, name=t.name) for s, t in zip(floats.switches, tensors, strict=True)]
        switches = [*named, *_constants(graph, options, {switch.tensor for switch in named})]
        # ONNX Runtime maps weights that lie in a file of their own: neither it nor the model holds copies of them.
        files.write(graph, model, path, external_data="always")
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
        self._proto, self._path, self._use = proto, path, use
        self._outputs = [value.name for value in proto.graph.output]

    @cached_property
    def _places(self) -> list[Place]:
        return find_places(self._proto)

    @cached_property
    def _session(self) -> Session:
        """One that tells what crosses the places, too; one thread, where runs go on side by side."""
        told = onnx.ModelProto()
        told.CopyFrom(self._proto)
        names = dict.fromkeys(name for place in self._places for name in place.crossing)
        told.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in self._outputs)
        files.write_proto(told, self._path)
        return Session(self._path, self._use, 1 if self._use is MemoryUse.FULL else 0)

    def run(self, feed: Feed, instead: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Return the outputs with the named tensors replaced; several threads may ask at once."""
        return self._session.run({**feed, **(instead or {})}, self._outputs)

    def ends(self, feeds: Sequence[Feed], expected: Sequence[Outputs], workers: int) -> Ends:
        """Return what answers these feeds with tensors replaced, given the model's answers, in less time than `run`."""
        ends = Ends(self._session, feeds, expected)
        ends.add(self._proto, self._places, self._path, self._use, workers)
        return ends

    def answers_and_costs(self, feeds: Sequence[Feed]) -> tuple[list[Outputs], list[float]]:
        """Return the outputs for each feed, and what a run of it takes at a nominal speed.

        The session that tells the sizes of products keeps all of them in memory: where that is scarce, every weight is
        taken to be multiplied with every row of the answers.
        """
        if self._use is not MemoryUse.FULL:
            rough = [self.run(feed) for feed in feeds]
            numbers = sum(switch.matrix.size for switch in self.switches)
            return list(rough), [nominal_seconds([], len(self._proto.graph.node), each, numbers) for each in rough]
        files.write_proto(with_sizes(self._proto), self._path)
        session = Session(self._path, MemoryUse.MAPPED)
        answers = [session.run(feed) for feed in feeds]
        del session
        give_back()
        products, nodes = products_of(self._proto), len(self._proto.graph.node)
        costs = [nominal_seconds(products, nodes, answer, self._inside) for answer in answers]
        return [{name: answer[name] for name in answer if not is_size(name)} for answer in answers], costs

    def let_go(self) -> None:
        """Give back the memory that what was read of the weights takes."""
        self._file.let_go()


def formats(switch: Switch, options: Options) -> dict[int, BlockFormat]:
    """Return the formats that a weight can have, by width."""
    if switch.stored:
        return {bits: BlockFormat.fine(bits, BLOCK_SIZE) for bits in range(2, 9)}
    lowering = make_lowering(options.lowering, options.lacks)
    asked = {bits: lowering.format(bits, options.block_size, len(switch.matrix)) for bits in range(2, 9)}
    return {bits: fmt for bits, fmt in asked.items() if fmt.bits == bits}


def stored_bytes(fmt: BlockFormat, shape: Sequence[int]) -> int:
    """Return the bytes of codes, exponents and column scales of a [k, n] weight."""
    k, n = shape
    blocks, rows = fmt.blocks(k)
    exponent_bits = 0
    if fmt.max_exponent:
        exponent_bits = 8 if fmt.steps > 1 else next(width for width in (1, 2, 4) if fmt.max_exponent < 1 << width)
    return -(-n * blocks * (rows * fmt.bits + exponent_bits) // 8) + 2 * n


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
