"""A model for a release that is named beforehand: nothing in it is newer, the answers are as near as otherwise."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bct_onnx import BctError, compress
from bct_onnx.presets import PRESETS
from bct_onnx.runtimes import FORMS, OLDEST, RELEASES, first_release, limits_of, min_onnxruntime
from passes import Feature
from tests.bct_onnx.conftest import Run
from tests.helpers import K, constant_nodes, model, operators, optimized, random

RUNTIMES = ("1.17.3", "1.18.1", "1.20.1", "1.22.1", "1.23.2")
# A table, products, a cache and heads that are multiplied apart.
DECODER = """g (int64[b, s] ids, float[b, p, 64] past_key) => (float[b, s, 200] y, float[b, q, 64] present_key) {
    h = Gather(table, ids)
    k = MatMul(h, w)
    present_key = Concat <axis = 1> (past_key, k)
    t = Transpose <perm = [0, 2, 1]> (present_key)
    a = MatMul(h, t)
    p = Softmax <axis = -1> (a)
    c = MatMul(p, present_key)
    y = MatMul(c, v) }"""
ENCODER = """g (int64[b, s] ids) => (float[b, s, 200] y) {
    h = Gather(table, ids)
    k = MatMul(h, w)
    t = Transpose <perm = [0, 2, 1]> (k)
    a = MatMul(h, t)
    p = Softmax <axis = -1> (a)
    c = MatMul(p, k)
    y = MatMul(c, v) }"""


def save(folder: Path, text: str, opset: int = 18, ir_version: int = 8) -> Path:
    weights = {"table": random(300, K), "w": random(K, K, seed=1), "v": random(K, 200, seed=2)}
    path = folder / "in.onnx"
    onnx.save(model(text, opset, ir_version, **weights), path)
    return path


def not_later(release: str, runtime: str) -> bool:
    return RELEASES.index(release) <= RELEASES.index(runtime)


@pytest.mark.parametrize(("preset", "runtime"), list(product(PRESETS, RUNTIMES)))
@pytest.mark.parametrize("text", [ENCODER, DECODER], ids=["encoder", "decoder"])
def test_nothing_is_newer_and_the_answers_are_near(tmp_path, text, preset, runtime):
    source, target = save(tmp_path, text), tmp_path / "out.onnx"
    try:
        report = compress(source, target, preset=preset, runtime=runtime, search_seconds=1)
    except BctError as error:
        # What is published multiplies blocks in 8 bits and quantizes in blocks: neither is to be had.
        assert preset == "paper" and runtime < "1.22"
        assert "MatMulNBits of 8 bits runs from ONNX Runtime 1.22.1" in str(error)
        return
    written = onnx.load(target)
    assert not_later(min_onnxruntime(written), runtime)
    assert (report.runtime, report.target) == (runtime, "onnxruntime")
    assert report.output.min_onnxruntime == min_onnxruntime(written)
    assert report.verification is not None
    onnx.checker.check_model(written, full_check=True)


@settings(max_examples=25)
@given(
    bits=st.integers(2, 8),
    lowering=st.sampled_from(["auto", "dense", "dense7", "packed", "both", "qdq"]),
    runtime=st.sampled_from(RELEASES),
    opset=st.sampled_from([11, 13, 17, 18, 20, 21, 23]),
    decodes=st.booleans(),
)
def test_whatever_is_asked_for(tmp_path_factory, bits, lowering, runtime, opset, decodes):
    """Written for the release, or refused in one line that says from which one it could be."""
    folder = tmp_path_factory.mktemp("asked")
    source = save(folder, DECODER if decodes else ENCODER, opset, 11 if opset > 21 else 8)
    try:
        report = compress(source, folder / "out.onnx", bits=bits, lowering=lowering, runtime=runtime, verify=False)
    except BctError as error:
        assert "ONNX Runtime" in str(error) and "\n" not in str(error)
        assert lowering in ("packed", "both") and bits > 4 and not_later(runtime, "1.21.1")
        assert not (folder / "out.onnx").exists()
        return
    assert not_later(report.output.min_onnxruntime, runtime)
    assert report.options.bits >= min(bits, 7 if lowering == "dense7" else 8)


@pytest.mark.parametrize("runtime", ["1.17.3", "1.20.1"])
def test_decoding_is_folded(tmp_path, runtime):
    """Nothing that depends on constants alone is left for every run."""
    compress(save(tmp_path, ENCODER), tmp_path / "out.onnx", preset="small", runtime=runtime, verify=False)
    written = onnx.load(tmp_path / "out.onnx")
    assert "BitShift" in operators(written)
    folded = optimized(written, tmp_path)
    assert constant_nodes(folded) == []
    assert "BitShift" not in operators(folded)


def test_what_it_costs_is_said(tmp_path):
    # Codes that stand for themselves lie as int4 where there is one.
    asked = {"preset": "small", "lowering": "dense7", "verify": False}
    report = compress(save(tmp_path, ENCODER), tmp_path / "out.onnx", runtime="1.17.3", **asked)
    (note,) = [note for note in report.notes if "1.17.3" in note]
    assert note.startswith("for ONNX Runtime 1.17.3: opset 20, not 23: attention is several operators; no blockwise")
    assert "codes of 4 bits lie two in a byte" in note
    newest = compress(save(tmp_path, ENCODER), tmp_path / "new.onnx", runtime="1.32", **asked)
    assert not any("for ONNX Runtime" in note for note in newest.notes)
    # Two codes in a byte take no more room than int4.
    assert report.output.bytes < 1.1 * newest.output.bytes


def test_the_newest_release_changes_nothing(tmp_path):
    source = save(tmp_path, ENCODER)
    first, second = (
        compress(source, tmp_path / f"{name}.onnx", preset="small", runtime=name, verify=False)
        for name in (None, RELEASES[-1])
    )
    assert first.output.sha256 == second.output.sha256


def test_forms_of_a_decoder_for_old_releases(tmp_path):
    source = save(tmp_path, DECODER)
    for runtime, form in (("1.17.3", "dense"), ("1.20", "dense"), ("1.22", "packed")):
        fast = compress(source, tmp_path / "fast.onnx", preset="fast", runtime=runtime, verify=False)
        assert (fast.options.lowering, fast.options.bits) == (form, 8)
        assert any(f"weights are {form}" in note for note in fast.notes)
        small = compress(source, tmp_path / "small.onnx", preset="small", runtime=runtime, verify=False)
        assert (small.options.lowering, small.options.bits) == ("both", 4)
        assert "GatherBlockQuantized" not in operators(onnx.load(tmp_path / "small.onnx"))


def test_a_newer_model_is_lowered(tmp_path):
    source = save(tmp_path, ENCODER, 22, 11)
    report = compress(source, tmp_path / "out.onnx", preset="fast", runtime="1.18.1")
    assert (report.output.opset, report.output.ir_version) == (21, 10)
    assert "opset 22 is lowered to 21 for ONNX Runtime 1.18.1" in report.notes


def test_a_newer_file_format_is_lowered(tmp_path):
    report = compress(save(tmp_path, ENCODER, 18, 10), tmp_path / "out.onnx", preset="fast", runtime="1.17.3")
    assert (report.output.opset, report.output.ir_version, report.output.min_onnxruntime) == (20, 9, OLDEST)


def test_a_model_that_cannot_be_lowered_is_refused_by_the_node(tmp_path):
    proto = model("g (float[2, 64] x) => (float[2, 64] y) { y = Swish(x) }", 24, 11)
    proto.graph.node[0].name = "gate"
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(
        BctError, match=r"opset 24 cannot be lowered to 21 .* 1\.20\.1: .*no Swish, which 'gate' is; export"
    ):
        compress(tmp_path / "in.onnx", tmp_path / "out.onnx", runtime="1.20", verify=False)
    assert not (tmp_path / "out.onnx").exists()


ATTENTION = """g (float[b, 4, 64] x, float[b, 4, 64] k) => (float[b, 4, 64] y) {
    q = MatMul(x, w)
    y = OPERATOR(q, k, k) }"""
OF_23 = "Attention <q_num_heads = 4, kv_num_heads = 4>"
MULTI_HEAD = "com.microsoft.MultiHeadAttention <num_heads = 4>"


@pytest.mark.parametrize(
    ("operator", "opset", "runtime"), [(OF_23, 23, "1.17.3"), (OF_23, 23, "1.23.2"), (MULTI_HEAD, 17, "1.20.1")]
)
@pytest.mark.parametrize("preset", ["fast", "portable"])
def test_attention_as_one_node_is_taken_apart_where_a_release_lacks_it(tmp_path, operator, opset, runtime, preset):
    proto = model(ATTENTION.replace("OPERATOR", operator), opset, 10, w=random(64, 64))
    onnx.save(proto, tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset=preset, runtime=runtime)
    written = onnx.load(tmp_path / "out.onnx")
    assert not {"Attention", "MultiHeadAttention"} & set(operators(written))
    assert not_later(min_onnxruntime(written), runtime)
    assert f"attention as one node is taken apart (1 times) for ONNX Runtime {runtime}" in report.notes
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_operators_of_the_model_that_a_release_lacks_are_refused_by_the_node(tmp_path):
    text = """g (float[4, 64] x) => (float[4, 8] z) {
        z = com.microsoft.MatMulNBits <K = 64, N = 8, bits = 2, block_size = 64> (x, w, s) }"""
    proto = model(text, 17, 8, w=np.zeros((8, 1, 16), np.uint8), s=random(8))
    proto.graph.node[0].name = "pairs"
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(
        BctError, match=r"node 'pairs' \(MatMulNBits of 2 bits\) runs from ONNX Runtime 1\.24\.4, not in"
    ):
        compress(tmp_path / "in.onnx", tmp_path / "out.onnx", runtime="1.20", verify=False)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("asked", "release"),
    {
        "1.17.3": "1.17.3", "1.17": "1.17.3", "1.20": "1.20.1", "1.20.0": "1.19.2", "1.20.1": "1.20.1",
        "1.20.2": "1.20.1", "1.27": "1.26.0", "1.27.1": "1.26.0", "1.32": "1.32.0", "9.9": "1.32.0",
    }.items(),
)  # fmt: skip
def test_releases_between_those_tried_count_as_the_older_one(asked, release):
    assert limits_of(asked).release == release


@pytest.mark.parametrize(
    ("asked", "message"),
    {
        "1.16": "runtime 1.16 is older than 1.17.3, the oldest ONNX Runtime that models are made for; name 1.17.3 or",
        "1.17.2": "runtime 1.17.2 is older than 1.17.3",
        "new": "runtime 'new' is no release of ONNX Runtime; name one such as 1.20 or 1.20.1",
        "1": "is no release",
        "": "is no release",
    }.items(),
)
def test_what_is_no_release_is_refused(run: Run, source: Path, tmp_path: Path, asked: str, message: str) -> None:
    code, _, err = run(source, tmp_path / "out.onnx", "--runtime", asked)
    assert code == 2
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("release", RELEASES)
def test_limits_are_those_of_the_table(release):
    limits = limits_of(release)
    assert limits.lacks == {feature for feature in Feature if not not_later(first_release(feature), release)}
    assert limits.opset <= limits.newest_opset
    asks = model("g (float[n, 64] x) => (float[n, 64] y) { y = Relu(x) }", limits.newest_opset, limits.ir_version)
    limits.check(asks, "in.onnx")
    if release != RELEASES[-1]:
        asks.opset_import[0].version += 1
        with pytest.raises(BctError, match=f"opset {limits.newest_opset + 1} runs from"):
            limits.check(asks, "in.onnx")


def test_an_opset_whose_quantize_linear_a_release_lacks_is_not_written_for_it():
    assert (limits_of("1.23").opset, limits_of("1.23").newest_opset) == (22, 23)
    assert limits_of("1.24").opset == 25


def test_every_feature_has_a_form():
    assert {form.feature for form in FORMS} - {None} == set(Feature)


def test_command_line(run: Run, source: Path, tmp_path: Path) -> None:
    target, report = tmp_path / "out.onnx", tmp_path / "report.json"
    code, out, _ = run(source, target, "--runtime", "1.20", "--preset", "small", "--json", report)
    assert code == 0
    assert "made for 1.20.1" in out
    data = json.loads(report.read_text())
    assert (data["runtime"], data["target"]) == ("1.20.1", "onnxruntime")
    assert "Cast of int4" in data["options"]["lacks"]
