"""From checkpoints to packages, with transformers, optimum and torch (the extra `export`; `make test-export`)."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optimum.onnxruntime")

from bct_onnx import BctError
from bct_onnx.package import compress_folder, examples, export, make_plan, tasks, verify_folder
from tests.export.checkpoints import CHECKPOINTS, WIDTH, save

pytestmark = pytest.mark.filterwarnings("default")

# Task found, models of the package, and what must hold of figures: (name, least, most).
EXPECTED = {
    "distilbert": ("fill-mask", {"model.onnx"}, ("largest change of a score", 0, 0.01)),
    "roberta": ("text-classification", {"model.onnx"}, ("same label", 1, 1)),
    "t5": (
        "text2text-generation-with-past",
        {"encoder_model.onnx", "decoder_model_merged.onnx"},
        ("same words", 0.3, 1),
    ),
    "gpt2": ("text-generation-with-past", {"model.onnx"}, ("same words", 0, 1)),
    # A random model's answers hang by a hair: what counts is that they are there.
    "deberta": ("token-classification", {"model.onnx"}, ("same entities", 0.3, 1)),
    "mpnet": ("fill-mask", {"model.onnx"}, ("largest change of a score", 0, 0.01)),
    "electra": ("question-answering", {"model.onnx"}, ("same words", 0, 1)),
    "bart": (
        "text2text-generation-with-past",
        {"encoder_model.onnx", "decoder_model_merged.onnx"},
        ("same words", 0.3, 1),
    ),
    "qwen3": ("text-generation-with-past", {"model.onnx"}, ("same words", 0, 1)),
    "wav2vec2": ("automatic-speech-recognition", {"model.onnx"}, ("same words", 0, 1)),
    "whisper": (
        "automatic-speech-recognition-with-past",
        {"encoder_model.onnx", "decoder_model_merged.onnx"},
        ("same words", 0, 1),
    ),
    "vit": ("image-classification", {"model.onnx"}, ("largest change of a score", 0, 0.01)),
    "clip": ("zero-shot-image-classification", {"model.onnx"}, ("largest change of a score", 0, 0.2)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_becomes_a_package(name, tmp_path):
    task, models, (figure, least, most) = EXPECTED[name]
    made = compress_folder(save(name, tmp_path / name), tmp_path / "out", preset="fast")
    assert made.plan.task == task
    assert set(made.models) == models
    assert made.notes == ()
    figures = made.end_to_end.figures
    assert least <= figures[figure] <= most
    if "perplexity" in figures:
        assert figures["perplexity"] == pytest.approx(figures["perplexity, float"], rel=0.01)
    assert {path.name for path in tmp_path.iterdir()} == {name, "out"}
    assert set(verify_folder(tmp_path / "out").models) == models


def test_the_command_is_silent(tmp_path):
    checkpoint = save("gpt2", tmp_path / "gpt2")
    command = [sys.executable, "-m", "bct_onnx", str(checkpoint), str(tmp_path / "out"), "--preset", "fast", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_sentence_transformers_load_a_package(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    checkpoint = save("distilbert", tmp_path / "model")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    (checkpoint / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    (checkpoint / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    compress_folder(checkpoint, tmp_path / "out", preset="fast", task="feature-extraction")
    plain = library.SentenceTransformer(str(checkpoint), backend="torch").encode(list(examples.TEXTS))
    ours = library.SentenceTransformer(str(tmp_path / "out"), backend="onnx").encode(list(examples.TEXTS))
    cosines = (plain * ours).sum(-1) / np.linalg.norm(plain, axis=-1) / np.linalg.norm(ours, axis=-1)
    assert cosines.min() > 0.99


def test_a_package_that_cannot_do_its_task_is_refused(tmp_path, monkeypatch):
    """The compressed models must run in the pipeline in which the float ones do."""
    checkpoint = save("gpt2", tmp_path / "gpt2")
    load = tasks.load_pipeline

    def fail(task, folder):
        if folder.name == "out":
            raise RuntimeError("no such input\nsecond line")
        return load(task, folder)

    monkeypatch.setattr(tasks, "load_pipeline", fail)
    with pytest.raises(BctError, match=r"not with the compressed ones: no such input$"):
        compress_folder(checkpoint, tmp_path / "out", preset="fast")
    assert not (tmp_path / "out").exists()


def test_the_hub_is_asked_for_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = save("vit", tmp_path / "vit")
    asked = []
    hub = export.library("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: asked.append(name) or str(checkpoint))
    made = compress_folder("someone/some-model", tmp_path / "out", preset="fast")
    assert asked == ["someone/some-model"]
    assert made.plan.source == "someone/some-model"


def test_an_architecture_without_a_task_asks_for_one(tmp_path):
    checkpoint = save("roberta", tmp_path / "roberta")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "architectures": ["RobertaForSomethingElse"]}))
    with pytest.raises(BctError, match=r"no task fits RobertaForSomethingElse; choose --task of .*fill-mask"):
        make_plan(checkpoint, tmp_path / "out")
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "newer-than-the-exporter"}))
    with pytest.raises(BctError, match="does not know models of type 'newer-than-the-exporter'"):
        make_plan(checkpoint, tmp_path / "out")
