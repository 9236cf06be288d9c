"""Tasks that run a pipeline: what is said where it cannot run."""

import importlib
import json

import pytest
from click.testing import CliRunner

from bct_onnx.evaluate import pipelines
from bct_onnx.evaluate.__main__ import main

LINES = {
    "tokens": {"words": ["a"], "tags": ["O"]},
    "questions": {"question": "a", "context": "b", "answers": ["b"]},
    "translation": {"source": "a", "target": "b"},
    "summarization": {"source": "a", "target": "b"},
    "speech": {"path": "a", "text": "b"},
}
LIBRARIES = {
    "tokens": "seqeval",
    "translation": "sacrebleu",
    "summarization": "rouge_score",
    "speech": "jiwer",
}


@pytest.fixture
def folder(tmp_path, source):
    """Return a folder of a model and its configuration."""
    (tmp_path / "model").mkdir()
    source.rename(tmp_path / "model" / "model.onnx")
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def run(task, data, folder):
    result = CliRunner().invoke(main, [task, str(data), str(folder)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def only_metrics(monkeypatch):
    """Let every library be there that is asked for, but for what runs pipelines."""
    monkeypatch.setattr(pipelines, "exporter_is_installed", lambda: False)
    monkeypatch.setattr("bct_onnx.extras.importlib.import_module", lambda _: Anything())


class Anything:
    def __getattr__(self, name):
        return Anything()

    def __call__(self, *_, **__):
        return Anything()


@pytest.mark.parametrize("task", LINES)
def test_what_to_install_for_pipelines(task, folder, tmp_path, only_metrics):  # noqa: ARG001
    (tmp_path / "d.jsonl").write_text(json.dumps(LINES[task]))
    said = run(task, tmp_path / "d.jsonl", folder)
    assert said == "error: optimum is not installed, which runs the task's pipeline: pip install 'bct-onnx[export]'\n"


@pytest.mark.parametrize(("task", "library"), LIBRARIES.items())
def test_what_to_install_for_metrics(task, library, folder, tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    (tmp_path / "d.jsonl").write_text(json.dumps(LINES[task]))
    monkeypatch.setattr(importlib, "import_module", absent)
    assert run(task, tmp_path / "d.jsonl", folder) == (
        f"error: {library} is not installed: pip install 'bct-onnx[eval]'\n"
    )


def test_a_folder_without_configuration_is_refused(folder, tmp_path, only_metrics):  # noqa: ARG001
    (folder / "config.json").unlink()
    (tmp_path / "d.jsonl").write_text(json.dumps(LINES["questions"]))
    said = run("questions", tmp_path / "d.jsonl", folder)
    assert "model: holds no config.json, which says what its models are; name a folder that does" in said
    assert said == run("questions", tmp_path / "d.jsonl", folder / "model.onnx")
