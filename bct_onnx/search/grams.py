"""How the channels of a product's input go together: x.T @ x of activations, captured from the input model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from bct_onnx import files
from bct_onnx.arrays import Feed
from bct_onnx.errors import BctError
from bct_onnx.sessions import OrtError, Session
from passes import Coder, Options, make_plain
from passes.context import plain_codes
from passes.formats.block import BlockFormat, BlockTensor
from passes.formats.compensated import Gram, compensate
from passes.graph.linear import Linear, match_linear
from passes.graph.walk import walk

# Activations captured in one run of the feeds: more are faster and take more memory.
TOGETHER = 16


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


class Grams:
    """Gram matrices by name of the activation, captured a few at a time in the order of the names."""

    def __init__(self, path: Path, names: Iterable[str], feeds: Sequence[Feed]) -> None:
        """Load the model of a file with the named tensors as outputs, too; BctError where that fails."""
        self._feeds = feeds
        try:
            self._session, self._names = open_with_outputs(path, names)
        except OrtError as error:
            raise BctError(f"{path}: ONNX Runtime does not load the model: {error}") from error
        self._at_hand: dict[str, Gram] = {}

    def get(self, name: str | None) -> Gram | None:
        """Return the Gram matrix of an activation, or None where it could not be captured."""
        if name not in self._names:
            return None
        if name not in self._at_hand:
            start = self._names.index(name)
            self._at_hand = self._capture(self._names[start : start + TOGETHER])
        return self._at_hand.get(name)

    def _capture(self, names: list[str]) -> dict[str, Gram]:
        sums: dict[str, NDArray[np.float32]] = {}
        samples = dict.fromkeys(names, 0)
        for feed in self._feeds:
            for name, array in self._session.run(feed, names).items():
                rows = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
                sums[name] = sums.get(name, np.float32(0)) + rows.T @ rows
                samples[name] += len(rows)
        return {name: Gram(total / np.float32(max(1, samples[name])), samples[name]) for name, total in sums.items()}


def product_inputs(graph: gs.Graph) -> list[str]:
    """Return the names of what products with constant weights read, in graph order; the graph is changed."""
    make_plain(graph, Options())
    linears = (match_linear(node) for _, node in walk(graph))
    return [linear.x.name for linear in linears if isinstance(linear, Linear)]


def compensating_coder(grams: Grams) -> Coder:
    """Return a coder whose codes make up for each other's errors wherever enough is known of the activation."""

    def code(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
        gram = grams.get(activation)
        if gram is None or len(gram.matrix) != len(weight) or not gram.suffices:
            return plain_codes(weight, fmt, activation, workers)
        return compensate(weight, gram, fmt, workers)

    return code
