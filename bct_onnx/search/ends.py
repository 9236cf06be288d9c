"""Ends of a model: what stands behind a place in it, as a model of its own. What stands before it is run once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bct_onnx import files
from bct_onnx.arrays import Array, Feed, Outputs
from bct_onnx.search.work import PRODUCTS
from bct_onnx.sessions import MemoryUse, OrtError, Session
from passes.formats.threads import in_order

# Ends of one model, at most: more of them save little. Products between two places, and results that cross a place.
MOST_ENDS, FEWEST_PRODUCTS, MOST_CROSSING = 5, 8, 8
# What the order of additions may change, as a part of an output's size.
SAME = 1e-3


@dataclass(frozen=True)
class Place:
    """A place between two nodes of a model.

    Attributes:
        before: how many nodes of the main graph stand before it.
        crossing: names of the results from before it that nodes behind it read.
    """

    before: int
    crossing: tuple[str, ...]


@dataclass(frozen=True)
class End:
    """A session of what stands behind a place, and what it is fed with there for each feed of the model."""

    session: Session
    feeds: Sequence[Feed]

    def run(self, number: int, instead: Mapping[str, Array]) -> Outputs:
        """Return its outputs for the feed of that number with the named tensors replaced."""
        return self.session.run({**self.feeds[number], **instead})


class Ends:
    """A model that answers a few feeds with tensors replaced, each from the last place before all that reads it.

    Places are numbered from 1 on; 0 is where the model begins. One end is loaded at a time: sessions of the same
    weights would hold them several times.
    """

    def __init__(self, proto: onnx.ModelProto, path: Path, use: MemoryUse) -> None:
        """Take a sorted model; the file `path` holds each of its ends while that is loaded."""
        self._proto, self._path, self._use = proto, path, use
        self.places = find_places(proto)
        self._readers = first_readers(proto)
        self._feeds: Sequence[Feed] = ()
        self._expected: Sequence[Outputs] = ()
        self._crossing: Sequence[Outputs] = ()

    @property
    def crossing(self) -> list[str]:
        """The names of all that crosses a place."""
        return list(dict.fromkeys(name for place in self.places for name in place.crossing))

    def look(
        self,
        whole: Callable[[], Session],
        feeds: Sequence[Feed],
        expected: Sequence[Outputs],
        workers: int,
        crossed: Sequence[Outputs] = (),
    ) -> None:
        """Take feeds, the model's answers to them, and what crosses the places, which a session of the whole tells.

        `crossed` has that of the first feeds already.
        """
        names, known = self.crossing, list(crossed[: len(feeds)])
        self._feeds, self._expected = feeds, expected
        rest = feeds[len(known) :] if names else []
        more = in_order(lambda feed: whole().run(feed, names), rest, workers)
        self._crossing = [*known, *more] if names else []

    def of(self, tensor: str) -> int:
        """Return the number of the last place that stands before all that reads a tensor."""
        first = self._readers.get(tensor, 0)
        return sum(place.before <= first for place in self.places)

    def load(self, number: int, threads: int) -> End | None:
        """Return the end behind a place, or None where it does not run or does not answer like the model."""
        place = self.places[number - 1]
        if not all(name in values for values in self._crossing for name in place.crossing):
            return None  # what crosses are no arrays
        try:
            files.write_proto(end_of(self._proto, place, self._crossing[0]), self._path)
            session = Session(self._path, self._use, threads)
            inputs = {value.name for value in session.inputs}
            feeds = [
                {
                    **{name: value for name, value in feed.items() if name in inputs},
                    **{name: values[name] for name in place.crossing},
                }
                for feed, values in zip(self._feeds, self._crossing, strict=True)
            ]
            answer = session.run(feeds[0])
        except OrtError:
            return None
        return End(session, feeds) if _agree(answer, self._expected[0]) else None


def find_places(proto: onnx.ModelProto) -> list[Place]:
    """Return places that part a sorted model's products evenly, in order, at each of which few results cross."""
    made, last = _lives(proto)
    crosses = np.zeros(len(proto.graph.node) + 1, np.int64)
    for name, number in made.items():
        crosses[number + 1] += 1
        crosses[max(last.get(name, 0), number) + 1] -= 1
    crossing = np.cumsum(crosses)
    done = np.cumsum([0, *(node.op_type in PRODUCTS for node in proto.graph.node)])
    count = min(MOST_ENDS, int(done[-1]) // FEWEST_PRODUCTS)
    found: dict[int, Place] = {}
    for number in range(1, count + 1):
        distance = np.abs(done - done[-1] * number / (count + 1))
        near = np.flatnonzero((distance <= done[-1] / (count + 1) / 2) & (crossing <= MOST_CROSSING) & (crossing > 0))
        if len(near):
            before = min(map(int, near), key=lambda place: (crossing[place], distance[place], place))
            names = tuple(name for name, at in made.items() if at < before <= last.get(name, 0))
            found[before] = Place(before, names)
    return [found[before] for before in sorted(found)]


def end_of(proto: onnx.ModelProto, place: Place, values: Mapping[str, Array]) -> onnx.ModelProto:
    """Return what stands behind a place; what crosses it are inputs, of the types of `values` and of any shape.

    Its outputs are those of the model that are made there.
    """
    nodes = proto.graph.node
    constant = _constant(proto)
    needed = {name for node in nodes[place.before :] for name in _reads(node)}
    kept = list(nodes[place.before :])
    for node in reversed(nodes[: place.before]):
        if constant.intersection(node.output) and needed.intersection(node.output):
            kept.insert(0, node)
            needed |= _reads(node)
    made = {name for node in kept for name in node.output}
    crossing = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype), None)
        for name in place.crossing
    ]
    end = onnx.ModelProto()
    end.CopyFrom(proto)
    graph, whole = end.graph, proto.graph
    del graph.node[:], graph.initializer[:], graph.sparse_initializer[:], graph.input[:], graph.output[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for tensor in whole.initializer if tensor.name in needed)
    graph.sparse_initializer.extend(tensor for tensor in whole.sparse_initializer if tensor.values.name in needed)
    graph.input.extend([*(value for value in whole.input if value.name in needed), *crossing])
    graph.output.extend(value for value in whole.output if value.name in made)
    return end


def make_late(proto: onnx.ModelProto, weights: set[str]) -> None:
    """Move what is made of weights alone, joined ones, say, right before what reads it first: it need not cross places.

    `weights` are inputs that have a default. The nodes of the main graph stay sorted.
    """
    nodes = proto.graph.node
    known = weights | _constant(proto)
    alone = []
    for node in nodes:
        reads = _reads(node)
        alone.append(bool(reads) and reads <= known)
        known.update(node.output if alone[-1] else ())
    places, first = list(range(len(nodes))), dict[str, int]()
    for number in reversed(places):
        if alone[number]:
            places[number] = min((first[name] for name in nodes[number].output if name in first), default=number)
        first |= {name: min(places[number], first.get(name, places[number])) for name in _reads(nodes[number])}
    order = sorted(range(len(nodes)), key=lambda number: (places[number], not alone[number], number))
    copies = [onnx.NodeProto.FromString(nodes[number].SerializeToString()) for number in order]
    del nodes[:]
    nodes.extend(copies)


def first_readers(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the place in the main graph of the first node that reads each name, itself or in a body of it."""
    first: dict[str, int] = {}
    for number, node in enumerate(proto.graph.node):
        for name in _reads(node):
            first.setdefault(name, number)
    return first


def _lives(proto: onnx.ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """Return the node of the main graph that makes each result, and the last one that reads it.

    Results of constants alone are not among them.
    """
    constant = _constant(proto)
    made = {name: number for number, node in enumerate(proto.graph.node) for name in node.output if name}
    last = {name: number for number, node in enumerate(proto.graph.node) for name in _reads(node)}
    return {name: number for name, number in made.items() if name not in constant}, last


def _constant(proto: onnx.ModelProto) -> set[str]:
    """Return the names of what is the same for all feeds and weights."""
    inputs = {value.name for value in proto.graph.input}
    constant = {tensor.name for tensor in proto.graph.initializer} - inputs
    constant |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    for node in proto.graph.node:
        reads = _reads(node)
        # A node that reads nothing and is no constant draws numbers.
        if reads <= constant if reads else node.op_type == "Constant":
            constant.update(filter(None, node.output))
    return constant


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, and what its bodies name: theirs and what they read from around them."""
    return {name for name in _named(node) if name}


def _named(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for graph in (graph for body in files.bodies(node) for graph in files.graphs_of(body)):
        yield from (name for inner in graph.node for name in inner.input)
        yield from (value.name for value in graph.output)


def _agree(answer: Outputs, expected: Outputs) -> bool:
    """Tell whether all that is answered is expected, but for rounding."""
    return all(
        array.shape == expected[name].shape
        and np.allclose(array, expected[name], SAME, SAME * _size(expected[name]), equal_nan=True)
        for name, array in answer.items()
        if array.dtype.kind == "f"
    )


def _size(array: Array) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
