"""Bits chosen by measurement: the runs behind the curve, and files that meet their goal."""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import BctError, compress, files, search
from bct_onnx.fidelity.outputs import OutputError, output_error
from bct_onnx.presets import PRESETS
from bct_onnx.search import (
    DEFAULT_DROP,
    measure_sensitivity,
    memoized,
    plot,
)
from bct_onnx.search.sensitivity import _by_kind
from passes import Options
from passes.context import plain_codes
from passes.formats.block import BlockFormat
from passes.formats.encode import encode
from tests.bct_onnx.search.conftest import UNEVEN, K
from tests.helpers import model, random, run

WIDE = 256
FIXTURES = Path(__file__).parents[3] / "models" / "fixtures"


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Save the same with weights that outweigh the bodies of functions."""
    path = tmp_path / "wide.onnx"
    weights = {"w": random(WIDE, WIDE, seed=1), "v": random(WIDE, WIDE, seed=2), "small": np.array(1e-3, np.float32)}
    onnx.save(model(UNEVEN.replace("64", str(WIDE)), opset=21, **weights), path)
    return path


def test_small_is_the_least_error_in_the_bytes_of_four_bits_everywhere(wide, tmp_path) -> None:
    plain = compress(wide, tmp_path / "plain.onnx", preset="small", bits=4)
    report = compress(wide, tmp_path / "small.onnx", preset="small")
    assert plain.search is None
    assert report.search is not None
    assert report.search.goal.plain_bytes
    assert report.output.bytes <= plain.output.bytes
    bits = report.search.choice.bits
    assert bits["v"] < 4 < bits["w"]
    x = random(100, WIDE, seed=6)
    exact, best, same = (run(path, x=x)[0] for path in (wide, tmp_path / "small.onnx", tmp_path / "plain.onnx"))
    assert np.linalg.norm(best - exact) < np.linalg.norm(same - exact)


def test_where_no_bits_do_better_small_has_the_same_everywhere(tmp_path) -> None:
    path = tmp_path / "one.onnx"
    text = f"g (float[m, {WIDE}] x) => (float[m, {WIDE}] y) {{ y = MatMul(x, w) }}"
    onnx.save(model(text, opset=21, w=random(WIDE, WIDE, seed=1)), path)
    report = compress(path, tmp_path / "small.onnx", preset="small")
    assert report.search is not None
    assert report.search.choice.bits == {"w": 4}


@pytest.mark.parametrize("met", [True, False])
def test_a_choice_that_errs_more_than_four_bits_everywhere_gives_way_to_them(wide, tmp_path, monkeypatch, met) -> None:
    monkeypatch.setattr(search, "within_bytes", lambda curve, *_: (curve.point(len(curve.bytes) - 1), met))
    report = compress(wide, tmp_path / "small.onnx", preset="small")
    assert report.search is not None
    assert report.search.met
    assert report.search.choice.bits == {"w": 4, "v": 4}


def test_a_model_that_decodes_token_by_token_gets_the_widths_that_its_kernels_have(tmp_path) -> None:
    report = compress(FIXTURES / "gpt2_optimum.onnx", tmp_path / "out.onnx")
    found = report.search
    assert found is not None
    assert found.met
    assert found.error <= DEFAULT_DROP
    assert found.measured == len(found.curve.weights) > 3
    taken = {each.name: each.bits for entry in report.passes for each in entry.tensors if each.lowering == "packed"}
    assert {name: taken[name] for name in found.choice.bits} == found.choice.bits
    assert {2, 4, 5, 6, 7, 8} in [set(weight.bytes) for weight in found.curve.weights]
    assert not any("6-bit" in note for note in report.notes)


def test_what_matters_less_gets_fewer_bits(source, tmp_path) -> None:
    feeds = [{"x": random(40, K, seed=4)}]
    found = measure_sensitivity(files.read(source), Options(block_size=8), feeds, tmp_path / "s.onnx", seconds=60)
    assert found.measured == 2
    errors = {entry.name: entry.error for entry in found.curve.weights}
    assert errors["v"][4] < 1e-4 * errors["w"][4]
    bits = found.curve.within_error(0.05**2).bits
    assert bits["v"] == 2
    assert bits["w"] >= 5


def test_draws_of_one_kind_are_judged_together() -> None:
    """Four feeds of two kinds: the worst draw is not the error, the worse kind is."""
    error = OutputError("values", error=0.5, worst=1, by_feed=(0.3, 0.5, 0.3, 0.1))
    assert _by_kind(error, 2).error == pytest.approx(math.sqrt((0.5**2 + 0.1**2) / 2))
    assert _by_kind(error, 4).error == 0.5
    assert _by_kind(OutputError("exact", same=1.0), 2).error is None


def test_without_time_weights_are_taken_to_be_like_the_first(source, tmp_path, monkeypatch) -> None:
    # A clock that stands still stops nothing: what is run was counted beforehand.
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    feeds = [{"x": random(40, K, seed=4)}]
    found = measure_sensitivity(files.read(source), Options(block_size=8), feeds, tmp_path / "s.onnx", seconds=0)
    assert [entry.measured for entry in found.curve.weights] == [True, False]
    first, second = found.curve.weights
    assert second.error[4] == pytest.approx(first.error[4], rel=0.2)


def test_compress_meets_its_goals(source, tmp_path) -> None:
    feeds = tmp_path / "feeds.npz"
    np.savez(feeds, x=random(200, K, seed=5))
    x = random(100, K, seed=6)
    (exact,) = run(source, x=x)
    report = compress(source, tmp_path / "drop.onnx", max_drop=0.05)
    assert report.search is not None
    assert report.search.met
    assert report.search.error <= 0.05
    (answer,) = run(tmp_path / "drop.onnx", x=x)
    assert output_error("y", [exact], [answer], [{}]).error < 0.06
    tensors = {t.name: t.bits for entry in report.passes for t in entry.tensors if t.bits}
    assert tensors == dict(report.search.choice.bits)
    size = compress(source, tmp_path / "size.onnx", target_bytes=report.output.bytes - 300, feeds=feeds)
    assert size.output.bytes <= report.output.bytes - 300
    assert size.search is not None
    assert size.search.to_dict()["weights"][0].keys() >= {"name", "bits", "bytes", "errors"}
    picture = tmp_path / "curve.png"
    plot(size.search, picture)
    assert picture.stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.onnx", "drop.onnx", "size.onnx", "feeds.npz", "curve.png"
    }  # fmt: skip


def test_goals_that_cannot_be_met_are_said(source, tmp_path) -> None:
    report = compress(source, tmp_path / "out.onnx", target_ratio=1000)
    assert report.search is not None
    assert not report.search.met
    assert any("more than the goal" in note for note in report.notes)


@pytest.mark.parametrize("options", [{"bits": 4}, {"verify": False}, {"target_ratio": 4.0}])
def test_goals_that_go_with_nothing_else_are_refused(source, tmp_path, options) -> None:
    with pytest.raises(BctError):
        compress(source, tmp_path / "out.onnx", max_drop=0.1, **options)


@pytest.fixture
def wild_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make seconds of any length, forwards all the same."""
    rng, now = np.random.default_rng(9), [0.0]

    def clock() -> float:
        now[0] += float(rng.exponential(3.0))
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)


@pytest.mark.parametrize("goal", [{}, {"max_drop": 0.05}, {"target_ratio": 4.0}])
def test_neither_clock_nor_workers_change_the_file(
    source: Path, tmp_path: Path, goal: dict[str, float], request: pytest.FixtureRequest
) -> None:
    first = compress(source, tmp_path / "a.onnx", **goal)
    request.getfixturevalue("wild_clock")
    for name, preset in PRESETS.items():
        request.getfixturevalue("monkeypatch").setitem(PRESETS, name, replace(preset, workers=1))
    second = compress(source, tmp_path / "b.onnx", **goal)
    assert first.search is not None
    assert first.search.measured == 2
    assert first.output.sha256 == second.output.sha256


@pytest.mark.usefixtures("wild_clock")
def test_a_search_that_takes_much_too_long_is_stopped_and_says_so(source, tmp_path) -> None:
    report = compress(source, tmp_path / "out.onnx", search_seconds=0.01, target_ratio=4.0)
    assert report.search is not None
    assert report.search.measured == 1
    assert any("another run may give another file" in note for note in report.notes)


def test_codes_are_made_once() -> None:
    made: list[int] = []

    def coder(values, fmt, activation, workers):
        made.append(fmt.bits)
        return plain_codes(values, fmt, activation, workers)

    code, w, v = memoized(coder), random(K, K, seed=1), random(K, K, seed=2)
    for matrix, bits in ((w, 4), (w.copy(), 4), (v, 4), (w, 5), (v, 4)):
        tensor = code(matrix, BlockFormat.shifted(bits, 8), "x", 1)
        np.testing.assert_array_equal(tensor.codes, encode(matrix, BlockFormat.shifted(bits, 8)).codes)
    assert made == [4, 4, 5]


def test_the_default_is_searched_and_gives_way(wide, tmp_path) -> None:
    report = compress(wide, tmp_path / "default.onnx")
    assert report.search is not None
    assert not report.search.goal.asked
    assert report.search.error <= DEFAULT_DROP
    six = compress(wide, tmp_path / "six.onnx", bits=6)
    assert six.search is None
    assert report.output.bytes < six.output.bytes
    for number, options in enumerate(
        ({"preset": "fast"}, {"preset": "small", "bits": 4}, {"lowering": "packed"}, {"verify": False})
    ):
        assert compress(wide, tmp_path / f"{number}.onnx", **options).search is None
