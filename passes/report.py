"""What a pass says of its work."""

from __future__ import annotations

from dataclasses import dataclass, field

from .graph.features import Feature

# Between the names of weights that are stored as one.
TOGETHER = " + "


@dataclass(frozen=True)
class Skip:
    """Why a node was left alone: one sentence with the offending value."""

    reason: str


@dataclass(frozen=True)
class SkippedNode:
    """A node that was left alone.

    Attributes:
        node: its name, or its operator where it has none.
        reason: why: one sentence with the offending value.
        constants: names of the constants that it reads, perhaps through others.
    """

    node: str
    reason: str
    constants: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorReport:
    """One weight before and after.

    Attributes:
        name: name of the weight in the input model (several joined by ` + ` where one multiplication took their place).
        shape: its shape, [k, n] of all that is stored together.
        bits: width of a code.
        block_size: neighbours that share a scale; 0 for a whole column.
        lowering: dense, packed, both, qdq, shifts, stored (codes), table, whole (int16) or half.
        bytes_before: bytes in the input model.
        bytes_after: bytes of codes and scales.
        sqnr_db: signal to quantization noise ratio of the weight, in decibels.
        op: operator that reads it, behind Transpose, Reshape, Cast and their kin; empty where none is left.
        node: name of that node.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    block_size: int
    lowering: str
    bytes_before: int
    bytes_after: int
    sqnr_db: float
    op: str = ""
    node: str = ""


@dataclass(frozen=True)
class EdgeReport:
    """What became of an intermediate result.

    Attributes:
        tensor: its name in the input model.
        op: operator that computes it.
        how: coded (blockwise codes), reader (its readers quantize it), moved (moved codes) or left.
        reason: why it has no codes of its own, empty where it has.
    """

    tensor: str
    op: str
    how: str
    reason: str = ""


@dataclass(frozen=True)
class NodeReport:
    """What became of a node of the input model.

    Attributes:
        node: its name, or that of its output.
        op: its operator.
        how: replaced (computed from codes), between (computed in float between codes), moves, aside (no intermediate
            result: shapes, positions, masks) or left.
        reason: why it was left, empty otherwise.
    """

    node: str
    op: str
    how: str
    reason: str = ""


@dataclass
class PassReport:
    """What one pass did to the graph.

    `computes`: what it leaves alone computes in float, though its operators have a form on codes.
    `avoided` are features in whose place it wrote other operators, since the runtime lacks them.
    `edges` and `nodes` cover the whole graph: the pass for intermediate results reports them.
    """

    name: str
    computes: bool = False
    replaced: int = 0
    skipped: list[SkippedNode] = field(default_factory=list)
    tensors: list[TensorReport] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    avoided: set[Feature] = field(default_factory=set)
    edges: list[EdgeReport] = field(default_factory=list)
    nodes: list[NodeReport] = field(default_factory=list)

    @property
    def bytes_before(self) -> int:
        """Bytes of the weights the pass took over."""
        return sum(tensor.bytes_before for tensor in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Bytes of what is stored in their place."""
        return sum(tensor.bytes_after for tensor in self.tensors)
