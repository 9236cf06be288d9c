"""Raising the opset: what the converter does not know, what it need not see, what is said when it fails."""

import numpy as np
import onnx
import pytest

from bct_onnx.opsets import ConversionError, opset_of, raise_opset
from tests.helpers import model, nodes, random, run

NORMALIZED = "g (float[m, 64] x) => (float[m, 64] y) { y = LayerNormalization <axis = -1> (x, s, b) }"


def test_operators_newer_than_the_opset_are_hidden_from_the_converter():
    """ONNX Runtime runs LayerNormalization below opset 17, where ONNX has none."""
    source = model(NORMALIZED, 13, 8, s=random(64, seed=1), b=random(64, seed=2))
    raised = raise_opset(source, 21)
    assert opset_of(raised) == 21
    assert [(node.op_type, node.domain) for node in nodes(raised.graph)] == [("LayerNormalization", "")]
    x = random(3, 64, seed=3)
    np.testing.assert_allclose(run(raised, x=x), run(source, x=x), rtol=0, atol=1e-6)


def test_weights_without_data_come_through():
    source = model("g (float[m, 64] x) => (float[m, 64] y) { y = MatMul(x, w) }", 11, 6, w=random(64, 64))
    tensor = source.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere")
    kept = tensor.SerializeToString()
    raised = raise_opset(source, 21)
    assert [weight.SerializeToString() for weight in raised.graph.initializer] == [kept]
    assert [value.name for value in raised.graph.input] == ["x"]


def test_sparse_weights_come_through():
    source = model("g (float[m, 4] x) => (float[m, 2] y) { y = MatMul(x, w) }", 11, 6)
    values = onnx.numpy_helper.from_array(np.float32([3, -2]), "w")
    places = onnx.numpy_helper.from_array(np.int64([1, 6]), "places")
    source.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [4, 2]))
    kept = source.graph.sparse_initializer[0].SerializeToString()
    raised = raise_opset(source, 21)
    assert [weight.SerializeToString() for weight in raised.graph.sparse_initializer] == [kept]
    assert [value.name for value in raised.graph.input] == ["x"]
    x = random(3, 4, seed=3)
    np.testing.assert_array_equal(run(raised, x=x), run(source, x=x))


def test_initializers_of_an_old_file_need_not_be_inputs():
    source = model("g (float[m, 64] x) => (float[m, 64] y) { y = Add(x, w) }", 7, 3, w=random(64))
    assert opset_of(raise_opset(source, 21)) == 21


def test_what_cannot_be_raised_is_one_line():
    broken = model("g (float[m, 64] x) => (float[m, 64] y) { y = Relu(x) }", 11, 6)
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ConversionError) as error:
        raise_opset(broken, 21)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("opset", "op"), [(9, "Upsample"), (10, "Resize")])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [2.0, 1.5])
def test_pixels_stay_where_they_were_before_opset_11(opset: int, op: str, mode: str, scale: float) -> None:
    text = f'g (float[1, 2, 8, 8] x) => (float[1, 2, h, w] y) {{ y = {op} <mode = "{mode}"> (x, s) }}'
    source = model(text, opset, 4, s=np.array([1, 1, scale, scale], np.float32))
    x = random(1, 2, 8, 8, seed=3)
    np.testing.assert_allclose(run(raise_opset(source, 21), x=x), run(source, x=x), rtol=0, atol=1e-6)
