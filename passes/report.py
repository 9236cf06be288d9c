"""What a pass says of its work."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Skip:
    """Why a node was left alone: one sentence with the offending value."""

    reason: str


@dataclass(frozen=True)
class SkippedNode:
    """A node that was left alone."""

    node: str
    reason: str


@dataclass(frozen=True)
class TensorReport:
    """One weight before and after.

    Attributes:
        name: name of the weight in the input model (several joined by ` + ` where one multiplication took their place).
        shape: its shape, [k, n] of all that is stored together.
        bits: width of a code.
        block_size: neighbours that share a scale; 0 for a whole column.
        lowering: dense, packed, qdq, stored or half.
        bytes_before: bytes in the input model.
        bytes_after: bytes of codes and scales.
        sqnr_db: signal to quantization noise ratio of the weight, in decibels.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    block_size: int
    lowering: str
    bytes_before: int
    bytes_after: int
    sqnr_db: float


@dataclass
class PassReport:
    """What one pass did to the graph."""

    name: str
    replaced: int = 0
    skipped: list[SkippedNode] = field(default_factory=list)
    tensors: list[TensorReport] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)

    @property
    def bytes_before(self) -> int:
        """Bytes of the weights the pass took over."""
        return sum(tensor.bytes_before for tensor in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Bytes of what is stored in their place."""
        return sum(tensor.bytes_after for tensor in self.tensors)
