"""The output appears whole or not at all, whatever stops the work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bct_onnx import files
from bct_onnx.errors import BctError
from bct_onnx.files import staging, writer


def model(folder: Path, name: str, value: float = 1.0) -> Path:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[512] x) => (float[512] y) { y = Add(x, w) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.full(512, value, np.float32), "w"))
    onnx.save(proto, folder / name)
    return folder / name


def write(source: Path, target: Path, external_data: files.ExternalData = "always") -> None:
    read = files.read(source)
    with files.staged(target) as stage:
        files.write(read.graph(), read, stage.path, external_data=external_data)
        stage.commit()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weight(path: Path) -> float:
    return float(numpy_helper.to_array(onnx.load(path).graph.initializer[0])[0])


class RefusedError(Exception):
    pass


def interrupt() -> None:
    """Stand for an interrupt at this very place: when Python handles a signal is not for a test to say."""
    raise KeyboardInterrupt


def refuse() -> None:
    raise RefusedError


@pytest.mark.parametrize("external_data", ["auto", "always"])
@pytest.mark.parametrize(("stop", "error"), [(refuse, RefusedError), (interrupt, KeyboardInterrupt), (None, None)])
def test_without_a_commit_nothing_changes(tmp_path, external_data, stop, error):
    write(model(tmp_path, "old.onnx"), tmp_path / "out.onnx")
    source = files.read(model(tmp_path, "new.onnx", 2.0))
    before = contents(tmp_path)

    def work() -> None:
        with files.staged(tmp_path / "out.onnx") as stage:
            files.write(source.graph(), source, stage.path, external_data=external_data)
            assert stage.path.name == "out.onnx"
            if stop:
                stop()

    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    source = files.read(model(tmp_path, "in.onnx"))
    monkeypatch.setattr(writer.os, "fsync", lambda _: interrupt())
    with pytest.raises(KeyboardInterrupt), files.staged(tmp_path / "out.onnx") as stage:
        files.write(source.graph(), source, stage.path)
    assert list(contents(tmp_path)) == ["in.onnx"]


@pytest.mark.parametrize("moment", [1, 2])
def test_an_interrupted_commit_leaves_the_old_pair(tmp_path, monkeypatch, moment):
    old, new = model(tmp_path, "old.onnx"), model(tmp_path, "new.onnx", 2.0)
    write(old, tmp_path / "out.onnx")
    before = contents(tmp_path)
    replace, calls = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == moment:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(new, tmp_path / "out.onnx")
    assert len(calls) == moment
    assert contents(tmp_path) == before


def test_an_interrupt_right_after_the_switch_leaves_the_new_pair(tmp_path, monkeypatch):
    write(model(tmp_path, "old.onnx"), tmp_path / "out.onnx")
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        replace(self, target)
        if target.name == "out.onnx":
            raise KeyboardInterrupt
        return target

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(model(tmp_path, "new.onnx", 2.0), tmp_path / "out.onnx")
    assert weight(tmp_path / "out.onnx") == 2.0


def test_a_killed_process_leaves_the_old_pair(tmp_path):
    write(model(tmp_path, "old.onnx"), tmp_path / "out.onnx")
    before = {name: content for name, content in contents(tmp_path).items() if name.startswith("out")}
    new = model(tmp_path, "new.onnx", 2.0)
    script = (
        "import os, signal, sys; from pathlib import Path; from bct_onnx import files\n"
        "source = files.read(Path(sys.argv[1]))\n"
        "with files.staged(Path(sys.argv[2])) as stage:\n"
        "    files.write(source.graph(), source, stage.path, external_data='always')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = os.pathsep.join([str(Path(files.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, new, tmp_path / "out.onnx"],
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in tmp_path.glob("out*")} == before


def test_a_new_pair_replaces_the_old_pair(tmp_path):
    write(model(tmp_path, "one.onnx", 1.0), tmp_path / "out.onnx")
    (old,) = tmp_path.glob("out.onnx.*.data")
    write(model(tmp_path, "two.onnx", 2.0), tmp_path / "out.onnx")
    (new,) = tmp_path.glob("out.onnx.*.data")
    assert old != new
    assert weight(tmp_path / "out.onnx") == 2.0
    write(tmp_path / "two.onnx", tmp_path / "out.onnx")  # the same content again keeps its data
    assert list(tmp_path.glob("out.onnx.*.data")) == [new]
    assert weight(tmp_path / "out.onnx") == 2.0
    write(tmp_path / "one.onnx", tmp_path / "out.onnx", "auto")
    assert sorted(contents(tmp_path)) == ["one.onnx", "out.onnx", "two.onnx"]


def test_data_that_the_replaced_model_does_not_read_is_left_alone(tmp_path):
    write(model(tmp_path, "one.onnx"), tmp_path / "out.onnx")
    (tmp_path / "out.onnx").rename(tmp_path / "kept.onnx")
    write(model(tmp_path, "two.onnx", 2.0), tmp_path / "out.onnx")
    assert weight(tmp_path / "kept.onnx") == 1.0
    assert weight(tmp_path / "out.onnx") == 2.0


def refusal(source: Path, target: Path) -> str:
    with pytest.raises(BctError) as caught:
        files.check_target(source, target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_targets_that_cannot_be_are_refused_before_the_work(tmp_path):
    source = model(tmp_path, "in.onnx")
    (tmp_path / "soft.onnx").symlink_to("in.onnx")
    (tmp_path / "hard.onnx").hardlink_to(source)
    for same in ("in.onnx", "soft.onnx", "hard.onnx", "../" + tmp_path.name + "/in.onnx"):
        assert "is the input file" in refusal(source, tmp_path / same)
    assert "is a folder" in refusal(source, tmp_path)
    assert "does not exist; make it first" in refusal(source, tmp_path / "absent" / "out.onnx")
    assert "does not exist; make it first" in refusal(source, source / "out.onnx")
    assert "not a regular file" in refusal(source, Path("/dev/null"))
    assert "File name too long" in refusal(source, tmp_path / ("n" * 300))
    before = contents(tmp_path)
    files.check_target(source, tmp_path / "out.onnx")
    assert contents(tmp_path) == before


def test_the_external_data_of_the_input_is_no_target(tmp_path):
    write(model(tmp_path, "in.onnx"), tmp_path / "pair.onnx")
    (data,) = tmp_path.glob("pair.onnx.*.data")
    assert "shares the external data" in refusal(tmp_path / "pair.onnx", data)
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "pair.onnx").read_bytes())
    assert "shares the external data" in refusal(tmp_path / "copy.onnx", tmp_path / "pair.onnx")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    source = model(tmp_path, "in.onnx")
    monkeypatch.setattr(staging.tempfile, "TemporaryDirectory", denied)
    assert "cannot be written to: Permission denied" in refusal(source, tmp_path / "out.onnx")


def test_errors_name_the_target_and_not_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for target in (Path("out.onnx"), tmp_path / "out.onnx"):
        with pytest.raises(BctError) as caught, files.staged(target) as stage:
            raise BctError(f"{stage.path}: no; {stage.path.absolute()}: no; {stage.path}.0.data: neither")
        assert str(caught.value) == f"{target}: no; {target}: no; {target}.0.data: neither"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    source = files.read(model(tmp_path, "in.onnx"))
    monkeypatch.setattr(writer.os, "fsync", full)
    with pytest.raises(BctError, match="No space left"), files.staged(tmp_path / "out.onnx") as stage:
        files.write(source.graph(), source, stage.path)
    assert list(contents(tmp_path)) == ["in.onnx"]


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    files.write_text(path, "old \N{SNOWMAN}")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", fail)
        with pytest.raises(BctError, match=r"report\.json: cannot be written: No space left on device"):
            files.write_text(path, "new")
    assert contents(tmp_path) == {"report.json": "old \N{SNOWMAN}".encode()}
    files.write_text(path, "new")
    assert contents(tmp_path) == {"report.json": b"new"}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_links_and_pipes_are_written_to_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("old")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    files.write_text(Path(os.devnull), "nothing")
    assert not Path(os.devnull).is_file()
