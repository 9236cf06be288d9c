"""The page of size against error is that of its points, and files that are not made or do not run are no points."""

import json
import sys
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from bct_onnx.evaluate import Score
from bct_onnx.evaluate.records import Evaluation, ModelResult, Settings
from benchmarks import curve
from benchmarks.cases import Case
from benchmarks.curve_page import FIGURES, GOALS, Point, page, picture

DOCS = Path(__file__).parents[2] / "docs"
COPY = "import sys, shutil; sum(range(10**7)); shutil.copy(*sys.argv[-2:])"


def test_the_page_is_that_of_the_points() -> None:
    points = [Point(**each) for each in json.loads((DOCS / "curves.json").read_text())]
    assert (DOCS / "curves.md").read_text() == page(points)
    assert {point.model for point in points} <= FIGURES.keys()
    for model in {point.model for point in points}:
        assert (DOCS / picture(model)).exists()


def test_a_row_is_what_was_measured() -> None:
    point = Point(
        "vit_tiny", GOALS, "--target-ratio 7", 3_290_000, 7.012, 61.8, {"error": 0.2931, "same decisions": 89.6}
    )
    text = page([Point(**{**vars(point), "values": {**point.values, "top-1": -0.4}})])
    assert "| bct_onnx, goals | `--target-ratio 7` | 3.29 | 7.01x | 0.293 | 89.60 | -0.40 | 62 |" in text


@pytest.mark.parametrize(
    ("score", "lost"),
    [
        (Score("top-1", "%", 80.0, -1.5, -2.0, -1.0), 1.5),
        (Score("error", "", 0.25, 0.25, 0.2, 0.3), 0.25),
        (Score("perplexity", "", 33.0, 3.0, 2.0, 4.0), 10.0),
    ],
)
def test_a_loss_has_the_sign_and_unit_of_its_metric(score: Score, lost: float) -> None:
    assert curve.loss(score) == pytest.approx(lost)


def test_what_fails_is_said_and_is_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "float.onnx"
    graph = onnx.parser.parse_graph("g (float[n] x) => (float[n] y) { y = Identity(x) }")
    onnx.save(onnx.helper.make_model(graph), source)

    def evaluate(_: Path, models: list[Path]) -> Evaluation:
        results = [ModelResult(str(path), 1, 1.0, 1.0, (Score("error", "", 0.1, 0.1, 0, 1),)) for path in models]
        return Evaluation("images", "", 1, Settings(), tuple(results))

    monkeypatch.setitem(curve.CASES, "vit_tiny", Case(source, evaluate, "."))
    good = curve.Job("copier", "once", (sys.executable, "-c", COPY))
    bad = curve.Job("other", "never", (sys.executable, "-c", "raise ModuleNotFoundError('no such tool')"))
    console = Console(record=True, width=150)
    (point,) = curve.measure("vit_tiny", [good, bad], console)
    assert (point.tool, point.setting, point.values) == ("copier", "once", {"same decisions": 100.0, "error": 0.1})
    assert point.seconds >= 0.1
    assert "vit_tiny: other, never: not made: ModuleNotFoundError: no such tool" in console.export_text()
