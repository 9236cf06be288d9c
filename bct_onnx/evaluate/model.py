"""A model opened in ONNX Runtime: which inputs it asks for, and its answer to a batch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.sessions import OrtError, Session

from .folders import model_in
from .metrics import Array

# Types that can be fed, as ONNX Runtime calls them, and those whose names numpy does not share.
_TYPES = ("float", "float16", "double", "int64", "int32", "int8", "uint8", "bool")
_NUMPY_NAMES = {"float": "float32", "double": "float64"}
_ROLES = {
    "input_ids": "main",
    "attention_mask": "mask",
    "input_mask": "mask",
    "token_type_ids": "types",
    "segment_ids": "types",
    "position_ids": "positions",
}


@dataclass(frozen=True)
class Input:
    """One input: name, what it is for, element type, and for each axis a size, or a name or None if free."""

    name: str
    role: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]

    def size(self, axis: int) -> int | None:
        """Return the fixed size of an axis, None where it is free or the input has no such axis."""
        size = self.shape[axis] if axis < len(self.shape) else None
        return size if isinstance(size, int) else None


def _role(name: str) -> str:
    plain = re.sub(r":\d+$", "", name.lower())
    if plain.startswith("past"):
        return "past"
    return _ROLES.get(plain, plain)


def _alone_is_main(inputs: Sequence[Input]) -> tuple[Input, ...]:
    """Return the inputs; a single one beside the cache is the main one, whatever its name."""
    fed = [node for node in inputs if node.role != "past"]
    return tuple(replace(node, role="main") if len(fed) == 1 and node is fed[0] else node for node in inputs)


class Model:
    """An ONNX file, or that of a folder, in a session of so many threads."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open the file; raises BctError where ONNX Runtime refuses it."""
        file = model_in(path)
        try:
            self._session = Session(file, threads=threads)
        except OrtError as error:
            raise BctError(f"{path}: ONNX Runtime does not load it: {error}") from error
        self.path = path
        self.inputs = _alone_is_main([self._input(node) for node in self._session.inputs])
        names = self._session.outputs
        self.output = "logits" if "logits" in names else names[0]

    def _input(self, node: Any) -> Input:
        kind = node.type.removeprefix("tensor(").removesuffix(")")
        if kind not in _TYPES:
            raise BctError(f"{self.path}: input {node.name} is {node.type}, which cannot be fed")
        return Input(node.name, _role(node.name), np.dtype(_NUMPY_NAMES.get(kind, kind)), tuple(node.shape))

    def input(self, role: str) -> Input | None:
        """Return the input with this role: main, mask, types or positions; None where there is none."""
        return next((node for node in self.inputs if node.role == role), None)

    def answer(self, values: Mapping[str, Array]) -> Array:
        """Return the first output (or `logits`) [rows, ...] for arrays [rows, ...] by role.

        Roles the model has no input for are left out. A fixed batch size is met by cutting and repeating
        rows. Raises BctError where an input has no value, the model fails, or it answers NaN or infinity.
        """
        rows = len(next(iter(values.values())))
        first = next(i for i in self.inputs if i.role != "past")
        step = first.size(0) or rows
        parts = [self._run(values, np.arange(start, start + step) % rows) for start in range(0, rows, step)]
        answer = np.concatenate(parts)[:rows]
        if not (answer < np.inf).all():  # minus infinity is how some models rule a token out
            raise BctError(f"{self.path}: output {self.output} holds NaN or infinity")
        return answer

    def _run(self, values: Mapping[str, Array], chosen: Array) -> Array:
        feeds = {i.name: self._feed(i, values, chosen) for i in self.inputs}
        try:
            output = self._session.run(feeds, [self.output])[self.output]
        except OrtError as error:
            raise BctError(f"{self.path}: ONNX Runtime does not run it: {error}") from error
        if output.ndim == 0 or len(output) != len(chosen):
            raise BctError(
                f"{self.path}: output {self.output} has shape {list(output.shape)} for {len(chosen)} samples"
            )
        return output

    def _feed(self, node: Input, values: Mapping[str, Array], chosen: Array) -> Array:
        if node.role == "past":
            return np.zeros(_empty_past(node.shape, len(chosen)), node.dtype)
        if node.role == "use_cache_branch":
            return np.zeros(1, node.dtype)
        if node.role not in values:
            raise BctError(f"{self.path}: input {node.name} is none that this task feeds")
        return values[node.role][chosen].astype(node.dtype, copy=False)


def _empty_past(shape: Sequence[int | str | None], rows: int) -> list[int]:
    """Return the shape of a cache of no tokens: the axis named batch (else the first free one) gets rows."""
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    batch = next((axis for axis in free if "batch" in str(shape[axis])), free[0] if free else None)
    return [size if isinstance(size, int) else rows * (axis == batch) for axis, size in enumerate(shape)]


def batches(lengths: Array, size: int, *, equal: bool) -> Iterator[Array]:
    """Yield the indices of samples, sorted by length, at most `size` at a time.

    With `equal` a batch holds samples of one length only, for models that cannot mask padding.
    """
    order = np.argsort(lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    for group in np.split(order, edges) if equal else [order]:
        for start in range(0, len(group), size):
            yield group[start : start + size]
