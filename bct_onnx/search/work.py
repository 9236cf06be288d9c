"""How much work a run of a model is, by count instead of by the clock, so that a search does the same on every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from bct_onnx.arrays import Array, Outputs
from passes.graph.phases import CACHE_RANK

# Nominal speed: multiplications a second, and seconds a node takes however little it has to do. Two cores do it.
RATE, NODE_SECONDS = 5e10, 1e-5
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
# Part of the time that may go to running every weight on more feeds than one: files are written and measured, too.
SHARE = 0.15
# How the outputs begin that are sizes.
_SIZE = "bct_onnx.size."


@dataclass(frozen=True)
class Affordable:
    """What is run: so many of the feeds, for so many of the weights."""

    feeds: int
    weights: int


def with_sizes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose outputs have the sizes of its products' operands besides.

    Products inside If, Loop and Scan are not among them.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    for number, node in enumerate(products_of(proto)):
        # Of weights only a convolution's is asked for: ONNX Runtime would copy those that two nodes read.
        weight = [("w", node.input[1])] if node.op_type == "Conv" else []
        for part, tensor in (("x", node.input[0]), ("y", node.output[0]), *weight):
            name = f"{_SIZE}{number}.{part}"
            sized.graph.node.append(onnx.helper.make_node("Shape", [tensor], [name]))
            sized.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None]))
    return sized


def is_size(output: str) -> bool:
    """Tell whether an output is one of those that `with_sizes` adds."""
    return output.startswith(_SIZE)


def nominal_seconds(products: Sequence[onnx.NodeProto], nodes: int, answer: Outputs, besides: int = 0) -> float:
    """Return the seconds that a run takes at the nominal speed, by the answer of `with_sizes(model)`.

    `products` are those of the model, of so many nodes. `besides` are the numbers of weights whose products are not
    among them: each is taken to be multiplied once with every row of the answer.
    """
    return NODE_SECONDS * nodes + (_multiplications(products, answer) + besides * _rows(answer)) / RATE


def affordable(costs: Sequence[float], weights: int, seconds: float) -> Affordable:
    """Return as many of the feeds, in their order and at least one, as can be run for every weight in that share of it.

    Where not even the first one can be run for all weights in the whole time, fewer weights are run, at least one.
    """
    within = np.cumsum(costs) * weights <= SHARE * seconds
    feeds = max(1, int(within.sum()))
    return Affordable(feeds, min(weights, max(1, int(seconds / max(sum(costs[:feeds]), 1e-9)))))


def products_of(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the products of a model's main graph, in its order."""
    return [node for node in proto.graph.node if node.op_type in PRODUCTS and not node.domain]


def _rows(answer: Outputs) -> int:
    """Return the rows of the output that has the most; caches, of more axes, have a row for every head."""
    outputs = [array for name, array in answer.items() if not is_size(name)]
    plain = [array for array in outputs if array.ndim < CACHE_RANK]
    return max((int(np.prod(array.shape[:-1])) for array in plain or outputs), default=1)


def _multiplications(products: Sequence[onnx.NodeProto], sizes: Mapping[str, Array]) -> int:
    total = 0
    for number, node in enumerate(products):
        x, y = (sizes[f"{_SIZE}{number}.{part}"] for part in "xy")
        if node.op_type == "Conv":
            summed = int(np.prod(sizes[f"{_SIZE}{number}.w"][1:]))
        else:
            summed = int(np.prod(x)) // max(1, int(np.prod(y[:-1]))) if len(x) else 1
        total += int(np.prod(y)) * summed
    return total
