"""Feeds for a model: made from its own inputs, or read from a file."""

import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from bct_onnx.arrays import Array, Feed, Run
from bct_onnx.errors import BctError
from bct_onnx.inputs.answered import AnsweredInputs, answer_all
from bct_onnx.inputs.flow import flatten
from bct_onnx.inputs.roles import ModelInput, Role, find_inputs
from bct_onnx.inputs.scale import Values, with_scales
from bct_onnx.inputs.sentences import with_sentences
from bct_onnx.inputs.sizes import PLANS, axis_kinds, complete, concrete_shape, fallbacks
from bct_onnx.inputs.values import make_value, numpy_type

# Behind the last token of a row, the caches that these leave hold whatever was in memory.
UNPADDED_OPS = frozenset({"com.microsoft.GroupQueryAttention"})
# Elements of an input beyond which numpy cannot even count bytes.
_MOST_ELEMENTS = 1 << 48


@dataclass(frozen=True)
class InputPlan:
    """What a feed is made by: the model's inputs, and how many rows, tokens and so on they hold.

    Attributes:
        inputs: the inputs of the model.
        counts: sizes by what they count, as `sizes.PLANS` has them.
        seed: of what is drawn.
        plain: roles of inputs without padding and with small token numbers, for models that bear no more.
    """

    inputs: tuple[ModelInput, ...]
    counts: Mapping[str, int]
    seed: tuple[int, ...]
    plain: frozenset[Role] = frozenset()

    def sizes(self, **changes: int) -> dict[str, int]:
        """Return the counts, some of them changed, with those that follow from them."""
        return complete({**self.counts, **changes}, self.inputs)

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Return the shape of every input."""
        kinds = axis_kinds(self.inputs)
        return {entry.name: concrete_shape(entry, kinds, sizes) for entry in self.inputs}

    def feed(self, without: Collection[str] = (), /, **changes: int) -> Feed:
        """Make the feed, with some of the counts changed, and without some inputs that come from elsewhere.

        MemoryError for one that no memory holds.
        """
        sizes = self.sizes(**changes)
        shapes = self.shapes(sizes)
        if any(math.prod(shape) > _MOST_ELEMENTS for shape in shapes.values()):
            raise MemoryError("an input is declared larger than any memory")
        rng = np.random.default_rng(self.seed)
        made = (entry for entry in self.inputs if entry.name not in without)
        return {e.name: make_value(e, shapes[e.name], sizes, rng, e.role in self.plain) for e in made}


def candidate_plans(
    model: ModelProto, seed: int, values: Values | None = None, folder: Path | None = None
) -> Iterator[Iterator[InputPlan]]:
    """Yield groups of plans, the likeliest group first; take from the first group in which any runs.

    Each group has at most four plans of different sizes. `values` gives the values of initializers, from which the
    scale of features follows; without, they are standard normal. A tokenizer in `folder` makes token numbers of
    sentences; without, they are drawn. BctError when an input's type cannot be fed.
    """
    flow = flatten(model)
    inputs = with_sentences(with_scales(find_inputs(model, flow), flow, values), folder)
    tried: set[object] = set()
    unpadded = any(node.op in UNPADDED_OPS for node in flow.nodes)
    whole = frozenset({Role.MASK, Role.LENGTHS}) if unpadded else frozenset[Role]()

    def group(change: Mapping[str, int], plain: frozenset[Role]) -> Iterator[InputPlan]:
        seen_before = frozenset(tried)
        for number, counts in enumerate(PLANS):
            plan = InputPlan(inputs, {**counts, **change, "feed": number}, (seed, number), plain)
            sizes = plan.sizes()
            key = (plain, sizes["past"], *plan.shapes(sizes).values())
            if key not in seen_before:
                tried.add(key)
                yield plan

    for change in fallbacks(inputs, flow):
        for plain in (whole, frozenset(Role)):
            yield group(change, plain)


def file_inputs(run: Run, path: Path, model: ModelProto, *, file: str | Path) -> AnsweredInputs:
    """Return the feeds of an .npz, as `load_feeds` reads them; `path` is the model's file. BctError where one fails."""
    del path
    return answer_all(run, [(feed, f"feed {number} of {file}") for number, feed in enumerate(load_feeds(file, model))])


def load_feeds(path: str | Path, model: ModelProto) -> list[Feed]:
    """Read feeds from an .npz: arrays `name` (in every feed) or `name.0`, `name.1`, ... (one a feed).

    BctError names the file and the array when the file cannot be read, a name, type or rank is not
    the model's, or an input is missing. Inputs of type bfloat16 are given as float32.
    """
    inputs = {entry.name: entry for entry in find_inputs(model, flatten(model))}
    shared: dict[str, Array] = {}
    numbered: dict[int, dict[str, Array]] = {}
    for key, array in _read(Path(path)).items():
        name, _, suffix = key.rpartition(".")
        if key in inputs:
            shared[key] = array
        elif name in inputs and suffix.isdecimal():
            numbered.setdefault(int(suffix), {})[name] = array
        else:
            raise BctError(f"{path}: {key!r} is not an input of the model; it has {', '.join(inputs)}")
        _check(path, key, array, inputs[key if key in inputs else name])
    feeds: list[Feed] = []
    for number, own in sorted(numbered.items()) or [(0, {})]:
        feeds.append({**shared, **own})
        missing = sorted(inputs.keys() - feeds[-1].keys())
        if missing:
            raise BctError(f"{path}: feed {number} has no array for input {missing[0]!r}")
    return feeds


def _read(path: Path) -> dict[str, Array]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise BctError(f"{path}: holds a single array; save named arrays with numpy.savez")
        with archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        reason = "file not found" if isinstance(error, FileNotFoundError) else "not a readable .npz file"
        raise BctError(f"{path}: {reason}; save named arrays with numpy.savez") from error


def _check(path: str | Path, key: str, array: Array, entry: ModelInput) -> None:
    wanted = numpy_type(entry)
    if array.dtype != wanted and not (wanted.kind == "O" and array.dtype.kind in "US"):
        raise BctError(f"{path}: {key!r} is {array.dtype}, the model's input {entry.name!r} is {wanted}")
    if array.ndim != len(entry.shape):
        raise BctError(
            f"{path}: {key!r} has shape {list(array.shape)}, the model's input {entry.name!r} is {list(entry.shape)}"
        )
