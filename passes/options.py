"""What the passes are asked to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .graph.features import NOTHING, Lacks
from .lowerings.base import Lowering
from .lowerings.table import LOWERINGS, make_lowering
from .report import TOGETHER

# The passes that run unless told otherwise.
DEFAULT_OPERATORS = frozenset(
    {
        *(
            "sparse",
            "fold",
            "unfuse",
            "tied",
            "gather",
            "attention",
            "biases",
            "even_channels",
            "absorb",
            "unread_rows",
            "fuse_gelu",
            "sizes",
        ),
        *("quantized_weights", "matmul", "experts", "constant"),
    }
)
ACTIVATIONS = ("int8", "int4", "float8e4m3")


@dataclass(frozen=True)
class Options:
    """A request, valid or refused when it is made.

    Attributes:
        bits: width of a weight's codes, 2 to 8.
        block_size: neighbours along the summed axis that share a scale, a multiple of 8; 0 for the whole column.
        lowering: dense, dense7, packed, both, qdq or shifts.
        keep: regular expressions; a node or weight whose name one of them finds is left alone.
        workers: threads that encode.
        operators: names of the passes that run, of those in the chain.
        activations: code type of intermediate results, int8, int4 or float8e4m3, where the passes code them.
        scales: fine (quarter octaves) or shift (powers of two): block scales of weights that nothing multiplies in
            integers.
        lacks: features that the runtime which is to run the file does not have.
        inline: whether the file holds what functions do in place of their calls, for runtimes that know no functions.
        bits_for: width of the codes of single weights, by the name they have in the report, instead of `bits`.
        table_bits: width of the codes of tables of which rows are looked up, instead of `bits`, or None.
    """

    bits: int = 6
    block_size: int = 32
    lowering: str = "dense"
    keep: tuple[str, ...] = ()
    workers: int = 2
    operators: frozenset[str] = DEFAULT_OPERATORS
    activations: str = "int8"
    scales: str = "fine"
    lacks: Lacks = NOTHING
    inline: bool = False
    bits_for: Mapping[str, int] = field(default_factory=dict)
    table_bits: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no lowering can do, with ValueError."""
        for bits in self.widths:
            if not 2 <= bits <= 8:
                raise ValueError(f"bits must be 2 to 8, not {bits}")
        if self.block_size < 0 or self.block_size % 8:
            raise ValueError(f"block size must be a multiple of 8, or 0 for a whole column, not {self.block_size}")
        if self.lowering not in LOWERINGS:
            raise ValueError(f"lowering must be one of {', '.join(LOWERINGS)}, not {self.lowering!r}")
        sizes = self.form.block_sizes
        if sizes and self.block_size not in sizes:
            *most, last = map(str, filter(None, sizes))
            raise ValueError(
                f"{self.lowering} weights take a block size of {', '.join(most)} or {last}, not {self.block_size}"
            )
        if self.activations not in ACTIVATIONS:
            raise ValueError(f"activations must be one of {', '.join(ACTIVATIONS)}, not {self.activations!r}")
        for pattern in self.keep:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"keep pattern {pattern!r} is not a regular expression: {error}") from error

    @property
    def form(self) -> Lowering:
        """The lowering, for the runtime that is to run the file: what it can do."""
        return make_lowering(self.lowering, self.lacks)

    @property
    def widths(self) -> frozenset[int]:
        """All widths that weights may have."""
        return frozenset({self.bits, self.table_bits or self.bits, *self.bits_for.values()})

    def width(self, name: str) -> int:
        """Return the width of the codes of a weight, or of several whose names ` + ` joins, as in `bits_for`.

        Where a width was chosen for other groups than are stored together, each weight has its group's, or more.
        """
        if name in self.bits_for:
            return self.bits_for[name]
        return max(self._width_of.get(part, self.bits) for part in name.split(TOGETHER))

    def table_width(self, name: str) -> int:
        """Return the same for a table of which rows are looked up."""
        return self.table_bits if self.table_bits and name not in self.bits_for else self.width(name)

    @cached_property
    def _width_of(self) -> dict[str, int]:
        return {part: bits for name, bits in self.bits_for.items() for part in name.split(TOGETHER)}

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern) for pattern in self.keep]

    def keeps(self, *names: str) -> str | None:
        """Return the pattern that finds one of the names, or None."""
        return next((p.pattern for p in self._patterns if any(name and p.search(name) for name in names)), None)
