"""How the channels of a product's input go together: x.T @ x of activations, captured from the input model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from bct_onnx import files
from bct_onnx.arrays import Feed
from bct_onnx.errors import BctError
from bct_onnx.sessions import OrtError, Session, give_back
from passes import Coder, Options, make_plain
from passes.context import plain_codes
from passes.formats.block import BlockFormat, BlockTensor
from passes.formats.compensated import Gram, compensate, output_error
from passes.graph.editor import Move
from passes.graph.linear import Linear, match_linear
from passes.graph.walk import walk

# Bytes of Gram matrices captured in one run of the feeds: more are faster and take more memory.
TOGETHER_BYTES = 1 << 28
# Bytes of them that are kept on disk, so that they are captured once for all files of a search.
KEPT_BYTES = 1 << 30
# Part of a feed's rows that codes are fitted to where the rest is to tell whether that pays.
FITTED = 0.75
# Mean square below which a row is as good as zero.
SMALLEST_SQUARE = 1e-30


def open_with_outputs(path: Path, names: Iterable[str], place: Path | None = None) -> tuple[Session, list[str]]:
    """Load the model of a file with the named tensors as outputs, too; return it and those of them that it makes.

    With `place`, a new file, that and one beside it hold the model while it is loaded, if the disk has room for them:
    its weights are mapped. OrtError where ONNX Runtime does not load it.
    """
    source = files.read(path)
    model = onnx.ModelProto()
    model.CopyFrom(source.proto)
    outputs = {value.name for value in model.graph.output}
    produced = {name for node in model.graph.node for name in node.output} | {v.name for v in model.graph.input}
    known = [name for name in dict.fromkeys(names) if name in produced]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in known if name not in outputs)
    mapped = None
    with suppress(BctError):
        mapped = files.write_mapped(source, place, model) if place else None
    if mapped is None:
        whole = onnx.load_model(path)
        whole.graph.output.extend(model.graph.output[len(whole.graph.output) :])
        return Session(whole.SerializeToString()), known
    try:
        return Session(mapped.path), known
    finally:
        mapped.remove()


@dataclass(frozen=True)
class Seen:
    """What is known of one activation: of the first rows of every feed, and of the rest of them.

    Attributes:
        first, rest: x.T @ x, float32 [k, k], summed over the rows, each with a mean square of 1.
        rows: how many rows the first and the rest are.
        real: whether the feeds are the user's.
    """

    first: NDArray[np.float32]
    rest: NDArray[np.float32]
    rows: tuple[int, int]
    real: bool

    @property
    def fitted(self) -> Gram:
        """What codes are fitted to where the rest tells whether that pays."""
        return Gram(self.first / np.float32(max(1, self.rows[0])), self.rows[0], self.real)

    @property
    def bytes(self) -> int:
        """Bytes of both."""
        return self.first.nbytes + self.rest.nbytes

    def moved(self, move: Move) -> Seen:
        """Return the same where `move` puts it."""
        return replace(self, first=move(self.first), rest=move(self.rest))

    def let_go(self) -> None:
        """Give back the memory that what was read of it takes."""
        files.let_go(self.first)
        files.let_go(self.rest)

    @property
    def everything(self) -> Gram:
        """What all rows tell together."""
        count = sum(self.rows)
        return Gram((self.first + self.rest) / np.float32(max(1, count)), count, self.real)


class Grams:
    """Gram matrices by name of the activation, captured a few at a time in the order of the names."""

    def __init__(
        self,
        path: Path,
        widths: Mapping[str, int],
        feeds: Sequence[Feed],
        real: bool = True,
        move: Move | None = None,
    ) -> None:
        """Load the model of a file with the named tensors as outputs, too; BctError where that fails.

        `widths` are the activations' channels, k, by name; `real` tells whether the feeds are the user's. What was
        captured is kept where `move` puts it, if that is given: KEPT_BYTES at most.
        """
        self._feeds, self._real = feeds, real
        self._move, self._room = move, KEPT_BYTES if move else 0
        try:
            session, names = open_with_outputs(path, widths)
        except OrtError as error:
            raise BctError(f"{path}: ONNX Runtime does not load the model: {error}") from error
        self._session: Session | None = session
        self._groups = list(_together({name: widths[name] for name in names}))
        self._at_hand: dict[str, Seen | None] = {}
        self._kept: dict[str, Seen | None] = {}

    def get(self, name: str | None) -> Seen | None:
        """Return what is known of an activation, or None where it could not be captured or is not finite."""
        if name is not None and name not in self._at_hand and name not in self._kept:
            group = next((group for group in self._groups if name in group), None)
            if group is not None:
                self._at_hand = {}
                self._look(group)
        return self._at_hand.get(name or "") or self._kept.get(name or "")

    def _look(self, group: list[str]) -> None:
        captured = self._capture(group)
        found = {name: captured.get(name) for name in group}
        size = sum(seen.bytes for seen in captured.values())
        if self._move is None or size > self._room:
            self._at_hand = found
            return
        move = self._move
        self._room -= size
        self._kept |= {name: seen and seen.moved(move) for name, seen in found.items()}
        if all(name in self._kept for names in self._groups for name in names):
            self._session = None
            give_back()

    def _capture(self, names: list[str]) -> dict[str, Seen]:
        assert self._session is not None
        sums: dict[str, list[NDArray[np.float32]]] = {}
        rows = {name: np.zeros(2, np.int64) for name in names}
        for feed in self._feeds:
            for name, array in self._session.run(feed, names).items():
                every = _of_one_size(array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False))
                # What comes last is other samples, where a feed has several.
                parts = np.split(every, [int(np.ceil(FITTED * len(every)))])
                known = sums.setdefault(name, [np.zeros((every.shape[1],) * 2, np.float32) for _ in parts])
                for number, part in enumerate(parts):
                    with np.errstate(over="ignore", invalid="ignore"):
                        known[number] += part.T @ part
                    rows[name][number] += len(part)
        return {
            name: Seen(first, rest, (int(rows[name][0]), int(rows[name][1])), self._real)
            for name, (first, rest) in sums.items()
            if np.isfinite(first).all() and np.isfinite(rest).all()
        }


def _of_one_size(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows [rows, k] with a mean square of 1 each.

    A few rows of a language model, the first token's, say, are a hundred times as large as the rest: codes would be
    fitted to them alone.
    """
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) / rows.shape[1]
    with np.errstate(invalid="ignore"):
        return np.asarray(rows / np.sqrt(np.maximum(squares, SMALLEST_SQUARE))[:, None], np.float32)


def _together(widths: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield names whose two matrices each take TOGETHER_BYTES at most, or a single name."""
    group: list[str] = []
    size = 0
    for name, width in widths.items():
        each = 2 * 4 * width**2
        if group and size + each > TOGETHER_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += each
    if group:
        yield group


def product_inputs(graph: gs.Graph) -> dict[str, int]:
    """Return the channels of what products with constant weights read, by name in graph order; the graph is changed."""
    make_plain(graph, Options())
    linears = (match_linear(node) for _, node in walk(graph))
    return {linear.x.name: linear.k for linear in linears if isinstance(linear, Linear)}


def compensating_coder(grams: Grams) -> Coder:
    """Return a coder whose codes make up for each other's errors wherever something is known of the activation.

    Codes in a trellis make up for nothing, and err less by themselves: they give way where those that do err less on
    rows to which they were not fitted.
    """

    def code(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
        seen = grams.get(activation)
        if seen is None or len(seen.first) != len(weight):
            return plain_codes(weight, fmt, activation, workers)
        tensor = _fitted(weight, fmt, activation, workers, seen)
        seen.let_go()
        return tensor

    return code


def _fitted(
    weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int, seen: Seen
) -> BlockTensor:
    if not fmt.trellis:
        return compensate(weight, seen.everything, fmt, workers)
    nearest, matrix = plain_codes(weight, fmt, activation, workers), np.asarray(weight, np.float32)
    fitted = compensate(weight, seen.fitted, fmt, workers)
    if output_error(nearest, matrix, seen.rest) <= output_error(fitted, matrix, seen.rest):
        return nearest
    return compensate(weight, seen.everything, fmt, workers)
