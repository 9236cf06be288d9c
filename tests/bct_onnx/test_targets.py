"""Where a model runs decides on its forms, the preset on its bits."""

import json
from pathlib import Path

import onnx
import pytest

from bct_onnx import BctError, compress
from bct_onnx.presets import MORE_TABLE_BITS, PRESETS, Request
from bct_onnx.targets import STANDARD, TARGETS
from passes import LOWERINGS
from tests.bct_onnx.conftest import Run
from tests.bct_onnx.test_runtime_asked_for import DECODER, ENCODER, save
from tests.helpers import model, nodes, random

COMBINATIONS = [(target, preset) for target, forms in TARGETS.items() for preset in PRESETS if preset in forms.presets]
BITS = {"fast": {8}, "balanced": set(range(2, 9)), "small": {4}, "portable": {8}, "paper": {8}}


@pytest.mark.parametrize(("target", "preset"), COMBINATIONS)
@pytest.mark.parametrize("text", [ENCODER, DECODER], ids=["encoder", "decoder"])
def test_the_target_picks_forms_and_the_preset_bits(tmp_path, text, target, preset):
    source = save(tmp_path, text)
    report = compress(source, tmp_path / "out.onnx", preset=preset, target_runtime=target, search_seconds=1)
    forms = TARGETS[target]
    assert report.target == target
    by_token = {forms.by_token, "packed"} if preset in ("fast", "balanced") else {forms.by_token}
    expected = {forms.lowering} if forms.lowering else {PRESETS[preset].lowering, *by_token}
    assert report.options.lowering in expected
    assert report.options.widths - {report.options.table_bits} <= BITS[preset]
    assert report.options.table_bits in (None, report.options.bits + MORE_TABLE_BITS)
    domains = {node.domain for node in nodes(onnx.load(tmp_path / "out.onnx").graph)}
    assert forms.domains is None or domains <= STANDARD


@pytest.mark.parametrize(
    ("options", "message"),
    {
        ("paper", "auto", "web"): "preset 'paper' has no form for target 'web'; choose one of fast, balanced, small",
        ("paper", "auto", "openvino"): "preset 'paper' has no form for target 'openvino'; choose one of fast, balanced",
        ("portable", "auto", "web"): "preset 'portable' has no form for target 'web'",
        ("fast", "packed", "web"): "target 'web' takes dense weights; leave out --lowering",
        ("small", "dense", "openvino"): "target 'openvino' takes qdq weights; leave out --lowering",
        ("fast", "auto", "moon"): "target 'moon' does not exist; choose one of onnxruntime, web, openvino",
    }.items(),
)
def test_what_does_not_go_together_is_refused(options, message):
    preset, lowering, target = options
    with pytest.raises(BctError) as error:
        Request(preset, lowering=lowering, target=target)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "target"), TARGETS.items())
def test_targets_name_what_there_is(name, target):
    assert target.presets <= set(PRESETS)
    assert {target.lowering, target.by_token} <= {None, *LOWERINGS}
    for preset in target.presets:
        Request(preset, target=name, lowering=target.lowering or "auto")


def test_a_target_has_a_release_that_another_may_take_the_place_of():
    assert Request("fast", target="web").limits.release == "1.21.1"
    assert Request("fast", target="web", runtime="1.24").limits.release == "1.24.4"
    assert Request("fast").limits.release is None


def test_an_operator_that_the_target_does_not_know_is_refused_by_its_node(tmp_path):
    text = "g (float[m, 64] x) => (float[m, 64] y) { h = MatMul(x, w) y = com.microsoft.QuickGelu(h) }"
    proto = model(text, 17, 8, w=random(64, 64))
    proto.graph.node[1].name = "gate"
    proto.graph.node[1].attribute.append(onnx.helper.make_attribute("alpha", 1.5))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.node.append(onnx.helper.make_node("ExpandDims", ["y", "axis"], ["z"], "last", domain="com.microsoft"))
    proto.graph.initializer.append(onnx.helper.make_tensor("axis", onnx.TensorProto.INT32, [], [0]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(
        BctError, match=r"target 'openvino' writes standard operators only, but '.*' is a com\.microsoft"
    ):
        compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast", target_runtime="openvino", verify=False)
    assert not (tmp_path / "out.onnx").exists()


def test_command_line(run: Run, source: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, _ = run(source, tmp_path / "out.onnx", "--target", "openvino", "--preset", "small", "--json", report)
    assert code == 0
    assert "for openvino" in out and "qdq" in out
    assert json.loads(report.read_text())["target"] == "openvino"
    code, _, err = run(source, tmp_path / "two.onnx", "--target", "web", "--preset", "paper")
    assert code == 2 and err.count("\n") == 1
    code, out, _ = run(source, tmp_path / "two.onnx", "--target", "web", "--dry-run")
    assert code == 0 and "dense" in out
