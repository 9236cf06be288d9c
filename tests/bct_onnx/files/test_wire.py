"""The walker against protobuf's own parser, on random models and on damaged ones."""

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from bct_onnx.files import wire

SMALL = 16


def tensors() -> st.SearchStrategy[onnx.TensorProto]:
    def build(name: str, raw: bytes | None, floats: list[float], doc: str) -> onnx.TensorProto:
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.UINT8, float_data=floats, doc_string=doc)
        if raw is not None:
            tensor.raw_data = raw
            tensor.dims.append(len(raw))
        return tensor

    text = st.text(max_size=5)
    floats = st.lists(st.floats(width=32, allow_nan=False), max_size=4)
    return st.builds(build, text, st.none() | st.binary(max_size=3 * SMALL), floats, text)


def nodes(depth: int) -> st.SearchStrategy[onnx.NodeProto]:
    def build(name: str, tensor: onnx.TensorProto, graph: onnx.GraphProto | None, ints: list[int]) -> onnx.NodeProto:
        node = onnx.NodeProto(op_type="Op", name=name)
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
        node.attribute.add(name="ints", type=onnx.AttributeProto.INTS, ints=ints)
        if graph is not None:
            node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH, g=graph)
        return node

    graph = graphs(depth - 1) if depth else st.none()
    integers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)
    return st.builds(build, st.text(max_size=5), tensors(), graph, integers)


def graphs(depth: int) -> st.SearchStrategy[onnx.GraphProto]:
    return st.builds(
        lambda nodes, initializers: onnx.GraphProto(name="g", node=nodes, initializer=initializers),
        st.lists(nodes(depth), max_size=2),
        st.lists(tensors(), max_size=3),
    )


def models() -> st.SearchStrategy[onnx.ModelProto]:
    return st.builds(
        lambda graph, inner: onnx.ModelProto(
            ir_version=8, graph=graph, functions=[onnx.FunctionProto(name="f", node=inner)]
        ),
        graphs(depth=1),
        st.lists(nodes(depth=0), max_size=2),
    )


def restored(skeleton: bytes, original: memoryview) -> onnx.ModelProto:
    """Put the cut out data back, read from where the skeleton says that it lies."""

    def replace(data: memoryview, start: int, stop: int) -> list[wire.Piece] | None:
        tensor = onnx.TensorProto.FromString(bytes(data[start:stop]))
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries.get("location") != "model.onnx":
            return None
        offset, length = int(entries["offset"]), int(entries["length"])
        return wire.put_back(tensor, original[offset : offset + length])

    return onnx.ModelProto.FromString(b"".join(wire.rewrite_tensors(memoryview(skeleton), replace)))


@given(models())
def test_cutting_out_and_putting_back_gives_the_same_model(model):
    data = memoryview(model.SerializeToString())
    skeleton = wire.cut_out(data, "model.onnx", SMALL)
    assert restored(skeleton, data) == model


@given(models())
def test_a_skeleton_holds_no_large_data_and_keeps_small_data(model):
    skeleton = onnx.ModelProto.FromString(wire.cut_out(memoryview(model.SerializeToString()), "model.onnx", SMALL))
    for original, cut in zip(model.graph.initializer, skeleton.graph.initializer, strict=True):
        assert len(cut.raw_data) < SMALL
        assert cut.raw_data == (original.raw_data if len(original.raw_data) < SMALL else b"")
        assert (cut.name, cut.dims, cut.float_data) == (original.name, original.dims, original.float_data)


@given(models(), st.data())
def test_damaged_models_are_read_as_protobuf_reads_them(model, data):
    encoded = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    del encoded[data.draw(st.integers(1, len(encoded))) :]
    try:
        skeleton = wire.cut_out(memoryview(bytes(encoded)), "model.onnx", SMALL)
        read = restored(skeleton, memoryview(bytes(encoded)))
    except (wire.WireError, DecodeError):
        return
    assert read.SerializeToString(deterministic=True) == onnx.ModelProto.FromString(bytes(encoded)).SerializeToString(
        deterministic=True
    )


@given(st.binary(max_size=64))
def test_any_bytes_are_walked_or_refused(data):
    try:
        found = list(wire.fields(memoryview(data), 0, len(data)))
    except wire.WireError:
        return
    assert [field.begin for field in found] == [0, *(field.stop for field in found)][: len(found)]
    assert not data or found[-1].stop == len(data)


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_numbers_come_back(value, behind):
    encoded = wire.encode_varint(value)
    assert wire.decode_varint(memoryview(encoded + behind), 0, len(encoded + behind)) == (value, len(encoded))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", id="a graph of 2^63 bytes"),
        pytest.param(b"\x3a\x05ab", id="longer than the file"),
        pytest.param(b"\xff" * 11, id="a number without end"),
        pytest.param(b"\x00\x01", id="field number 0"),
        pytest.param(b"\x0b\x0c", id="a group"),
        pytest.param(b"\x3a\x04\x2a\x05abc", id="a tensor longer than its graph"),
    ],
)
def test_bad_lengths_are_refused(data):
    with pytest.raises(wire.WireError):
        wire.cut_out(memoryview(data), "model.onnx", 0)


def test_deep_nesting_is_refused():
    body = b""
    for _ in range(200):  # graph > node > attribute > graph
        attribute = wire.length_prefix(6, len(body)) + body
        node = wire.length_prefix(5, len(attribute)) + attribute
        body = wire.length_prefix(1, len(node)) + node
    with pytest.raises(wire.WireError, match="nested"):
        wire.cut_out(memoryview(wire.length_prefix(7, len(body)) + body), "model.onnx", 0)


def test_a_split_graph_is_merged_as_protobuf_merges_it():
    half = onnx.ModelProto()
    half.graph.initializer.add(name="w", data_type=2, dims=[32], raw_data=bytes(range(32)))
    data = memoryview(half.SerializeToString() * 2)
    assert len(onnx.ModelProto.FromString(wire.cut_out(data, "model.onnx", SMALL)).graph.initializer) == 2
    assert restored(wire.cut_out(data, "model.onnx", SMALL), data) == onnx.ModelProto.FromString(bytes(data))
