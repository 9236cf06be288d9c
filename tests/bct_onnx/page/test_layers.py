"""Where a weight is, from the names that exporters give."""

import pytest

from bct_onnx.page.layers import Place, find_layers, place_of
from bct_onnx.page.sizes import WeightSize

NAMES = {
    "a parameter's name": ("encoder.layer.11.output.dense.weight", "", "MatMul", ("encoder.layer", 11, "output.dense")),
    "a node's path": (
        "onnx::MatMul_754",
        "/encoder/layer.0/intermediate/dense/MatMul",
        "MatMul",
        ("encoder.layer", 0, "intermediate.dense"),
    ),
    "a path that repeats": ("w", "/blocks/blocks.3/attn/qkv/MatMul", "MatMul", ("blocks", 3, "attn.qkv")),
    "several as one": (
        "onnx::MatMul_1 + onnx::MatMul_2 + onnx::MatMul_3",
        "/h.2/attn/query/MatMul_4",
        "MatMul",
        ("h", 2, "attn.query +2"),
    ),
    "several layers as one": ("l.0.norm.weight + l.1.norm.weight", "/l.0/norm/Mul", "Mul", None),
    "experts": ("model.layers.1.experts.7.w1.weight", "", "MatMul", ("model.layers", 1, "experts.*.w1")),
    "keras": ("bert/encoder/layer_._5/attention/kernel", "", "MatMul", ("bert.encoder.layer", 5, "attention")),
    "an underscore": ("blk_4/ffn", "", "MatMul", ("blk", 4, "ffn")),
    "no layer": ("embeddings.word_embeddings.weight", "/embeddings/Gather", "Gather", None),
    "a number at the end": ("onnx::MatMul_754", "MatMul_12", "MatMul", None),
    "nothing": ("", "", "", None),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_places(case):
    name, node, op, expected = NAMES[case]
    assert place_of(name, node, op) == (Place(*expected) if expected else None)


def weight(name: str, bits: str = "4 bits", shape: tuple[int, ...] = (64, 64)) -> WeightSize:
    return WeightSize(name, 16384, 2048, op="MatMul", shape=shape, bits=bits)


def test_a_table_of_widths():
    weights = [
        weight("head.weight", "8 bits"),
        *(weight(f"l.{layer}.up.weight", f"{2 + layer} bits") for layer in (10, 0, 2)),
        weight("l.0.down.weight", "float"),
        weight("l.2.experts.0.w.weight", "3 bits"),
        weight("l.2.experts.1.w.weight", "7 bits"),
        weight("l.0.up.bias", shape=(1, 64)),
    ]
    layers = find_layers(weights)
    assert layers is not None
    assert layers.columns == ["up", "down", "experts.*.w"]
    found = [(label, [cell and (cell.text, cell.width) for cell in cells]) for label, cells in layers.rows]
    assert found == [
        ("l 0", [("2", 2), ("float", 16), None]),
        ("l 2", [("4", 4), None, ("3 to 7", 5)]),
        ("l 10", [("12", 12), None, None]),
    ]
    assert [(name, cell.text) for name, cell in layers.outside] == [("head.weight", "8")]
    assert (layers.left_out, layers.same) == (0, "")


def test_equal_widths_are_a_sentence_and_one_layer_is_none():
    layers = find_layers([weight(f"l.{layer}.up.weight") for layer in range(3)])
    assert layers is not None
    assert layers.same == "4"
    assert find_layers([weight("l.0.up.weight"), weight("head.weight")]) is None
    assert find_layers([]) is None


def test_too_many_places_are_counted():
    weights = [weight(f"l.{layer}.{role}.weight") for layer in range(2) for role in "abcdefghijklm"]
    layers = find_layers(weights)
    assert layers is not None
    assert (len(layers.columns), layers.left_out) == (10, 3)
