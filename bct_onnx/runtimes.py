"""The oldest ONNX Runtime that runs a compressed model, from what releases did when tried (CPU, x86-64).

And the other way round: what a model may be made of for a release that is named beforehand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, TensorProto

from passes import NOTHING, Feature, Lacks
from passes.graph.operators import find_operator, qualified

from .errors import BctError
from .opsets import opset_of

# The releases tried. One between two of them counts as the older one.
RELEASES = (
    "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1",
    "1.23.2", "1.24.4", "1.25.1", "1.26.0", "1.28.0", "1.32.0",
)  # fmt: skip
OLDEST, NEWEST = RELEASES[0], RELEASES[-1]

# Version of the standard operators, and of the file format: the first release that accepts it.
# Lower versions run on all; of higher ones only the newest release may know.
OPSETS = {
    21: "1.18.1", 22: "1.21.1", 23: "1.23.2", 24: "1.24.4", 25: "1.24.4", 26: "1.25.1", 27: NEWEST,
}  # fmt: skip
IR_VERSIONS = {10: "1.18.1", 11: "1.23.2", 12: "1.24.4", 13: "1.24.4", 14: NEWEST}

INT4 = frozenset({TensorProto.INT4, TensorProto.UINT4})


@dataclass(frozen=True)
class Form:
    """Nodes that a release is the first to run.

    Attributes:
        first: the release.
        ops: operators, standard ones without a domain; none for all of them.
        types: element types, one of which an input of the node has; none for all of them.
        opset: lowest version of the standard operators at which the form is one.
        when: what the node's integer attributes must say.
        feature: what passes write otherwise for a release that does not run it, or None where they never write it.
    """

    first: str
    ops: tuple[str, ...] = ()
    types: frozenset[int] = frozenset()
    opset: int = 1
    when: Callable[[Mapping[str, int]], bool] = lambda _: True
    feature: Feature | None = None


NBITS, GATHER_BLOCKS = "com.microsoft.MatMulNBits", "com.microsoft.GatherBlockQuantized"

# What compressed models are made of. Not listed because the oldest release runs it: MatMulNBits of 4 bits;
# MatMulIntegerToFloat with one scale a column, also on [batch, k, n] and on a vector; BitShift, BitwiseAnd, BitwiseOr,
# Where and Slice of bytes; Gather of int8; QuantizeLinear with one scale; Cast from float16 and float8.
FORMS = (
    # A last block that is not full makes no difference.
    Form(
        "1.19.2",
        ("QuantizeLinear", "DequantizeLinear"),
        when=lambda a: a.get("block_size", 0) != 0,
        feature=Feature.BLOCKWISE,
    ),
    # 1.23 knows the QuantizeLinear of no opset above 22.
    Form("1.24.4", ("QuantizeLinear",), opset=23),
    Form("1.19.2", types=INT4),
    Form("1.23.2", ("Cast",), types=INT4, feature=Feature.INT4_CASTS),
    Form("1.22.1", (NBITS,), when=lambda a: a.get("bits", 4) == 8, feature=Feature.NBITS_8),
    Form("1.23.2", (NBITS,), when=lambda a: a.get("bits", 4) == 8 and a.get("accuracy_level", 0) != 4),
    # With float activations until 1.28, with int8 ones from there.
    Form("1.24.4", (NBITS,), when=lambda a: a.get("bits", 4) == 2, feature=Feature.NBITS_2),
    # Codes in bytes; codes in int4 run from 1.20.1.
    Form("1.23.2", (GATHER_BLOCKS,), feature=Feature.GATHER_BLOCKS),
    # 1.23 multiplies with codes where the activation is SwiGLU only.
    Form("1.24.4", ("com.microsoft.QMoE",), feature=Feature.EXPERTS),
    # Masks of all heads are refused until 1.19; 1.20 adds them up wrongly.
    Form("1.21.1", ("com.microsoft.MultiHeadAttention",)),
    Form("1.28.0", (GATHER_BLOCKS,), when=lambda a: a.get("bits", 4) == 2, feature=Feature.GATHER_BLOCKS_2),
)


@dataclass(frozen=True)
class Demand:
    """Something in a model, in words, and the first release that runs it."""

    first: str
    what: str


@dataclass(frozen=True)
class Limits:
    """What a model may be made of.

    Attributes:
        release: one of RELEASES, which has to run it, or None for whichever does.
        opset: highest version of the standard operators with which all that passes write runs.
        newest_opset: highest version that is accepted.
        ir_version: highest version of the file format.
        lacks: what passes write otherwise.
    """

    release: str | None = None
    opset: int = sys.maxsize
    newest_opset: int = sys.maxsize
    ir_version: int = sys.maxsize
    lacks: Lacks = NOTHING

    def check(self, model: onnx.ModelProto, path: object) -> None:
        """Raise BctError where a model asks for a later release, naming the first thing that does."""
        demand = self.newer(model)
        if demand is not None:
            raise BctError(
                f"{path}: {demand.what} runs from ONNX Runtime {demand.first}, not in {self.release}:"
                " export the model without it, or ask for a later --runtime"
            )

    def newer(self, model: onnx.ModelProto) -> Demand | None:
        """Return the first thing in a model that asks for a later release, or None."""
        return next((demand for demand in _demands(model) if self.is_newer(demand.first)), None)

    def is_newer(self, release: str) -> bool:
        """Tell whether a release is later than the one that has to run the model."""
        return self.release is not None and RELEASES.index(release) > RELEASES.index(self.release)


def limits_of(runtime: str | None) -> Limits:
    """Return what a model may be made of for a release such as "1.20.1", or "1.20", that of them which was tried.

    Raises BctError for what is no release, or one older than all that were tried.
    """
    if runtime is None:
        return Limits()
    release = _tried(runtime)
    newer = Limits(release).is_newer
    accepted = max((v for v, first in OPSETS.items() if not newer(first)), default=min(OPSETS) - 1)
    # Of an operator that a release accepts the opset of, but does not know.
    whole = min((form.opset - 1 for form in FORMS if form.opset > 1 and newer(form.first)), default=accepted)
    ir_version = max((v for v, first in IR_VERSIONS.items() if not newer(first)), default=min(IR_VERSIONS) - 1)
    lacks = frozenset(form.feature for form in FORMS if form.feature is not None and newer(form.first))
    return Limits(release, min(accepted, whole), accepted, ir_version, lacks)


def first_release(feature: Feature) -> str:
    """Return the first release that runs a feature."""
    return next(form.first for form in FORMS if form.feature is feature)


def _tried(runtime: str) -> str:
    """Return the latest release tried that is none later than the named one."""
    if re.fullmatch(r"\d+\.\d+(\.\d+)?", runtime) is None:
        raise BctError(f"runtime {runtime!r} is no release of ONNX Runtime; name one such as 1.20 or 1.20.1")
    asked = _numbers(runtime)
    known = [release for release in RELEASES if _numbers(release)[: len(asked)] <= asked]
    if not known:
        raise BctError(
            f"runtime {runtime} is older than {OLDEST}, the oldest ONNX Runtime that models are made for;"
            f" name {OLDEST} or a later one"
        )
    return known[-1]


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


# By domain and name.
Functions = Mapping[tuple[str, str], onnx.FunctionProto]


def min_onnxruntime(model: onnx.ModelProto) -> str:
    """Return the oldest release, such as "1.23.2", that runs a compressed model on the CPU.

    It knows the model's opset, its IR version and the forms that compression writes, in subgraphs and
    functions too; other operators are taken to run wherever their opset does. A version newer than all
    that was tried asks for the newest release.
    """
    return max((demand.first for demand in _demands(model)), key=RELEASES.index)


def _demands(model: onnx.ModelProto) -> Iterator[Demand]:
    opset = opset_of(model)
    yield Demand(_first(OPSETS, opset), f"opset {opset}")
    yield Demand(_first(IR_VERSIONS, model.ir_version), f"IR version {model.ir_version}")
    functions = {(function.domain, function.name): function for function in model.functions}
    yield from _of_graph(model.graph, {}, opset, functions, {})


def _first(releases: Mapping[int, str], version: int) -> str:
    return OLDEST if version < min(releases) else releases.get(version, NEWEST)


def _of_graph(
    graph: onnx.GraphProto, outer: Mapping[str, int], opset: int, functions: Functions, given: Mapping[str, int]
) -> Iterator[Demand]:
    types = dict(outer)
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    yield from _of_nodes(graph.node, types, opset, functions, given)


def _of_nodes(
    nodes: Sequence[onnx.NodeProto],
    types: dict[str, int],
    opset: int,
    functions: Functions,
    given: Mapping[str, int],
) -> Iterator[Demand]:
    """Yield what nodes ask for; `given` are the integer attributes of the call, where they are in a function's body."""
    for node in nodes:
        integers = {a.name: given.get(a.ref_attr_name, a.i) for a in node.attribute if a.type == AttributeProto.INT}
        function = functions.get((node.domain, node.op_type))
        if function is not None:
            inner = {name: types.get(tensor, 0) for name, tensor in zip(function.input, node.input, strict=False)}
            # No function calls itself, whatever a file says.
            others = {key: each for key, each in functions.items() if each is not function}
            yield from _of_nodes(function.node, inner, opset, others, integers)
            types |= {tensor: inner.get(name, 0) for name, tensor in zip(function.output, node.output, strict=False)}
            continue
        op = qualified(node.op_type, node.domain)
        taken = {types.get(name, TensorProto.UNDEFINED) for name in node.input}
        types |= dict.fromkeys(node.output, _made(node, op, integers, types))
        for form in FORMS:
            if (
                (not form.ops or op in form.ops)
                and (not form.types or form.types & taken)
                and form.opset <= opset
                and form.when(integers)
            ):
                yield Demand(form.first, f"node {node.name or node.output[0]!r} ({form.feature or op})")
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _of_graph(body, types, opset, functions, given)


def _made(node: onnx.NodeProto, op: str, integers: Mapping[str, int], types: Mapping[str, int]) -> int:
    """Return the element type of what a node makes, for the nodes whose output may be int4."""
    stated = 0
    if op == "Constant":
        stated = next((a.t.data_type for a in node.attribute if a.type == AttributeProto.TENSOR), 0)
    elif op == "Cast":
        stated = integers.get("to", 0)
    elif (moved := find_operator(op).moves) is not None:
        stated = types.get("".join(node.input[moved][:1]), 0)
    elif op == "QuantizeLinear":
        stated = integers.get("output_dtype", 0) or types.get("".join(node.input[2:3]), 0)
    return stated or types.get(node.output[0], TensorProto.UNDEFINED)
