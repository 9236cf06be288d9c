"""Vectors of texts, pooled as sentence-transformers says."""

import json

import numpy as np
import pytest

from bct_onnx import BctError
from bct_onnx.evaluate.sentences import Pooling, read_pooling

TOKENS = np.array([[[3.0, 0], [0, 4], [9, 9]], [[1, 1], [5, 0], [0, 7]]])
MASK = np.array([[1, 1, 0], [1, 1, 1]])


def unit(*rows):
    array = np.array(rows, float)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (("cls",), unit((3, 0), (1, 1))),
        (("max",), unit((3, 4), (5, 7))),
        (("mean",), unit((3, 4), (6, 8))),
        (("mean_sqrt_len",), unit((3, 4), (6, 8))),
        (("weightedmean",), unit((3, 8), (11, 22))),
        (("lasttoken",), unit((0, 4), (0, 7))),
        (("cls", "mean"), unit((3, 0, 1.5, 2), (1, 1, 2, 8 / 3))),
        # The root of the length counts beside another part.
        (("cls", "mean_sqrt_len"), unit((3, 0, 3 / 2**0.5, 4 / 2**0.5), (1, 1, 6 / 3**0.5, 8 / 3**0.5))),
    ],
)
def test_padding_is_no_part_of_a_vector(modes, expected):
    np.testing.assert_allclose(Pooling(modes).pool(TOKENS, MASK), expected, rtol=1e-12)


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that writes what sentence-transformers saves beside a model."""

    def save(pooling, modules=("Transformer", "Pooling", "Normalize"), prompts=None):
        entries = [
            {"path": f"{number}_{name}", "type": f"sentence_transformers.models.{name}"}
            for number, name in enumerate(modules)
        ]
        (tmp_path / "modules.json").write_text(json.dumps(entries))
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 2, **pooling}))
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 99}))
        if prompts:
            (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
        return tmp_path

    return save


def test_the_folder_says_how_to_pool(checkpoint):
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
    folder = checkpoint(flags | {"include_prompt": True})
    assert read_pooling(folder, folder) == Pooling(("cls", "lasttoken"), 99, {})
    assert read_pooling(folder / "model.onnx", folder.parent / "x") == Pooling(("cls", "lasttoken"), 99, {})
    # A bare file is pooled as the reference is.
    assert read_pooling(folder.parent / "a" / "b" / "c.onnx", folder) == Pooling(("cls", "lasttoken"), 99, {})


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        ({"pooling_mode": "cls", "include_prompt": True}, ("cls",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, ("max", "mean")),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
    ],
)
def test_newer_and_older_configurations(checkpoint, pooling, modes):
    folder = checkpoint(pooling)
    assert read_pooling(folder, folder).modes == modes


@pytest.mark.parametrize(("longest", "limit"), [(77, 77), (10**30, None)])
def test_the_longest_text_may_be_the_tokenizers(checkpoint, longest, limit):
    folder = checkpoint({"pooling_mode": "mean"})
    (folder / "sentence_bert_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": longest}))
    assert read_pooling(folder, folder).limit == limit


def test_pooling_without_the_prompt_is_refused(checkpoint):
    folder = checkpoint({"pooling_mode": "mean", "include_prompt": False}, prompts={"prompts": {"query": "q: "}})
    with pytest.raises(BctError, match="leaves the tokens of a prompt out"):
        read_pooling(folder, folder)


def test_without_modules_it_is_the_mean(tmp_path):
    assert read_pooling(tmp_path, tmp_path) == Pooling(("mean",), None, {})


@pytest.mark.parametrize("name", ["document", "passage"])
def test_prompts_stand_before_texts_of_their_kind(checkpoint, name):
    prompts = {"prompts": {"query": "q: ", name: "p: ", "sts": "s: "}, "default_prompt_name": "sts"}
    pooling = read_pooling(checkpoint({"pooling_mode_mean_tokens": True}, prompts=prompts), checkpoint)
    assert [pooling.prompt(kind) for kind in ("query", "document", "")] == ["q: ", "p: ", "s: "]


def test_without_a_default_no_prompt_stands_before_a_text(checkpoint):
    prompts = {"prompts": {"query": "q: "}, "default_prompt_name": None}
    pooling = read_pooling(checkpoint({"pooling_mode_mean_tokens": True}, prompts=prompts), checkpoint)
    assert [pooling.prompt(kind) for kind in ("query", "document", "")] == ["q: ", "", ""]


@pytest.mark.parametrize(
    ("pooling", "modules", "message"),
    [
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense"), "has a module Dense, which is not"),
        ({"pooling_mode_median_tokens": True}, ("Transformer", "Pooling"), "pools by median; known are cls, max, mean"),
        ({"pooling_mode": ["mean", "median"]}, ("Transformer", "Pooling"), "pools by median; known"),
    ],
)
def test_what_cannot_be_done_here_is_said(checkpoint, pooling, modules, message):
    folder = checkpoint(pooling, modules)
    with pytest.raises(BctError, match=message):
        read_pooling(folder, folder)
