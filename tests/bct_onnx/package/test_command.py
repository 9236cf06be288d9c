"""The command line on folders: the default command, dry runs, tables, exit codes."""

import json
import sys

from bct_onnx.cli import COMMANDS, commands
from bct_onnx.package.export import exporter_is_installed
from tests.helpers import entries


def test_a_folder_becomes_a_package_that_verifies(run, write, tmp_path):
    source, target = write("encoder_model.onnx", "decoder_model_merged.onnx", "decoder_model.onnx"), tmp_path / "out"
    code, out, err = run(source, target, "--preset", "fast", "--preset-for", "dec*=small", "--json", tmp_path / "j")
    assert (code, err) == (0, "")
    assert "│ decoder_model_merged.onnx │ small  │ 32.94 kB to " in out
    assert "│ encoder_model.onnx        │ fast   │ 32.94 kB to " in out
    assert "left out: decoder_model.onnx (decoder_model_merged.onnx holds it too)" in out
    data = json.loads((tmp_path / "j").read_text())
    assert set(data["reports"]) == set(data["models"]) == {"encoder_model.onnx", "decoder_model_merged.onnx"}

    code, out, err = run("verify", target, "--json", tmp_path / "v")
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "v").read_text())["files"] == 8
    assert "8 files have the hashes of the manifest\n" in out
    assert "encoder_model.onnx runs and answers as where it was packaged, " in out
    (target / "tokenizer.json").unlink()
    code, out, err = run("verify", target)
    assert code == 1
    assert err == f"error: {target}/tokenizer.json: is missing; get the package again\n"
    assert run("verify", source)[0] == 2


def test_the_default_command_can_be_named(run, source, tmp_path):
    assert run(source, tmp_path / "bare.onnx", "--preset", "fast", "--quiet") == (0, "", "")
    assert run("compress", source, tmp_path / "named.onnx", "--preset", "fast", "--quiet") == (0, "", "")
    assert (tmp_path / "bare.onnx").read_bytes() == (tmp_path / "named.onnx").read_bytes()


def test_all_commands_are_there(run):
    context = commands.make_context("bct-onnx", ["compress", "--help"], resilient_parsing=True)
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert command is not None
        assert name == "compress" or f"bct-onnx {name}" in run("--help")[1]
        assert run(name, "--help")[0] == 0


def test_a_dry_run_writes_nothing(run, source, write, tmp_path):
    folder = write("onnx/model.onnx", "onnx/model_q4.onnx")
    before = entries(tmp_path)
    code, out, _ = run(source, tmp_path / "out.onnx", "--dry-run", "--preset", "small")
    assert code == 0
    assert "│ small  │ 32.94 kB │ bits by measurement, or 4, blocks of 8, dense │" in out
    code, out, _ = run(folder, tmp_path / "out", "--dry-run", "--layout", "transformers.js", "--lowering", "packed")
    assert code == 0
    assert "│ onnx/model.onnx │ onnx/model_quantized.onnx │ balanced │ 32.94 kB │ 6 bits, " in out
    assert "2 other files are copied" in out
    assert "left out: onnx/model_q4.onnx (a variant of onnx/model.onnx in other numbers)" in out
    assert entries(tmp_path) == before


def test_a_dry_run_refuses_what_would_be_refused(run, source, write, tmp_path):
    assert run(source, source, "--dry-run")[0] == 2
    assert run(tmp_path / "no.onnx", tmp_path / "out.onnx", "--dry-run")[0] == 2
    folder = write("model.onnx")
    assert run(folder, folder / "out", "--dry-run")[0] == 2
    assert run(folder, tmp_path / "out", "--dry-run", "--block-size", "7")[0] == 2


def test_options_of_the_other_kind_are_refused(run, source, write, tmp_path):
    code, _, err = run(source, tmp_path / "out.onnx", "--layout", "optimum")
    assert (code, err) == (2, "error: --layout is for folders, the input is a file; leave it out\n")
    code, _, err = run(source, tmp_path / "out.onnx", "--preset-for", "*=fast")
    assert (code, err) == (2, "error: --preset-for is for folders, the input is a file; leave it out\n")
    code, _, err = run(write("model.onnx"), tmp_path / "out", "--plot", tmp_path / "p.png")
    assert code == 2
    assert "--plot draws the curve of one model" in err
    code, _, err = run(write("model.onnx"), tmp_path / "out", "--preset-for", "small")
    assert code == 2
    assert "'small' is not PATTERN=PRESET" in err


def test_a_checkpoint_without_the_exporter(run, write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optimum", None)
    assert not exporter_is_installed()
    folder = write(architectures=["BertModel"])
    (folder / "model.safetensors").touch()
    code, _, err = run(folder, tmp_path / "out")
    assert code == 2
    assert err.startswith("error: optimum is not installed, which exports checkpoints: pip install")
    assert err.endswith("pip install 'bct-onnx[export]'\n")


def test_a_checkpoint_is_exported_alone_or_the_extra_is_named(run, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    if not exporter_is_installed():
        code, _, err = run("export", checkpoint, tmp_path / "out", "--task", "feature-extraction")
        assert code == 2
        assert "pip install 'bct-onnx[export]'" in err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_onnx_files_is_not_exported(run, write, tmp_path):
    code, _, err = run("export", write("model.onnx"), tmp_path / "out")
    assert code == 2
    assert "holds ONNX files already; compress it as it is" in err
    assert not (tmp_path / "out").exists()
