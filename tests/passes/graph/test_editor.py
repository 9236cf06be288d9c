"""What passes write: named, with shapes and types."""

import onnx
import pytest

import passes
from bct_onnx import files
from passes.graph.types import element_type
from passes.graph.walk import walk
from tests.helpers import K, model, random, session

SIZES = {"b": 2, "s": 5}
BLOCK = f"""g (float[b, s, {K}] x) => (float[b, s, {K}] y) {{
    n = LayerNormalization(x, one, zero) q = MatMul(n, w) k = MatMul(n, v)
    t = Transpose <perm = [0, 2, 1]> (k) scores = MatMul(q, t) shares = Softmax(scores) seen = MatMul(shares, n)
    r = Add(x, seen) u = MatMul(r, w) biased = Add(u, zero) a = Gelu(biased) d = MatMul(a, v) y = Add(d, r) }}"""
WEIGHTS = {"w": random(K, K, seed=1), "v": random(K, K, seed=2), "one": random(K) + 1, "zero": random(K, seed=3)}
EVERYTHING = frozenset(map(passes.pass_name, passes.CHAIN)) - {"attention"}
REQUESTS = {
    "dense": {},
    "4 bits": {"bits": 4, "block_size": 8},
    "packed": {"lowering": "packed", "block_size": 16},
    "qdq": {"lowering": "qdq", "block_size": 32},
    "everything": {"operators": EVERYTHING, "block_size": 16},
}


@pytest.fixture(params=REQUESTS)
def written(request, tmp_path):
    onnx.save(model(BLOCK, **WEIGHTS), tmp_path / "in.onnx")
    read = files.read(tmp_path / "in.onnx")
    graph = read.graph()
    passes.run(graph, passes.Options(**{"workers": 1, "bits": 8, "block_size": 0, **REQUESTS[request.param]}))
    files.write(graph, read, tmp_path / "out.onnx")
    return graph, onnx.load(tmp_path / "out.onnx")


def test_what_is_made_has_the_shape_and_type_of_a_run(written):
    graph, proto = written
    tensors = {tensor.name: tensor for node in graph.nodes for tensor in node.outputs}
    assert all(element_type(tensor) and tensor.shape is not None for tensor in tensors.values())
    # Codes of 4 bits come out of no session.
    names = [name for name, tensor in tensors.items() if "int4" not in element_type(tensor)]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    results = session(proto, optimize=False).run(names, {"x": random(SIZES["b"], SIZES["s"], K, seed=9)})
    for name, array in zip(names, results, strict=True):
        assert element_type(tensors[name]) == array.dtype.name
        known = [SIZES.get(size, size) for size in tensors[name].shape]
        assert array.shape == tuple(n if size is None else size for size, n in zip(known, array.shape, strict=True))


def test_every_node_has_a_name_of_its_own(written):
    graph, proto = written
    names = [node.name for _, node in walk(graph)]
    assert all(names) and len(set(names)) == len(names)
    assert [node.name for node in proto.graph.node] == [node.name for node in graph.nodes]


def test_nodes_keep_their_names(tmp_path):
    proto = model(BLOCK, **WEIGHTS)
    for node in proto.graph.node[:5]:
        node.name = f"layer/{node.output[0]}"
    onnx.save(proto, tmp_path / "in.onnx")
    graph = files.read(tmp_path / "in.onnx").graph()
    passes.run(graph, passes.Options(bits=8, block_size=0, workers=1))
    named = {node.name: node.op for node in graph.nodes}
    assert named["layer/n"] == "LayerNormalizationQuantizeRows" and named["layer/t"] == "Transpose"
    assert named["y"] == "BlockMatMul8Residual"
