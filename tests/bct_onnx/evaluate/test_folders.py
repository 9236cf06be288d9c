"""Models and tokenizers are found in folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from bct_onnx import BctError
from bct_onnx.evaluate import Preprocess, evaluate_glue, evaluate_images, evaluate_perplexity
from bct_onnx.evaluate.__main__ import main
from bct_onnx.evaluate.folders import bytes_on_disk, check_models, model_in
from bct_onnx.evaluate.tokenizers import tokenizer_of

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]
# A classifier that adds up the rows of its words: good votes for 1, bad for 0.
VOTES = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[n, s] input_ids, int64[n, s] attention_mask) => (float[n, c] logits)
    <float[6, 2] table = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0}, int64[1] last = {-1}, int64[1] axis = {1}> {
        rows = Gather(table, input_ids)
        weight = Cast<to = 1>(attention_mask)
        column = Unsqueeze(weight, last)
        product = Mul(rows, column)
        logits = ReduceSum<keepdims = 0>(product, axis)
    }"""
# A language model whose next word is the same one again.
AGAIN = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[n, s] input_ids) => (float[n, s, v] logits) <int64 v = {6}, float[2] values = {0, 3}> {
        logits = OneHot<axis = -1>(input_ids, v, values)
    }"""
# Of a picture, the mean of each channel.
CHANNELS = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 3, h, w] pixel_values) => (float[n, 3] logits) {
        logits = ReduceMean<axes = [2, 3], keepdims = 0>(pixel_values)
    }"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a classifier with its vocabulary, and of data beside it."""
    write(tmp_path / "model" / "model.onnx", VOTES)
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(WORDS))
    rows = [json.dumps({"sentence1": text, "label": label}) for text, label in (("good", 1), ("bad", 0), ("good", 0))]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    return tmp_path / "model"


def test_the_model_of_a_folder_is_the_one_that_is_no_variant(tmp_path):
    assert model_in(write(tmp_path / "x.onnx", VOTES)) == tmp_path / "x.onnx"
    one = write(tmp_path / "one" / "onnx" / "encoder.onnx", VOTES)
    write(tmp_path / "one" / "onnx" / "encoder_q4.onnx", VOTES)
    assert model_in(tmp_path / "one") == one
    assert bytes_on_disk(tmp_path / "one") == one.stat().st_size
    # As Transformers.js wants it: all there is has the ending of a variant.
    js = write(tmp_path / "js" / "onnx" / "model_quantized.onnx", VOTES)
    assert model_in(tmp_path / "js") == js
    # model.onnx among others is the one; of others none is.
    write(tmp_path / "two" / "text_model.onnx", VOTES)
    write(tmp_path / "two" / "vision_model.onnx", VOTES)
    assert bytes_on_disk(tmp_path / "two") == 2 * one.stat().st_size
    with pytest.raises(BctError, match=r"two: holds several models, text_model\.onnx, vision_model\.onnx: name one"):
        model_in(tmp_path / "two")
    named = write(tmp_path / "two" / "model.onnx", VOTES)
    assert model_in(tmp_path / "two") == named


def test_what_holds_no_models_is_refused(tmp_path):
    with pytest.raises(BctError, match="no model given"):
        check_models([])
    with pytest.raises(BctError, match="none: no such file or folder"):
        check_models([tmp_path / "none"])
    with pytest.raises(BctError, match="holds no ONNX files"):
        check_models([tmp_path])


def test_the_tokenizer_is_the_given_one_or_beside_the_model_or_beside_the_first(folder, tmp_path):
    vocabulary = folder / "vocab.txt"
    bare = write(tmp_path / "other" / "bare.onnx", VOTES)
    assert tokenizer_of(folder, folder, None) == vocabulary
    assert tokenizer_of(folder / "model.onnx", folder, None) == vocabulary
    assert tokenizer_of(bare, folder, None) == vocabulary
    assert tokenizer_of(write(folder / "onnx" / "x.onnx", VOTES), bare, None) == vocabulary
    shutil.copy(vocabulary, tmp_path / "other" / "vocab.txt")
    assert tokenizer_of(bare, folder, None) == tmp_path / "other" / "vocab.txt"
    assert tokenizer_of(bare, folder, folder) == vocabulary
    with pytest.raises(BctError, match="no tokenizer beside it: name one with --tokenizer"):
        lonely = write(tmp_path / "a" / "b" / "c.onnx", VOTES)
        tokenizer_of(lonely, lonely, None)


def test_a_folder_is_classified_with_its_own_tokenizer(folder, tmp_path):
    # The other one's words have other numbers.
    write(tmp_path / "other" / "model.onnx", VOTES.replace("0, 1, 1, 0}", "1, 0, 0, 1}"))
    (tmp_path / "other" / "vocab.txt").write_text("\n".join([*WORDS[:4], "bad", "good"]))
    models = [folder, tmp_path / "other", folder / "model.onnx"]
    result = evaluate_glue("SST-2", tmp_path / "data.jsonl", models)
    assert [model.scores[0].value for model in result.models] == pytest.approx([200 / 3] * 3)
    assert [model.same_decisions for model in result.models] == [1, 1, 1]
    assert result.models[0].bytes == (folder / "model.onnx").stat().st_size


def test_the_command_needs_no_tokenizer_for_a_folder(folder, tmp_path):
    run = CliRunner().invoke(main, ["glue", "SST-2", str(tmp_path / "data.jsonl"), str(folder)])
    assert run.exit_code == 0, run.output
    assert "66.67 %" in run.output


def test_perplexity_of_a_folder(tmp_path):
    write(tmp_path / "model" / "model.onnx", AGAIN)
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "text.txt").write_text("good good good bad")
    result = evaluate_perplexity(tmp_path / "text.txt", [tmp_path / "model"])
    losses = np.log(5 + np.exp(3)) - np.array([3, 3, 0])
    assert result.models[0].scores[0].value == pytest.approx(losses.mean(), rel=1e-5)


def test_pictures_are_fed_by_the_processor_of_the_folder(tmp_path):
    pytest.importorskip("transformers")
    write(tmp_path / "model" / "model.onnx", CHANNELS)
    # Blue is brightest, until 200 of 255 are subtracted from it.
    config = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 4, "width": 4},
        "image_mean": [0, 0, 200 / 255],
        "image_std": [1, 1, 1],
    }
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(config))
    images = np.full((4, 6, 8, 3), (10, 90, 200), np.uint8)
    np.savez(tmp_path / "pictures.npz", images=images, labels=np.array([1, 1, 1, 2]))
    models = [tmp_path / "model", tmp_path / "model" / "model.onnx"]
    by_processor = evaluate_images(tmp_path / "pictures.npz", models)
    assert [model.scores[0].value for model in by_processor.models] == [75, 75]
    raw = Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert evaluate_images(tmp_path / "pictures.npz", models, preprocess=raw).models[0].scores[0].value == 25
