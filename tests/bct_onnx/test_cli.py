"""The command line: exit codes, one line for every error, tables or silence, the report as JSON."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from bct_onnx import __version__, cli, command
from tests.helpers import MLP, K, entries, model, random


def lines(text: str) -> list[str]:
    """Return the lines of a table without its frame and the blanks at their ends."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_tables(run, source, tmp_path):
    target = tmp_path / "out.onnx"
    code, out, err = run(source, target)
    assert (code, err) == (0, "")
    shown = lines(out)
    size, written = source.stat().st_size, target.stat().st_size
    assert shown[0] == f" input   {source}  {size / 1e3:.2f} kB"
    assert shown[1] == f" output  {target}  {written / 1e3:.2f} kB  {size / written:.2f}x smaller"
    assert re.fullmatch(r" preset  balanced: [2-8](- to [2-8])?-bit codes, blocks of 8, dense", shown[2])
    assert re.fullmatch(r" needs   ONNX Runtime \d+\.\d+\.\d+ or newer \(opset 21\)", shown[3])
    assert shown[4] == "Passes"
    assert re.match(r"│ matmul +│ +2 │ +0 │ +32\.77 kB │ +[56]\.\d\d kB │ +\d\.\d\d │", shown[8])
    assert "Verified on 5 feeds in ONNX Runtime" in shown
    assert any(re.match(r"│ y +│ +0\.0[\d]+ │ values │ +│ +[\d.]+ │ x \[\d+, 64\] +│", line) for line in shown)
    assert re.search(r"[\d.]+ ms before, [\d.]+ ms after: [\d.]+x as fast \(x \[\d+, 64\]\)", shown[-1])


def test_quiet_prints_nothing(run, source, tmp_path):
    assert run(source, tmp_path / "out.onnx", "--quiet") == (0, "", "")
    assert (tmp_path / "out.onnx").exists()


def test_notes_are_shown(run, source, tmp_path):
    _, out, _ = run(source, tmp_path / "out.onnx", "--lowering", "packed", "--bits", "3")
    assert "note: packed has no 3-bit codes: 4 bits are used" in out


def test_without_verification_nothing_is_said_of_it(run, source, tmp_path):
    code, out, _ = run(source, tmp_path / "out.onnx", "--no-verify")
    assert code == 0
    assert "Verified" not in out


def test_json(run, source, tmp_path):
    code, _, _ = run(
        source,
        tmp_path / "out.onnx",
        "--json",
        tmp_path / "report.json",
        "--quiet",
        "--keep",
        "^v$",
        "--bits",
        "6",
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0
    assert {
        "input", "output", "ratio", "preset", "options", "notes", "passes", "tensors", "verification",
    } <= set(report)  # fmt: skip
    assert report["input"]["path"] == str(source)
    assert set(report["output"]) >= {"path", "bytes", "sha256", "opset", "ir_version", "min_onnxruntime"}
    assert report["ratio"] == pytest.approx(report["input"]["bytes"] / report["output"]["bytes"])
    assert report["options"]["bits"] == 6
    assert report["options"]["keep"] == ["^v$"]
    matmul = next(entry for entry in report["passes"] if entry["name"] == "matmul")
    assert matmul["replaced"] == 1
    assert [skipped["reason"] for skipped in matmul["skipped"]] == ["kept by the pattern '^v$'"]
    tensor = next(tensor for tensor in report["tensors"] if tensor["name"] == "w")
    assert {key: tensor[key] for key in ("shape", "bits", "block_size", "lowering", "bytes_before")} == {
        "shape": [64, 64], "bits": 6, "block_size": 8, "lowering": "dense", "bytes_before": 16384,
    }  # fmt: skip
    assert 25 < tensor["sqnr_db"] < 40
    assert set(report["verification"]["outputs"]["y"]) == {
        *("kind", "error", "bound", "worst", "mean", "by_feed", "max_abs", "relative", "spread")
    }
    assert report["verification"]["mismatches"] == []
    assert set(report["verification"]["latency"]) == {"shapes", "reference", "compressed"}


def test_the_table_of_chosen_bits(run, source, tmp_path):
    code, out, _ = run(source, tmp_path / "out.onnx", "--max-drop", "0.1", "--plot", tmp_path / "curve.svg")
    assert code == 0
    shown = lines(out)
    assert re.fullmatch(r" preset  balanced: [2-8](- to [2-8])?-bit codes, blocks of 8, dense", shown[2])
    assert "Bits chosen by measurement" in shown
    text = " ".join(out.split())
    assert re.search(r"error of the outputs: 0\.\d+ expected from the weights, 0\.\d+ measured; 2 of 2", text)
    assert "</svg>" in (tmp_path / "curve.svg").read_text()


def test_json_holds_no_number_that_json_has_not(run, tmp_path):
    """A weight of zeros loses nothing: its ratio of signal to noise is no number."""
    onnx.save(model(MLP, w=random(K, K), v=np.zeros((K, K), np.float32)), tmp_path / "in.onnx")
    code, _, err = run(tmp_path / "in.onnx", tmp_path / "out.onnx", "--json", tmp_path / "report.json", "--quiet")
    assert (code, err) == (0, "")
    text = (tmp_path / "report.json").read_text()
    assert not re.search(r"\b(NaN|-?Infinity)\b", text)
    assert [tensor["sqnr_db"] for tensor in json.loads(text)["tensors"] if tensor["name"] == "v"] == [None]


def test_a_result_that_does_not_pass_ends_with_1(run, source, tmp_path):
    target = tmp_path / "out.onnx"
    target.write_bytes(b"older")
    code, out, err = run(source, target, "--max-rel-error", "1e-9", "--json", tmp_path / "report.json")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"error: output 'y': errs by [\d.]+ of its spread, above 1e-09 \(on x \[\d+, 64\]\); w, v in float"
        r" \(32,768 bytes\) mend it: --keep '\^w\$' --keep '\^v\$'\n",
        err,
    )
    assert target.read_bytes() == b"older"
    assert entries(tmp_path) == {"in.onnx", "out.onnx"}


def broken(folder: Path) -> dict[str, Path]:
    """Write inputs that are none, by what is wrong with them."""
    paths = {name: folder / f"{name}.onnx" for name in ("text", "empty", "cut", "custom", "unloadable", "external")}
    paths["text"].write_text("this is no model, whatever its name says\n")
    paths["empty"].write_bytes(b"")
    whole = model(MLP, w=random(K, K), v=random(K, K)).SerializeToString()
    paths["cut"].write_bytes(whole[: len(whole) // 2])
    custom = model(MLP, w=random(K, K), v=random(K, K))
    custom.graph.node[1].op_type, custom.graph.node[1].domain = "Unheard", "of.someone"
    custom.opset_import.append(helper.make_opsetid("of.someone", 1))
    onnx.save(custom, paths["custom"])
    onnx.save(model(MLP, w=random(K, K), v=random(32, K)), paths["unloadable"])
    external = model(MLP, w=random(K, K), v=random(K, K))
    onnx.save(external, paths["external"], save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    paths["missing"] = folder / "missing.onnx"
    paths["folder"] = folder / "folder.onnx"
    paths["folder"].mkdir()
    return paths


BROKEN = {
    "text": r"{path}: is not an ONNX model or is damaged \(.*\); export or download it again",
    "empty": r"{path}: is empty; export or download the model again",
    "cut": r"{path}: is not an ONNX model or is damaged \(.*\); export or download it again",
    "custom": r"{path}: ONNX Runtime does not load the model: .*Unheard.*",
    "unloadable": r"{path}: (ONNX Runtime does not load the model: |no feed made for the model runs; ).*",
    "external": r"{path}: tensor 'w' is in .*weights\.bin, which does not exist; put the external data .*",
    "missing": r"{path}: cannot be read: No such file or directory",
    "folder": r"{path}: holds neither ONNX files nor the config\.json of a checkpoint; name another folder",
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("more", [(), ("--no-verify",)], ids=["verified", "not verified"])
def test_bad_inputs_end_with_2_and_one_line(run, tmp_path, what, more):
    path = broken(tmp_path)[what]
    before = entries(tmp_path)
    code, out, err = run(path, tmp_path / "out.onnx", *more)
    assert (code, out) == (2, "")
    assert re.fullmatch("error: " + BROKEN[what].format(path=re.escape(str(path))) + "\n", err)
    assert entries(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lowering", "packed", "--block-size", "8"],
            "packed weights take a block size of 16, 32, 64, 128 or 256, not 8",
        ),
        (["--block-size", "12"], "block size must be a multiple of 8, or 0 for a whole column, not 12"),
        (
            ["--keep", "("],
            "keep pattern '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
    ],
)
def test_impossible_requests_end_with_2_and_one_line(run, source, tmp_path, arguments, message):
    assert run(source, tmp_path / "out.onnx", *arguments) == (2, "", f"error: {message}\n")
    assert entries(tmp_path) == {"in.onnx"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bits", "1"],
        ["--bits", "9"],
        ["--preset", "tiny"],
        ["--lowering", "sparse"],
        ["--max-rel-error", "-1"],
        ["--what"],
    ],
)
def test_options_that_do_not_exist_end_with_2(run, source, tmp_path, arguments):
    code, out, err = run(source, tmp_path / "out.onnx", *arguments)
    assert (code, out) == (2, "")
    assert f"{arguments[0]}" in err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], ["in.onnx"]])
def test_missing_arguments_end_with_2(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert "Missing argument" in err


def test_the_output_is_the_input(run, source, tmp_path):
    before = source.read_bytes()
    assert run(source, source) == (2, "", f"error: {source}: is the input file; name another file to write\n")
    link = tmp_path / "link.onnx"
    link.symlink_to(source)
    assert run(source, link) == (2, "", f"error: {link}: is the input file; name another file to write\n")
    assert source.read_bytes() == before


def test_the_output_is_a_folder(run, source, tmp_path):
    expected = f"error: {tmp_path}: is a folder; name the .onnx file to write\n"
    assert run(source, tmp_path) == (2, "", expected)


def test_the_outputs_folder_does_not_exist(run, source, tmp_path):
    target = tmp_path / "nowhere" / "out.onnx"
    expected = f"error: {target}: the folder {target.parent} does not exist; make it first\n"
    assert run(source, target) == (2, "", expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_the_outputs_folder_cannot_be_written_to(run, source, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    target = folder / "out.onnx"
    assert run(source, target) == (2, "", f"error: {target}: its folder cannot be written to: Permission denied\n")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_place_where_no_file_can_be(run, source):
    code, out, err = run(source, "/proc/out.onnx")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: /proc/out\.onnx: its folder cannot be written to: .*\n", err)


def test_json_into_a_folder_that_does_not_exist_is_refused_before_the_work(run, source, tmp_path):
    report = tmp_path / "nowhere" / "report.json"
    expected = f"error: {report}: the folder {report.parent} does not exist; make it first\n"
    assert run(source, tmp_path / "out.onnx", "--json", report) == (2, "", expected)
    assert entries(tmp_path) == {"in.onnx"}


def test_json_that_is_a_folder_is_refused_before_the_work(run, source, tmp_path):
    (tmp_path / "report").mkdir()
    code, out, err = run(source, tmp_path / "out.onnx", "--json", tmp_path / "report")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'report'}: ")
    assert "out.onnx" not in entries(tmp_path)


@pytest.mark.parametrize("name", ["in.onnx", "out.onnx"])
def test_json_in_place_of_a_model_is_refused(run, source, tmp_path, name):
    """The report would overwrite what it speaks of."""
    before = source.read_bytes()
    code, _, err = run(source, tmp_path / "out.onnx", "--json", tmp_path / name)
    assert code == 2
    assert str(tmp_path / name) in err
    assert source.read_bytes() == before


def test_compressed_already(run, source, tmp_path):
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    run(source, once, "--quiet")
    expected = f"error: {once}: is compressed already; use the original, or --again to go on all the same\n"
    assert run(once, twice, "--quiet") == (2, "", expected)
    assert run(once, twice, "--quiet", "--again") == (0, "", "")


def test_feeds_that_do_not_fit(run, source, tmp_path):
    np.savez(tmp_path / "feeds.npz", z=random(2, K))
    code, out, err = run(source, tmp_path / "out.onnx", "--feeds", tmp_path / "feeds.npz")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {tmp_path / 'feeds.npz'}: ")


def test_a_defect_is_said_in_one_line(run, source, tmp_path, monkeypatch):
    def fail(**_: object) -> None:
        raise RuntimeError("a broken\ninvariant")

    monkeypatch.setattr(command, "compress", fail)
    monkeypatch.delenv(cli.DEBUG, raising=False)
    code, out, err = run(source, tmp_path / "out.onnx")
    expected = "error: a defect of bct_onnx: RuntimeError: a broken invariant (set BCT_DEBUG=1 for the traceback)\n"
    assert (code, out, err) == (2, "", expected)
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(RuntimeError, match="a broken"):
        run(source, tmp_path / "out.onnx")


def test_an_interrupt_ends_with_130(run, source, tmp_path, monkeypatch):
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "compress", interrupt)
    code, out, err = run(source, tmp_path / "out.onnx")
    # The line that ends what the terminal shows of Ctrl-C comes first.
    assert (code, out, err.lstrip("\n")) == (130, "", "error: interrupted; nothing was written\n")


def test_names_that_a_terminal_would_take_for_markup(run, tmp_path):
    path = tmp_path / "[bold]model.onnx"
    onnx.save(model(MLP, w=random(K, K), v=random(K, K)), path)
    code, out, _ = run(path, tmp_path / "[red]out.onnx")
    assert code == 0
    assert str(path) in out
    assert "[red]out.onnx" in out


def test_help_and_version():
    shown = CliRunner().invoke(cli.commands, ["compress", "--help"])
    assert shown.exit_code == 0
    for option in ("--preset", "--bits", "--lowering", "--keep", "--json", "--again", "--max-rel-error", "--quiet"):
        assert option in shown.output
    assert CliRunner().invoke(command.command, ["--version"]).output == f"bct-onnx, version {__version__}\n"


def test_as_a_module(source, tmp_path):
    """One run as people run it: nothing but the tables, and the exit code of the process."""
    command = [sys.executable, "-m", "bct_onnx", str(source), str(tmp_path / "out.onnx"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_model_of_one_type_of_everything(run, tmp_path):
    """A node name, metadata and an output that is a constant go through the whole way."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", K])],
        [numpy_helper.from_array(random(K, K), "w"), numpy_helper.from_array(random(7), "unused")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "in.onnx")
    code, _, err = run(tmp_path / "in.onnx", tmp_path / "out.onnx", "--quiet")
    assert (code, err) == (0, "")
