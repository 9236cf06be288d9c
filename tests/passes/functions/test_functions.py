"""Every compressed operator by itself: its body in ONNX Runtime against its numpy reference, special values first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, numpy_helper

from passes.activation_matmul import function as integer_matmul
from passes.formats import trellis
from passes.formats.block import BlockFormat
from passes.formats.planes import PACK, PACK_LANES, pack_rows, split
from passes.functions import (
    block_gather,
    block_gather_packed,
    block_matmul,
    block_scales,
    decode_blocks,
    decode_multiples,
    dequantize_blocks,
    quantize_blocks,
    quantize_rows,
    table_values,
    unpack,
)
from passes.functions.function import DOMAIN, FUNCTIONS, Function, protos
from passes.gelu import function as gelu
from passes.graph.follow import find_shapes
from passes.layer_normalization import function as layer_normalization
from passes.lowerings.packing import pack, pack_zeros
from passes.softmax import function as softmax
from tests.helpers import Array, run

few = settings(max_examples=30)
# Opsets at which bodies differ, and the newest that files are written for.
OPSETS = (12, 13, 18, 21, 23)
SPECIAL = np.array([0, -0.0, 1e-38, -1e-30, 1, -1, 3, 1e30, -3e38], np.float32)
floats = st.floats(-(2.0**99), 2.0**99, width=32)


def matrices(columns: int | None = None) -> st.SearchStrategy[Array]:
    """Draw float32 matrices of a few rows."""
    width = st.integers(1, 40) if columns is None else st.just(columns)
    return width.flatmap(lambda k: hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(k)), elements=floats))


def evaluate(
    function: Function,
    inputs: Mapping[str, Array | onnx.TensorProto],
    attrs: Mapping[str, Any] | None = None,
    opset: int = 21,
    fed: tuple[str, ...] = (),
) -> list[Array]:
    """Return what a call of a function gives; inputs are constants but for those `fed`."""
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in function.dtypes]
    names = function.outputs.split(", ")
    constants = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
        for name, value in inputs.items()
        if name not in fed
    ]
    feeds = {name: np.asarray(inputs[name]) for name in fed}
    node = onnx.helper.make_node(function.name, function.inputs.split(", "), names, domain=DOMAIN, **(attrs or {}))
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [numpy_value(name, value) for name, value in feeds.items()],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)],
        constants,
    )
    imports = [
        onnx.helper.make_opsetid(domain, version)
        for domain, version in (("", opset), (DOMAIN, 1), ("com.microsoft", 1))
    ]
    model = onnx.helper.make_model(
        graph, opset_imports=imports, ir_version=10, functions=protos([function.name], opset)
    )
    results = run(model, optimize=False, **feeds)
    hold_axes(function, inputs, attrs or {}, results)
    return results


def hold_axes(
    function: Function,
    inputs: Mapping[str, Array | onnx.TensorProto],
    attrs: Mapping[str, Any],
    results: Sequence[Array],
) -> None:
    """Hold what is known of a call's outputs without a run, `axes` and `dtypes`, to what a run gave."""
    shapes = {n: list(v.dims) if isinstance(v, onnx.TensorProto) else list(np.shape(v)) for n, v in inputs.items()}
    given = [gs.Variable(name, np.float32, shapes[name]) for name in function.inputs.split(", ")]
    made = [gs.Variable(name) for name in function.outputs.split(", ")]
    find_shapes(gs.Graph([gs.Node(function.name, "call", dict(attrs), given, made, DOMAIN)], given, made))
    for output, array in zip(made, results, strict=True):
        assert output.dtype == array.dtype
        assert len(output.shape) == array.ndim
        assert all(size in (None, n) for size, n in zip(output.shape, array.shape, strict=True))


def numpy_value(name: str, value: Array) -> onnx.ValueInfoProto:
    """Return the description of an input."""
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def packed(codes: Array, packing: unpack.Packing) -> dict[str, Array | onnx.TensorProto]:
    """Return codes, [..., n] and a multiple of 8, as planes by the names of inputs."""
    planes = split(codes, packing.bits, PACK_LANES if packing.lanes else PACK)
    if packing.trellis:
        shapes = {plane.bits: (1, *packing.lane_axes(plane.bits), -1, codes.shape[-1]) for plane in planes}
    else:
        shapes = {plane.bits: (1, -1) for plane in planes}
    return {"turn": np.zeros(1, np.float32)} | {
        f"codes{plane.bits}": onnx.helper.make_tensor(
            "codes4", TensorProto.INT4, codes.shape, plane.packed.tobytes(), raw=True
        )
        if plane.bits == 4 and not packing.lanes
        else plane.packed.reshape(shapes[plane.bits])
        for plane in planes
    }


def numbers_of(codes: Array, packing: unpack.Packing) -> Array:
    """Return what codes, [k, n], stand for."""
    return trellis.values(codes, packing.bits) if packing.trellis else codes


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bodies_are_well_formed(name, opset):
    """Every value is made once, from inputs and values before it; domains are imported; there is a line on it."""
    proto = FUNCTIONS[name].proto(opset)
    hold_order(proto.node, set(proto.input), proto.output)
    assert {entry.domain: entry.version for entry in proto.opset_import}.get("", opset) == opset
    nodes = list(with_branches(proto.node))
    domains = {"", "com.microsoft"} | ({DOMAIN} if FUNCTIONS[name].nested else set())
    assert {node.domain for node in nodes} == {entry.domain for entry in proto.opset_import} <= domains
    assert {a.ref_attr_name for node in nodes for a in node.attribute} - {""} == set(proto.attribute)
    assert proto.doc_string
    # ONNX Runtime 1.20 and 1.21 give what they make of such Slices the same name where these have none.
    sliced = Counter(node.input[0] for node in nodes if node.op_type == "Slice")
    assert all(node.name for node in nodes if node.op_type == "Slice" and sliced[node.input[0]] > 1)


def hold_order(nodes: Iterable[onnx.NodeProto], known: set[str], outputs: Iterable[str]) -> None:
    """Hold nodes, and those of their branches, to an order that runs; `known` is what is there before."""
    known = set(known)
    for node in nodes:
        assert known.issuperset(filter(None, node.input))
        assert not known.intersection(node.output)
        for branch in (a.g for a in node.attribute if a.HasField("g")):
            hold_order(branch.node, known, [value.name for value in branch.output])
        known.update(node.output)
    assert known.issuperset(outputs)


def with_branches(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from with_branches(attribute.g.node)


def test_calls_of_parts_have_their_attributes():
    """What a composed function passes on are attributes of its own, and all that its parts want."""
    # Those of parts side by side have numbers.
    several = (function for function in FUNCTIONS.values() if len(function.calls) > 1)
    composed = [function for function in several if not function.name.startswith("BlockMatMulJoined")]
    assert {"BlockMatMul4", "BlockGather6", "NBitsMatMulScales"} <= {function.name for function in composed}
    for function in composed:
        assert set(function.attributes) >= {name for part in function.calls for name in part.attributes}


@few
@given(x=matrices(), floor=st.sampled_from([None, 0.0, -0.17]))
def test_rows(x, floor):
    """Codes and scales are those of the reference, in all forms and at every opset, and err by half a step."""
    x = x if floor is None else np.maximum(x, np.float32(floor))
    above, k = floor is not None, x.shape[1]
    attrs = quantize_rows.attributes(floor)
    q, scale = quantize_rows.reference(x, floor)
    own = evaluate(quantize_rows.OWN[above], {"x": x}, taken(quantize_rows.OWN[above], attrs, k), fed=("x",))
    np.testing.assert_array_equal(own[1], scale)
    assert np.abs(own[0].astype(int) - q).max() <= 1
    zeros = {"x": x, "zeros": own[2]}
    like = evaluate(quantize_rows.LIKE[above], zeros, taken(quantize_rows.LIKE[above], attrs, k), fed=("x", "zeros"))
    np.testing.assert_array_equal(like[0], own[0])
    division = quantize_rows.DIVISION[above]
    for opset in OPSETS:
        codes, again = evaluate(division, {"x": x}, taken(division, attrs, k), opset, fed=("x",))
        np.testing.assert_array_equal(again, scale)
        assert np.abs(codes.astype(int) - q).max() <= 1
        back = (codes.astype(np.float64) - quantize_rows.zero_point(floor)) * scale
        assert (np.abs(back - x) <= (0.5 + 1e-5) * scale.astype(np.float64)).all()


def taken(function: Function, attrs: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Return the attributes that a function has."""
    return {name: value for name, value in {**attrs, "block_size": k}.items() if name in function.attributes}


@pytest.mark.parametrize("suffix", unpack.PACKINGS)
@given(data=st.data())
@few
def test_codes_of_every_width(suffix, data):
    """Unpacked, decoded with shifts, multiplied, looked up: bit for bit."""
    packing = unpack.PACKINGS[suffix]
    half = 1 << (packing.bits - 1)
    blocks, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    codes = data.draw(hnp.arrays(np.int8, (blocks, 8, n), elements=st.integers(-half, half - 1)))
    shifts = data.draw(hnp.arrays(np.uint8, (blocks, 1, n), elements=st.integers(0, 1)))
    planes, opset = packed(codes, packing), 18 if packing.lanes else 21
    numbers = numbers_of(codes.reshape(-1, n), packing).reshape(codes.shape)
    (y,) = evaluate(unpack.BY_SUFFIX[suffix], planes, {"codes": codes.shape}, opset)
    np.testing.assert_array_equal(y, numbers)
    flat = np.zeros(-(-shifts.size // 8) * 8, np.uint8)
    flat[: shifts.size] = shifts.reshape(-1)
    function, matrix = decode_blocks.BY_SUFFIX[suffix], (blocks * 8, n)
    attrs = {"codes": codes.shape, "shifts": shifts.shape, "matrix": matrix, "count": [shifts.size]}
    attrs = {name: value for name, value in attrs.items() if name in function.attributes}
    inputs = {**planes, "shifts": PACK[1](flat)[None, :]}
    (weight,) = evaluate(function, inputs, attrs, opset)
    expected = decode_blocks.reference(numbers, shifts, matrix)
    np.testing.assert_array_equal(weight, expected)
    q = data.draw(hnp.arrays(np.uint8, (3, blocks * 8)))
    row_scale, scale = np.array([[0.5], [1], [3e-5]], np.float32), np.linspace(0.1, 2, n).astype(np.float16)
    together = FUNCTIONS[f"BlockMatMul{suffix}"]
    rows = {"q": q, "row_scale": row_scale, **inputs, "scale": scale}
    (product,) = evaluate(together, rows, {**attrs, "zero_point": 128, "tensor_scale": 0.25}, opset, ("q", "row_scale"))
    reference = block_matmul.reference(q, row_scale, expected, scale, 128, 0.25)
    np.testing.assert_allclose(product, reference, rtol=3e-7, atol=0)
    column = np.linspace(0.1, 2, blocks * 8).astype(np.float32)
    indices = np.array([[0, -1], [blocks * 4, 1]])
    found = {**inputs, "scale": column, "indices": indices}
    (y,) = evaluate(FUNCTIONS[f"BlockGather{suffix}"], found, {**attrs, "tensor_scale": 2.0}, opset, ("indices",))
    np.testing.assert_array_equal(y, block_gather.reference(expected, column, indices, 2.0))


@pytest.mark.parametrize("packing", block_gather_packed.PACKINGS, ids=lambda packing: packing.suffix)
@given(data=st.data())
@few
def test_packed_rows(packing, data):
    """Rows of a packed table are those of the decoded one, bit for bit, whatever is looked up."""
    half = 1 << (packing.bits - 1)
    n, blocks, size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)), data.draw(st.sampled_from([8, 24]))
    codes = data.draw(hnp.arrays(np.int8, (n, blocks, size), elements=st.integers(-half, half - 1)))
    shifts = data.draw(hnp.arrays(np.uint8, (n, blocks, 1), elements=st.integers(0, 1)))
    scale = data.draw(hnp.arrays(np.float16, n, elements=st.floats(2**-24, 60000, width=16)))
    shape = data.draw(st.sampled_from([(), (3,), (2, 0), (2, 1, 2)]))
    indices = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    flat = np.zeros(-(-shifts.size // 8) * 8, np.uint8)
    flat[: shifts.size] = shifts.reshape(-1)
    attrs = {"shifts": shifts.shape, "count": [shifts.size], "tensor_scale": 2.0**-9}
    inputs = {"shifts": PACK[1](flat)[None, :], "scale": scale}
    (scales,) = evaluate(block_gather_packed.SCALES, inputs, attrs, 18)
    np.testing.assert_array_equal(scales, block_gather_packed.shifted_scales(shifts, scale, 2.0**-9))

    numbers = numbers_of(codes.reshape(n, -1).T, packing).T.reshape(codes.shape)
    planes = {
        f"rows{plane.bits}": plane.packed.reshape(n, *packing.lane_axes(plane.bits), -1)
        for plane in split(codes + np.int8(half), packing.bits, pack_rows(n))
    }
    zeros = [0] * len(shape)
    attrs = {**attrs, "blocks": [*zeros, blocks, size], "row": [*zeros, blocks * size]}
    found = {**planes, **inputs, "indices": indices}
    (y,) = evaluate(block_gather_packed.BY_PACKING[packing], found, attrs, 18, fed=("indices",))
    assert y.tobytes() == block_gather_packed.reference(numbers, scales, indices).tobytes()
    table = decode_blocks.reference(numbers, shifts, (n, blocks * size))
    assert y.tobytes() == block_gather.reference(table, scale, indices, 2.0**-9).tobytes()


@few
@given(codes=hnp.arrays(np.int8, (4, 3, 8)), exponents=hnp.arrays(np.uint8, (4, 3, 1), elements=st.integers(0, 31)))
def test_dequantized_blocks(codes, exponents):
    scale = np.linspace(0.1, 2, 4).astype(np.float16)[:, None, None]
    steps = {"step": 0.25, "tensor_scale": 0.5}
    (found,) = evaluate(block_scales.FUNCTION, {"exponents": exponents, "column_scale": scale}, steps)
    np.testing.assert_allclose(found, block_scales.reference(exponents, scale, 0.25, 0.5), rtol=5e-7)
    inputs = {"codes": codes, "exponents": exponents, "column_scale": scale}
    (y,) = evaluate(dequantize_blocks.WHOLE, inputs, {**steps, "matrix": [4, 24]})
    np.testing.assert_array_equal(y, dequantize_blocks.reference(codes, found, (4, 24)))


@pytest.mark.parametrize("bits", decode_multiples.MULTIPLIED)
@given(data=st.data())
@few
def test_codes_times_multiples(bits, data):
    """Every code times every multiple is an int8, decoded bit for bit; scales are the multiples of a column's."""
    half, (n, blocks) = 1 << (bits - 1), data.draw(st.tuples(st.integers(1, 5), st.integers(1, 4)))
    codes = data.draw(hnp.arrays(np.int8, (n, blocks, 16), elements=st.integers(-half, half - 1)))
    multiples = data.draw(hnp.arrays(np.uint8, (n, blocks), elements=st.integers(1, 15)))
    packed_codes = pack(codes.transpose(1, 2, 0), BlockFormat.multiples(bits, 16), 1)
    factors, attrs = np.arange(decode_multiples.FACTORS, dtype=np.int32), {"table": [4096, 8 // bits]}
    (table,) = evaluate(decode_multiples.TABLES[bits], {"factors": factors}, attrs)
    inputs = {"codes": packed_codes, "multiples": multiples, "table": table}
    inputs |= {"spread": decode_multiples.spread(packed_codes.shape[-1]), "turn": np.zeros(1, np.float32)}
    (y,) = evaluate(decode_multiples.MULTIPLES, inputs, {"matrix": [blocks * 16, n]}, 18)
    np.testing.assert_array_equal(y, decode_multiples.reference(codes, multiples))
    np.testing.assert_array_equal(y, (codes.astype(int) * multiples[..., None]).reshape(n, -1).T)
    column = np.linspace(0.1, 2, n).astype(np.float16)
    inputs = {"multiples": multiples, "column_scale": column}
    (scale,) = evaluate(decode_multiples.MULTIPLE_SCALES, inputs, {"tensor_scale": 0.3})
    np.testing.assert_array_equal(scale, decode_multiples.scales(multiples, column, 0.3))


@given(data=st.data())
@few
def test_codes_less_zero_points_times_multiples(data):
    """Numbers whose products are int8, of an even or odd count of blocks, decoded bit for bit."""
    n, blocks = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    codes = data.draw(hnp.arrays(np.int8, (n, blocks, 16), elements=st.integers(-8, 7)))
    zeros = data.draw(hnp.arrays(np.int8, (n, blocks), elements=st.integers(-8, 7)))
    numbers = codes.astype(int) - zeros[..., None]
    most = 127 // np.maximum(np.abs(numbers).max(axis=2), 1)
    multiples = np.minimum(data.draw(hnp.arrays(np.uint8, (n, blocks), elements=st.integers(1, 15))), most)
    packed_codes = pack(codes.transpose(1, 2, 0), BlockFormat.multiples(4, 16), 1)
    factors, attrs = np.arange(decode_multiples.FACTORS, dtype=np.int32), {"table": [1 << 16, 2]}
    (table,) = evaluate(decode_multiples.OFFSET_TABLE, {"factors": factors}, attrs)
    inputs = {
        "codes": packed_codes,
        "zero_points": pack_zeros(zeros.T),
        "multiples": multiples.astype(np.uint8),
        "table": table,
        "spread": decode_multiples.spread(8, zeros=True),
        "turn": np.zeros(1, np.float32),
    }
    (y,) = evaluate(decode_multiples.OFFSETS, inputs, {"matrix": [blocks * 16, n], "count": [blocks]}, 18)
    np.testing.assert_array_equal(y, (numbers * multiples[..., None]).reshape(n, -1).T)
    np.testing.assert_array_equal(y, decode_multiples.reference(codes, multiples, zeros))


@few
@given(codes=hnp.arrays(np.int8, (3, 2, 16)))
def test_codes_of_a_byte(codes):
    packed_codes = pack(codes.transpose(1, 2, 0), BlockFormat.multiples(8, 16), 1)
    inputs = {"codes": packed_codes, "turn": np.zeros(1, np.float32)}
    (y,) = evaluate(decode_multiples.BYTES, inputs, {"matrix": [32, 3]}, 18)
    np.testing.assert_array_equal(y, codes.reshape(3, -1).T)
    column = np.linspace(0.1, 2, 3).astype(np.float16)
    (scale,) = evaluate(
        decode_multiples.COLUMN_SCALES, {"column_scale": column}, {"tensor_scale": 0.3, "blocks": [3, 2]}
    )
    ones = np.ones((3, 2), np.uint8)
    np.testing.assert_array_equal(scale, decode_multiples.scales(ones, column, 0.3))


@few
@given(places=hnp.arrays(np.int8, 16, elements=st.integers(-3, 2)))
def test_values_of_a_table(places):
    table = np.array([0.5, -np.inf, np.nan, 1, -0.0, 7], np.float32)
    for suffix in ("3", "4", "4Lanes"):
        packing, function = unpack.PACKINGS[suffix], table_values.BY_SUFFIX[suffix]
        attrs = {"codes": [16], "matrix": [4, 4]}
        attrs = {name: value for name, value in attrs.items() if name in function.attributes}
        inputs = {"table": table, **packed(places, packing)}
        (y,) = evaluate(function, inputs, attrs)
        np.testing.assert_array_equal(y, table_values.reference(table, places, (4, 4)))
    (y,) = evaluate(table_values.WHOLE, {"table": table, "codes": places}, {"matrix": [4, 4]})
    np.testing.assert_array_equal(y, table[places].reshape(4, 4))


@pytest.mark.parametrize("kind", gelu.CURVES)
@given(x=hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-20, 20, width=32) | floats))
@few
def test_curves(kind, x):
    """The body is the reference, but for inputs between two codes, and both are within the bound."""
    for opset in OPSETS:
        (y,) = evaluate(gelu.BY_KIND[kind], {"x": x}, opset=opset, fed=("x",))
        table = gelu.table(kind)
        assert (np.abs(y - gelu.reference(x, kind)) <= 2 * table.bound).all()
        error = np.abs(y - gelu.CURVES[kind](x.astype(np.float64)))
        assert (error <= table.bound + 1e-6 * np.abs(x)).all()


@few
@given(x=hnp.arrays(np.float32, (3, 17), elements=st.floats(-50, 50, width=32) | st.just(-np.inf)))
def test_softmax(x):
    x[:, 0] = 1
    (y,) = evaluate(softmax.FUNCTION, {"x": x}, {"axes": [1]}, fed=("x",))
    np.testing.assert_allclose(y, softmax.reference(x, 1), atol=softmax.GRID_BOUND)
    exact = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    assert (np.abs(y - exact) <= softmax.GRID_BOUND + 17 * softmax.ENTRY_BOUND).all()


@few
@given(x=matrices(), kind=st.sampled_from(["int8", "int4"]), block=st.sampled_from([8, 32]))
def test_blocks_of_activations(x, kind, block):
    code = quantize_blocks.CODE_TYPES[kind]
    attrs = {"block": [block], "block_size": block, "ulps": code.ulps, "output_dtype": code.onnx}
    for function in (quantize_blocks.KNOWN, quantize_blocks.ANY_RANK):
        (y,) = evaluate(function, {"x": x}, attrs, fed=("x",))
        np.testing.assert_array_equal(y, quantize_blocks.reference(x, code, block))
    padded = np.pad(np.abs(x), [(0, 0), (0, -x.shape[1] % block)])
    peaks = np.repeat(padded.reshape(len(x), -1, block).max(-1), block, -1)[:, : x.shape[1]]
    peaks = np.maximum(peaks, quantize_blocks.SMALLEST_PEAK)
    assert (np.abs(y.astype(np.float64) - x) <= code.bound * peaks * (1 + 1e-6)).all()


@few
@given(a=matrices(12), b=matrices(5))
def test_products_of_activations(a, b):
    b = np.resize(b, (12, 5)).astype(np.float32)
    for function in (integer_matmul.FUSED, integer_matmul.STANDARD):
        (y,) = evaluate(function, {"a": a * 1e-20, "b": b * 1e-20}, fed=("a", "b"))
        exact = (a * 1e-20).astype(np.float64) @ (b * 1e-20).astype(np.float64)
        peak = np.maximum(np.abs(a * 1e-20).max(1, keepdims=True), integer_matmul.SMALLEST_PEAK) * np.maximum(
            np.abs(b * 1e-20).max(0), integer_matmul.SMALLEST_PEAK
        )
        assert (np.abs(y - exact) <= integer_matmul.bound(12) * peak * 1.001 + 1e-38).all()


@pytest.mark.parametrize("form", layer_normalization.BY_FORM)
@given(x=hnp.arrays(np.float32, (3, 40), elements=st.floats(-100, 100, width=32)))
@few
def test_normalizations(form, x):
    """Within its bound of the exact value; padded rows where 40 values are not whole blocks."""
    centered, bias, padded = form
    rows = layer_normalization.Rows(40, 16 if padded else 8, 1e-3, centered)
    assert (rows.padding > 0) == padded
    function = layer_normalization.BY_FORM[form]
    scale, shift = np.ones((1, 40), np.float32), np.full((1, 40), 0.5, np.float32)
    inputs = {"x": x, "scale": scale, **({"bias": shift} if bias else {})}
    attrs = {name: rows.attributes[name] for name in function.attributes}
    (y,) = evaluate(function, inputs, attrs, fed=("x",))
    wide = x.astype(np.float64)
    deviations = wide - wide.mean(-1, keepdims=True) * centered
    exact = deviations / np.sqrt(np.square(deviations).mean(-1, keepdims=True) + rows.epsilon)
    assert (np.abs(y - 0.5 * bias - exact) <= layer_normalization.bound(x, rows) + 1e-4).all()


@pytest.mark.parametrize("x", [SPECIAL[None, :], SPECIAL[:, None]])
def test_special_rows(x):
    """Huge, tiny and zero values keep their sign and stay finite."""
    attrs = {"block_size": x.shape[1]}
    q, scale, _ = evaluate(quantize_rows.OWN[0], {"x": x}, attrs, fed=("x",))
    back = (q.astype(np.float64) - 128) * scale
    assert np.isfinite(back).all()
    assert (np.abs(back - x) <= (0.5 + 1e-5) * scale.astype(np.float64)).all()
