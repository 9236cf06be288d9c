"""What the passes of one run share: the editor, the request, and the weights already stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .formats.block import BlockFormat, BlockTensor
from .formats.encode import encode, largest_size
from .graph import constants
from .graph.constants import ConstantView, resolve
from .graph.editor import Editor, Emitter
from .graph.shapes import Shapes
from .graph.walk import output_names
from .lowerings.base import Apart, Lowering, StoredWeight
from .lowerings.operators import FLOAT, cast
from .options import Options
from .report import TOGETHER, PassReport, Skip, TensorReport

# Weights whose scales, and sums of codes up to 2^31 times these, are normal float32.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 2.0**-100, 2.0**100
Found = TypeVar("Found")
# Makes the codes of a float [k, n] weight: (weight, format, name of the activation it is multiplied with, threads).
Coder = Callable[[NDArray[np.floating], BlockFormat, str | None, int], BlockTensor]


def plain_codes(
    weight: NDArray[np.floating],
    fmt: BlockFormat,
    activation: str | None,  # noqa: ARG001 (one signature for all)
    workers: int,
) -> BlockTensor:
    """Return the codes nearest to a weight, whatever it is multiplied with."""
    return encode(weight, fmt, workers)


@dataclass(frozen=True)
class ChannelRange:
    """What the channels of an activation hold on some inputs.

    Attributes:
        lowest, mean, highest: values of each channel, float [width].
        rows: some of its rows, float [rows, width].
        found: what was found out from them, by what it was found out for: it takes time, and files are written often.
    """

    lowest: NDArray[np.floating]
    mean: NDArray[np.floating]
    highest: NDArray[np.floating]
    rows: NDArray[np.floating]
    found: dict[tuple[Any, ...], Any] = field(default_factory=dict, compare=False)


@dataclass
class Context:
    """One run over one graph.

    Attributes:
        editor: makes every change.
        options: the request.
        lowering: stores and multiplies weights.
        report: report of the pass at work.
        checked: whether every pass is held to its contract, see `check`.
        coder: makes the codes of weights that the lowering stores.
        stored: weights already in the graph, by what they hold and how they lie.
        rows_of: names of tensors that hold some rows of another, and that one's name.
        ranges: what channels hold, by name of the activation in the input model, where somebody looked.
        names: names in the input model of the weights that constants were made of, by the constant's own.
    """

    editor: Editor
    options: Options
    lowering: Lowering
    report: PassReport
    checked: bool = False
    coder: Coder = plain_codes
    stored: dict[tuple[Any, ...], StoredWeight] = field(default_factory=dict)
    rows_of: dict[str, str] = field(default_factory=dict)
    ranges: Mapping[str, ChannelRange] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _made: dict[tuple[str, str, int], gs.Tensor] = field(default_factory=dict)
    _outputs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Note which tensors are outputs of the graph or of a body."""
        self._outputs = output_names(self.editor.graph)

    def found(self, find: Callable[[Context], Found]) -> Found:
        """Return what `find` finds in the graph as it is when a pass asks first; the answer stays the same.

        What one pass knows of the run lives in that pass: a function that looks at the graph and changes nothing.
        """
        return self.editor.once(find, lambda: find(self))

    @property
    def shapes(self) -> Shapes:
        """What is known of the sizes of all tensors."""
        return self.editor.shapes

    def kept(self, node: gs.Node, *names: str) -> Skip | None:
        """Say so where a pattern keeps a node: one that finds it, a tensor it reads, or the constant behind that.

        `names` are others by which it may be found.
        """
        if not self.options.keep:
            return None
        sources = [view.source for view in map(resolve, node.inputs) if view is not None]
        pattern = self.options.keeps(node.name, *names, *(tensor.name for tensor in (*node.inputs, *sources)))
        return None if pattern is None else Skip(f"kept by the pattern {pattern!r}")

    def changed(self, constant: gs.Constant, source: gs.Constant) -> gs.Constant:
        """Return a constant that was made of another; reports and requests go on to speak of that one."""
        self.names[constant.name] = self.names.get(source.name, source.name)
        return constant

    def is_output(self, tensor: gs.Tensor) -> bool:
        """Tell whether a tensor is an output of the graph or of a body, and so must keep its name and place."""
        return tensor.name in self._outputs

    def store(
        self,
        key: tuple[Any, ...],
        sources: list[gs.Constant],
        load: Callable[[], NDArray[np.floating]],
        by_rows: bool = False,
        only_rows: bool = False,
        activation: str | None = None,
    ) -> StoredWeight | Skip:
        """Encode and write a weight, [k, n] as `load` returns it, unless one with this key is in the graph already.

        `activation` is the name of what multiplies with it, [..., k]; with `only_rows`, nothing does.
        """
        if key not in self.stored:
            matrix = load()
            if reason := self.uncodable(matrix, sources):
                return reason
            name = TOGETHER.join(self.names.get(source.name, source.name) for source in sources)
            fmt = self._format(name, matrix.shape[0], by_rows)
            recorded = self.rows_of.get(activation, activation) if activation else None
            tensor = self.coder(matrix, fmt, recorded, self.options.workers)
            stored = self.lowering.store(self.editor.at_load(), tensor, f"w{len(self.stored)}", by_rows, only_rows)
            self.stored[key] = stored
            reader = constants.reader_of(sources[0])
            self.report.tensors.append(
                TensorReport(
                    name=name,
                    shape=(int(matrix.shape[0]), int(matrix.shape[1])),
                    bits=fmt.bits,
                    block_size=fmt.block_size,
                    lowering=self.lowering.name,
                    bytes_before=sum(map(constants.constant_bytes, sources)),
                    bytes_after=stored.bytes,
                    sqnr_db=tensor.sqnr_db,
                    op=reader.op if reader else "",
                    node=reader.name if reader else "",
                )
            )
        return self.stored[key]

    def _format(self, name: str, k: int, by_rows: bool) -> BlockFormat:
        """Return the format of a weight of k rows, or by rows of a table of which rows are looked up."""
        options = self.options
        if not by_rows:
            return self.lowering.format(options.width(name), options.block_size, k)
        bits, opset = options.table_width(name), self.editor.at_load().opset
        fmt = self.lowering.table_format(bits, options.block_size, k, opset)
        if fmt.bits == bits:
            return fmt
        # Where there are no such codes, tables have the width of all weights.
        return self.lowering.table_format(options.width(name), options.block_size, k, opset)

    def uncodable(self, matrix: NDArray[np.floating], sources: list[gs.Constant]) -> Skip | None:
        """Return why a weight made of some constants has no codes, or None."""
        size = largest_size(matrix, self.options.workers)
        if not math.isfinite(size):
            self.report.not_finite += [s.name for s in sources if not np.isfinite(constants.load(s)).all()]
            return Skip("its weight holds NaN or infinity")
        if size and not SMALLEST_WEIGHT <= size <= LARGEST_WEIGHT:
            return Skip(f"its weight reaches {size:.2g}: sums of codes times its scales are beyond float32")
        return None

    def stores_apart(self, sources: list[gs.Constant]) -> bool:
        """Tell whether weights that are multiplied as one have codes of their own."""
        apart = self.lowering.apart
        widths = {self.options.width(self.names.get(source.name, source.name)) for source in sources}
        return len(sources) > 1 and (apart is Apart.ALWAYS or (apart is Apart.WHERE_WIDTHS_DIFFER and len(widths) > 1))

    def as_float(self, at: Emitter, x: gs.Tensor, dtype: str) -> gs.Tensor:
        """Return x as float32, cast once for all its readers in one graph."""
        if dtype == "float32":
            return x
        return self.once("float", at, x, lambda at, x: cast(at, x, FLOAT, f"x{len(self._made)}.float"))

    def once(self, what: str, at: Emitter, x: gs.Tensor, make: Callable[[Emitter, gs.Tensor], gs.Tensor]) -> gs.Tensor:
        """Return `what` of x as `make` writes it, written once for all its readers in one graph."""
        key = (what, x.name, at.scope)
        if key not in self._made:
            self._made[key] = make(at, x)
        return self._made[key]


def weight_key(view: ConstantView, transposed: bool) -> tuple[Any, ...]:
    """Return a key that is equal for the same matrix, whether the reader or an operator in between transposes it.

    `transposed`: the reader takes the view's last two axes the other way round.
    """
    steps = constants.moving_steps(view)
    while steps and steps[-1] == ("transpose", (1, 0)):
        steps, transposed = steps[:-1], not transposed
    return (id(view.source), steps, transposed)
