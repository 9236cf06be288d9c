"""What every lowering of a multiplied weight offers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol, cast

import onnx_graphsurgeon as gs

from ..formats.block import BlockFormat, BlockTensor
from ..graph.editor import Emitter


class Apart(Enum):
    """When weights that are multiplied as one, side by side, are stored each by itself."""

    NEVER = "never"
    WHERE_WIDTHS_DIFFER = "where widths differ"
    ALWAYS = "always"


@dataclass(frozen=True)
class StoredWeight:
    """A weight in the graph.

    Attributes:
        name: what the names of its tensors begin with.
        values: what the lowering multiplies with or looks up in.
        scale: float scales that go with it.
        format: format of its codes.
        k: length of the axis that is summed over.
        n: columns.
        by_rows: True when `values` holds [n, k], one row an output column, as tables are; False for [k, n].
        tensor_scale: a factor of every scale that the lowering applies elsewhere.
        bytes: bytes in the file.
        planes: the codes of a table that stays packed; `values` is the first of them.
    """

    name: str
    values: gs.Tensor
    scale: gs.Tensor
    format: BlockFormat
    k: int
    n: int
    by_rows: bool
    tensor_scale: float
    bytes: int
    planes: tuple[gs.Constant, ...] = ()


class TablesLikeWeights:
    """Lowerings whose tables of which rows are looked up have the formats of weights."""

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return what a weight of k rows has."""
        raise NotImplementedError

    def table_format(self, bits: int, block_size: int, k: int, opset: int) -> BlockFormat:
        """Return the same."""
        del opset
        return self.format(bits, block_size, k)

    def table_opset(self, bits: int) -> int:
        """Return the same."""
        return cast("Lowering", self).opset(bits)


class Lowering(Protocol):
    """One way to store a weight and to compute with it. Activations are float32.

    Attributes:
        name: the name by which it is asked for and reported: no pass looks at it.
        best_opset: the opset with which it is fastest.
        integer_rows: whether `multiply` quantizes an activation with one scale a row and multiplies int8 weights
            [k, n] with a scale a column; what is added to the product is then added apart, in float.
        decoded_at_load: whether a session holds int8 whatever the bits in the file: all widths are equally fast.
        standard_only: whether it writes ONNX's own operators and no others, for any runtime.
        batches: whether weights may be a batch of matrices.
        apart: when weights side by side in one product are stored apart and joined when a session is made.
        block_sizes: the block sizes that may be asked for, 0 for a whole column; none named: all multiples of 8.
    """

    name: str
    best_opset: int
    integer_rows: ClassVar[bool]
    decoded_at_load: ClassVar[bool]
    standard_only: ClassVar[bool]
    batches: ClassVar[bool]
    apart: ClassVar[Apart]
    block_sizes: ClassVar[tuple[int, ...]]

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return the nearest format the lowering has for a request and a weight of k rows."""
        ...

    def table_format(self, bits: int, block_size: int, k: int, opset: int) -> BlockFormat:
        """Return the same for a table with k columns of which rows are looked up, at an opset."""
        ...

    def opset(self, bits: int) -> int:
        """Return the lowest opset that weights of this width need."""
        ...

    def table_opset(self, bits: int) -> int:
        """Return the lowest opset that tables of this width need."""
        ...

    def store(
        self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool, only_rows: bool = False
    ) -> StoredWeight:
        """Write a weight and what decodes it when the session is made; `only_rows`: nothing multiplies with it."""
        ...

    def multiply(
        self,
        at: Emitter,
        x: gs.Tensor,
        weight: StoredWeight,
        name: str,
        node: str = "",
        floor: float | None = None,
    ) -> gs.Variable:
        """Write x [..., k], which is never below `floor`, times the weight: [..., n]; the call is named `node`."""
        ...

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str = "") -> gs.Variable:
        """Write the rows of a table (stored by rows) at integer indices [...]: [..., k]."""
        ...
