"""How much work a run of a model is, by count instead of by the clock, so that a search does the same on every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bct_onnx import files
from bct_onnx.arrays import Array, Feed
from bct_onnx.sessions import MemoryUse, Session, give_back

# Nominal speed: multiplications a second, and seconds a node takes however little it has to do. Two cores do it.
RATE, NODE_SECONDS = 5e10, 1e-5
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
# Part of the time that may go to running every weight on more feeds than one: files are written and measured, too.
SHARE = 0.15


@dataclass(frozen=True)
class Affordable:
    """What is run: so many of the feeds, for so many of the weights."""

    feeds: int
    weights: int


def nominal_seconds(proto: onnx.ModelProto, path: Path, feeds: Sequence[Feed]) -> list[float]:
    """Return the seconds that a run of each feed takes at the nominal speed, by the sizes its products really have.

    `path` is a new file for the model with the sizes as outputs. Products inside If, Loop and Scan are not counted.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    products = [node for node in proto.graph.node if node.op_type in PRODUCTS and not node.domain]
    del sized.graph.output[:]
    for number, node in enumerate(products):
        for part, tensor in (("x", node.input[0]), ("w", node.input[1]), ("y", node.output[0])):
            name = f"size.{number}.{part}"
            sized.graph.node.append(onnx.helper.make_node("Shape", [tensor], [name]))
            sized.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None]))
    fixed = NODE_SECONDS * len(proto.graph.node)
    if not products:
        return [fixed] * len(feeds)
    files.write_proto(sized, path)
    session = Session(path, MemoryUse.MAPPED)
    answers = [session.run(feed) for feed in feeds]
    del session
    give_back()
    return [fixed + _multiplications(products, sizes) / RATE for sizes in answers]


def affordable(costs: Sequence[float], weights: int, seconds: float) -> Affordable:
    """Return as many of the feeds, in their order and at least one, as can be run for every weight in that share of it.

    Where not even the first one can be run for all weights in the whole time, fewer weights are run, at least one.
    """
    within = np.cumsum(costs) * weights <= SHARE * seconds
    feeds = max(1, int(within.sum()))
    return Affordable(feeds, min(weights, max(1, int(seconds / max(sum(costs[:feeds]), 1e-9)))))


def _multiplications(products: Sequence[onnx.NodeProto], sizes: Mapping[str, Array]) -> int:
    total = 0
    for number, node in enumerate(products):
        x, w, y = (sizes[f"size.{number}.{part}"] for part in "xwy")
        if node.op_type == "Conv":
            summed = int(np.prod(w[1:]))
        else:
            summed = int(np.prod(x)) // max(1, int(np.prod(y[:-1]))) if len(x) else 1
        total += int(np.prod(y)) * summed
    return total
