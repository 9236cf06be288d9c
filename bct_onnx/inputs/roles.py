"""What each input of a model is for: token ids, masks, positions, caches, numbers, ..."""

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto

from bct_onnx.arrays import Array
from bct_onnx.inputs.flow import FlatNode, Flow, Use

Dim = int | str
# Returns numbers of a shape.
Draw = Callable[[tuple[int, ...], np.random.Generator], Array]


class Role(enum.Enum):
    """What the values of an input mean."""

    IDS = "row numbers of a table"
    TYPES = "0 or 1, rows of a small table"
    POSITIONS = "counting from the cache's length"
    MASK = "1 where attended, 0 where padded"
    ADDITIVE_MASK = "0 where attended, a large negative number where padded"
    LENGTHS = "valid length of each row"
    LAST = "place of the last token of each row"
    TOTAL = "length of cache and tokens together"
    CONTROL = "one number that steers generation or tells a length"
    CACHE_FLAG = "whether the caches are read"
    FLAG = "a condition of unknown meaning"
    CACHE = "keys and values of earlier tokens"
    WEIGHT = "a matrix to multiply with"
    BYTES = "8-bit or 16-bit integers of any value"
    INDICES = "integers of unknown meaning"
    TEXT = "strings"
    NUMBERS = "pictures, sound, hidden states"


@dataclass(frozen=True)
class ModelInput:
    """One input: name, ONNX element type, dims (int fixed, str symbolic), container, role, rows of the table.

    `axis_sizes` are sizes that the weights demand, by negative axis. `mean` and `scale` are those of its numbers,
    broadcast to its shape from the last axis (from the second where channels come first). `draw` makes token
    numbers of a shape, where the model's tokenizer is known.
    """

    name: str
    elem_type: int
    shape: tuple[Dim, ...]
    container: str
    role: Role
    table_rows: int | None = None
    axis_sizes: Mapping[int, int] = field(default_factory=dict)
    mean: Array | None = field(default=None, compare=False)
    scale: Array | None = field(default=None, compare=False)
    draw: Draw | None = field(default=None, compare=False)


_INTEGERS = {TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64}
_SMALL_INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16}
_TOKEN_USES = {
    ("Gather", 1): 0,
    ("com.microsoft.GatherBlockQuantized", 1): 0,
    ("com.microsoft.EmbedLayerNormalization", 0): 2,
    ("com.microsoft.EmbedLayerNormalization", 1): 4,
    ("com.microsoft.EmbedLayerNormalization", 8): 3,
    ("com.microsoft.QEmbedLayerNormalization", 0): 2,
    ("com.microsoft.QEmbedLayerNormalization", 1): 4,
}
_MASK_USES = {
    ("Attention", 3),
    ("Equal", 0),
    ("Equal", 1),
    ("Not", 0),
    ("Sub", 1),
    ("Where", 0),
    ("com.microsoft.Attention", 3),
    ("com.microsoft.EmbedLayerNormalization", 7),
    ("com.microsoft.MultiHeadAttention", 4),
    ("com.microsoft.PackedAttention", 3),
    ("com.microsoft.QAttention", 5),
}
_ADDITIVE_USES = {("Add", 0), ("Add", 1), ("Attention", 3), ("com.microsoft.Attention", 5)}
_ADDITIVE_USES |= {("com.microsoft.MultiHeadAttention", 5)}
_WEIGHT_USES = {("MatMul", 1), ("Gemm", 1), ("com.microsoft.Attention", 1)}

_CACHE_USES = {("com.microsoft.GroupQueryAttention", 3), ("com.microsoft.GroupQueryAttention", 4)}
# Nodes between a product and the attention that reads it.
_MOST_STEPS = 8

# Names of one-number inputs: pattern, the size they follow (None: none), what is added to it.
CONTROLS: tuple[tuple[str, str | None, float], ...] = (
    ("min_length|min_new", None, 1),
    ("max_length|max_new", "sequence", 8),
    ("num_beams", None, 2),
    ("num_return_sequences", None, 1),
    ("no_repeat_ngram|seed", None, 0),
    ("penalty|temperature", None, 1),
    ("top_k", None, 5),
    ("top_p", None, 0.9),
    ("logits_to_keep", None, 1),
    ("seqlens_k", "total", -1),
    ("total_seq", "total", 0),
    ("past_seq|past_len", "past", 0),
    ("time_?step", None, 10),
)
_CONTROL_NAME = re.compile("|".join(pattern for pattern, _, _ in CONTROLS))
_CACHE_NAME = re.compile("past|cache|key_values")
_MASK_NAME = re.compile("mask(?!ed)")


def find_inputs(model: ModelProto, flow: Flow) -> tuple[ModelInput, ...]:
    """Describe each input that has to be fed, from its name, type, shape and uses."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(_describe(value, flow) for value in model.graph.input if value.name not in constants)


def _describe(value: ValueInfoProto, flow: Flow) -> ModelInput:
    container, tensor = _tensor_type(value.type)
    uses = list(flow.follow(value.name))
    shape = _dims(value.name, tensor)
    rows = _table_rows(uses, flow)
    role = _role(value.name.lower(), tensor.elem_type, shape, uses, rows)
    return ModelInput(value.name, tensor.elem_type, shape, container, role, rows, _axis_sizes(uses, flow))


def _tensor_type(kind: TypeProto) -> tuple[str, TypeProto.Tensor]:
    if kind.HasField("optional_type"):
        return "optional", _tensor_type(kind.optional_type.elem_type)[1]
    if kind.HasField("sequence_type"):
        return "sequence", _tensor_type(kind.sequence_type.elem_type)[1]
    return "tensor", kind.tensor_type


def _dims(name: str, tensor: TypeProto.Tensor) -> tuple[Dim, ...]:
    """Return fixed sizes and symbol names; a nameless axis gets a name of its own."""
    if not tensor.HasField("shape"):
        return (f"{name}[0]", f"{name}[1]")
    dims: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(dim.dim_value)
        else:
            named = re.search("[A-Za-z]", dim.dim_param) and dim.dim_param not in ("None", "unk")
            dims.append(dim.dim_param if named else f"{name}[{axis}]")
    return tuple(dims)


def _table_rows(uses: Sequence[Use], flow: Flow) -> int | None:
    """Return the rows of the smallest constant table that the values pick from."""
    rows = []
    for use in uses:
        table = _TOKEN_USES.get((use.node.op, use.index))
        if table is None or table >= len(use.node.inputs):
            continue
        shape = flow.shape(use.node.inputs[table])
        axis = (use.node.integers("axis") or use.node.integers("gather_axis") or (0,))[0]
        if shape:
            rows.append(shape[axis])
    return min(rows, default=None)


def _axis_sizes(uses: Sequence[Use], flow: Flow) -> dict[int, int]:
    """Return the axis sizes that the first weight that meets the input demands."""
    for use in uses:
        if (size := _head_size(use, flow)) is not None:
            # A cache of a window has its length from the first token on: places are used in turns.
            in_turns = use.node.integers("sliding_window_cache") == (1,)
            return {-1: size, -2: use.node.integers("local_window_size")[0]} if in_turns else {-1: size}
        if use.index != 0 or len(use.node.inputs) < 2:
            continue
        shape = flow.shape(use.node.inputs[1])
        if not shape:
            continue
        if use.node.op == "Conv":
            return {1 - len(shape): shape[1] * (use.node.integers("group") or (1,))[0]}
        if use.node.op == "MatMul" and len(shape) >= 2:
            return {-1: shape[-2]}
        if use.node.op == "Gemm":
            return {-1: shape[1 if use.node.integers("transB") == (1,) else 0]}
        if use.node.op == "LayerNormalization":
            return {-1: shape[-1]}
    return {}


def _head_size(use: Use, flow: Flow) -> int | None:
    """Return the width of a head where the input is a cache of an operator that knows how many heads there are."""
    node = use.node
    if (node.op, use.index) not in _CACHE_USES:
        return None
    heads, kv_heads = (node.integers(name) for name in ("num_heads", "kv_num_heads"))
    query, *others = (_product(name, flow) for name in (*node.inputs, "", "")[:3])
    packed = len(node.inputs) < 2 or not node.inputs[1]
    # Columns of keys and values lie beside those of the query where one product makes them all.
    parts = (*heads, *(count for other in others if packed or other is query for count in kv_heads))
    width = _columns(query, flow) if query else None
    return width // sum(parts) if width and parts else None


def _product(name: str, flow: Flow) -> FlatNode | None:
    """Return the product behind a value, seen through additions, normalizations, rotations, splits and reshapes."""
    for _ in range(_MOST_STEPS):
        node = flow.producers.get(name)
        if node is None or _columns(node, flow):
            return node
        behind_bias = node.op == "Add" and flow.shape(node.inputs[0]) is not None
        name = node.inputs[1 if behind_bias else 0]
    return None


def _columns(node: FlatNode, flow: Flow) -> int | None:
    """Return the columns of a product with a weight, or None for another node."""
    if node.op == "com.microsoft.MatMulNBits":
        return node.integers("N")[0]
    shape = flow.shape(node.inputs[1]) if node.op in ("MatMul", "Gemm") else None
    return shape[-2 if node.integers("transB") == (1,) else -1] if shape else None


def _role(  # noqa: C901, PLR0911, PLR0912 - an ordered list of rules, one a line
    name: str, elem_type: int, shape: Sequence[Dim], uses: Sequence[Use], rows: int | None
) -> Role:
    slots = {(use.node.op, use.index) for use in uses}
    integer = elem_type in _INTEGERS
    if elem_type == TensorProto.STRING:
        return Role.TEXT
    if elem_type == TensorProto.BOOL:
        if len(shape) <= 1 and "cache" in name:
            return Role.CACHE_FLAG
        return Role.FLAG if list(shape) in ([], [1]) else Role.MASK
    if ("com.microsoft.GroupQueryAttention", 5) in slots:
        return Role.LAST
    if ("com.microsoft.GroupQueryAttention", 6) in slots:
        return Role.TOTAL
    if len(shape) <= 1 and _CONTROL_NAME.search(name):
        return Role.CONTROL
    if integer and re.search("position|pos_ids", name):
        return Role.POSITIONS
    if integer and len(shape) <= 1 and (re.search("length|mask", name) or slots & _MASK_USES) and rows is None:
        return Role.MASK if "vocab" in name else Role.LENGTHS
    if integer and re.search("token_type|segment", name):
        return Role.TYPES
    if _MASK_NAME.search(name):
        additive = not integer and slots & _ADDITIVE_USES and not slots & _MASK_USES - _ADDITIVE_USES
        return Role.ADDITIVE_MASK if additive else Role.MASK
    if rows is not None:
        return Role.IDS
    if integer:
        if slots & _MASK_USES:
            return Role.MASK
        known = any(slot in slots for slot in _TOKEN_USES) or re.search("ids|token", name)
        return Role.IDS if known and len(shape) > 1 else Role.INDICES
    if elem_type in _SMALL_INTEGERS:
        return Role.BYTES
    if len(shape) >= 3 and _CACHE_NAME.search(name):
        return Role.CACHE
    weight = len(shape) == 2 and slots & _WEIGHT_USES and all(isinstance(dim, int) for dim in shape)
    return Role.WEIGHT if weight else Role.NUMBERS
