"""However a run is stopped, the output is the old one or the new one, and never anything between."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.interrupt import BROKEN, campaign, contents

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Have programs that tests start hear interrupts, which what a shell runs in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some megabytes: long enough to be stopped in the middle."""
    nodes = " ".join(f"x{i + 1} = MatMul(x{i}, w{i})" for i in range(8))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[2, 512] x0) => (float[2, 512] x8) {{ {nodes} }}'
    )
    rng = np.random.default_rng(0)
    for i in range(8):
        values = rng.standard_normal((512, 512)).astype(np.float32) / 20
        model.graph.initializer.append(numpy_helper.from_array(values, f"w{i}"))
    path = tmp_path_factory.mktemp("source") / "in.onnx"
    onnx.save(model, path)
    return path


def command(source: Path, target: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "bct_onnx", str(source), str(target), "--quiet", *options]


def test_random_moments_leave_the_output_whole(source: Path, tmp_path: Path) -> None:
    stops = campaign(source, tmp_path, times=6, seed=1, options=["--external-data", "always", "--no-verify"])
    assert [stop.output for stop in stops].count(BROKEN) == 0
    for stop in stops:
        left = [name for name in stop.left if name != "fresh" and not name.startswith(".bct-")]
        assert not left, stop


def test_random_moments_of_a_search_leave_nothing_but_what_the_next_run_removes(source: Path, tmp_path: Path) -> None:
    stops = campaign(source, tmp_path, times=3, seed=2, options=["--target-ratio", "6"])
    assert [stop.output for stop in stops].count(BROKEN) == 0
    known = {"fresh"}
    for stop in stops:
        left = set(stop.left) - known
        assert not left or (stop.signal == signal.SIGKILL.name and all(name.startswith(".bct-") for name in left)), stop
        known |= left


def test_what_takes_no_memory_lies_beside_the_output_and_nowhere_else(source: Path, tmp_path: Path) -> None:
    """Where temporary files go by default there may be little room, or none."""
    where = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv.pop(1); from bct_onnx.cli import main;"
        " sys.argv[0] = 'bct-onnx'; main()"
    )
    missing, target = str(tmp_path / "missing"), tmp_path / "out.onnx"
    arguments = [sys.executable, "-c", code, missing, str(source), str(target), "--quiet"]
    subprocess.run(arguments, cwd=ROOT, check=True, env=where)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_weights_are_encoded_leaves_nothing(
    source: Path, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    process = subprocess.Popen(command(source, target), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".bct-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == exit_code, said
    assert len(said.strip().splitlines()) <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert target.read_bytes() == b"old"


def test_a_signal_in_the_middle_of_a_folder_leaves_the_older_package(source: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("encoder_model.onnx", "text_model.onnx", "vision_model.onnx"):
        shutil.copy(source, folder / name)
    target.mkdir()
    (target / "manifest.json").write_text('{"bct_onnx": "0"}')
    process = subprocess.Popen(command(folder, target, "--no-verify"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".bct-*/out/encoder_model.onnx")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert [path.name for path in target.iterdir()] == ["manifest.json"]


def test_what_a_killed_process_leaves_goes_with_the_next_run(source: Path, tmp_path: Path) -> None:
    abandoned = tmp_path / ".bct-abandoned"
    abandoned.mkdir()
    (abandoned / "out.onnx").write_bytes(b"half")
    os.utime(abandoned, (time.time() - 1000,) * 2)
    young = tmp_path / ".bct-young"
    young.mkdir()
    subprocess.run(command(source, tmp_path / "out.onnx", "--no-verify"), cwd=ROOT, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bct-young", "out.onnx"]


@pytest.mark.parametrize("room", [100_000, 1_000_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_output(source: Path, tmp_path: Path, room: int) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    before = contents(target)
    ended = subprocess.run(
        command(source, target),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert ended.returncode == 2
    assert "cannot be written: File too large" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
