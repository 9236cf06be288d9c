"""Graphs in and out of ONNX: what onnx-graphsurgeon's own importer and exporter lose is kept or refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bct_onnx import compress, files
from bct_onnx.errors import BctError
from bct_onnx.sessions import OrtSession, open_session

LARGE = np.arange(512, dtype=np.float32)


def parse(text: str, ir_version: int = 8, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}')


def round_trip(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Read, import, export and write a model without a change, and check that the runtime takes it."""
    onnx.save(model, folder / "model.onnx")
    source = files.read(folder / "model.onnx")
    files.write(source.graph(), source, folder / "out.onnx")
    onnx.checker.check_model(folder / "out.onnx")
    return onnx.load(folder / "out.onnx")


def session(model: onnx.ModelProto | Path) -> OrtSession:
    return open_session(model if isinstance(model, Path) else model.SerializeToString())


def names(values) -> list[str]:
    return [value.name for value in values]


def test_inputs_with_a_default_stay_inputs(tmp_path):
    model = parse("g (float[512] x, float[512] b) => (float[512] y) { y = Add(x, b) }")
    model.graph.initializer.append(numpy_helper.from_array(LARGE, "b"))
    onnx.save(model, tmp_path / "in.onnx")
    graph = files.read(tmp_path / "in.onnx").graph()
    assert [type(tensor).__name__ for tensor in graph.nodes[0].inputs] == ["Variable", "Variable"]

    written = round_trip(model, tmp_path)
    assert names(written.graph.input) == ["x", "b"]
    x = np.ones(512, np.float32)
    np.testing.assert_array_equal(session(written).run(None, {"x": x})[0], x + LARGE)
    np.testing.assert_array_equal(session(written).run(None, {"x": x, "b": x})[0], x + x)


def test_initializers_listed_as_inputs_before_ir_4_are_constants(tmp_path):
    model = parse("g (float[512] x, float[512] b) => (float[512] y) { y = Add(x, b) }", ir_version=3, opset=8)
    model.graph.initializer.append(numpy_helper.from_array(LARGE, "b"))
    onnx.save(model, tmp_path / "in.onnx")
    assert type(files.read(tmp_path / "in.onnx").graph().nodes[0].inputs[1]).__name__ == "Constant"
    written = round_trip(model, tmp_path)
    assert names(written.graph.input) == ["x"]
    assert written.ir_version == 4  # where initializers need not be inputs


def test_functions_are_inlined(tmp_path):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.twice (x) }
        <domain: "local", opset_import: ["" : 17]> twice (x) => (y) { y = Add (x, x) }"""
    )
    written = round_trip(model, tmp_path)
    assert not written.functions
    assert [node.op_type for node in written.graph.node] == ["Add"]
    session(written)


def test_types_other_than_tensors_are_kept(tmp_path):
    model = parse(
        """g (seq(float[n]) items, optional(float[n]) maybe, float[2] x) => (seq(float[n]) more, bool there) {
            inner = SequenceInsert(items, x)
            more = SequenceInsert(inner, x)
            there = OptionalHasElement(maybe)
        }"""
    )
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    model.graph.value_info.append(helper.make_value_info("inner", kind))
    written = round_trip(model, tmp_path)
    assert list(written.graph.input) == list(model.graph.input)
    assert list(written.graph.output) == list(model.graph.output)
    assert list(written.graph.value_info) == list(model.graph.value_info)


def test_attributes_without_a_python_form_are_kept(tmp_path):
    model = parse("g (float[2] x) => (float[2] y) { y = Identity(x) }", ir_version=9)
    model.opset_import.add(domain="custom", version=1)
    attributes = [
        onnx.AttributeProto(name="no_ints", type=onnx.AttributeProto.INTS),
        onnx.AttributeProto(name="no_texts", type=onnx.AttributeProto.STRINGS),
        onnx.AttributeProto(name="no_floats", type=onnx.AttributeProto.FLOATS),
        helper.make_attribute("octets", b"\xff\x00"),
        helper.make_attribute("texts", ["ä", "b"]),
        helper.make_attribute("tensors", [numpy_helper.from_array(LARGE, "t")]),
        helper.make_attribute("type", helper.make_tensor_type_proto(TensorProto.FLOAT, [2])),
        helper.make_attribute("whole", [1.0, 2.0]),
        helper.make_attribute("tensor", numpy_helper.from_array(LARGE, "named")),
    ]
    node = helper.make_node("Opaque", ["x"], ["z"], domain="custom", name="n")
    node.attribute.extend(attributes)
    model.graph.node.append(node)
    assert list(round_trip(model, tmp_path).graph.node[1].attribute) == attributes


def test_lists_of_graphs_are_refused(tmp_path):
    model = parse("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    model.graph.node[0].attribute.append(helper.make_attribute("bodies", [onnx.GraphProto(name="b")]))
    with pytest.raises(BctError, match=r"node '' \('Identity'\): attribute 'bodies' of type GRAPHS cannot be kept"):
        round_trip(model, tmp_path)


def branches(then_branch: onnx.GraphProto, else_branch: onnx.GraphProto) -> onnx.ModelProto:
    model = parse("g (bool c, float[512] x) => (float[512] y) { y = Add(x, w) }")
    model.graph.node[0].output[0] = "s"
    model.graph.initializer.append(numpy_helper.from_array(LARGE, "w"))
    attributes = {"then_branch": then_branch, "else_branch": else_branch}
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], **attributes))
    return model


def branch(operator: str, weight: np.ndarray | None) -> onnx.GraphProto:
    """Return a branch t = operator(s, w), w its own when given."""
    initializers = [] if weight is None else [numpy_helper.from_array(weight, "w")]
    output = helper.make_tensor_value_info("t", TensorProto.FLOAT, [512])
    return helper.make_graph([helper.make_node(operator, ["s", "w"], ["t"])], "b", [], [output], initializers)


@pytest.mark.parametrize("own", [None, LARGE + 7])
def test_names_that_a_subgraph_defines_anew_mean_its_own_value(tmp_path, own):
    model = branches(branch("Mul", own), branch("Sub", None))
    written = round_trip(model, tmp_path)
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.initializer[0]), LARGE)
    inner = {attribute.name: attribute.g.initializer for attribute in written.graph.node[1].attribute}
    assert not inner["else_branch"]
    if own is None:
        assert not inner["then_branch"]
    else:
        np.testing.assert_array_equal(numpy_helper.to_array(inner["then_branch"][0]), own)
    # The standard forbids the name, so which of the two the runtime takes is its affair: the same as before.
    for c in (True, False):
        feeds = {"c": np.array(c), "x": LARGE}
        expected = session(model).run(None, feeds)[0]
        np.testing.assert_array_equal(session(written).run(None, feeds)[0], expected)


def test_values_of_one_name_in_and_outside_of_a_body_are_told_apart(tmp_path):
    """Of other shapes, too, which onnx.checker takes for one where only one of them is written."""
    body = onnx.parser.parse_graph(
        "b (float[2] before, float[2] part) => (float[2] after, float[2] each)"
        " <float[2] stack> { stack = Add(before, part) after = Identity(stack) each = Mul(stack, part) }"
    )
    model = parse("g (float[2] s, float[3, 2] x) => (float[2] last, float[3, 2] y) { y = Relu(stack) }")
    node = helper.make_node("Scan", ["s", "x"], ["last", "stack"], num_scan_inputs=1, body=body)
    model.graph.node.insert(0, node)
    written = round_trip(model, tmp_path)
    onnx.checker.check_model(written, full_check=True)
    inner = next(attribute.g for attribute in written.graph.node[0].attribute if attribute.name == "body")
    assert "stack" not in [name for node in inner.node for name in node.output]
    feeds = {"s": np.float32([1, -2]), "x": np.float32([[1, 2], [-3, 4], [5, -6]])}
    for one, other in zip(session(written).run(None, feeds), session(model).run(None, feeds), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_only_one_subgraph_reads_are_written_once(tmp_path):
    model = branches(branch("Mul", None), branch("Sub", None))
    model.graph.node[0].input[1] = "x"
    written = round_trip(model, tmp_path)
    assert (tmp_path / "out.onnx").stat().st_size < 1.5 * LARGE.nbytes
    assert names(written.graph.initializer) == ["w"]  # both branches read it
    session(written)


def test_an_initializer_can_be_an_output(tmp_path):
    model = parse("g (float[512] x) => (float[512] y, float[512] w) { y = Relu(x) }")
    model.graph.initializer.append(numpy_helper.from_array(LARGE, "w"))
    written = round_trip(model, tmp_path)
    np.testing.assert_array_equal(session(written).run(["w"], {"x": LARGE})[0], LARGE)


def test_sparse_and_string_initializers_are_kept(tmp_path):
    model = parse("g (float[4] x, int64[1] i) => (float[4] y, string[1] s) { y = Add(x, sp)  s = Gather(words, i) }")
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sp", TensorProto.FLOAT, [1], [5.0]),
        helper.make_tensor("", TensorProto.INT64, [1], [2]),
        [4],
    )
    model.graph.sparse_initializer.append(sparse)
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a", "ß"], object), "words"))
    outputs = session(round_trip(model, tmp_path)).run(None, {"x": np.zeros(4, np.float32), "i": np.array([1])})
    np.testing.assert_array_equal(outputs[0], np.array([0, 0, 5, 0], np.float32))
    assert outputs[1].tolist() == ["ß"]


def test_nodes_of_one_name_or_none_are_all_kept(tmp_path):
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x) b = Relu(a) c = Abs(b) y = Abs(c) }")
    model.graph.node[0].name = model.graph.node[1].name = "same"
    assert [node.name for node in round_trip(model, tmp_path).graph.node] == ["same", "same", "", ""]


def test_the_last_of_two_initializers_of_one_name_counts_as_in_the_runtime(tmp_path):
    model = parse("g (float[512] x) => (float[512] y) { y = Add(x, w) }")
    model.graph.initializer.extend([numpy_helper.from_array(LARGE + 1, "w"), numpy_helper.from_array(LARGE, "w")])
    written = round_trip(model, tmp_path)
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.initializer[0]), LARGE)


def test_a_raised_opset_and_new_domains_are_written(tmp_path):
    onnx.save(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "in.onnx")
    source = files.read(tmp_path / "in.onnx")
    graph = source.graph()
    graph.opset, graph.ir_version, graph.nodes[0].domain = 21, 10, "com.microsoft"
    written = files.write(graph, source, tmp_path / "out.onnx")
    assert (written.opset, written.ir_version) == (21, 10)
    imports = {entry.domain: entry.version for entry in onnx.load(tmp_path / "out.onnx").opset_import}
    assert imports == {"": 21, "com.microsoft": 1}


def test_two_constants_of_one_name_are_refused(tmp_path):
    model = parse("g (float[512] x) => (float[512] y) { z = Add(x, v) y = Add(z, w) }")
    model.graph.initializer.extend([numpy_helper.from_array(LARGE, name) for name in "vw"])
    onnx.save(model, tmp_path / "in.onnx")
    source = files.read(tmp_path / "in.onnx")
    graph = source.graph()
    graph.nodes[0].inputs[1].name = "w"
    with pytest.raises(BctError, match="two constants are named 'w'"):
        files.write(graph, source, tmp_path / "out.onnx")


FEEDS = {
    "float16": np.float16,
    "float": np.float32,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
}


def attempt(call, *args):
    """Return what a call of the runtime or the checker returns, or None where it refuses."""
    try:
        return call(*args)
    except Exception:  # their exceptions share no base but this
        return None


def answers(loaded: OrtSession) -> list[np.ndarray]:
    """Return the outputs for feeds of ones."""
    feeds = {}
    for value in loaded.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in value.shape or []]
        feeds[value.name] = np.ones(shape, FEEDS.get(value.type.removeprefix("tensor(").removesuffix(")"), np.bool_))
    return [np.asarray(output) for output in loaded.run(None, feeds)]


def is_valid(path: Path) -> bool:
    onnx.checker.check_model(path)
    return True


def test_models_of_many_exporters_answer_the_same(data, tmp_path):
    zoo = data / "zoo"
    listed = [zoo / entry["file"] for entry in json.loads((zoo / "INDEX.json").read_text())]
    own = ("vit_tiny", "cct_cifar10", "stories260k", "babyllama105", "bert_mini/sst2")
    compared = 0
    for path in (*listed, *(data / name / "model.onnx" for name in own)):
        source = files.read(path)
        out = tmp_path / f"{path.parent.name}.onnx"
        with files.staged(out) as stage:
            files.write(source.graph(), source, stage.path, external_data="always")
            stage.commit()
        if attempt(is_valid, path):
            onnx.checker.check_model(out)
        before = attempt(session, path)
        if before is None:
            continue
        after = session(out)
        expected = attempt(answers, before)
        if expected is not None:
            compared += 1
            for one, other in zip(answers(after), expected, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=path.name)
    assert compared > len(listed) // 2


INTERFACE = """<ir_version: 8, opset_import: ["" : OPSET, "local" : 1], producer_name: "acme", domain: "org.acme",
    model_version: 42, doc_string: "model doc", metadata_props: ["labels": "a,b"]>
    my_graph (float[n, 64] zeta, float[n, 3] alpha, float[1] gain) => (float[n, 3] alpha_out, float[n, 64] y) {
        h = MatMul(zeta, w)
        r = LAST
        y = Mul(r, gain)
        alpha_out = Identity(alpha) }"""
FUNCTION = '<opset_import: ["" : OPSET], domain: "local"> f (i) => (o) { h = Abs(i) o = Relu(h) }'


@pytest.mark.parametrize("external_data", ["never", "always"])
@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("last", ["Relu(h)", "local.f(h)"])
def test_the_interface_survives_every_way(tmp_path, last, opset, external_data):
    """The opset stays or is raised, functions are inlined or none, weights go beside the model or into it."""
    text = INTERFACE.replace("LAST", last) + (FUNCTION if "local" in last else "")
    model = onnx.parser.parse_model(text.replace("OPSET", str(opset)))
    weight = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "gain"))
    model.graph.doc_string = "graph doc"
    model.graph.metadata_props.add(key="trained", value="often")
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = f"what {value.name} is"
        value.type.denotation = "TENSOR"
        value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    annotation = model.graph.quantization_annotation.add(tensor_name="y")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="gain")
    onnx.save(model, tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="small", external_data=external_data)
    assert report.output.opset == 21
    written = onnx.load(tmp_path / "out.onnx")
    for field in ("producer_name", "domain", "model_version", "doc_string"):
        assert getattr(written, field) == getattr(model, field)
    assert written.metadata_props[0] == model.metadata_props[0]
    for field in ("name", "doc_string", "input", "output", "metadata_props", "quantization_annotation"):
        assert getattr(written.graph, field) == getattr(model.graph, field)
    defaults = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    np.testing.assert_array_equal(defaults["gain"], np.ones(1))
