"""Models that draw numbers: which outputs differ from run to run, and seeds with which they do not."""

from pathlib import Path

import numpy as np
import onnx

from bct_onnx.arrays import Array, Feed, Outputs
from bct_onnx.files.order import nodes_of
from bct_onnx.sessions import Session
from passes.graph.operators import Trait, find_operator, qualified

# Threads that add in another order change less than this part of a value's size.
ROUNDING = 1e-3


def random_outputs(session: Session, feed: Feed, before: Outputs) -> tuple[str, ...]:
    """Return the names of the float outputs that a second run of a feed gives other values."""
    again = session.run(feed)
    return tuple(name for name, array in before.items() if not _is_same(array, again.get(name)))


def with_seeds(path: str | Path) -> bytes:
    """Return a model of less than 2 GB whose operators that draw numbers have seeds, by their order."""
    model = onnx.load_model(path)
    drawing = (
        node
        for node in nodes_of(model.graph)
        if Trait.RANDOM in find_operator(qualified(node.op_type, node.domain)).traits
    )
    for number, node in enumerate(drawing, 1):
        kept = [attribute for attribute in node.attribute if attribute.name != "seed"]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("seed", float(number))])
    return bytes(model.SerializeToString())


def _is_same(one: Array, other: Array | None) -> bool:
    if other is None or one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    size = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return bool(np.allclose(one, other, rtol=0, atol=ROUNDING * float(size), equal_nan=True))
