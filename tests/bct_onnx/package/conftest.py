"""Folders of models as exporters write them."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.helpers import MLP, K, model, random

# Writes a folder that holds the models of these names, with configuration and tokenizer.
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a folder of ONNX files."""

    def write(*names: str, folder: str = "in", **config: object) -> Path:
        place = tmp_path / folder
        for seed, name in enumerate(names):
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(model(MLP, opset=17, ir_version=8, w=random(K, K, seed=seed), v=random(K, K, seed=9)), path)
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps({"model_type": "made", **config}))
        words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "word": 2}, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.save(str(place / "tokenizer.json"))
        return place

    return write
