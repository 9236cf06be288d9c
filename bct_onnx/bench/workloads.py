"""What a model is fed: batch and token counts, and arrays that its inputs accept."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from bct_onnx.bench.model_files import Input
from bct_onnx.errors import BctError

Feeds = dict[str, npt.NDArray[Any]]

PICTURE = (3, 224, 224)  # channels, height and width where a model leaves them open


@dataclass(frozen=True)
class Workload:
    """One call: `batch` sequences of `tokens`, after `past` tokens in the cache."""

    batch: int
    tokens: int = 1
    past: int = 0

    @property
    def label(self) -> str:
        """Return the form `parse` reads."""
        return f"{self.batch}x{self.tokens}" + (f"+{self.past}" if self.past else "")


DEFAULTS = {
    "encoder": (Workload(1, 16), Workload(1, 128), Workload(8, 128)),
    "decoder": (Workload(1, 128), Workload(1, 1, 128)),
    "picture": (Workload(1), Workload(8)),
}


def parse(text: str) -> list[Workload]:
    """Read `BATCHxTOKENS[+PAST]` (pictures: `BATCH`) separated by commas; raise BctError otherwise."""
    found = [re.fullmatch(r"(\d+)(?:x(\d+))?(?:\+(\d+))?", part.strip()) for part in text.split(",")]
    if not all(found):
        raise BctError(f"--shapes {text}: write BATCHxTOKENS or BATCHxTOKENS+PAST, separated by commas")
    return [
        Workload(*(int(g) if g else d for g, d in zip(m.groups(), (1, 1, 0), strict=True)))
        for m in found
        if m
    ]


def default_workloads(inputs: list[Input]) -> list[Workload]:
    """Return the calls a model is measured with when none are asked for; fixed dimensions are kept."""
    caches, pictures = any(i.is_cache for i in inputs), any(i.is_picture for i in inputs)
    chosen = DEFAULTS["decoder" if caches else "picture" if pictures else "encoder"]
    fixed: dict[str, int] = {}
    for i in inputs:
        for field, axis in (("batch", 0), ("tokens", 1)):
            if len(i.dims) == 2 or (field == "batch" and i.is_picture):
                size = i.dims[axis]
                fixed |= {field: size} if isinstance(size, int) else {}
    return list(dict.fromkeys(replace(w, **fixed) for w in chosen))


def make_feeds(inputs: list[Input], workload: Workload, seed: int = 0) -> Feeds:
    """Make one array per input: ids within the vocabulary, masks of ones, positions that follow the cache."""
    random = np.random.default_rng(seed)
    return {i.name: _values(i, workload, random) for i in inputs}


def _values(i: Input, w: Workload, random: np.random.Generator) -> npt.NDArray[Any]:
    kind = helper.tensor_dtype_to_np_dtype(i.kind)
    shape = tuple(_size(i, axis, w) for axis in range(len(i.dims)))
    if kind == np.bool_:
        return np.full(shape, "mask" in i.name or w.past > 0)
    if "mask" in i.name:
        return np.ones(shape, kind)
    if "position" in i.name and kind.kind == "i":
        return np.broadcast_to(np.arange(w.past, w.past + shape[-1], dtype=kind), shape).copy()
    if "token_type" in i.name or "segment" in i.name:
        return np.zeros(shape, kind)
    if kind.kind in "iu":
        return random.integers(0, i.vocabulary or 2, shape).astype(kind)
    return random.standard_normal(shape, np.float32).astype(kind)


def _size(i: Input, axis: int, w: Workload) -> int:
    dim = i.dims[axis]
    if isinstance(dim, int):
        return dim
    if axis == 0 or "batch" in dim:
        return w.batch
    if i.is_picture:
        return PICTURE[axis - 1]
    if i.is_cache:
        return w.past
    return w.tokens + (w.past if "mask" in i.name and not i.name.startswith("encoder") else 0)
