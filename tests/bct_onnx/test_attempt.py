"""A model whose weights cannot be measured is compressed all the same; a large one a weight at a time."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bct_onnx import VerificationError, compress, files, search
from bct_onnx.compression import workspace
from bct_onnx.opsets import raise_opset
from bct_onnx.sessions import OrtError
from bct_onnx.verify import Reference, Verification, compare
from tests.helpers import MLP, K, random
from tests.helpers import model as model_of


def test_a_search_that_does_not_run_gives_way_to_the_same_bits_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OrtError("Unrecognized attribute")

    monkeypatch.setattr(search, "measure_sensitivity", refuse)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64] x) => (float[2, 96] y) { y = MatMul(x, w) }'
    )
    values = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    onnx.save(model, tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", max_drop=0.1)
    assert [note for note in report.notes if "cannot be measured" in note] == [
        "its weights cannot be measured (Unrecognized attribute): 6 bits everywhere"
    ]
    assert report.verification is not None


def test_what_was_read_of_a_model_is_given_back_after_every_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(files.ModelFile, "let_go", lambda _: events.append("given back"))
    onnx.save(model_of(MLP, w=random(K, K, seed=1), v=random(K, K, seed=2)), tmp_path / "in.onnx")
    compress(tmp_path / "in.onnx", tmp_path / "small.onnx", bits=4, progress=lambda what, *_: events.append(what))
    weights = [number for number, what in enumerate(events) if what == "matmul"]
    assert len(weights) >= 2
    assert all(events[number - 1] == "given back" for number in weights)


def test_a_model_that_does_not_run_at_the_best_opset_is_written_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the attempt before left behind is in nobody's way."""
    calls: list[Path] = []

    def refuse_once(reference: Reference, path: Path, *_: object) -> Verification:
        calls.append(path)
        if len(calls) == 1:
            raise VerificationError("not implemented")
        return compare(reference, path)

    monkeypatch.setattr(workspace, "compare", refuse_once)
    text = "g (float[m, 64] x) => (float[m, 64] y) { a = MatMul(x, w) y = Softmax <axis = -1> (a) }"
    onnx.save(model_of(text, 13, 7, w=random(K, K, seed=1)), tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast")
    assert report.notes == ("opset 13 cannot be raised to 23: not implemented",)
    assert report.output.opset == 21


@pytest.mark.parametrize("outputs", ["float[m, 96] y", "float[m, 96] y, float[m, 64] n"])
def test_what_channels_hold_is_seen_where_the_raised_opset_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: str
) -> None:
    """The model runs no second time for it, and the file is the same."""
    nodes = "n = LayerNormalization<axis = -1>(x, g, b) p = MatMul(n, w) y = Add(p, c)"
    text = f"g (float[m, 64] x) => ({outputs}) {{ {nodes} }}"
    bias = random(K, seed=5)
    bias[7] = 9
    given = {"g": np.abs(random(K, seed=4)) + np.float32(0.5), "b": bias, "w": random(K, 96, seed=1), "c": random(96)}
    onnx.save(model_of(text, 17, **given), tmp_path / "in.onnx")
    looked: list[object] = []
    ranges = search.channel_ranges
    monkeypatch.setattr(search, "channel_ranges", lambda *found: looked.append(found) or ranges(*found))
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast")
    assert {each.name: each.replaced for each in report.passes}["even_channels"] == 1
    assert not looked
    raised = raise_opset(onnx.load(tmp_path / "in.onnx"), report.output.opset)
    onnx.save(raised, tmp_path / "raised.onnx")
    compress(tmp_path / "raised.onnx", tmp_path / "other.onnx", preset="fast")
    assert looked
    one, other = (onnx.load(tmp_path / name).graph for name in ("out.onnx", "other.onnx"))
    assert {t.name: t.raw_data for t in one.initializer} == {t.name: t.raw_data for t in other.initializer}
