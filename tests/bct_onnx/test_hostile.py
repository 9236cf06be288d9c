"""What damaged or hostile models do ends in one line: runs without end, sizes beyond memory."""

from pathlib import Path

import pytest
from onnx import parser, save

from bct_onnx import BctError, compress
from bct_onnx.sessions import session

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
ENDLESS = """g (float[1] x) => (float[1] y) {
    n = Constant <value = int64 {4611686018427387904}> ()
    go = Constant <value = bool {1}> ()
    y = Loop(n, go, x) <body = b (int64 i, bool c, float[1] s) => (bool c2, float[1] s2) {
        c2 = Identity(c)
        s2 = Sin(s) }> }"""


def test_a_model_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_SECONDS", 0.3)
    save(parser.parse_model(f"{HEADER} {ENDLESS}"), tmp_path / "in.onnx")
    with pytest.raises(BctError, match=r"a run took more than 0\.3 s and was stopped; give shorter inputs"):
        compress(tmp_path / "in.onnx", tmp_path / "out.onnx")


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_inputs_beyond_memory_are_refused(tmp_path: Path, size: int) -> None:
    text = f"{HEADER} g (float[{size}, 7] x) => (float[a, b] y) {{ y = Relu(x) }}"
    save(parser.parse_model(text), tmp_path / "in.onnx")
    with pytest.raises(BctError, match="do not fit into memory; give smaller ones with --feeds"):
        compress(tmp_path / "in.onnx", tmp_path / "out.onnx")
