"""Every standard operator that changed between opsets means the same once its opset is raised."""

import re
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from bct_onnx.opsets import ConversionError, raise_opset
from tests.helpers import Array, model, random, run


class Row(NamedTuple):
    """An operator, the opsets in which it can be written so, and nodes of which `$` is the output."""

    first: int
    last: int
    text: str


X = np.asarray(2 * random(2, 4, 8, 8, seed=3), np.float32)
CONSTANTS: dict[str, Array] = {
    name: np.asarray(value, np.float32)
    for name, value in {
        "half": 0.5,
        "low": -0.3,
        "high": 0.4,
        "five": 5,
        "c": random(4, seed=4),
        "d": random(4, seed=5),
        "positive": 1 + abs(random(4, seed=6)),
        "pair": [0.6, -0.8],
        "slope": abs(random(4, 1, 1, seed=7)),
        "w": random(5, 256, seed=8),
        "kernel": random(4, 4, 3, 3, seed=9),
        "places": random(2, 5, 5, 2, seed=10),
        "boxes": [[0, 0, 5, 6], [1, 2, 7, 7]],
        "step": 0.02,
        "steps": [0.02, 0.1, 0.05, 0.3],
        "twice": [1, 1, 2, 2],
        "scales": [1, 1, 1.5, 0.75],
        "grown": [1, 1, 1.5, 1.5],
        "shrunk": [1, 1, 0.7, 0.4],
        "region": [0, 0, 0.1, 0.2, 1, 1, 0.8, 1.4],
        "onoff": [0.5, 2],
        "lstm": random(1, 16, 8, seed=11),
        "lstm_r": random(1, 16, 4, seed=12),
        "wave": random(2, 8, 6, 1, seed=13),
        "u": random(2, 1, 8, 8, seed=14),
    }.items()
} | {
    name: np.asarray(value, np.int64)
    for name, value in {
        "two": 2,
        "three": [3],
        "pads": [0, 0, 1, 2, 0, 0, 3, 1],
        "start": [7],
        "stop": [0],
        "minus_two": [-2],
        "axis_two": [2],
        "sizes": [2, 4, 11, 5],
        "parts": [3, 5],
        "shape": [0, -1, 8],
        "rows": [0, 1],
        "picked": [[0, 1], [1, 2]],
        "heads": [0, 2, 32, 8],
        "which": np.ones((2, 1, 8, 8)),
        "classes": [0, 1, 1],
        "ones_around": [1, 8, 1, 64],
    }.items()
}
CONSTANTS |= {
    "none": np.zeros(0, np.float32),
    "yes": np.array(True),
    "zero": np.uint8(100),
    "zeros": np.array([100, 3, 200, 0], np.uint8),
}
REDUCE = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare")
RESIZE = (("linear", "half_pixel"), ("nearest", "asymmetric"), ("linear", "align_corners"), ("cubic", "half_pixel"))

TABLE = (
    # Over one axis, or over all from one axis on.
    *(Row(7, 20, f"$ = {op} (x)") for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(Row(7, 20, f"$ = {op} <axis = {axis}> (x)") for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (0, 2, 3)),
    *(Row(11, 20, f"$ = {op} <axis = -2> (x)") for op in ("Softmax", "LogSoftmax", "Hardmax")),
    Row(7, 13, "$ = Hardmax <axis = 1> (unknown)"),
    Row(7, 12, "$ = Softmax <axis = 1> (unknown)"),
    # Attributes that became inputs, and defaults.
    Row(7, 10, "$ = Clip <min = -0.3, max = 0.4> (x)"),
    Row(7, 10, "$ = Clip <max = 0.4> (x)"),
    Row(11, 20, "$ = Clip (x, low, high)"),
    Row(11, 20, "$ = Clip (x, , high)"),
    Row(7, 11, "$ = Dropout <ratio = 0.9> (x)"),
    Row(12, 20, "$ = Dropout (x, half)"),
    Row(12, 20, "$a, $m = Dropout (x, half) $b = Cast <to = 1> ($m) $ = Add ($a, $b)"),
    *(
        Row(7, 10, f'$ = Pad <pads = [0, 0, 1, 2, 0, 0, 3, 1], mode = "{mode}", value = 5.0> (x)')
        for mode in ("constant", "reflect", "edge")
    ),
    Row(7, 10, "$ = Pad <pads = [0, 0, -1, 2, 0, 0, 3, -1]> (x)"),
    Row(11, 20, "$ = Pad (x, pads, five)"),
    Row(7, 9, "$ = Slice <starts = [1, -3], ends = [3, 9223372036854775807], axes = [1, 3]> (x)"),
    Row(7, 9, "$ = Slice <starts = [0, 1], ends = [1, 3]> (x)"),
    Row(10, 20, "$ = Slice (x, start, stop, axis_two, minus_two)"),
    Row(7, 12, "$a = Unsqueeze <axes = [1, 4]> (x) $b = Squeeze <axes = [1]> ($a) $ = Squeeze <axes = [3]> ($b)"),
    Row(11, 12, "$a = Unsqueeze <axes = [-1]> (x) $ = Squeeze <axes = [-1]> ($a)"),
    Row(7, 20, "$a = Reshape (x, ones_around) $ = Squeeze ($a)"),
    *(Row(7, 12 if op == "ReduceSum" else 17, f"$ = {op} <axes = [1, 3]> (x)") for op in REDUCE),
    *(Row(7, 12 if op == "ReduceSum" else 17, f"$ = {op} <axes = [1], keepdims = 0> (x)") for op in REDUCE),
    *(Row(7, 20, f"$ = {op} (x)") for op in REDUCE),
    Row(13, 20, "$ = ReduceSum (x, axis_two)"),
    Row(7, 9, "$, $i = TopK <k = 3, axis = 2> (x)"),
    Row(10, 20, "$, $i = TopK <axis = 2> (x, three)"),
    Row(11, 20, "$, $i = TopK <largest = 0> (x, three)"),
    Row(7, 12, "$a, $b = Split <axis = 3, split = [3, 5]> (x) $ = Concat <axis = 3> ($b, $a)"),
    Row(7, 17, "$a, $b = Split <axis = 3> (x) $ = Concat <axis = 3> ($b, $a)"),
    Row(7, 17, "$a, $b = Split (x) $ = Concat <axis = 3> ($b, $a)"),
    Row(13, 17, "$a, $b = Split <axis = -1> (x, parts) $ = Concat <axis = 3> ($b, $a)"),
    Row(17, 19, "$ = DFT <axis = 2, onesided = 1> (wave)"),
    Row(17, 19, "$ = DFT (wave)"),
    # Statistics, and scales a group or a channel.
    Row(7, 20, "$ = BatchNormalization <epsilon = 0.01> (x, c, d, d, positive)"),
    Row(18, 20, "$ = GroupNormalization <num_groups = 2, epsilon = 0.3> (x, pair, pair)"),
    Row(7, 20, "$ = InstanceNormalization (x, c, d)"),
    Row(9, 20, "$ = MeanVarianceNormalization (x)"),
    # Types and ties.
    Row(7, 20, "$i = Cast <to = 7> (large) $ = Cast <to = 1> ($i)"),
    Row(7, 20, "$i = Cast <to = 10> (x) $ = Cast <to = 1> ($i)"),
    Row(7, 20, "$i = ArgMax <axis = 2> (whole) $ = Cast <to = 1> ($i)"),
    Row(7, 20, "$i = ArgMin (whole) $ = Cast <to = 1> ($i)"),
    Row(12, 20, "$i = ArgMax <axis = 2, select_last_index = 1> (whole) $ = Cast <to = 1> ($i)"),
    Row(11, 20, "$ = Round (large)"),
    Row(10, 20, "$q = QuantizeLinear (x, step, zero) $ = DequantizeLinear ($q, step, zero)"),
    Row(13, 20, "$q = QuantizeLinear <axis = 1> (x, steps, zeros) $ = DequantizeLinear <axis = 1> ($q, steps, zeros)"),
    # Places of pixels.
    Row(7, 8, '$ = Upsample <mode = "linear", scales = [1.0, 1.0, 1.5, 1.5]> (x)'),
    Row(9, 9, '$ = Upsample <mode = "linear"> (x, grown)'),
    Row(9, 9, '$ = Upsample <mode = "nearest"> (x, grown)'),
    Row(10, 10, '$ = Resize <mode = "linear"> (x, scales)'),
    Row(10, 10, '$ = Resize <mode = "nearest"> (x, grown)'),
    Row(10, 10, "$ = Resize (x, shrunk)"),
    *(
        Row(11, 20, f'$ = Resize <mode = "{mode}", coordinate_transformation_mode = "{place}"> (x, none, scales)')
        for mode, place in RESIZE
    ),
    Row(11, 20, "$ = Resize (x, none, none, sizes)"),
    Row(
        11,
        20,
        '$ = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"> (x, region, scales)',
    ),
    *(Row(7, 20, f"$ = {op} <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)") for op in ("AveragePool", "MaxPool")),
    *(
        Row(10, 20, f"$ = {op} <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)")
        for op in ("AveragePool", "MaxPool")
    ),
    Row(7, 20, "$ = LpPool <kernel_shape = [3, 3], strides = [2, 2]> (x)"),
    Row(7, 20, "$ = Conv <pads = [1, 1, 1, 1]> (x, kernel)"),
    Row(7, 20, '$ = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, kernel)'),
    Row(10, 20, "$ = RoiAlign <output_height = 3, output_width = 3, sampling_ratio = 2> (x, boxes, rows)"),
    Row(16, 19, '$ = GridSample <mode = "bilinear", align_corners = 1> (x, places)'),
    Row(16, 19, '$ = GridSample <mode = "bicubic"> (x, places)'),
    Row(7, 20, "$ = DepthToSpace <blocksize = 2> (x)"),
    # Rows by number.
    Row(9, 10, "$ = Scatter <axis = 1> (x, which, u)"),
    Row(11, 20, "$ = ScatterElements <axis = 1> (x, which, u)"),
    Row(11, 20, "$ = GatherND (x, picked)"),
    Row(9, 20, "$ = OneHot (classes, two, onoff)"),
    # Arithmetic, broadcasting, shapes.
    Row(7, 20, "$a = Reshape (x, shape) $b = Flatten <axis = 1> (x) $ = Gemm <transB = 1, beta = 2.0> ($b, w, half)"),
    Row(7, 20, "$a = Abs (x) $ = Pow ($a, half)"),
    Row(7, 20, "$ = PRelu (x, slope)"),
    Row(8, 20, "$a = Max (x, low) $b = Min ($a, high) $ = Sum ($b, slope)"),
    Row(11, 20, "$ = CumSum <exclusive = 1> (x, two)"),
    Row(12, 20, '$ = Einsum <equation = "bchw,bchv->bcwv"> (x, x)'),
    Row(7, 20, "$a = Reshape (x, shape) $b, $ = LSTM <hidden_size = 4> ($a, lstm, lstm_r)"),
    # Bodies.
    Row(
        7,
        20,
        "$ = If (yes) <then_branch = t () => (float[2, 4, 8, 8] $t) { $t = Softmax <axis = 1> (x) },"
        " else_branch = e () => (float[2, 4, 8, 8] $e) { $e = Hardmax <axis = 1> (x) }>",
    ),
    Row(
        9,
        20,
        "$f, $ = Scan <num_scan_inputs = 1, body = b (float[4, 8, 8] $s, float[4, 8, 8] $e) =>"
        " (float[4, 8, 8] $n, float[4, 8, 8] $o) { $n = Add ($s, $e) $o = Hardmax <axis = 1> ($n) }> (u4, x)",
    ),
)
CONSTANTS["u4"] = random(4, 8, 8, seed=15)


def graph_at(opset: int) -> tuple[onnx.ModelProto, list[str]]:
    """Return one model of all rows that the opset has, and the row of each output."""
    rows = [row.text for row in TABLE if row.first <= opset <= row.last]
    body = " ".join(text.replace("$", f"y{number}") for number, text in enumerate(rows))
    shared = "whole0 = Mul (x, five) whole1 = Cast <to = 7> (whole0) whole = Cast <to = 1> (whole1)"
    shared += " large = Mul (x, five) same = Shape (x) unknown = Reshape (x, same)"
    outputs = ", ".join(f"float y{number}" for number in range(len(rows)))
    text = f"g (float[2, 4, h, w] x) => ({outputs}) {{ {shared} {body} }}"
    used = {name: array for name, array in CONSTANTS.items() if re.search(rf"\b{name}\b", body + " five")}
    return model(text, opset, 8 if opset < 19 else 9, **used), rows


def changed(opset: int, target: int) -> list[str]:
    """Return the rows whose answer is another one at opset `target`."""
    source, rows = graph_at(opset)
    pairs = zip(run(source, x=X), run(raise_opset(source, target), x=X), rows, strict=True)
    return [row for one, other, row in pairs if one.shape != other.shape or np.abs(one - other).max() > 1e-5]


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 18, 20])
def test_operators_mean_the_same_at_a_higher_opset(opset: int) -> None:
    assert changed(opset, 21) == []


def test_every_row_is_looked_at() -> None:
    opsets = (7, 8, 9, 10, 11, 12, 13, 17, 18, 20)
    assert [row for row in TABLE if not any(row.first <= opset <= row.last for opset in opsets)] == []


def test_a_mask_of_dropout_that_changed_is_refused() -> None:
    text = "g (float[4] x) => (float[4] y) { a, m = Dropout (x) b = Cast <to = 1> (m) y = Add (a, b) }"
    with pytest.raises(ConversionError, match="the mask of Dropout 'a' has another meaning from opset 12 on"):
        raise_opset(model(text, 10, 5), 21)


def test_a_scan_over_batches_is_refused() -> None:
    text = """g (float[2, 3, 8] x, float[2, 8] z) => (float[2, 3, 8] y) { f, y = Scan <num_scan_inputs = 1,
        body = b (float[8] s, float[8] e) => (float[8] n, float[8] o) { n = Add (s, e) o = Relu (n) }> (, z, x) }"""
    with pytest.raises(ConversionError, match="Scan 'f' has an axis for batches until opset 8"):
        raise_opset(model(text, 8, 4), 21)


@pytest.mark.parametrize("scales", [[1, 1, 1.5, 0.7], None])
def test_nearest_pixels_that_no_mode_gives_are_refused(scales: list[float] | None) -> None:
    """Some axes grow and some shrink, or nobody knows."""
    inputs = "float[1, 1, 8, 8] x" + (", float[4] s" if scales is None else "")
    known = {} if scales is None else {"s": np.array(scales, np.float32)}
    source = model(f"g ({inputs}) => (float y) {{ y = Resize (x, s) }}", 10, 5, **known)
    with pytest.raises(ConversionError, match="Resize 'y' has other nearest pixels from opset 11 on"):
        raise_opset(source, 21)


def test_names_that_are_taken_are_left_alone() -> None:
    text = (
        'g (float[2, 8] x) => (float[2, 8] y) { "y/flat" = Relu (x) a = Hardmax <axis = 0> (x) y = Add (a, "y/flat") }'
    )
    source = model(text.replace('"y/flat"', "flat"), 12, 5)
    source.graph.node[0].output[0] = source.graph.node[2].input[1] = "a/flat"
    x = random(2, 8, seed=1)
    np.testing.assert_array_equal(run(raise_opset(source, 21), x=x), run(source, x=x))
