"""The oldest ONNX Runtime a model asks for, form by form, as releases were seen to behave."""

import onnx
import pytest

from bct_onnx.runtimes import FORMS, NEWEST, RELEASES, min_onnxruntime
from passes.functions.function import FUNCTIONS


def model(body: str, opset: int = 21, ir: int = 8, value_info: str = "") -> onnx.ModelProto:
    """Return a model with an input x, an output y and nodes as text; `body` may begin with <initializers>."""
    # The oldest IR version on purpose: what is asked for comes from opset and nodes alone.
    header = f'<ir_version: {ir}, opset_import: ["": {opset}, "com.microsoft": 1]>'
    return onnx.parser.parse_model(f"{header} g (float[n, 64] x) => (float y) {value_info} {body}")


NBITS = "{{ y = com.microsoft.MatMulNBits <K=64, N=8, block_size=32, {}> (x, w, s) }}"
GATHER = "{{ y = com.microsoft.GatherBlockQuantized <block_size=32 {}> (w, x, s) }}"

AT_OPSET_17 = {
    "{ y = Relu(x) }": "1.17.3",
    "{ y = com.microsoft.MatMulIntegerToFloat(x, w, a, s, z) }": "1.17.3",
    "{ y = QuantizeLinear(x, s, z) }": "1.17.3",
    NBITS.format("bits=4, accuracy_level=4"): "1.17.3",
    NBITS.format("accuracy_level=4"): "1.17.3",
    NBITS.format("bits=8, accuracy_level=4"): "1.22.1",
    NBITS.format("bits=8"): "1.23.2",
    NBITS.format("bits=8, accuracy_level=0"): "1.23.2",
    NBITS.format("bits=2, accuracy_level=4"): "1.24.4",
    GATHER.format(""): "1.23.2",
    GATHER.format(", bits=4"): "1.23.2",
    GATHER.format(", bits=8"): "1.23.2",
    GATHER.format(", bits=2"): "1.28.0",
}
AT_OPSET_21 = {
    "{ y = Relu(x) }": "1.18.1",
    "{ y = DequantizeLinear(x, s) }": "1.18.1",
    "{ y = DequantizeLinear <axis=0, block_size=32> (x, s) }": "1.19.2",
    "{ y = QuantizeLinear <axis=0, block_size=32> (x, s) }": "1.19.2",
    "<int4[2] w = {1, -2}, float s = {1.0}> { y = DequantizeLinear(w, s) }": "1.19.2",
    "<int4[2] w = {1, -2}> { y = Cast <to=2> (w) }": "1.23.2",
    "<uint4[2] w = {1, 2}> { y = Cast <to=2> (w) }": "1.23.2",
    "<uint8[2] w = {1, 2}> { y = Cast <to=3> (w) }": "1.18.1",
    "{ w = Constant <value = int4[2] {1, -2}> () y = Cast <to=2> (w) }": "1.23.2",
    "<int4[2, 1] w = {1, -2}> { t = Transpose <perm=[1, 0]> (w) y = Cast <to=2> (t) }": "1.23.2",
    "{ q = QuantizeLinear <output_dtype=22> (x, s) y = Cast <to=1> (q) }": "1.23.2",
    "<int4 z = {0}> { q = QuantizeLinear(x, s, z) y = Cast <to=1> (q) }": "1.23.2",
}


@pytest.mark.parametrize(("body", "first"), AT_OPSET_17.items())
def test_form_without_newer_types(body: str, first: str) -> None:
    assert min_onnxruntime(model(body, opset=17)) == first


@pytest.mark.parametrize(("body", "first"), AT_OPSET_21.items())
def test_form_of_opset_21(body: str, first: str) -> None:
    assert min_onnxruntime(model(body)) == first


@pytest.mark.parametrize(
    ("opset", "first"),
    {
        1: "1.17.3",
        20: "1.17.3",
        21: "1.18.1",
        22: "1.21.1",
        23: "1.23.2",
        24: "1.24.4",
        26: "1.25.1",
        99: NEWEST,
    }.items(),
)
def test_opset(opset: int, first: str) -> None:
    assert min_onnxruntime(model("{ y = Relu(x) }", opset)) == first


@pytest.mark.parametrize(
    ("ir", "first"),
    {3: "1.17.3", 9: "1.17.3", 10: "1.18.1", 11: "1.23.2", 12: "1.24.4", 13: "1.24.4", 99: NEWEST}.items(),
)
def test_ir_version(ir: int, first: str) -> None:
    assert min_onnxruntime(model("{ y = Relu(x) }", opset=17, ir=ir)) == first


def test_quantize_linear_of_opset_23_needs_a_release_later_than_its_opset() -> None:
    assert min_onnxruntime(model("{ y = DequantizeLinear(x, s) }", opset=23)) == "1.23.2"
    assert min_onnxruntime(model("{ y = QuantizeLinear(x, s) }", opset=23)) == "1.24.4"


def test_the_most_demanding_node_decides() -> None:
    four, eight = (NBITS.format(f"bits={bits}, accuracy_level=4")[1:-1] for bits in (4, 8))
    assert min_onnxruntime(model(f"{{ {eight} {four.replace('y =', 'z =')} }}", opset=17)) == "1.22.1"


def test_subgraph_sees_the_types_outside_and_counts() -> None:
    branch = "g () => (uint8[2] b) { b = Cast <to=2> (w) }"
    inside = model(
        f"<int4[2] w = {{1, -2}}> {{ c = Cast <to=9> (x) y = If <then_branch = {branch}, else_branch = {branch}> (c) }}"
    )
    assert min_onnxruntime(inside) == "1.23.2"


def test_name_of_a_subgraph_hides_the_same_name_outside() -> None:
    branch = "g () => (uint8[2] b) <int8[2] w = {1, 2}> { b = Cast <to=2> (w) }"
    hidden = model(
        f"<int4[2] w = {{1, -2}}> {{ c = Cast <to=9> (x) y = If <then_branch = {branch}, else_branch = {branch}> (c) }}"
    )
    assert min_onnxruntime(hidden) == "1.18.1"


def test_value_info_tells_a_type() -> None:
    assert min_onnxruntime(model("{ w = Foo(x) y = Cast <to=2> (w) }", value_info="<int4[2] w>")) == "1.23.2"


def test_function_body_counts() -> None:
    outer = model("{ y = Relu(x) }", opset=17)
    outer.graph.node.append(onnx.helper.make_node("F", ["x", "w", "s"], ["z"], domain="local"))
    outer.opset_import.append(onnx.helper.make_opsetid("local", 1))
    node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", bits=2)
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    outer.functions.append(onnx.helper.make_function("local", "F", ["x", "w", "s"], ["y"], [node], imports))
    assert min_onnxruntime(outer) == "1.24.4"


def test_attributes_of_a_call_count_in_the_body() -> None:
    """Widths that the body takes from its call, through another call; a function that calls itself ends."""
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    for bits, first in ((2, "1.24.4"), (4, "1.17.3")):
        outer = model("{ y = Relu(x) }", opset=17)
        outer.opset_import.append(onnx.helper.make_opsetid("local", 1))
        outer.graph.node.append(onnx.helper.make_node("G", ["x", "w", "s"], ["z"], domain="local", wide=bits))
        for name, inner, given, taken in (("G", "F", "wide", "bits"), ("F", "MatMulNBits", "bits", "bits")):
            node = onnx.helper.make_node(
                inner, ["x", "w", "s"], ["y"], domain="local" if inner == "F" else "com.microsoft"
            )
            node.attribute.add(name=taken, ref_attr_name=given, type=onnx.AttributeProto.INT)
            again = onnx.helper.make_node(name, ["x", "w", "s"], ["u"], domain="local")
            outer.functions.append(
                onnx.helper.make_function("local", name, ["x", "w", "s"], ["y"], [node, again], imports, [given])
            )
        assert min_onnxruntime(outer) == first


def test_attributes_of_a_call_count_in_branches_of_the_body() -> None:
    for bits, first in ((4, "1.18.1"), (8, "1.22.1")):
        outer = model("{ y = Relu(x) }")
        outer.graph.node.append(
            onnx.helper.make_node(
                "BothMatMul8ByDivision", ["x", "many", "q", "t", "c"], ["z"], domain="bct_onnx", bits=bits
            )
        )
        outer.functions.append(FUNCTIONS["BothMatMul8ByDivision"].proto(21))
        assert min_onnxruntime(outer) == first


def test_every_form_names_a_release_and_releases_are_in_order() -> None:
    assert {form.first for form in FORMS} <= set(RELEASES)
    assert list(RELEASES) == sorted(RELEASES, key=lambda release: [int(part) for part in release.split(".")])
