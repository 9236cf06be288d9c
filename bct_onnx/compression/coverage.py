"""What a compression covers: weights in bytes, intermediate results in bytes per token, nodes, by operator."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from bct_onnx import files
from bct_onnx.sessions import OrtError, Session
from bct_onnx.verify import Reference
from passes import Options, PassReport, make_plain
from passes.graph.activations import find_activations
from passes.graph.constants import FLOATS, constant_bytes, resolve
from passes.graph.walk import walk
from passes.report import TOGETHER, EdgeReport, NodeReport

# Stored as float16, not as codes.
HALF = "half"
LEFT = "left"


@dataclass(frozen=True)
class Sizes:
    """What the input model holds and computes.

    Attributes:
        weights: bytes of each of its float constants, by name.
        results: bytes of each intermediate result of the main graph, over one feed.
        tokens: rows of its activations in that feed: as many last axes as most intermediate results have.
        shapes: shapes of the feed by input.
    """

    weights: Mapping[str, int]
    results: Mapping[str, int]
    tokens: int
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class OperatorCoverage:
    """Nodes of one operator and their results.

    Attributes:
        op: the operator.
        nodes: how many the input model has that compute intermediate results.
        replaced, between, moves, left: how many of them are computed from codes, computed in float between codes, only
            move codes, are left.
        bytes: bytes per token of their results.
        covered: bytes per token of those that are codes, in blocks or in rows, on their way to every reader.
    """

    op: str
    nodes: int
    replaced: int
    between: int
    moves: int
    left: int
    bytes: float
    covered: float

    @property
    def covered_part(self) -> float | None:
        """Which part of the bytes are codes, or None where no sizes are known."""
        return self.covered / self.bytes if self.bytes else None


@dataclass(frozen=True)
class Coverage:
    """What became codes and what did not.

    Attributes:
        weight_bytes: bytes of float constants in the input model.
        weight_codes: bytes of those that became codes.
        weight_half: bytes of those that became float16.
        tokens, shapes: of the feed over which intermediate results were measured.
        operators: by operator, most bytes first.
        left: a reason per node that was left.
        results_left: a reason per intermediate result that was left.
    """

    weight_bytes: int
    weight_codes: int
    weight_half: int
    tokens: int
    shapes: Mapping[str, tuple[int, ...]]
    operators: tuple[OperatorCoverage, ...]
    left: tuple[NodeReport, ...]
    results_left: tuple[EdgeReport, ...]

    @property
    def result_bytes(self) -> float:
        """Bytes per token of all intermediate results."""
        return sum(row.bytes for row in self.operators)

    @property
    def result_codes(self) -> float:
        """Bytes per token of those that are codes."""
        return sum(row.covered for row in self.operators)

    def to_dict(self) -> dict[str, object]:
        """Return the record as JSON data."""
        return {
            **asdict(self),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "result_bytes": self.result_bytes,
            "result_codes": self.result_codes,
        }


def measure_sizes(model: files.ModelFile, path: Path, reference: Reference | None) -> Sizes:
    """Run the input model on the smallest feed with all intermediate results as outputs, from a file at `path`.

    Without a reference, or where that does not run, and for results in bodies of If, Loop and Scan, sizes are unknown.
    """
    graph = model.graph()
    make_plain(graph, Options())
    graph.cleanup()
    constants = {id(t): t for _, node in walk(graph) for t in node.inputs if isinstance(t, gs.Constant)}
    floats = [t for t in constants.values() if (view := resolve(t)) is not None and view.is_float]
    weights = {tensor.name: constant_bytes(tensor) for tensor in floats}
    if reference is None:
        return Sizes(weights, {}, 1, {})
    feed = min(reference.feeds, key=lambda feed: sum(int(np.size(value)) for value in feed.values()))
    shapes = {name: np.shape(value) for name, value in feed.items()}
    arrays = _run(graph, model, path, feed)
    rows = Counter(array.size // max(array.shape[-1], 1) for array in arrays.values() if array.ndim > 1)
    tokens = rows.most_common(1)[0][0] if rows else 1
    return Sizes(weights, {name: array.nbytes for name, array in arrays.items()}, max(tokens, 1), shapes)


def count_coverage(sizes: Sizes, reports: Iterable[PassReport]) -> Coverage:
    """Return the coverage that the reports of a run say, in the sizes of its input model."""
    reports = list(reports)
    nodes = [node for report in reports for node in report.nodes if node.how != "aside"]
    edges = [edge for report in reports for edge in report.edges]
    codes, half = _stored(reports, sizes.weights)
    by_op: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for node in nodes:
        by_op[node.op][node.how] += 1
    size: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    for edge in edges:
        size[edge.op] += sizes.results.get(edge.tensor, 0)
        covered[edge.op] += 0 if edge.how == LEFT else sizes.results.get(edge.tensor, 0)
    rows = [
        OperatorCoverage(
            op,
            by_op[op].total(),
            by_op[op]["replaced"],
            by_op[op]["between"],
            by_op[op]["moves"],
            by_op[op][LEFT],
            size[op] / sizes.tokens,
            covered[op] / sizes.tokens,
        )
        for op in by_op.keys() | size.keys()
    ]
    return Coverage(
        weight_bytes=sum(sizes.weights.values()),
        weight_codes=sum(sizes.weights[name] for name in codes),
        weight_half=sum(sizes.weights[name] for name in half - codes),
        tokens=sizes.tokens,
        shapes=sizes.shapes,
        operators=tuple(sorted(rows, key=lambda row: (-row.bytes, row.op))),
        left=tuple(node for node in nodes if node.how == LEFT),
        results_left=tuple(edge for edge in edges if edge.how == LEFT),
    )


def _stored(reports: Iterable[PassReport], known: Mapping[str, int]) -> tuple[set[str], set[str]]:
    """Return the constants that became codes and those that became float16; one that two passes store is in both."""
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for tensor in (tensor for report in reports for tensor in report.tensors):
        names[tensor.lowering == HALF] |= known.keys() & {tensor.name, *tensor.name.split(TOGETHER)}
    return names[False], names[True]


def _run(
    graph: gs.Graph, model: files.ModelFile, path: Path, feed: Mapping[str, object]
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.floating]]]:
    """Return the values of all intermediate results of the main graph, those that are outputs left out."""
    types, outputs = find_activations(graph).types, {tensor.name for tensor in graph.outputs}
    inner = [t for node in graph.nodes for t in node.outputs if t.name in types and t.name not in outputs]
    for tensor in inner:
        tensor.dtype = np.dtype(types[tensor.name])
    graph.outputs += inner
    # What an earlier attempt left.
    path.unlink(missing_ok=True)
    try:
        files.write(graph, model, path, lasting=False)
        answer = Session(path).run(dict(feed))  # type: ignore[arg-type]
    except OrtError:
        return {}
    finally:
        path.unlink(missing_ok=True)
    return {t.name: answer[t.name] for t in inner if answer[t.name].dtype.name in FLOATS}
