"""Packages in Transformers.js, in Node and in a browser: the embeddings that ONNX Runtime gives in Python.

`make test-hosts` installs the npm package @huggingface/transformers and runs this.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bct_onnx.package import compress_folder
from benchmarks.javascript import LIBRARY, embed_in_browser, embed_in_node, find_browser, lay_out
from tests.helpers import K, model, random, run

WORDS = ("[PAD]", "[UNK]", *(f"word{number}" for number in range(62)))
TEXTS = ("word1 word2 word3", "word4", *(f"word{n} word{2 * n} other word{3 * n} word{n + 9}" for n in range(18)))
PRESETS = ("fast", "small")
SECONDS = 300
# Attention, where words do not see padding, and an MLP, each behind a normalization.
EMBEDDER = """g (int64[b, t] input_ids, int64[b, t] attention_mask) => (float[b, t, 64] last_hidden_state) {
  x = Gather(words, input_ids)
  n = LayerNormalization<axis: int = -1>(x, scale, zeros)
  q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv)
  rows = Constant<value_ints: ints = [1, 2]>() columns = Constant<value_ints: ints = [1, 3]>()
  row = Unsqueeze(attention_mask, rows) column = Unsqueeze(attention_mask, columns)
  seen = GreaterOrEqual(row, column)
  a = Attention<q_num_heads: int = 4, kv_num_heads: int = 4>(q, k, v, seen)
  o = MatMul(a, wo) h = Add(x, o)
  m = LayerNormalization<axis: int = -1>(h, scale, zeros)
  u = MatMul(m, up) g1 = Gelu(u) d = MatMul(g1, down) last_hidden_state = Add(h, d) }"""


@pytest.fixture(scope="module")
def folder(node_modules, tmp_path_factory) -> Path:
    """Return a folder that both hosts load from, with a package for every preset."""
    if not (node_modules / LIBRARY).is_dir():
        pytest.skip(f"no {LIBRARY} in {node_modules} (make test-hosts, or npm install it)")
    place = tmp_path_factory.mktemp("hosts")
    source = place / "in"
    source.mkdir()
    weights = {name: random(K, K, seed=seed) for seed, name in enumerate(("wq", "wk", "wv", "wo"))}
    proto = model(
        EMBEDDER,
        opset=23,
        words=random(len(WORDS), K, seed=5) * 8,
        up=random(K, 4 * K, seed=6) * 2,
        down=random(4 * K, K, seed=7) * 2,
        scale=np.ones(K, np.float32),
        zeros=np.zeros(K, np.float32),
        **weights,
    )
    (source / "model.onnx").write_bytes(proto.SerializeToString())
    (source / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "model_max_length": 64}
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **special}))
    words = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.save(str(source / "tokenizer.json"))
    packages = {preset: place / f"out_{preset}" for preset in PRESETS}
    for preset, package in packages.items():
        compress_folder(source, package, preset=preset, layout="transformers.js", target_runtime="web")
    lay_out(place, node_modules, packages, TEXTS)
    return place


def expected(path: Path, tokenizer: Path) -> np.ndarray:
    """Return the embeddings of the texts, one text at a time, by ONNX Runtime here."""
    words = Tokenizer.from_file(str(tokenizer))
    rows = []
    for text in TEXTS:
        ids = np.array([words.encode(text).ids])
        rows.append(run(path, input_ids=ids, attention_mask=np.ones_like(ids))[0][0].mean(axis=0))
    return np.array([row / np.linalg.norm(row) for row in rows])


def check(answers, folder: Path) -> None:
    assert set(answers) == set(PRESETS)
    source = expected(folder / "in" / "model.onnx", folder / "in" / "tokenizer.json")
    for preset, found in answers.items():
        package = folder / f"out_{preset}"
        wanted = expected(package / "onnx" / "model_quantized.onnx", package / "tokenizer.json")
        # Kernels add in another order, so that an activation may be rounded to the next of 256 codes.
        error = np.linalg.norm(found - wanted, axis=1).max()
        print(preset, error, np.linalg.norm(found - source, axis=1).max())
        assert error < 0.01
        # Batches of 16 with padding there, one text at a time here: had the files no effect, or the wrong one been
        # loaded, this were 0.
        assert np.linalg.norm(found - source, axis=1).max() > 2 * error


def test_in_node(folder):
    check(embed_in_node(folder, SECONDS), folder)


def test_in_a_browser(folder):
    browser = find_browser()
    if browser is None:
        pytest.skip("no browser (apt-get install chromium)")
    check(embed_in_browser(folder, browser, SECONDS), folder)
