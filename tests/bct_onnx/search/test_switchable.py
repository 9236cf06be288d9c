"""The model whose weights a run can replace, those of bodies among them."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import compress, files
from bct_onnx.search import (
    DEFAULT_DROP,
    measure_sensitivity,
)
from bct_onnx.search.sensitivity import _Probes
from bct_onnx.search.switchable import SwitchableModel, _lift, formats, stored_bytes
from bct_onnx.search.work import (
    RATE,
)
from passes import Options
from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
from tests.bct_onnx.search.conftest import K
from tests.helpers import model, random, run


def test_the_switchable_model_answers_like_the_input_and_with_the_codes_like_the_output(source, tmp_path) -> None:
    x = random(5, K, seed=3)
    (exact,) = run(source, x=x)
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx")
    assert [switch.name for switch in switchable.switches] == ["w", "v"]
    assert [switch.activation for switch in switchable.switches] == ["x", "b"]
    np.testing.assert_array_equal(switchable.run({"x": x}, {})["y"], exact)
    w = random(K, K, seed=1)
    coarse = decode(encode(w, BlockFormat.shifted(2, 8)))
    instead = {switchable.switches[0].tensor: switchable.switches[0].laid_out(coarse)}
    changed = switchable.run({"x": x}, instead)["y"]
    hidden = x @ coarse
    np.testing.assert_allclose(changed, hidden + 1e-3 * np.maximum(hidden, 0) @ random(K, K, seed=2), atol=1e-4)


def test_the_switchable_model_keeps_its_weights_in_a_file_to_be_mapped(source, tmp_path) -> None:
    x, path = random(5, K, seed=3), tmp_path / "s.onnx"
    switchable = SwitchableModel(files.read(source), Options(), path)
    (data,) = tmp_path.glob("s.onnx.*.data")
    assert data.stat().st_size >= 2 * 4 * K * K > path.stat().st_size
    before = switchable.run({"x": x})["y"]
    (answer,), (cost,) = switchable.answers_and_costs([{"x": x}])
    assert cost > 0
    np.testing.assert_array_equal(answer["y"], before)
    assert list(answer) == list(switchable.run({"x": x})) == ["y"]


def test_weights_are_seen_in_the_file_as_they_are_encoded(source, tmp_path) -> None:
    """Products that read them the other way round, and constants of more axes, too."""
    text = "g (float[m, 64] x) => (float[m, 64] y, float[2, 64, 64] z) { y = Gemm<transB = 1>(x, w) z = Mul(s, t) }"
    w, s = random(K, K, seed=1), random(2, K, K, seed=2)
    onnx.save(model(text, opset=21, w=w, s=s, t=np.array(2, np.float32)), source)
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx")
    found = {switch.name: switch for switch in switchable.switches}
    np.testing.assert_array_equal(found["w"].matrix, w.T)
    for switch in found.values():
        assert not switch.matrix.flags.writeable
        assert not switch.matrix.flags.owndata
        same = {switch.tensor: switch.laid_out(np.array(switch.matrix))}
        x = random(5, K, seed=3)
        for name, array in switchable.run({"x": x}).items():
            np.testing.assert_array_equal(switchable.run({"x": x}, same)[name], array)


def test_tables_are_seen_by_their_rows(source, tmp_path) -> None:
    """A row that is looked up is a column of what is encoded."""
    table = random(2 * K, K, seed=1)
    onnx.save(model("g (int64[m] i) => (float[m, 64] y) { y = Gather <axis = 0> (t, i) }", opset=21, t=table), source)
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx")
    (switch,) = switchable.switches
    assert switch.by_rows
    np.testing.assert_array_equal(switch.matrix, table.T)
    i = np.arange(3)
    changed = switchable.run({"i": i}, {switch.tensor: switch.laid_out(2 * switch.matrix)})["y"]
    np.testing.assert_array_equal(changed, 2 * table[i])


def test_what_will_be_one_weight_is_switched_as_one(source, tmp_path) -> None:
    text = "g (float[m, 64] x) => (float[m, 128] y) { a = MatMul(x, w) b = MatMul(x, v) y = Concat<axis = 1>(a, b) }"
    w, v = random(K, K, seed=1), random(K, K, seed=2)
    onnx.save(model(text, opset=21, w=w, v=v), source)
    x = random(5, K, seed=3)
    for lowering, names in (("packed", ["w + v"]), ("dense", ["w", "v"])):
        switchable = SwitchableModel(files.read(source), Options(lowering=lowering), tmp_path / f"{lowering}.onnx")
        assert [switch.name for switch in switchable.switches] == names
        np.testing.assert_array_equal(switchable.run({"x": x})["y"], run(source, x=x)[0])
        zeros = {each.tensor: each.laid_out(np.zeros_like(each.matrix)) for each in switchable.switches}
        assert not switchable.run({"x": x}, zeros)["y"].any()


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
def test_bytes_are_those_of_the_report(source, tmp_path, lowering) -> None:
    options = Options(lowering=lowering, block_size=16)
    switch = SwitchableModel(files.read(source), options, tmp_path / "s.onnx").switches[0]
    for bits, fmt in formats(switch, options, 21).items():
        report = compress(
            source, tmp_path / f"{bits}.onnx", bits=bits, block_size=16, lowering=lowering, max_rel_error=10
        )
        taken = next(t for entry in report.passes for t in entry.tensors if t.name == "w").bytes_after
        assert stored_bytes(fmt, (K, K)) == taken


@pytest.mark.parametrize(("opset", "widths"), [(17, {2, 4, 8}), (18, {2, 4, 5, 6, 7, 8})])
def test_widths_are_those_that_the_opset_unpacks(source, tmp_path, opset, widths) -> None:
    options = Options(lowering="packed")
    switch = SwitchableModel(files.read(source), options, tmp_path / "s.onnx").switches[0]
    found = formats(switch, options, opset)
    assert set(found) == widths
    assert all(fmt.bits == bits for bits, fmt in found.items())


LOOP = """g (float[m, 64] x) => (float[m, 64] y) {
  n = Constant <value_int = 3> () go = Constant <value = bool {1}> () a = MatMul(x, w)
  y = Loop(n, go, a) <body = b (int64 i, bool c, float[m, 64] s) => (bool c2, float[m, 64] s2) {
    c2 = Identity(c) t = MatMul(s, v) s2 = Relu(t) }> }"""


def test_weights_of_bodies_are_measured_like_others(tmp_path: Path) -> None:
    """Those that the main graph has, and those that only the body has."""
    path = tmp_path / "in.onnx"
    proto = model(LOOP, opset=21, w=random(K, K, seed=1), v=random(K, K, seed=2))
    own = proto.graph.initializer.pop()
    assert own.name == "v"
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    next(each for each in loop.attribute if each.name == "body").g.initializer.append(own)
    onnx.save(proto, path)
    switchable = SwitchableModel(files.read(path), Options(), tmp_path / "s.onnx")
    found = {switch.name: switch for switch in switchable.switches}
    assert found.keys() == {"w", "v"}
    x = random(5, K, seed=3)
    zeros = found["v"].laid_out(np.zeros((K, K), np.float32))
    assert not switchable.run({"x": x}, {found["v"].tensor: zeros})["y"].any()
    (answer,), (cost,) = switchable.answers_and_costs([{"x": x}])
    np.testing.assert_array_equal(answer["y"], run(path, x=x)[0])
    assert cost >= 2 * 5 * K * K / RATE
    report = compress(path, tmp_path / "out.onnx")
    assert report.search is not None
    assert report.search.measured == 2
    assert report.search.error <= DEFAULT_DROP


BRANCHES = """g (float[m, 64] x) => (float[m, 64] y) {
  s = ReduceMean <keepdims = 0> (x) z = Constant <value = float {0}> () c = Less(s, z)
  y = If(c) <then_branch = t () => (float[m, 64] p) { p = MatMul(x, w) },
    else_branch = e () => (float[m, 64] q) { q = MatMul(x, v) }> }"""


@pytest.mark.parametrize("rounding", [0.0, 3e-7], ids=["exact", "rounds otherwise"])
def test_a_weight_of_a_branch_is_run_on_the_feed_that_takes_it(tmp_path: Path, monkeypatch, rounding) -> None:
    """What another branch says is the same but for rounding: some sessions add up in another order each time."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    answer = _Probes._answer

    def rounded(*probe):
        return {name: y * np.float32(1 + rounding) for name, y in answer(*probe).items()}

    monkeypatch.setattr(_Probes, "_answer", rounded)
    path = tmp_path / "in.onnx"
    onnx.save(model(BRANCHES, opset=21, w=random(K, K, seed=1), v=random(K, K, seed=2)), path)
    x = random(40, K, seed=4)
    feeds = [{"x": x - 1}, {"x": x + 1}]
    # Time for one feed a weight.
    found = measure_sensitivity(files.read(path), Options(block_size=8), feeds, tmp_path / "s.onnx", seconds=1e-4)
    assert found.measured == 2
    errors = [entry.error[4] for entry in found.curve.weights]
    assert min(errors) > 0.5 * max(errors) > 0


def test_only_names_of_one_body_move_to_the_main_graph() -> None:
    proto = model(BRANCHES, opset=21)
    (branch,) = (node for node in proto.graph.node if node.op_type == "If")
    for names, each in zip((("w", "both"), ("both",)), branch.attribute, strict=True):
        each.g.initializer.extend(onnx.numpy_helper.from_array(random(K, K), name) for name in names)
    assert _lift(proto, {"w", "both"}) == {"w"}
    graphs = [proto.graph, *(each.g for each in branch.attribute)]
    assert [[tensor.name for tensor in graph.initializer] for graph in graphs] == [["w"], ["both"], ["both"]]
