"""Reading and writing: what bad files say, what a round trip keeps, where the weights are."""

import hashlib
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from bct_onnx import files
from bct_onnx.errors import BctError
from bct_onnx.files import writer
from bct_onnx.sessions import open_session

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((32, 16), dtype=np.float32)


def linear_model(**arrays: np.ndarray) -> onnx.ModelProto:
    """Return y = x @ w, with `arrays` as further initializers."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17], producer_name: "tests", model_version: 3>'
        "agraph (float[n, 32] x) => (float[n, 16] y) { y = MatMul(x, w) }"
    )
    for name, values in {"w": WEIGHT, **arrays}.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def save(model: onnx.ModelProto, path: Path, **external: object) -> Path:
    if external:
        convert_model_to_external_data(model, **external)
    onnx.save(model, path)
    return path


def run(path: Path, **feeds: np.ndarray) -> list[np.ndarray]:
    return open_session(path).run(None, feeds)


def message(call, *args) -> str:
    with pytest.raises(BctError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_stay_in_the_file(tmp_path):
    path = save(linear_model(), tmp_path / "model.onnx")
    source = files.read(path)
    assert not source.proto.graph.initializer[0].raw_data
    span = source.large["w"]
    assert path.read_bytes()[span.offset : span.offset + span.length] == WEIGHT.tobytes()
    assert source.bytes == path.stat().st_size
    source.hash_ahead()
    source.let_go()
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    values = source.graph().tensors()["w"].values
    np.testing.assert_array_equal(values, WEIGHT)
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_external_weights_look_like_embedded_ones(tmp_path):
    path = save(
        linear_model(small=np.ones(2, np.float32)),
        tmp_path / "model.onnx",
        location="weights",
        size_threshold=0,
    )
    source = files.read(path)
    assert source.large["w"].path == tmp_path / "weights"
    assert source.bytes == path.stat().st_size + WEIGHT.nbytes + 8
    assert source.sha256 == hashlib.sha256(path.read_bytes() + (tmp_path / "weights").read_bytes()).hexdigest()
    np.testing.assert_array_equal(source.graph().tensors()["w"].values, WEIGHT)


DTYPES = [
    *(np.float16, np.float32, np.float64, np.bool_, np.complex64),
    *(np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e4m3fnuz),
    *(ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn, ml_dtypes.int2, ml_dtypes.uint2),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(5,), (77, 67), (0, 3), ()], ids=str)
@pytest.mark.parametrize("state", ["untouched", "loaded", "lazy"])
def test_every_element_type_comes_back(tmp_path, dtype, shape, state):
    values = RNG.integers(0, 2, shape).astype(dtype)
    values = np.asarray(values, dtype)
    source = files.read(save(linear_model(v=values), tmp_path / "model.onnx"))
    graph = source.graph()
    graph.nodes.append(gs.Node("Identity", inputs=[constant(source, "v")], outputs=[gs.Variable("v_out")]))
    if state == "loaded":
        np.testing.assert_array_equal(graph.nodes[-1].inputs[0].values, values)
    elif state == "lazy":
        lazy = gs.ir.tensor.LazyValues(numpy_helper.from_array(values))
        graph.nodes[-1].inputs[0] = gs.Constant("v", lazy)
    files.write(graph, source, tmp_path / "out.onnx")
    written = {tensor.name: tensor for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}
    found = numpy_helper.to_array(written["v"])
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def constant(source: files.ModelFile, name: str) -> gs.Constant:
    """Return an initializer that no node reads, which a graph does not show."""
    model = onnx.ModelProto()
    model.CopyFrom(source.proto)
    model.graph.node.add(op_type="Identity", input=[name], output=[f"{name}_read"])
    probe = files.ModelFile(source.path, model, source.large, source.files, source.maps)
    return probe.graph().tensors()[name]


@pytest.mark.parametrize("external_data", ["auto", "always", "never"])
@pytest.mark.parametrize("external_source", [False, True])
def test_a_round_trip_answers_the_same(tmp_path, external_data, external_source):
    external = {"location": "w.data", "size_threshold": 0} if external_source else {}
    source = files.read(save(linear_model(), tmp_path / "model.onnx", **external))
    with files.staged(tmp_path / "out.onnx") as stage:
        written = files.write(source.graph(), source, stage.path, external_data=external_data)
        x = RNG.standard_normal((4, 32), dtype=np.float32)
        assert run(stage.path, x=x)[0].tobytes() == run(source.path, x=x)[0].tobytes()
        stage.commit()
    assert run(tmp_path / "out.onnx", x=x)[0].tobytes() == run(source.path, x=x)[0].tobytes()
    reread = files.read(tmp_path / "out.onnx")
    assert (written.opset, written.ir_version) == (17, 8)
    assert (written.sha256, written.bytes) == (reread.sha256, reread.bytes)
    assert len(reread.files) == (2 if external_data == "always" else 1)
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)


def test_data_goes_beside_a_model_that_is_too_large(tmp_path, monkeypatch):
    source = files.read(save(linear_model(), tmp_path / "model.onnx"))
    monkeypatch.setattr(writer, "_MAX_EMBEDDED", 1000)
    monkeypatch.setattr(writer, "_LARGE", 1000)
    assert "do not fit one ONNX file" in message(
        lambda: files.write(source.graph(), source, tmp_path / "no.onnx", external_data="never")
    )
    files.write(source.graph(), source, tmp_path / "out.onnx")
    written = files.read(tmp_path / "out.onnx")
    assert written.large["w"].path != tmp_path / "out.onnx"
    assert written.large["w"].offset % 4096 == 0


def test_the_shell_of_the_source_is_kept(tmp_path):
    model = linear_model()
    helper.set_model_props(model, {"license": "MIT"})
    model.graph.metadata_props.add(key="graph", value="kept")
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    model.domain, model.doc_string = "org.example", "words"
    model.graph.node[0].ClearField("domain")  # the parser writes the empty name of the standard domain
    source = files.read(save(model, tmp_path / "model.onnx"))
    files.write(source.graph(), source, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == model


def test_an_existing_file_is_not_written_over(tmp_path):
    source = files.read(save(linear_model(), tmp_path / "model.onnx"))
    (tmp_path / "out.onnx").write_text("old")
    assert "File exists" in message(files.write, source.graph(), source, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_text() == "old"


GARBAGE = {
    "empty": b"",
    "text": b"Dear reader, this is not a model.\n" * 40,
    "zeros": bytes(100),
    "noise": RNG.bytes(5000),
    "another message": onnx.OperatorSetIdProto(domain="", version=3).SerializeToString(),
    "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "truncated": linear_model().SerializeToString()[:-100],
    "half": linear_model().SerializeToString()[:300],
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_what_is_not_a_model_says_so(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert message(files.read, path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GARBAGE["git lfs"], "is a Git LFS pointer, not the model; fetch it with `git lfs pull`"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page or XML; download the model itself"),
        (b'{"model_type": "bert"}', "is a JSON file; name the model beside it, or their folder"),
        (b"PK\x03\x04" + bytes(60), "is a zip archive, as PyTorch saves; export the model to ONNX"),
        (b"\x10\0\0\0ORTM" + bytes(60), "is a model in ONNX Runtime's own format; use the ONNX model it was made from"),
        (b"\x09\0\0\0\0\0\0\0" + b'{"a": {}}', "is a safetensors file, which holds weights alone; name the .*"),
    ],
    ids=["lfs", "html", "json", "zip", "ort", "safetensors"],
)
def test_what_is_given_in_place_of_a_model_is_named(tmp_path, content, said):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert re.fullmatch(f"{re.escape(str(path))}: {said}", message(files.read, path))


def test_an_address_is_no_file():
    for address in ("https://example.org/model.onnx", "hf://owner/model"):
        assert "is an address, not a file; download the model" in message(files.read, Path(address))


def test_what_cannot_be_opened_says_so(tmp_path):
    assert "No such file" in message(files.read, tmp_path / "absent.onnx")
    assert "is a folder" in message(files.read, tmp_path)
    assert "regular file" in message(files.read, Path("/dev/null"))
    assert "File name too long" in message(files.read, tmp_path / ("n" * 300))


def test_names_of_several_lines_are_told_in_one(tmp_path):
    model = linear_model()
    model.graph.initializer.add(name="two\nlines", data_type=1, dims=[2])
    assert r"tensor 'two\nlines'" in message(files.read, save(model, tmp_path / "model.onnx"))


def damaged(tmp_path: Path, change, **external: object) -> str:
    model = linear_model()
    if external:
        save(model, tmp_path / "model.onnx", **external)
        model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    change(model.graph.initializer[0])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return message(files.read, tmp_path / "model.onnx")


@pytest.mark.parametrize("dims", [[32, 17], [-1, -512], [2**62, 2**62], [2**31, 2**31, 0, 5], []], ids=str)
def test_dims_that_do_not_fit_the_data_are_refused(tmp_path, dims):
    def change(tensor):
        tensor.ClearField("dims")
        tensor.dims.extend(dims)

    for name in ("raw_data", "float_data"):
        assert "tensor 'w'" in damaged(tmp_path, change), name


def test_typed_data_of_the_wrong_length_is_refused(tmp_path):
    def change(tensor):
        tensor.ClearField("raw_data")
        tensor.float_data.extend([1.0, 2.0])

    assert "2 float_data where dims [32, 16] of FLOAT need 512" in damaged(tmp_path, change)


def test_unknown_element_types_are_refused(tmp_path):
    assert "unknown element type 99" in damaged(tmp_path, lambda tensor: setattr(tensor, "data_type", 99))
    assert "strings as raw bytes" in damaged(tmp_path, lambda tensor: setattr(tensor, "data_type", 8))


def entry(key: str, value: str):
    def change(tensor):
        kept = {item.key: item.value for item in tensor.external_data} | {key: value}
        tensor.ClearField("external_data")
        for name, text in kept.items():
            tensor.external_data.add(key=name, value=text)

    return change


EXTERNAL = {"location": "w.data", "size_threshold": 0}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("location", "absent.data", "absent.data, which does not exist"),
        ("location", "../w.data", "outside of the model's folder"),
        ("location", "sub/../../w.data", "outside of the model's folder"),
        ("location", "/etc/passwd", "outside of the model's folder"),
        ("location", "n" * 300, "File name too long"),
        ("location", "loop", "which cannot be opened"),
        ("location", "", "without a usable location"),
        ("offset", "-1", "without a usable location"),
        ("offset", "1" * 5000, "without a usable location"),
        ("offset", "4096", "which has 2048; the external data is cut short"),
        ("length", "7", "has 7 bytes of data where dims [32, 16] of FLOAT need 2048"),
    ],
)
def test_bad_references_are_refused(tmp_path, key, value, expected):
    (tmp_path / "loop").symlink_to("loop")
    found = damaged(tmp_path, entry(key, value), **EXTERNAL)
    assert expected in found
    assert "tensor 'w'" in found


def test_links_out_of_the_folder_are_refused_and_a_cache_of_links_is_read(tmp_path):
    store, inside = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    inside.mkdir()
    save(linear_model(), inside / "model.onnx", **EXTERNAL)
    (inside / "w.data").rename(store / "1234")
    (inside / "w.data").symlink_to("../blobs/1234")
    assert "a link out of the model's folder" in message(files.read, inside / "model.onnx")

    (inside / "model.onnx").rename(store / "5678")
    (inside / "model.onnx").symlink_to("../blobs/5678")
    np.testing.assert_array_equal(files.read(inside / "model.onnx").graph().tensors()["w"].values, WEIGHT)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model().SerializeToString().replace(b"MatMul", b"MatM\xfcl"))
    assert "is not UTF-8" in message(files.read, path)
