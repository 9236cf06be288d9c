"""The parts that transformer exports have in common, each written operator by operator."""

import numpy as np
from onnx import TensorProto

from models.writer import Writer

LOWEST = float(np.finfo(np.float32).min)
END = int(np.iinfo(np.int64).max)


def length(w: Writer, scope: str, x: str, axis: int) -> str:
    """Return one dimension of `x` as an int64 scalar."""
    return w.op(scope, "Gather", w.op(scope, "Shape", x), axis, axis=0)


def dims(w: Writer, scope: str, *parts: str | int) -> str:
    """Return a shape put together from scalars computed in the graph (str) and known numbers (int)."""
    pieces = [w.op(scope, "Unsqueeze", p, [0]) if isinstance(p, str) else [p] for p in parts]
    return w.op(scope, "Concat", *pieces, axis=0)


def join_heads(w: Writer, scope: str, x: str, width: int) -> str:
    """Turn [batch, heads, tokens, head] into [batch, tokens, width]."""
    x = w.op(scope, "Transpose", x, perm=[0, 2, 1, 3])
    shape = dims(w, scope, length(w, scope, x, 0), length(w, scope, x, 1), width)
    return w.op(scope, "Reshape", x, shape)


def bias(w: Writer, scope: str, width: int) -> str:
    """Add the bias vector of the layer at `scope`."""
    return w.weight(f"{parameter(scope)}.bias", width, std=0.05)


def parameter(scope: str) -> str:
    """Return the parameter name that belongs to the scope of a node."""
    return scope.strip("/").replace("/", ".")


def linear(w: Writer, scope: str, x: str, rows: int, columns: int) -> str:
    """Multiply by a [rows, columns] weight and add a bias: MatMul, Add."""
    return w.op(scope, "Add", bias(w, scope, columns), w.op(scope, "MatMul", x, w.kernel(rows, columns)))


def conv1d(w: Writer, scope: str, x: str, rows: int, columns: int) -> str:
    """Do the same as GPT-2 does it: a Gemm on [batch * tokens, rows] between two Reshapes."""
    batch, tokens = length(w, scope, x, 0), length(w, scope, x, 1)
    weight = w.weight(f"{parameter(scope)}.weight", rows, columns)
    flat = w.op(scope, "Reshape", x, dims(w, scope, -1, rows))
    y = w.op(scope, "Gemm", flat, weight, bias(w, scope, columns), alpha=1.0, beta=1.0)
    return w.op(scope, "Reshape", y, dims(w, scope, batch, tokens, columns))


def layer_norm(w: Writer, scope: str, x: str, width: int, epsilon: float, *, result: str | None = None) -> str:
    """Normalize the last axis with one LayerNormalization node."""
    scale = w.weight(f"{parameter(scope)}.weight", width, mean=1.0, std=0.05)
    return w.op(scope, "LayerNormalization", x, scale, bias(w, scope, width), result=result, axis=-1, epsilon=epsilon)


def rms_norm(w: Writer, scope: str, x: str, width: int) -> str:
    """Divide by the root of the mean square of the last axis, operator by operator."""
    mean = w.op(scope, "ReduceMean", w.op(scope, "Pow", x, 2.0), axes=[-1], keepdims=1)
    root = w.op(scope, "Sqrt", w.op(scope, "Add", mean, 1e-6))
    y = w.op(scope, "Mul", x, w.op(scope, "Div", 1.0, root))
    return w.op(scope, "Mul", w.weight(f"{parameter(scope)}.weight", width, mean=1.0, std=0.05), y)


def padding_bias(w: Writer, mask: str) -> str:
    """Turn a mask of ones and zeros [batch, tokens] into what the scores add, [batch, 1, 1, tokens]."""
    wide = w.op("", "Unsqueeze", w.op("", "Unsqueeze", mask, [1]), [2])
    return w.op("", "Mul", w.op("", "Sub", 1.0, w.op("", "Cast", wide, to=TensorProto.FLOAT)), LOWEST)


def causal_bias(w: Writer, ids: str, mask: str, past: str) -> str:
    """Return what the scores add, [batch, 1, tokens, past + tokens]: no padding, no later token."""
    scope = "/model"
    start, tokens = length(w, scope, past, 2), length(w, scope, ids, 1)
    total = w.op(scope, "Add", start, tokens)
    rows = w.op(scope, "Unsqueeze", w.op(scope, "Range", start, total, 1), [1])
    columns = w.op(scope, "Unsqueeze", w.op(scope, "Range", 0, total, 1), [0])
    kept = w.op(scope, "Unsqueeze", w.op(scope, "Unsqueeze", mask, [1]), [2])
    kept = w.op(scope, "Cast", kept, to=TensorProto.BOOL)
    allowed = w.op(scope, "And", w.op(scope, "LessOrEqual", columns, rows), kept)
    return w.op(scope, "Where", allowed, 0.0, LOWEST)


def rotary_tables(w: Writer, positions: str, head: int) -> tuple[str, str]:
    """Return cosine and sine of the rotary angles, each [batch, 1, tokens, head]."""
    scope = "/model/rotary_emb"
    frequencies = (1e4 ** (-np.arange(0, head, 2) / head)).astype(np.float32)[None, :, None]
    wide = w.op(scope, "Expand", frequencies, dims(w, scope, length(w, scope, positions, 0), head // 2, 1))
    steps = w.op(scope, "Cast", w.op(scope, "Unsqueeze", positions, [1]), to=TensorProto.FLOAT)
    half = w.op(scope, "Transpose", w.op(scope, "MatMul", wide, steps), perm=[0, 2, 1])
    angles = w.op(scope, "Concat", half, half, axis=-1)
    cosine, sine = (w.op(scope, "Unsqueeze", w.op(scope, kind, angles), [1]) for kind in ("Cos", "Sin"))
    return cosine, sine


def rotate(w: Writer, scope: str, x: str, angles: tuple[str, str], head: int) -> str:
    """Turn every head of `x` [batch, heads, tokens, head] by the rotary angles."""
    first = w.op(scope, "Slice", x, [0], [head // 2], [3], [1])
    second = w.op(scope, "Slice", x, [head // 2], [END], [3], [1])
    turned = w.op(scope, "Concat", w.op(scope, "Neg", second), first, axis=-1)
    return w.op(scope, "Add", w.op(scope, "Mul", x, angles[0]), w.op(scope, "Mul", turned, angles[1]))


def decoder_inputs(w: Writer, layers: int, heads: int, head: int) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Declare ids, mask, positions and the past keys and values of every layer, and return their names."""
    ids = w.input("input_ids", TensorProto.INT64, "batch_size", "sequence_length")
    mask = w.input("attention_mask", TensorProto.INT64, "batch_size", "past_sequence_length + sequence_length")
    positions = w.input("position_ids", TensorProto.INT64, "batch_size", "sequence_length")
    cache = ("batch_size", heads, "past_sequence_length", head)
    pasts = [
        (
            w.input(f"past_key_values.{i}.key", TensorProto.FLOAT, *cache),
            w.input(f"past_key_values.{i}.value", TensorProto.FLOAT, *cache),
        )
        for i in range(layers)
    ]
    return ids, mask, positions, pasts


def decoder_outputs(w: Writer, layers: int, heads: int, head: int, vocabulary: int) -> None:
    """Declare the logits and the present keys and values of every layer."""
    w.output("logits", "batch_size", "sequence_length", vocabulary)
    for name in (f"present.{i}.{part}" for i in range(layers) for part in ("key", "value")):
        w.output(name, "batch_size", heads, "past_sequence_length + sequence_length", head)
