"""Compressed files as calls of functions: what they hold, that all of it folds, and the same without functions."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import bct_onnx
from bct_onnx.runtimes import min_onnxruntime
from passes.functions.function import DOMAIN
from tests.helpers import MLP, K, constant_nodes, model, nodes, operators, optimized, random, rewrite, run

FIXTURES = Path("models/fixtures")
TWICE = """g (float[m, 64] x) => (float[m, 64] y, float[m, 64] z) {
    a = Tanh(x) b = MatMul(a, w) c = Relu(b) y = MatMul(c, v) d = Neg(a) z = MatMul(d, w) }"""


def compress(source: onnx.ModelProto, folder: Path, **options: object) -> onnx.ModelProto:
    onnx.save(source, folder / "in.onnx")
    target = folder / "out.onnx"
    target.unlink(missing_ok=True)
    bct_onnx.compress(folder / "in.onnx", target, **options)
    return onnx.load(target)


def calls(written: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in nodes(written.graph) if node.domain == DOMAIN]


@pytest.fixture(scope="module")
def mlp() -> onnx.ModelProto:
    source = model(MLP, w=random(K, K, seed=1), v=random(K, K, seed=2))
    for number, node in enumerate(source.graph.node):
        node.name = f"layer.{number}"
    return source


@pytest.mark.parametrize("preset", ["fast", "small", "paper"])
def test_a_file_holds_what_it_calls(mlp, tmp_path, preset):
    """No function more, none less, those that bodies call among them, and each call is named after what it replaces."""
    written = compress(mlp, tmp_path, preset=preset)
    inside = [node for function in written.functions for node in function.node if node.domain == DOMAIN]
    assert {node.op_type for node in [*calls(written), *inside]} == {function.name for function in written.functions}
    products = [node.name for node in calls(written) if "MatMul" in node.op_type]
    # The Relu between them is part of the first one's call, but where it is computed by codes.
    assert products == ["layer.0" if preset == "paper" else "layer.0 + layer.1", "layer.2"]
    names = [node.name for node in nodes(written.graph)]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("preset", ["fast", "small", "paper"])
def test_the_same_without_functions(mlp, tmp_path, preset):
    (tmp_path / "calls").mkdir()
    # Widths that are given: a search fills the same bytes with what bodies do not take.
    bits = {"bits": 4} if preset == "small" else {}
    called = compress(mlp, tmp_path / "calls", preset=preset, **bits)
    plain = compress(mlp, tmp_path, preset=preset, inline=True, **bits)
    assert not plain.functions
    assert not calls(plain)
    assert DOMAIN not in {entry.domain for entry in plain.opset_import}
    assert sorted(operators(called)) == sorted(operators(plain))
    assert min_onnxruntime(called) == min_onnxruntime(plain)
    x = random(5, K, seed=3)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(called, optimize, x=x)[0], run(plain, optimize, x=x)[0])


def test_portable_files_are_plain(mlp, tmp_path):
    written = compress(mlp, tmp_path, preset="portable")
    assert not written.functions
    assert {node.domain for node in nodes(written.graph)} == {""}


def test_old_opsets_are_plain(tmp_path):
    """Constant has no numbers before opset 12, and bodies are made of them; the operator keeps the opset down."""
    text = 'g (float[m, 64] x) => (float[m, 64] y) { a = MatMul(x, w) y = Upsample<mode = "nearest">(a, s) }'
    source = model(text, opset=9, ir_version=8, w=random(K, K), s=np.ones(2, np.float32))
    written = compress(source, tmp_path, preset="small", lowering="packed")
    assert written.opset_import[0].version < 12
    assert not written.functions
    assert "MatMulNBits" in operators(written)


def test_what_several_read_is_decoded_once(tmp_path):
    """A weight of two products is a node of its own; one of a single product is decoded in its call."""
    source = model(TWICE, w=random(K, K, seed=1), v=random(K, K, seed=2))
    kinds = sorted(node.op_type for node in calls(compress(source, tmp_path, preset="small", bits=4)))
    # The quantization of its result is part of a product's call.
    products = ["BlockMatMul4Trellis", "BlockMatMul8", "BlockMatMul8ReluQuantizeRowsAbove"]
    assert kinds == [*products, "DecodeBlocks4Trellis", *kinds[4:]]
    assert set(kinds[4:]) <= {"QuantizeRows", "QuantizeRowsLike", "QuantizeRowsAbove", "QuantizeRowsAboveLike"}


@pytest.mark.parametrize("preset", ["fast", "small", "balanced"])
@pytest.mark.parametrize("name", ["bert_optimum", "gpt2_torchscript", "llama_dynamo", "t5_decoder_merged_optimum"])
def test_a_session_leaves_nothing_to_decode(tmp_path, name, preset):
    bct_onnx.compress(FIXTURES / f"{name}.onnx", tmp_path / "out.onnx", preset=preset, verify=False)
    left = constant_nodes(optimized(onnx.load(tmp_path / "out.onnx"), tmp_path))
    assert not {"BitShift", "BitwiseAnd", "BitwiseOr", "Pow"} & set(left)


def test_operators_of_the_same_domain_that_are_none_of_the_functions_stay(tmp_path):
    """A library of the user's own may have them: what is not known is left to the runtime, by name."""
    text = "g (float[m, 64] x) => (float[m, 64] y) { a = MatMul(x, w) y = bct_onnx.Unheard(a) }"
    domains = '["" : 21, "bct_onnx" : 1]'
    source = onnx.parser.parse_model(f"<ir_version: 10, opset_import: {domains}> {text}")
    source.graph.initializer.append(onnx.numpy_helper.from_array(random(K, K), "w"))
    result = rewrite(source, tmp_path, bits=4)
    assert [node.op_type for node in calls(result.proto)] == ["QuantizeRows", "BlockMatMul4Trellis", "Unheard"]
    assert "Unheard" not in {function.name for function in result.proto.functions}
