"""Whatever ONNX allows in a graph: compressed and verified, or left alone, and nothing that was there is lost."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from bct_onnx import BctError, Report, compress
from bct_onnx.opsets import ConversionError, raise_opset
from bct_onnx.sessions import open_session

RNG = np.random.default_rng(7)
K, N = 64, 96
Save = Callable[..., tuple[Report, onnx.ModelProto]]


def weight(k: int = K, n: int = N, dtype: type = np.float32) -> np.ndarray:
    return (RNG.standard_normal((k, n)) / np.sqrt(k)).astype(dtype)


def model(text: str, opset: int = 17, ir_version: int = 8, **constants: np.ndarray) -> onnx.ModelProto:
    domains = f'"" : {opset}, "local" : 1' if "domain: " in text else f'"" : {opset}'
    proto = parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{domains}]> {text}")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return proto


@pytest.fixture
def run(tmp_path: Path) -> Save:
    def save_and_compress(proto: onnx.ModelProto, **options: object) -> tuple[Report, onnx.ModelProto]:
        onnx.save(proto, tmp_path / "in.onnx")
        report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", **options)
        written = onnx.load(tmp_path / "out.onnx")
        onnx.checker.check_model(written)
        assert report.verification is not None
        assert [value.name for value in written.graph.input] == [
            value.name
            for value in proto.graph.input
            if proto.ir_version > 3 or value.name not in {tensor.name for tensor in proto.graph.initializer}
        ]
        assert [value.name for value in written.graph.output] == [value.name for value in proto.graph.output]
        return report, written

    return save_and_compress


def answer(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return open_session(path).run(None, feed)


def replaced(report: Report, name: str = "matmul") -> int:
    return sum(entry.replaced for entry in report.passes if entry.name == name)


def ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


PRODUCT = "g (float[rows, 64] x) => (float[rows, 96] y) { y = MatMul(x, w) }"
NEWEST = 26


@pytest.mark.parametrize("preset", ["balanced", "portable"])
@pytest.mark.parametrize("opset", range(9, NEWEST + 1))
def test_every_opset(run: Save, opset: int, preset: str) -> None:
    ir_version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    report, written = run(model(PRODUCT, opset, max(4, ir_version), w=weight()), preset=preset)
    assert replaced(report) == 1
    assert report.output.opset >= opset
    assert written.ir_version >= ir_version


@pytest.mark.parametrize(("preset", "bits"), [("balanced", 8), ("small", 4)])
def test_a_model_that_cannot_be_raised_keeps_its_opset_with_packed_weights(
    run: Save, monkeypatch: pytest.MonkeyPatch, preset: str, bits: int
) -> None:
    def refuse(*_: object) -> onnx.ModelProto:
        raise ConversionError("no adapter")

    monkeypatch.setattr("bct_onnx.compression.opset.raise_opset", refuse)
    report, _ = run(model(PRODUCT, 11, 6, w=weight()), preset=preset)
    assert replaced(report) == 1
    assert (report.options.lowering, report.options.bits, report.output.opset) == ("packed", bits, 11)
    assert any("cannot be raised" in note and "no adapter" in note for note in report.notes)


@pytest.mark.parametrize(("opset", "bits"), [(9, 8), (13, 8), (18, 4)])
def test_portable_has_standard_operators_where_the_opset_stays(
    run: Save, monkeypatch: pytest.MonkeyPatch, opset: int, bits: int
) -> None:
    """Codes of 4 bits are taken apart by operators on bits, which opset 18 has."""

    def refuse(*_: object) -> onnx.ModelProto:
        raise ConversionError("no adapter")

    monkeypatch.setattr("bct_onnx.compression.opset.raise_opset", refuse)
    report, written = run(model(PRODUCT, opset, 6, w=weight()), preset="portable", bits=4)
    assert replaced(report) == 1
    assert (report.options.lowering, report.options.bits, report.output.opset) == ("qdq", bits, opset)
    assert {node.domain for node in written.graph.node} == {""}
    assert any("8-bit qdq weights instead" in note for note in report.notes) == (bits == 8)


def test_portable_refuses_what_it_cannot_write_in_standard_operators(tmp_path: Path) -> None:
    text = """g (float[rows, 64] x) => (float[1, rows, 96] y) { h = MatMul(x, w)
        y = com.microsoft.ExpandDims(h, axis) }"""
    proto = model(text, w=weight(), axis=np.array(0, np.int32))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node[1].name = "last"
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(BctError, match=r"standard operators only, but 'last' is a com\.microsoft\.ExpandDims"):
        compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="portable", verify=False)
    assert not (tmp_path / "out.onnx").exists()


def test_passes_that_an_opset_has_no_operators_for_are_left_out(run: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def spoil(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        attempts.append(opset)
        raised = raise_opset(proto, opset)
        raised.graph.node[0].op_type = "NoSuchOperator"
        return raised

    monkeypatch.setattr("bct_onnx.compression.opset.raise_opset", spoil)
    text = "g (float[rows, 64] x) => (float[rows, 96] y) { h = MatMul(x, w) s = Softmax <axis = -1> (h) y = Add(h, s) }"
    report, _ = run(model(text, 13, 7, w=weight()), preset="paper")
    assert attempts == [21]
    assert replaced(report) == 1
    assert (report.options.lowering, report.output.opset) == ("packed", 13)
    assert any("without activation_matmul, intermediates, layer_normalization" in note for note in report.notes)


def test_functions_are_compressed_inside(run: Save) -> None:
    text = """g (float[rows, 64] x) => (float[rows, 64] y) { h = local.twice(x, w)
        y = local.twice(h, v) }
        <opset_import: ["" : 17], domain: "local"> twice (a, b) => (c) { d = MatMul(a, b)
        c = MatMul(d, b) }"""
    report, written = run(model(text, w=weight(64, 64), v=weight(64, 64)))
    assert replaced(report) == 4
    assert {function.domain for function in written.functions} == {"bct_onnx"}


def test_if_branches(run: Save) -> None:
    text = """g (float[rows, 64] x, bool flag) => (float[rows, 96] y) {
        y = If(flag) <then_branch = t () => (float[rows, 96] a) { a = MatMul(x, w) },
                      else_branch = e () => (float[rows, 96] b) { b = MatMul(x, v) }> }"""
    report, _ = run(model(text, w=weight(), v=weight()))
    assert replaced(report) == 2


def test_loop_body(run: Save) -> None:
    text = """g (float[2, 64] x) => (float[2, 64] y) {
        n = Constant <value = int64 {3}> ()
        go = Constant <value = bool {1}> ()
        y = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 64] s) => (bool c2, float[2, 64] s2) {
            c2 = Identity(c)
            t = MatMul(s, w)
            s2 = Tanh(t) }> }"""
    report, _ = run(model(text, w=weight(64, 64)))
    assert replaced(report) == 1


def test_scan_body_with_an_initializer_of_its_own(run: Save) -> None:
    text = """g (float[1, 64] s, float[5, 1, 64] x) => (float[1, 64] last, float[5, 1, 64] all) {
        last, all = Scan <num_scan_inputs = 1,
                          body = b (float[1, 64] a, float[1, 64] e) => (float[1, 64] o, float[1, 64] p) {
            t = MatMul(e, w)
            u = Add(a, t)
            o = Tanh(u)
            p = Identity(o) }> (s, x) }"""
    proto = model(text)
    body = next(attribute.g for attribute in proto.graph.node[0].attribute if attribute.name == "body")
    body.initializer.append(numpy_helper.from_array(weight(64, 64), "w"))
    report, _ = run(proto)
    assert replaced(report) == 1


def test_sequences(run: Save) -> None:
    text = """g (float[4, 64] x) => (seq(float[a, b]) parts, float[4, 96] y) {
        y = MatMul(x, w)
        parts = SplitToSequence <axis = 0> (y) }"""
    report, written = run(model(text, w=weight()))
    assert replaced(report) == 1
    assert written.graph.output[0].type.HasField("sequence_type")


def test_optional(run: Save) -> None:
    text = """g (float[4, 64] x) => (float[4, 96] y) {
        h = MatMul(x, w)
        o = Optional(h)
        y = OptionalGetElement(o) }"""
    report, _ = run(model(text, 18, w=weight()))
    assert replaced(report) == 1


def test_empty_names_stay_empty(run: Save) -> None:
    text = """g (float[4, 64] x) => (float[4, 96] y) {
        h = MatMul(x, w)
        y = Clip(h, , top) }"""
    proto = model(text, w=weight(), top=np.array(0.5, np.float32))
    report, written = run(proto)
    assert replaced(report) == 1
    assert next(node for node in written.graph.node if node.op_type == "Clip").input[1] == ""


def test_nodes_of_one_name_are_refused_where_the_runtime_refuses_them(run: Save) -> None:
    text = "g (float[4, 64] x) => (float[4, 64] y) { h = MatMul(x, w) t = Tanh(h) y = MatMul(t, v) }"
    proto = model(text, w=weight(64, 64), v=weight(64, 64))
    for node in proto.graph.node:
        node.name = "same"
    with pytest.raises(BctError, match="two nodes with same node name"):
        run(proto)


def test_nodes_of_one_name_in_different_bodies_are_different_nodes(run: Save) -> None:
    text = """g (float[rows, 64] x, bool flag) => (float[rows, 64] z) {
        h = MatMul(x, w)
        y = If(flag) <then_branch = t () => (float[rows, 64] a) { a = MatMul(h, v) },
                      else_branch = e () => (float[rows, 64] b) { b = MatMul(h, w) }>
        z = MatMul(y, v) }"""
    proto = model(text, w=weight(64, 64), v=weight(64, 64))
    bodies = [attribute.g for attribute in proto.graph.node[1].attribute]
    for node in (proto.graph.node[0], *(body.node[0] for body in bodies)):
        node.name = "same"
    assert replaced(run(proto)[0]) == 4


def test_unused_initializers_do_no_harm(run: Save) -> None:
    assert replaced(run(model(PRODUCT, w=weight(), unused=weight(300, 300)))[0]) == 1


def test_initializers_that_are_inputs_as_in_ir_version_3(run: Save) -> None:
    proto = model("g (float[2, 64] x, float[64, 96] w) => (float[2, 96] y) { y = MatMul(x, w) }", 8, 3, w=weight())
    report, written = run(proto)
    assert replaced(report) == 1
    assert written.ir_version >= 4


def test_an_initializer_that_the_caller_may_override_stays_as_it_is(run: Save, tmp_path: Path) -> None:
    proto = model("g (float[2, 64] x, float[64, 96] w) => (float[2, 96] y) { y = MatMul(x, w) }", w=(w := weight()))
    report, _ = run(proto)
    assert replaced(report) == 0
    x = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(answer(tmp_path / "out.onnx", {"x": x})[0], x @ w, rtol=1e-4)
    np.testing.assert_allclose(answer(tmp_path / "out.onnx", {"x": x, "w": 2 * w})[0], 2 * (x @ w), rtol=1e-4)


def test_a_model_without_products(run: Save) -> None:
    _, written = run(model("g (float[64, 96] x) => (float[64, 96] y) { y = Mul(x, w) }", w=weight()))
    assert written.ByteSize() < weight().nbytes


def test_sparse_initializers_are_left(run: Save) -> None:
    proto = model("g (float[2, 64] x) => (float[2, 96] y) { h = MatMul(x, w) y = Add(h, s) }", w=weight())
    values = helper.make_tensor("s", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("", TensorProto.INT64, [2], [5, 100])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 96]))
    report, written = run(proto)
    assert replaced(report) == 1
    assert len(written.graph.sparse_initializer) == 1


def test_scalars_and_tensors_of_no_size(run: Save) -> None:
    text = """g (float[2, 64] x) => (float[2, 96] y, float[0, 96] nothing) {
        h = MatMul(x, w)
        i = Mul(h, scalar)
        y = Concat <axis = 0> (i, empty)
        nothing = MatMul(rows, w) }"""
    empty, rows = np.zeros((0, 96), np.float32), np.zeros((0, 64), np.float32)
    report, _ = run(model(text, w=weight(), scalar=np.array(2, np.float32), empty=empty, rows=rows))
    assert replaced(report) == 1


def test_a_weight_without_columns(run: Save) -> None:
    text = """g (float[2, 64] x) => (float[2, 96] y, float[2, 0] nothing) {
        y = MatMul(x, w)
        nothing = MatMul(x, none) }"""
    assert replaced(run(model(text, w=weight(), none=np.zeros((64, 0), np.float32)))[0]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_stay_exact_with_a_warning(run: Save, value: float) -> None:
    broken, table = weight(), weight(128, 64)
    broken[3, 5] = table[2, 2] = value
    text = """g (float[2, 64] x, int64[2] ids) => (float[2, 96] y, float[2, 96] z, float[2, 64] r) {
        y = MatMul(x, w)
        z = MatMul(x, broken)
        r = Gather(table, ids) }"""
    report, written = run(model(text, w=weight(), broken=broken, table=table))
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    np.testing.assert_array_equal(kept["broken"], broken)
    np.testing.assert_array_equal(kept["table"], table)
    assert [note for note in report.notes if "NaN or infinity" in note] == [
        "weights that hold NaN or infinity are kept exact: broken, table"
    ]


def test_quantized_parts_are_left_alone(run: Save) -> None:
    text = """g (float[2, 64] x) => (float[2, 96] y, float[2, 96] z) {
        y = MatMul(x, w)
        xq = QuantizeLinear(x, scale, zero)
        xd = DequantizeLinear(xq, scale, zero)
        qd = DequantizeLinear(q, scale, zero8)
        z = MatMul(xd, qd) }"""
    q = RNG.integers(-127, 127, (64, 96)).astype(np.int8)
    constants = {"w": weight(), "q": q, "scale": np.array(0.02, np.float32)}
    proto = model(text, **constants, zero=np.array(128, np.uint8), zero8=np.array(0, np.int8))
    report, written = run(proto)
    assert replaced(report) == 1
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    np.testing.assert_array_equal(kept["q"], q)
    assert "QuantizeLinear" in ops(written)


@pytest.mark.parametrize(
    ("name", "dtype"), [("float16", np.float16), ("double", np.float64), ("bfloat16", ml_dtypes.bfloat16)]
)
@pytest.mark.parametrize("preset", ["balanced", "small", "portable"])
def test_float_types(run: Save, name: str, dtype: type, preset: str) -> None:
    proto = model("g (float[2, 64] x) => (float[2, 96] y) { y = MatMul(x, w) }", w=weight(dtype=dtype))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = getattr(TensorProto, name.upper())
    try:
        report, written = run(proto, preset=preset)
    except BctError as error:
        # ONNX Runtime has no MatMul of bfloat16 on the CPU: the input model itself does not load.
        assert name == "bfloat16" and "does not load the model" in str(error)
        return
    assert replaced(report) == 1
    assert written.graph.output[0].type.tensor_type.elem_type == getattr(TensorProto, name.upper())


def test_strings(run: Save) -> None:
    text = """g (float[2, 64] x, string[2] words) => (float[2, 96] y, string[2] z, string[3] c) {
        y = MatMul(x, w)
        z = Identity(words)
        c = Identity(labels) }"""
    proto = model(text, w=weight())
    proto.graph.initializer.append(helper.make_tensor("labels", TensorProto.STRING, [3], [b"a", b"\xc3\xa9", b""]))
    report, _ = run(proto)
    assert replaced(report) == 1


def test_outputs_that_are_initializers(run: Save, tmp_path: Path) -> None:
    proto = model("g (float[2, 64] x) => (float[2, 96] y, float[64, 96] w) { y = MatMul(x, w) }", w=(w := weight()))
    run(proto)
    x = np.ones((2, 64), np.float32)
    np.testing.assert_array_equal(answer(tmp_path / "out.onnx", {"x": x})[1], w)


def test_a_graph_of_nothing_but_an_input_that_is_an_output(run: Save) -> None:
    proto = model("g (float[2, 64] x) => (float[2, 96] y, float[2, 64] x) { y = MatMul(x, w) }", w=weight())
    assert replaced(run(proto)[0]) == 1


def test_what_a_model_says_of_itself_is_kept(run: Save) -> None:
    proto = model(PRODUCT, w=weight())
    helper.set_model_props(proto, {"license": "MIT", "labels": "a,b"})
    proto.producer_name, proto.producer_version, proto.domain = "exporter", "1.2", "org.example"
    proto.model_version, proto.doc_string, proto.graph.doc_string = 42, "a model", "a graph"
    proto.graph.input[0].doc_string = "an input"
    _, written = run(proto)
    props = {entry.key: entry.value for entry in written.metadata_props}
    assert props.pop("bct_onnx")
    assert props == {"license": "MIT", "labels": "a,b"}
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(written, field) == getattr(proto, field)
    assert written.graph.doc_string == "a graph"
    assert written.graph.input[0] == proto.graph.input[0]


def test_a_compressed_model_is_refused_unless_told_to_go_on(run: Save, tmp_path: Path) -> None:
    run(model(PRODUCT, w=weight()))
    with pytest.raises(BctError, match="is compressed already; use the original, or --again"):
        compress(tmp_path / "out.onnx", tmp_path / "twice.onnx")
    assert not (tmp_path / "twice.onnx").exists()
    compress(tmp_path / "out.onnx", tmp_path / "twice.onnx", again=True)
    assert (tmp_path / "twice.onnx").exists()
