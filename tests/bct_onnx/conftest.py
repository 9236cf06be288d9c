"""What tests of the package share: the file of a small model, and the command line."""

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from bct_onnx import cli
from tests.helpers import MLP, K, model, random

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the file of a small model."""
    path = tmp_path / "in.onnx"
    onnx.save(model(MLP, opset=17, ir_version=8, w=random(K, K, seed=1), v=random(K, K, seed=2)), path)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line and returns (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bct-onnx", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
