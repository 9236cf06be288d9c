"""Sizes for symbolic axes: what an axis counts, and several assignments to try."""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

from bct_onnx.inputs.flow import Flow
from bct_onnx.inputs.roles import Dim, ModelInput, Role

Sizes = Mapping[str, int]

# The float model is first run with these, in this order; the last is the one whose time tells most. Where there is no
# cache, which a token alone is for, the sequence is `uncached`.
PLANS: tuple[Sizes, ...] = (
    {"batch": 4, "sequence": 12, "past": 16, "encoder": 12},
    {"batch": 1, "sequence": 16, "past": 0, "encoder": 16},
    {"batch": 6, "sequence": 1, "uncached": 7, "past": 24, "encoder": 5},
    {"batch": 1, "sequence": 128, "past": 0, "encoder": 64},
)
_COMMON: Sizes = {"side": 224, "channels": 3, "features": 64}

# What the name of an axis says it counts; the first that matches.
_AXIS_NAMES: tuple[tuple[str, str], ...] = (
    (r"batch|^(n|b|bs)$", "batch"),
    (r"(?<!d)encod|source|src|frame|memory", "encoder"),
    (r"total|present|kv_?(seq|len)|full", "total"),
    (r"past|cache", "past"),
    (r"height|width|image|side", "side"),
    (r"channel", "channels"),
    (r"feature|hidden|embed", "features"),
    (r"seq|len|token|time|patch|position|decod|count", "sequence"),
)
_FIXED_SIDES = (32, 28, 64, 128, 256, 384, 512, 518)
_FIXED_LENGTHS = (1, 2, 4, 8, 32, 64, 128, 256, 384, 512, 400, 1500, 3000, 16000)
_READ_FIRST = (Role.IDS, Role.POSITIONS, Role.TYPES, Role.NUMBERS, Role.CACHE)
_ARITHMETIC: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def axis_kinds(inputs: Sequence[ModelInput]) -> dict[str, str]:
    """Tell for each symbol what it counts, by its name or else by the first input and axis that has it."""
    has_cache = any(entry.role is Role.CACHE for entry in inputs)
    kinds: dict[str, str] = {}
    for entry in sorted(inputs, key=lambda entry: entry.role not in _READ_FIRST):
        for axis, dim in enumerate(entry.shape):
            for symbol in _symbols(dim):
                if symbol not in kinds:
                    named = "" if "[" in symbol else symbol.lower()
                    kinds[symbol] = next(
                        (kind for pattern, kind in _AXIS_NAMES if re.search(pattern, named)),
                        _kind_by_place(entry, axis, has_cache),
                    )
    return kinds


def _kind_by_place(entry: ModelInput, axis: int, has_cache: bool) -> str:
    rank = len(entry.shape)
    if rank >= 2 and axis == (1 if rank == 5 and entry.shape[0] == 2 else 0):
        return "batch"
    if entry.role is Role.CACHE:
        return "past"
    if entry.role in (Role.MASK, Role.ADDITIVE_MASK):
        return "total" if has_cache and axis == rank - 1 else "sequence"
    if entry.role in (Role.NUMBERS, Role.BYTES):
        last = entry.shape[-1]
        if rank >= 4 and isinstance(last, int) and last <= 4:  # channels last
            return "side"
        if rank >= 4 and axis >= rank - 3:
            return "channels" if axis == rank - 3 else "side"
        if rank == 3 and axis == 2:
            return "features"
    return "sequence"


def concrete_shape(entry: ModelInput, kinds: Mapping[str, str], sizes: Sizes) -> tuple[int, ...]:
    """Return an input's shape under an assignment of sizes; what the weights demand comes first."""
    shape = []
    for axis, dim in enumerate(entry.shape):
        demanded = entry.axis_sizes.get(axis - len(entry.shape))
        shape.append(dim if isinstance(dim, int) else demanded or _evaluate(dim, kinds, sizes))
    return tuple(shape)


def complete(plan: Sizes, inputs: Sequence[ModelInput]) -> dict[str, int]:
    """Fill in the sizes that follow from others; a merged decoder reads its cache one token at a time."""
    sizes = {**_COMMON, **plan}
    if not any(entry.role is Role.CACHE for entry in inputs):
        sizes["past"] = 0
        sizes["sequence"] = sizes.get("uncached", sizes["sequence"])
    elif any(entry.role is Role.CACHE_FLAG for entry in inputs):
        sizes["cached"] = int(sizes["past"] > 1)
        sizes["sequence"] = 1 if sizes["cached"] else sizes["sequence"]
        sizes["past"] = max(1, sizes["past"])
    sizes.setdefault("total", sizes["past"] + sizes["sequence"])
    return sizes


def fallbacks(inputs: Sequence[ModelInput], flow: Flow) -> Iterator[Sizes]:
    """Yield what to change in the plans, the most likely first; the first changes nothing."""
    yield {}
    yield from _sizes_of_position_tables(inputs, flow)
    yield from ({"side": side} for side in _FIXED_SIDES)
    yield from ({"batch": 1}, {"past": 0}, {"sequence": 1}, {"batch": 1, "sequence": 1, "past": 1})
    for length in _FIXED_LENGTHS:
        yield {"batch": 1, "sequence": length, "past": 0, "encoder": length, "total": length}
    yield from ({"channels": 1}, {"channels": 4}, {"features": 1}, {"features": 80})


def _sizes_of_position_tables(inputs: Sequence[ModelInput], flow: Flow) -> Iterator[Sizes]:
    """Derive picture sides and sound lengths from constants [.., rows, width] added behind a strided Conv."""
    rows = {
        shape[-2]
        for node in flow.nodes
        if node.op == "Add"
        for shape in map(flow.shape, node.inputs)
        if shape and len(shape) in (2, 3) and shape[-2] > 1
    }
    strides = [node.integers("strides") for node in flow.nodes if node.op == "Conv"]
    picture = next((stride[0] for stride in strides if len(stride) == 2), None)
    sound = math.prod(stride[0] for stride in strides if len(stride) == 1)
    kinds = set(axis_kinds(inputs).values())
    for count in sorted(rows):
        if picture and "side" in kinds:
            patches = (count - extra for extra in (0, 1, 2))  # class and distillation tokens
            yield from ({"side": math.isqrt(n) * picture} for n in patches if n == math.isqrt(n) ** 2 > 0)
        elif not picture:
            yield {"sequence": count * sound, "encoder": count * sound}


def _symbols(dim: Dim) -> list[str]:
    if isinstance(dim, int):
        return []
    tree = _parse(dim)
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)] if tree else [dim]


# Python 3.11 counts how deep all of its parsers are together: threads that parse at once raise a SystemError.
_PARSER = Lock()


def _parse(dim: str) -> ast.expr | None:
    """Return a dimension such as `past_sequence_length + 1` as a tree, None when it is a plain name."""
    if re.search("[A-Za-z]-[A-Za-z]", dim):
        return None  # a hyphen in a name
    try:
        with _PARSER:
            tree = ast.parse(dim, mode="eval").body
    except SyntaxError:
        return None
    return tree if isinstance(tree, ast.BinOp) else None


def _evaluate(dim: str, kinds: Mapping[str, str], sizes: Sizes) -> int:
    def value(tree: ast.expr) -> int:
        if isinstance(tree, ast.BinOp) and type(tree.op) in _ARITHMETIC:
            left, right = value(tree.left), value(tree.right)
            divides = isinstance(tree.op, ast.Div | ast.FloorDiv | ast.Mod)
            return _ARITHMETIC[type(tree.op)](left, max(1, right) if divides else right)
        if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
            return tree.value
        return sizes[kinds[tree.id]] if isinstance(tree, ast.Name) else 1

    tree = _parse(dim)
    return max(0, value(tree)) if tree else sizes[kinds[dim]]
