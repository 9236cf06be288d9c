"""Kernels of what lies between products on codes: to the bit what the numpy references say, or within stated bounds."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from passes import relu_squared
from passes.functions import quantize_blocks
from passes.functions.function import protos
from passes.functions.quantize_blocks import CODE_TYPES
from passes.gelu import function as gelu
from passes.layer_normalization import function as normalization
from passes.softmax import function as softmax
from tests.bct_onnx.kernels.calls import OPSET, call, run

SHAPES = ((3, 1), (2, 5, 64), (1, 131), (40, 384), (0, 8), (2, 0), (7,))
HUGE = np.array([0, -0.0, 1e-44, -1e-44, 1e-30, 1e30, 3.4e38, -3.4e38, 1, -1], np.float32)


def numbers(shape, seed=1):
    return (np.random.default_rng(seed).standard_normal(shape) * 3).astype(np.float32)


def coded(name, x, code, block=16):
    attributes = {"block": [block], "block_size": block, "ulps": code.ulps}
    if name != "CodedReluSquared":
        attributes["output_dtype"] = code.onnx
    return call(name, {"x": x}, {}, attributes)


def same(found, expected):
    assert found.shape == expected.shape
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", CODE_TYPES)
@pytest.mark.parametrize("block", [16, 32, 5, 1])
@pytest.mark.usefixtures("processor")
def test_code_blocks_give_what_the_body_gives(kind, block):
    for shape in SHAPES:
        x = numbers(shape)
        model = coded("CodeBlocks", x, CODE_TYPES[kind], block)
        (y,) = run(model, {"x": x})
        if kind != "float8e4m3" and x.size:
            same(y, quantize_blocks.reference(x, CODE_TYPES[kind], block))
        if x.size:
            same(y, run(model, {"x": x}, native=False)[0])


@pytest.mark.parametrize("kind", CODE_TYPES)
@pytest.mark.usefixtures("processor")
def test_code_blocks_of_special_values(kind):
    x = numbers((12, 40), 2)
    for i, value in enumerate([*HUGE, np.inf, -np.inf]):
        x[i, 3], x[i, 35] = value, -value
    x[9, :16] = 0
    model = coded("CodeBlocks", x, CODE_TYPES[kind])
    same(run(model, {"x": x})[0], run(model, {"x": x}, native=False)[0])


def test_codes_of_nan_leave_the_rest_of_the_block():
    x = numbers((1, 32))
    x[0, 5] = np.nan
    rest = np.where(np.isnan(x), np.float32(0), x)
    (y,) = run(coded("CodeBlocks", x, CODE_TYPES["int8"]), {"x": x})
    expected = quantize_blocks.reference(rest, CODE_TYPES["int8"], 16)
    same(np.delete(y, 5, 1), np.delete(expected, 5, 1))


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 70)), elements=st.floats(-(2.0**99), 2.0**99, width=32)
    )
)
@settings(max_examples=60, deadline=None)
def test_code_blocks_of_any_floats(x):
    (y,) = run(coded("CodeBlocks", x, CODE_TYPES["int8"]), {"x": x})
    same(y, quantize_blocks.reference(x, CODE_TYPES["int8"], 16))


def test_single_numbers():
    x = np.array(1.3, np.float32)
    (y,) = run(coded("CodeBlocksAnyRank", x, CODE_TYPES["int8"]), {"x": x})
    same(y, quantize_blocks.reference(x[None], CODE_TYPES["int8"], 16)[0])


@pytest.mark.parametrize("block", [16, 7])
@pytest.mark.usefixtures("processor")
def test_relu_squared(block):
    for shape in SHAPES:
        x = numbers(shape)
        (y,) = run(coded("CodedReluSquared", x, relu_squared.CODE, block), {"x": x})
        same(y, relu_squared.reference(x, block) if x.size else x)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 64, 384, 100])
@pytest.mark.usefixtures("processor")
def test_normalization(centered, bias, width):
    rows = normalization.Rows(width, 16, 1e-5, centered)
    name = normalization.name_of(centered, bias, rows.padding != 0)
    function = normalization.BY_FORM[centered, bias, rows.padding != 0]
    attributes = {key: value for key, value in rows.attributes.items() if key in function.attributes}
    x = numbers((2, 5, width)) + np.float32(1)
    x[0, 0] = 7.25
    x[0, 1, 0] = 1e4
    gain, shift = numbers(width, 2), numbers(width, 3)
    constants = {"scale": gain, "bias": shift} if bias else {"scale": gain}
    (y,) = run(call(name, {"x": x}, constants, attributes), {"x": x})
    z = normalization.reference(x, rows)
    expected = z * gain + (shift if bias else 0)
    # A mean that is rounded otherwise may move a code by one, a shift: two thirds of the stated bound.
    off = np.abs(y - expected)
    assert (off <= normalization.bound(x, rows) * np.abs(gain)).all()
    # Nearly all codes are the same, and what is left is the rounding of floats.
    assert np.quantile(off, 0.9) < 1e-3


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.usefixtures("processor")
def test_softmax(axis):
    for shape in ((3, 1, 1), (2, 5, 64), (1, 2, 131), (4, 9, 2000), (0, 3, 4)):
        x = numbers(shape) * 4
        model = call("BlockSoftmax", {"x": x}, {}, {"axes": [axis]})
        (y,) = run(model, {"x": x})
        same(y, softmax.reference(x, axis) if x.size else x)


@pytest.mark.usefixtures("processor")
def test_softmax_of_special_values():
    x = numbers((6, 40))
    x[0, 3], x[1, 5], x[2, 7], x[3], x[4, 39] = np.nan, np.inf, -np.inf, -np.inf, -3.4e38
    x[5, 0], x[5, 1] = 3.4e38, -3.4e38
    model = call("BlockSoftmax", {"x": x}, {}, {"axes": [-1]})
    (y,) = run(model, {"x": x})
    undefined = [0, 1, 3]
    assert np.isnan(y[undefined]).all()
    rest = [2, 4, 5]
    with np.errstate(over="ignore"):
        same(y[rest], softmax.reference(x[rest], -1))


@pytest.mark.parametrize("kind", gelu.CURVES)
@pytest.mark.usefixtures("processor")
def test_curves_by_table(kind):
    name = gelu.BY_KIND[kind].name
    x = np.concatenate([np.linspace(-12, 12, 5001, dtype=np.float32), HUGE, [np.float32(np.inf), np.float32(-np.inf)]])
    (y,) = run(call(name, {"x": x}, {}, {}), {"x": x})
    with np.errstate(over="ignore"):
        same(y, gelu.reference(x, kind))
    nan = np.array([np.nan, -1], np.float32)
    assert np.isnan(run(call(name, {"x": nan}, {}, {}), {"x": nan})[0][0])


HOSTILE = {
    "blocks that differ": ("CodeBlocks", {"block": [8]}),
    "no block": ("CodeBlocks", {"block": [0], "block_size": 0}),
    "a block of many": ("CodeBlocks", {"block": [1 << 62], "block_size": 1 << 62}),
    "a type": ("CodeBlocks", {"output_dtype": 1}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    name, changed = HOSTILE[what]
    code = CODE_TYPES["int8"]
    x = numbers((2, 32))
    attributes = {"block": [16], "block_size": 16, "ulps": code.ulps, "output_dtype": code.onnx, **changed}
    with pytest.raises(Exception, match=f"{name}: "):
        run(call(name, {"x": x}, {}, attributes), {"x": x})


@pytest.mark.parametrize("axes", [[3], [-3], [], [0, 1]])
def test_axes_that_do_not_fit_are_an_error(axes):
    x = numbers((2, 32))
    with pytest.raises(Exception, match=r"BlockSoftmax: |axes|axis"):
        run(call("BlockSoftmax", {"x": x}, {}, {"axes": axes}), {"x": x})


@pytest.mark.parametrize(("width", "gain"), [(0, 64), (1 << 40, 64), (32, 64), (64, 63)])
def test_normalization_of_what_does_not_fit_is_an_error(width, gain):
    rows = normalization.Rows(64, 16, 1e-5, True)
    function = normalization.BY_FORM[True, False, False]
    attributes = {key: value for key, value in rows.attributes.items() if key in function.attributes}
    x = numbers((2, 64))
    with pytest.raises(Exception, match="BlockLayerNormalizationNoBias: "):
        run(call(function.name, {"x": x}, {"scale": numbers(gain)}, attributes | {"width": width}), {"x": x})


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.usefixtures("processor")
def test_what_others_read_stays_as_it_is(kept):
    x = numbers((7, 48))
    model = coded("CodeBlocks", x, CODE_TYPES["int8"])
    graph, (node,) = model.graph, model.graph.node
    node.input[0] = "negative"
    graph.node.insert(0, onnx.helper.make_node("Neg", ["x"], ["negative"]))
    graph.node.append(onnx.helper.make_node("BlockSoftmax", ["y"], ["shares"], domain=node.domain, axes=[-1]))
    model.functions.extend(protos(["BlockSoftmax"], OPSET))
    graph.output.append(onnx.helper.make_tensor_value_info("shares", onnx.TensorProto.FLOAT, ["x0", "x1"]))
    if kept:
        graph.output.append(onnx.helper.make_tensor_value_info("negative", onnx.TensorProto.FLOAT, ["x0", "x1"]))
    else:
        del graph.output[0]
    expected = {"y": quantize_blocks.reference(-x, CODE_TYPES["int8"], 16), "negative": -x}
    expected["shares"] = softmax.reference(expected["y"], -1)
    for output, y in zip(graph.output, run(model, {"x": x}), strict=True):
        same(y, expected[output.name])
