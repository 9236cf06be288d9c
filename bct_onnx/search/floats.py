"""Weights as floats in the place of their codes, and a list of them: what a run can replace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from passes.formats.block import BlockFormat, BlockTensor
from passes.graph.editor import Emitter
from passes.lowerings.base import Apart, StoredWeight, TablesLikeWeights
from passes.written import as_rows


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
class FloatLowering(TablesLikeWeights):
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
