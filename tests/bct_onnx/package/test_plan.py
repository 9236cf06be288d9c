"""The plan: what becomes of each file, and what is refused before any work."""

import json
from pathlib import Path

import pytest

from bct_onnx import BctError
from bct_onnx.package import is_folder, make_plan


def places(plan):
    return {str(step.source): str(step.target) for step in plan.steps}


@pytest.mark.parametrize(
    ("layout", "place"),
    [("keep", "onnx/model.onnx"), ("optimum", "model.onnx"), ("transformers.js", "onnx/model_quantized.onnx")],
)
def test_layouts(write, tmp_path, layout, place):
    plan = make_plan(write("onnx/model.onnx"), tmp_path / "out", layout=layout)
    assert places(plan) == {"onnx/model.onnx": place}
    assert {str(path) for path in plan.copies} == {"config.json", "tokenizer.json"}


def test_layouts_keep_the_parts_of_a_pipeline_apart(write, tmp_path):
    plan = make_plan(write("unet/model.onnx", "vae/model.onnx"), tmp_path / "out", layout="optimum")
    assert places(plan) == {"unet/model.onnx": "unet/model.onnx", "vae/model.onnx": "vae/model.onnx"}


def test_two_models_for_one_place_are_refused(write, tmp_path):
    with pytest.raises(BctError, match=r"two models would be called model\.onnx; leave out --layout"):
        make_plan(write("model.onnx", "onnx/model.onnx"), tmp_path / "out", layout="optimum")


def test_the_first_pattern_that_fits_decides(write, tmp_path):
    folder = write("encoder_model.onnx", "decoder_model_merged.onnx")
    plan = make_plan(folder, tmp_path / "out", preset="fast", preset_for=[("decoder*", "small"), ("*", "portable")])
    assert {step.source.name: step.preset for step in plan.steps} == {
        "encoder_model.onnx": "portable",
        "decoder_model_merged.onnx": "small",
    }
    with pytest.raises(BctError, match=r"--preset-for vision\*: no model is called so; there are decoder_model_merged"):
        make_plan(folder, tmp_path / "out", preset_for=[("vision*", "small")])
    with pytest.raises(BctError, match="preset 'tiny' does not exist; choose one of"):
        make_plan(folder, tmp_path / "out", preset_for=[("*", "tiny")])


def test_a_generation_config_that_names_files_keeps_their_names(write, tmp_path):
    folder = write("model.onnx")
    (folder / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"filename": "model.onnx"}}}))
    plan = make_plan(folder, tmp_path / "out")
    assert places(plan) == {"model.onnx": "model.onnx"}
    with pytest.raises(BctError, match=r"genai_config\.json names the files as they are; leave out --layout"):
        make_plan(folder, tmp_path / "out", layout="transformers.js")


def test_a_folder_without_models_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(BctError, match=r"holds neither ONNX files nor the config\.json of a checkpoint"):
        make_plan(tmp_path / "in", tmp_path / "out")


def test_a_folder_of_what_is_quantized_already_is_refused(write, tmp_path):
    with pytest.raises(BctError, match=r"holds only model_q4\.onnx, quantized or optimized already"):
        make_plan(write("onnx/model_q4.onnx"), tmp_path / "out")


def test_what_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    assert is_folder(Path("there"))
    assert is_folder(Path("someone/some-model"))
    assert not is_folder(Path("there/model"))  # the folder is here: the name is misspelled
    assert not is_folder(Path("nowhere/model.onnx"))
    assert not is_folder(Path("a/b/c"))


def test_output_folders_that_are_refused(write, tmp_path):
    source = write("model.onnx")
    for target in (source, source / "out", tmp_path):
        with pytest.raises(BctError, match="is the input folder, in it or around it"):
            make_plan(source, target)
    with pytest.raises(BctError, match="does not exist; make it first"):
        make_plan(source, tmp_path / "no" / "out")
    used = tmp_path / "used"
    used.mkdir()
    make_plan(source, used)
    (used / "letter.txt").touch()
    with pytest.raises(BctError, match="holds other files; name a new folder to write"):
        make_plan(source, used)
    with pytest.raises(BctError, match="is a file; for a folder of models, name a folder"):
        make_plan(source, used / "letter.txt")
