"""Many models: one that fails stops no other, what is done is not done again, Dask gives the same."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from bct_onnx.errors import BctError
from bct_onnx.many import jobs
from bct_onnx.many.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two models and a file that is none."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    folder = tmp_path / "models"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.onnx", "deep/b.onnx")):
        save(folder / name, seed)
    (folder / "broken.onnx").write_bytes(b"no model")
    return folder


def save(path: Path, seed: int) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64] x) => (float[2, 96] y) { y = MatMul(x, w) }'
    )
    values = np.random.default_rng(seed).standard_normal((64, 96)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    onnx.save(model, path)


def run(*arguments: object) -> tuple[Result, list[tuple[str, str]]]:
    record = Path(str(arguments[1])).parent / "results.json"
    result = CliRunner().invoke(main, ["--json", str(record), *map(str, arguments)])
    found = json.loads(record.read_text()) if record.exists() else []
    return result, [(Path(entry["source"]).name, entry["state"]) for entry in found]


def test_a_folder_is_compressed_and_resumed(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result, states = run(models, out, "--workers", 2, "--", "--preset", "fast")
    assert result.exit_code == 1
    assert states == [("a.onnx", "done"), ("broken.onnx", "failed"), ("b.onnx", "done")]
    assert "2 done, 0 done before, 1 failed" in result.output
    assert (out / "deep" / "b.onnx").exists()
    assert not (out / "broken.onnx").exists()
    before = (out / "a.onnx").stat().st_mtime_ns

    save(models / "broken.onnx", 5)
    save(models / "deep" / "b.onnx", 6)
    result, states = run(models, out, "--", "--preset", "fast")
    assert result.exit_code == 0
    assert states == [("a.onnx", "done before"), ("broken.onnx", "done"), ("b.onnx", "done")]
    assert (out / "a.onnx").stat().st_mtime_ns == before

    (out / "a.onnx").write_bytes(b"damaged")
    assert run(models, out, "--", "--preset", "fast")[1][0] == ("a.onnx", "done")
    assert run(models, out, "--", "--preset", "small")[1][0] == ("a.onnx", "done")


def test_a_list_names_models_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# two\nmodels/a.onnx\n\n  models/deep/b.onnx\n")
    assert [job.target for job in jobs(tmp_path / "list.txt", tmp_path / "out", ())] == [
        tmp_path / "out" / "a.onnx",
        tmp_path / "out" / "b.onnx",
    ]


def test_bad_requests_are_refused_at_once(models: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "twice.txt").write_text("a.onnx\nmodels/a.onnx\n")
    with pytest.raises(BctError, match="names no model"):
        jobs(tmp_path / "empty.txt", tmp_path, ())
    with pytest.raises(BctError, match=r"two models are called a\.onnx"):
        jobs(tmp_path / "twice.txt", tmp_path, ())
    result = CliRunner().invoke(main, [str(models), str(tmp_path / "out"), "--", "--bits", "99"])
    assert result.exit_code == 1
    assert "a.onnx: options: Invalid value for '--bits'" in result.output
    assert not (tmp_path / "out").exists()


FLEET = """
[options]
preset = "fast"

[[models]]
path = "models/a.onnx"

[[models]]
path = "models/a.onnx"
out = "small/a.onnx"
preset = "small"
keep = ["head", "tail"]
no-verify = true
again = false
feeds = "feeds.npz"
"""


def test_a_fleet_file_gives_each_model_options_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    first, second = jobs(tmp_path / "fleet.toml", tmp_path / "out", ("--lowering", "dense"))
    assert first.source == second.source == tmp_path / "models" / "a.onnx"
    assert (first.target, first.options) == (
        tmp_path / "out" / "a.onnx",
        ("--lowering", "dense", "--preset", "fast"),
    )
    assert second.target == tmp_path / "out" / "small" / "a.onnx"
    own = ("--preset", "small", "--keep", "head", "--keep", "tail", "--no-verify")
    assert second.options == (*first.options, *own, "--feeds", str(tmp_path / "feeds.npz"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[options", "is no TOML"),
        ("", "names no model"),
        ("[[model]]\npath = 'a'", "has a table \\[options\\] and tables \\[\\[models\\]\\], and no model"),
        ("[[models]]\nout = 'a'", "model 1 has no path"),
        ("[[models]]\npath = 'a.onnx'\nbit = 4", "'bit' is no option of the command line"),
        ("[[models]]\npath = 'a.onnx'\nbits = 99", "a.onnx: options: Invalid value for '--bits'"),
    ],
)
def test_a_fleet_file_that_says_something_else_is_refused(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(BctError, match=line):
        jobs(tmp_path / "fleet.toml", tmp_path / "out", ())


@pytest.mark.usefixtures("models")
def test_a_folder_in_a_fleet_becomes_a_package_and_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    save(folder / "model.onnx", 3)
    (folder / "config.json").write_text("{}")
    (tmp_path / "fleet.toml").write_text("[[models]]\npath = 'plain'\nout = 'ready'\npreset = 'fast'")
    assert run(tmp_path / "fleet.toml", tmp_path / "out")[1] == [("plain", "done")]
    assert run(tmp_path / "fleet.toml", tmp_path / "out")[1] == [("plain", "done before")]
    (tmp_path / "out" / "ready" / "model.onnx").write_bytes(b"damaged")
    assert run(tmp_path / "fleet.toml", tmp_path / "out")[1] == [("plain", "done")]
    (folder / "config.json").write_text('{"a": 1}')
    assert run(tmp_path / "fleet.toml", tmp_path / "out")[1] == [("plain", "done")]


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_gives_the_same(models: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("dask.distributed", reason="Dask is not installed")
    run(models, tmp_path / "here")
    with distributed.LocalCluster(
        n_workers=2, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        result, states = run(models, tmp_path / "there", "--scheduler", cluster.scheduler_address)
    assert result.exit_code == 1
    assert states == [("a.onnx", "done"), ("broken.onnx", "failed"), ("b.onnx", "done")]
    for name in ("a.onnx", "deep/b.onnx"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
