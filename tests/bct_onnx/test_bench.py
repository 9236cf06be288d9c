"""The benchmark: feeds that fit, honest memory figures, turns, ratios, peers, and the command line."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result

from bct_onnx.bench import peers, turns
from bct_onnx.bench.__main__ import main
from bct_onnx.bench.records import Candidate, Comparison, Row, Skipped, Spread
from bct_onnx.bench.records import Result as Figures
from bct_onnx.bench.report import as_data
from bct_onnx.bench.workloads import Signature, Workload, parse
from bct_onnx.errors import BctError
from bct_onnx.sessions import load_in_fresh_process
from models import shapes

TINY: dict[str, Any] = {
    "layers": 2,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 4,
    "intermediate": 48,
    "vocabulary": 61,
}
ONE_CALL = turns.Timing(threads=1, rounds=2, seconds=0.0)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "bert.onnx"
    shapes.write("bert-base", path, **TINY, positions=130)
    return path


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2") / "gpt2.onnx"
    shapes.write("gpt2", path, **TINY, positions=200)
    return path


def text_model(path: Path, text: str) -> Path:
    header = '<ir_version: 8, opset_import: ["" : 17]>'
    onnx.save(onnx.parser.parse_model(f"{header} agraph {text}"), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("text", "workloads"),
    [
        ("1x16,8x128", [Workload(1, 16), Workload(8, 128)]),
        ("1x1+128", [Workload(1, 1, 128)]),
        ("1, 8", [Workload(1), Workload(8)]),
    ],
)
def test_parse(text: str, workloads: list[Workload]) -> None:
    assert parse(text) == workloads


@pytest.mark.parametrize("text", ["", "x16", "0x4", "1x16,", "1*16", "1x16+"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(BctError, match="write BATCHxTOKENS"):
        parse(text)


def test_encoder_feeds(bert: Path) -> None:
    signature = Signature.read(bert)
    assert [w.label for w in signature.default_workloads()] == ["1x16", "1x128", "8x128"]
    feeds = signature.feeds(Workload(3, 100))
    assert {name: np.shape(value) for name, value in feeds.items()} == dict.fromkeys(feeds, (3, 100))
    assert np.all(feeds["attention_mask"] == 1)
    assert 2 < np.max(feeds["input_ids"]) < 61
    again = signature.feeds(Workload(3, 100))
    np.testing.assert_array_equal(again["input_ids"], feeds["input_ids"])


def test_decoder_feeds(gpt2: Path) -> None:
    signature = Signature.read(gpt2)
    assert [w.label for w in signature.default_workloads()] == ["1x128", "1x1+128"]
    feeds = signature.feeds(Workload(2, 1, 7))
    assert np.shape(feeds["past_key_values.1.value"]) == (2, 4, 7, 8)
    assert np.shape(feeds["attention_mask"]) == (2, 8)
    assert np.all(feeds["attention_mask"] == 1)
    np.testing.assert_array_equal(feeds["position_ids"], [[7], [7]])


def test_picture_and_fixed_feeds(tmp_path: Path) -> None:
    picture = text_model(tmp_path / "p.onnx", "(float[batch, 3, 8, 8] x) => (float[batch, 3, 8, 8] y) { y = Relu(x) }")
    signature = Signature.read(picture)
    assert [w.label for w in signature.default_workloads()] == ["batch 1", "batch 8"]
    assert np.shape(signature.feeds(Workload(8))["x"]) == (8, 3, 8, 8)
    fixed = text_model(
        tmp_path / "f.onnx",
        "(int64[1, 5] ids) => (float[1, 5, 2] y) <float[9, 2] t = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}>"
        "{ y = Gather(t, ids) }",
    )
    assert Signature.read(fixed).default_workloads() == [Workload(1, 5)]


def test_peak_memory_is_that_of_the_child(bert: Path) -> None:
    ballast = np.ones(50_000_000)  # 400 MB that a forked process would start with
    empty = load_in_fresh_process("-", 1)
    loaded = load_in_fresh_process(bert, 1)
    assert 10e6 < empty.peak_bytes < loaded.peak_bytes < 0.5 * ballast.nbytes
    assert 0 <= empty.seconds < loaded.seconds


def test_load_failure_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BctError, match=r"broken.onnx: does not load in ONNX Runtime [^\n]+$"):
        load_in_fresh_process(path, 1)


def test_turns_are_interleaved_and_failures_listed(bert: Path, tmp_path: Path) -> None:
    other = text_model(tmp_path / "other.onnx", "(float[n] x) => (float[n] y) { y = Relu(x) }")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(bert.read_bytes())
    paths = {"float": bert, "twin": twin, "broken": broken, "other": other}
    candidates = [Candidate(n, p, "float" if n == "float" else "given", "given") for n, p in paths.items()]
    heard: list[str] = []
    comparison = turns.Benchmark(candidates, ONE_CALL, heard.append).compare([Workload(1, 4)])
    order = [line.rpartition(": ")[2] for line in heard if "round" in line]
    assert order == ["float", "twin", "float", "twin"]
    assert [row.candidate.name for row in comparison.rows] == ["float", "twin", "other"]
    assert [skipped.name for skipped in comparison.skipped] == ["broken", "other"]
    twin_row, other_row = comparison.rows[1:]
    assert twin_row.results["1x4"].error == 0
    assert twin_row.results["1x4"].latency.count == 2
    assert twin_row.file_bytes == bert.stat().st_size
    assert comparison.to_float(other_row, "1x4") is None


def test_cpu_clock(bert: Path) -> None:
    timing = turns.Timing(threads=1, rounds=2, seconds=0.05, clock="cpu")
    comparison = turns.Benchmark([Candidate("float", bert, "float", "given")], timing).compare([Workload(8, 128)])
    spread = comparison.rows[0].results["8x128"].latency
    assert comparison.environment["clock"] == "cpu"
    assert 0 < spread.minimum * spread.count < 1.0


def test_float_model_that_does_not_run(bert: Path) -> None:
    candidates = [Candidate("float", bert, "float", "given")]
    with pytest.raises(BctError, match=r"bert.onnx: at 1x131: .*"):
        turns.Benchmark(candidates, ONE_CALL).compare([Workload(1, 131)])


def test_error_is_relative_to_float(tmp_path: Path) -> None:
    signature = "(float[batch, 3, 2, 2] x) => (float[batch, 3, 2, 2] y)"
    paths = [
        text_model(tmp_path / f"{k}.onnx", f"{signature} <float k = {{{k}}}> {{ y = Mul(x, k) }}") for k in (2.0, 2.5)
    ]
    candidates = [Candidate(p.stem, p, "given", "given") for p in paths]
    row = turns.Benchmark(candidates, ONE_CALL).compare([Workload(1)]).rows[1]
    assert row.results["batch 1"].error == pytest.approx(0.25)


def test_one_session_at_a_time_when_memory_demands(bert: Path, gpt2: Path) -> None:
    one, two = (Candidate(p.stem, p, "given", "given") for p in (bert, gpt2))
    kept, single = turns.Sessions(1, side_by_side=True), turns.Sessions(1, side_by_side=False)
    first = kept.get(one), single.get(one)
    kept.get(two), single.get(two)
    assert kept.get(one) is first[0]
    assert single.get(one) is not first[1]


def row(name: str, kind: Any, size: int, seconds: float) -> Row:
    spread = Spread(seconds, 2 * seconds, 3)
    return Row(Candidate(name, Path(name), kind, "given"), size, spread, 10, {"1x16": Figures(spread, 0.5)})


def test_ratios() -> None:
    rows = [row("float", "float", 800, 8.0), row("p", "peer", 200, 4.0), row("q", "peer", 400, 3.0)]
    ours, alien = row("a", "ours", 100, 2.0), row("b", "given", 50, 1.0)
    comparison = Comparison({}, ["1x16"], 5, [*rows, ours, alien], [])
    assert comparison.to_float(ours, "1x16") == 4.0
    assert comparison.to_best_peer(ours, "1x16") == 1.5
    assert comparison.smaller_than_float(ours) == 8.0
    assert comparison.smaller_than_best_peer(ours) == 2.0
    data = as_data(comparison)["rows"][3]
    assert data["faster_than_best_peer"] == {"1x16": 1.5}
    assert data["results"]["1x16"]["latency"] == {"minimum": 2.0, "median": 4.0, "count": 3}


@pytest.mark.filterwarnings("ignore")  # other tools' own
@pytest.mark.parametrize(
    ("step", "operator"),
    [
        (peers.quantize_dynamic, "DynamicQuantizeLinear"),
        (partial(peers.quantize_nbits, block=16), "MatMulNBits"),
        (peers.optimize, "SkipLayerNormalization"),
    ],
)
def test_peers(step: peers.Step, operator: str, bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    pytest.importorskip("sympy")
    target = tmp_path / "made.onnx"
    step(bert, target)
    assert operator in {node.op_type for node in onnx.load(target).graph.node}
    assert [p.name for p in tmp_path.iterdir()] == ["made.onnx"]
    load_in_fresh_process(target, 1)


def test_recipes_that_fail_are_skipped_with_their_followers(bert: Path, tmp_path: Path) -> None:
    recipes = [
        peers.Recipe("fails", partial(peers.quantize_nbits, blocks=1)),  # type: ignore[call-arg]
        peers.Recipe("follows", peers.quantize_dynamic, bases=("fails",)),
        peers.Recipe("falls back", peers.quantize_dynamic, bases=("fails", "float")),
    ]
    heard: list[str] = []
    fails, follows, made = peers.make_all(bert, recipes, tmp_path, heard.append)
    assert isinstance(fails, Skipped)
    assert fails.reason.endswith("got an unexpected keyword argument 'blocks'")
    assert follows == Skipped("follows", "fails was skipped")
    assert isinstance(made, Candidate)
    assert (made.path, made.how) == (
        tmp_path / "falls_back.onnx",
        "of the float model, by quantize_dynamic()",
    )
    assert made.made is not None
    assert made.made.seconds > 0
    assert heard == ["make fails", "make falls back"]


def test_packages_that_are_not_installed_are_named(bert: Path, tmp_path: Path) -> None:
    recipe = peers.Recipe("absent", peers.quantize_dynamic, needs=("numpy", "no_such_package", "nor_this"))
    made = list(peers.make_all(bert, [recipe], tmp_path, lambda _: None))
    assert made == [Skipped("absent", "not installed: pip install no_such_package nor_this")]


def test_openvino_takes_turns_in_a_process_of_its_own(bert: Path, tmp_path: Path) -> None:
    """It answers as ONNX Runtime does, but for bf16 where the processor has that; what does not load is listed."""
    pytest.importorskip("openvino")
    recipe = next(recipe for recipe in peers.OTHER_RUNTIMES if recipe.name == "OpenVINO")
    made = list(peers.make_all(bert, [recipe], tmp_path, lambda _: None))
    assert isinstance(made[0], Candidate)
    broken = tmp_path / "broken.xml"
    broken.write_text("no model")
    others = [made[0], Candidate("broken", broken, "given", "given", runtime="openvino")]
    candidates = [Candidate("float", bert, "float", "given"), *others]
    comparison = turns.Benchmark(candidates, ONE_CALL).compare([Workload(2, 5)])
    assert "Exception from" not in comparison.skipped[0].reason
    base, row = comparison.rows
    assert row.file_bytes > base.file_bytes / 2
    assert 0 < row.results["2x5"].error < 0.05
    assert row.results["2x5"].latency.count == 2
    assert row.load_peak_bytes > comparison.baseline_bytes
    assert [skipped.name for skipped in comparison.skipped] == ["broken"]


def test_ctranslate2_asks_for_a_checkpoint(bert: Path, tmp_path: Path) -> None:
    recipe = replace(peers.FROM_CHECKPOINTS[0], needs=())
    (made,) = peers.make_all(bert, [recipe], tmp_path, lambda _: None)
    assert isinstance(made, Skipped)
    assert made.reason == f"it converts checkpoints: neither model.safetensors nor pytorch_model.bin beside {bert.name}"


def test_presets() -> None:
    assert [recipe.name for recipe in peers.ours("fast, small")] == ["bct_onnx fast", "bct_onnx small"]
    assert peers.ours("") == ()


def test_command_line(bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(bert.read_bytes())
    data, picture = tmp_path / "out.json", tmp_path / "out.png"
    options = ["--shapes", "1x4,2x3", "--rounds", "1", "--seconds", "0", "--threads", "1"]
    result = run(bert, twin, *options, "--json", data, "--plot", picture)
    assert result.exit_code == 0, result.output
    assert "x float" in result.stdout
    assert "x peer" not in result.stdout.split("minimum (median)")[0]
    found = json.loads(data.read_text())
    assert found["workloads"] == ["1x4", "2x3"]
    assert [(r["name"], r["path"], r["smaller_than_float"]) for r in found["rows"]] == [
        ("float", "bert.onnx", 1.0),
        ("twin", "twin.onnx", 1.0),
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bad_requests_end_with_one_line_and_code_2(bert: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    for arguments in ((bert, "--shapes", "big"), (broken,)):
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stderr.strip().rpartition("\n")[2].startswith("error: ")


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "bct_onnx.bench", "--help"]
    root = Path(__file__).parents[2]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert "FLOAT.onnx [CANDIDATE.onnx]..." in text
