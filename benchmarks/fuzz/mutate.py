"""Real models, damaged: in their bytes, in their graphs, in what they say of files beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

Rng = np.random.Generator
HUGE = (2**31, 2**40, 2**62, -1, 10**9)
PATHS = ("../secret.bin", "/etc/passwd", "a/../../secret.bin", "..\\secret.bin", "", ".", "x" * 5000, "missing.bin")


def truncate(data: bytes, rng: Rng) -> bytes:
    """Cut the end off."""
    return data[: int(rng.integers(0, len(data)))]


def flip(data: bytes, rng: Rng) -> bytes:
    """Change some bytes anywhere."""
    array = np.frombuffer(data, np.uint8).copy()
    array[rng.integers(0, len(array), int(rng.integers(1, 30)))] = rng.integers(0, 256, dtype=np.uint8)
    return array.tobytes()


def flip_structure(data: bytes, rng: Rng) -> bytes:
    """Change bytes of the model with its weights left out of the way: names, counts, tags."""
    proto = onnx.ModelProto.FromString(data)
    weights = [tensor.raw_data for tensor in proto.graph.initializer]
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) > 64:
            tensor.raw_data = b"\0" * 8
    try:
        changed = onnx.ModelProto.FromString(flip(proto.SerializeToString(), rng))
    except DecodeError:
        return flip(data, rng)
    for tensor, weight in zip(changed.graph.initializer, weights, strict=False):
        if tensor.raw_data == b"\0" * 8:
            tensor.raw_data = weight
    return changed.SerializeToString()


def splice(data: bytes, rng: Rng) -> bytes:
    """Remove a piece, repeat it, or fill it with zeros."""
    start = int(rng.integers(0, len(data)))
    stop = min(len(data), start + int(rng.integers(1, 2000)))
    middle = [b"", 2 * data[start:stop], bytes(stop - start)][int(rng.integers(3))]
    return data[:start] + middle + data[stop:]


def _initializer(proto: onnx.ModelProto, rng: Rng) -> onnx.TensorProto:
    tensors = proto.graph.initializer or [proto.graph.initializer.add(name="added", data_type=1)]
    return tensors[int(rng.integers(len(tensors)))]


def _node(proto: onnx.ModelProto, rng: Rng) -> onnx.NodeProto:
    nodes = proto.graph.node or [proto.graph.node.add(op_type="Identity", input=["x"], output=["y"])]
    return nodes[int(rng.integers(len(nodes)))]


def wrong_shape(proto: onnx.ModelProto, rng: Rng) -> None:
    """Change a weight's dims: one size, or their order with the count kept."""
    dims = _initializer(proto, rng).dims
    if dims and rng.random() < 0.5:
        dims[int(rng.integers(len(dims)))] += int(rng.integers(1, 4))
    else:
        dims[:] = [*dims[::-1], *([1] if rng.random() < 0.3 else [])]


def huge_size(proto: onnx.ModelProto, rng: Rng) -> None:
    """Declare a size of gigabytes or more, for a weight, an input, a shape, or a count of repetitions."""
    size = int(rng.choice(HUGE))
    kind = rng.random()
    shapes = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    if kind < 0.3:
        tensor = _initializer(proto, rng)
        tensor.dims[:] = [size, *tensor.dims[1:]]
    elif kind < 0.5:
        for value in proto.graph.input[:1]:
            for dim in value.type.tensor_type.shape.dim[:1]:
                dim.dim_value = size
    elif kind < 0.8 and shapes:
        tensor = shapes[int(rng.integers(len(shapes)))]
        count = max(1, len(tensor.raw_data) // 8)
        tensor.ClearField("int64_data")
        tensor.dims[:] = [count]
        tensor.raw_data = np.full(count, size, np.int64).tobytes()
    else:
        shape = onnx.numpy_helper.from_array(np.array([abs(size)], np.int64), "fuzz_shape")
        proto.graph.initializer.append(shape)
        proto.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["fuzz_shape"], ["fuzz_out"]))
        proto.graph.output.append(onnx.helper.make_tensor_value_info("fuzz_out", 1, None))


def missing_tensor(proto: onnx.ModelProto, rng: Rng) -> None:
    """Remove a weight that is read."""
    if proto.graph.initializer:
        del proto.graph.initializer[int(rng.integers(len(proto.graph.initializer)))]


def cycle(proto: onnx.ModelProto, rng: Rng) -> None:
    """Let a node read what comes of its own output."""
    nodes = proto.graph.node
    if len(nodes) > 1:
        first, last = sorted(rng.integers(0, len(nodes), 2).tolist())
        if nodes[first].input and nodes[last].output:
            nodes[first].input[int(rng.integers(len(nodes[first].input)))] = nodes[last].output[0]


def external_path(proto: onnx.ModelProto, rng: Rng) -> None:
    """Put a weight into a file outside of the folder, missing, or cut short."""
    tensor = _initializer(proto, rng)
    for field in ("raw_data", "float_data", "int64_data", "int32_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    offset = int(rng.choice([0, 5, 2**40, -1]))
    for key, value in (("location", str(rng.choice(PATHS))), ("offset", str(offset))):
        tensor.external_data.add(key=key, value=value)


def wrong_type(proto: onnx.ModelProto, rng: Rng) -> None:
    """Change a weight's element type, one that exists or not."""
    _initializer(proto, rng).data_type = int(rng.choice([0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 16, 17, 21, 22, 99]))


def wrong_operator(proto: onnx.ModelProto, rng: Rng) -> None:
    """Turn a node into another operator."""
    names = ["MatMul", "Gemm", "Gather", "Softmax", "Nonsense", "", "Loop", "If", "Transpose", "Constant", "Reshape"]
    _node(proto, rng).op_type = str(rng.choice(names))


def wrong_inputs(proto: onnx.ModelProto, rng: Rng) -> None:
    """Drop, double, blank or reverse the inputs or outputs of a node."""
    node = _node(proto, rng)
    names = node.input if rng.random() < 0.7 else node.output
    kept = list(names)
    forms = ([], [*kept, *kept], ["" for _ in kept], kept[::-1], kept[:1], [*kept, "nowhere"])
    names[:] = forms[int(rng.integers(len(forms)))]


def wrong_attributes(proto: onnx.ModelProto, rng: Rng) -> None:
    """Change the attributes of a node: numbers, types, names, or drop them."""
    node = _node(proto, rng)
    if not node.attribute or rng.random() < 0.2:
        node.attribute.append(onnx.helper.make_attribute(str(rng.choice(["axis", "perm", "to", "bogus"])), 77))
        return
    attribute = node.attribute[int(rng.integers(len(node.attribute)))]
    kind = int(rng.integers(4))
    if kind == 0:
        attribute.i = int(rng.choice([-1, 0, 77, 2**62]))
        attribute.ints[:] = [int(value) for value in rng.integers(-5, 50, len(attribute.ints))]
    elif kind == 1:
        attribute.type = int(rng.integers(0, 15))  # type: ignore[assignment]
    elif kind == 2:
        attribute.name = "bogus"
    else:
        del node.attribute[:]


def wrong_header(proto: onnx.ModelProto, rng: Rng) -> None:
    """Change versions, domains, or the graph's inputs and outputs."""
    kind = int(rng.integers(6))
    if kind == 0:
        del proto.opset_import[:]
    elif kind == 1:
        proto.opset_import[0].version = int(rng.choice([0, 1, 6, 999, -3, 2**40]))
    elif kind == 2:
        proto.ir_version = int(rng.choice([0, 1, 2, 3, 99]))
    elif kind == 3:
        del proto.graph.output[:]
    elif kind == 4:
        proto.graph.output.add(name="nowhere")
    elif proto.graph.input:
        proto.graph.input.append(proto.graph.input[0])


def not_finite(proto: onnx.ModelProto, rng: Rng) -> None:
    """Put NaN or infinity into a weight."""
    tensor = _initializer(proto, rng)
    if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) >= 4:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        values[int(rng.integers(len(values)))] = float(rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-42]))
        tensor.raw_data = values.tobytes()


def endless_loop(proto: onnx.ModelProto, rng: Rng) -> None:
    """Add a loop of more turns than anyone will wait for, or of some."""
    turns = int(rng.choice([3, 10**6, 2**62]))
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float fuzz_y) {{
        fuzz_n = Constant <value = int64 {{{turns}}}> ()
        fuzz_go = Constant <value = bool {{1}}> ()
        fuzz_s = Constant <value = float {{1.0}}> ()
        fuzz_y = Loop(fuzz_n, fuzz_go, fuzz_s) <body = b (int64 i, bool c, float s) => (bool c2, float s2) {{
            c2 = Identity(c) s2 = Sin(s) }}> }}"""
    loop = onnx.parser.parse_model(text)
    proto.graph.node.extend(loop.graph.node)
    proto.graph.output.extend(loop.graph.output)


BYTES: tuple[Callable[[bytes, Rng], bytes], ...] = (truncate, flip, flip_structure, splice)
GRAPHS: tuple[Callable[[onnx.ModelProto, Rng], None], ...] = (
    wrong_shape,
    huge_size,
    missing_tensor,
    cycle,
    external_path,
    wrong_type,
    wrong_operator,
    wrong_inputs,
    wrong_attributes,
    wrong_header,
    not_finite,
    endless_loop,
)
KINDS = tuple(mutation.__name__ for mutation in (*BYTES, *GRAPHS))


def kind_of(seed: int) -> str:
    """Return the kind of damage that a seed stands for."""
    return KINDS[int(np.random.default_rng([seed, 3]).integers(len(KINDS)))]


def mutate(path: Path, seed: int) -> bytes:
    """Return the file with the damage that a seed stands for."""
    rng, data, kind = np.random.default_rng(seed), path.read_bytes(), KINDS.index(kind_of(seed))
    if kind < len(BYTES):
        return BYTES[kind](data, rng)
    proto = onnx.ModelProto.FromString(data)
    GRAPHS[kind - len(BYTES)](proto, rng)
    return proto.SerializeToString()
