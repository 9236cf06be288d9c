"""Random-weight models: they are valid, run, and do what attention, masks and caches must do."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from bct_onnx.sessions import open_session
from models import shapes

TINY: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 4, "intermediate": 48, "vocabulary": 61, "positions": 24}
KV_HEADS = {"bert-base": 4, "minilm": 4, "gpt2": 4, "llama-1b": 2}
Array = npt.NDArray[Any]


def tiny(name: str, folder: Path, **options: Any) -> Path:
    path = folder / f"{name}.onnx"
    shapes.write(name, path, **TINY, kv_heads=KV_HEADS[name], **options)
    return path


def ids(*shape: int) -> Array:
    return np.random.default_rng(3).integers(0, TINY["vocabulary"], shape)


def run(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    session = open_session(path)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def decoder_feeds(name: str, tokens: Array, past: dict[str, Array] | None = None) -> dict[str, Array]:
    batch, heads, head = len(tokens), KV_HEADS[name], TINY["hidden"] // TINY["heads"]
    empty = np.zeros((batch, heads, 0, head), np.float32)
    cache = {
        f"past_key_values.{i}.{part}": (past or {}).get(f"present.{i}.{part}", empty)
        for i in range(TINY["layers"])
        for part in ("key", "value")
    }
    start, count = cache["past_key_values.0.key"].shape[2], tokens.shape[1]
    mask = np.ones((batch, start + count), np.int64)
    positions = np.broadcast_to(np.arange(start, start + count), tokens.shape)
    return {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, **cache}


@pytest.mark.parametrize("name", shapes.MODELS)
def test_valid_and_seeded(name: str, tmp_path: Path) -> None:
    path = tiny(name, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert model.opset_import[0].version == 17
    assert all(t.raw_data for t in model.graph.initializer)
    before = path.read_bytes()
    assert tiny(name, tmp_path).read_bytes() == before
    assert tiny(name, tmp_path, seed=1).read_bytes() != before


def test_bert_ignores_padding(tmp_path: Path) -> None:
    path, tokens = tiny("bert-base", tmp_path), ids(3, 7)
    zeros, ones = np.zeros_like(tokens), np.ones_like(tokens)
    feeds = {"input_ids": tokens, "attention_mask": ones, "token_type_ids": zeros}
    plain = run(path, feeds)
    assert plain["last_hidden_state"].shape == (3, 7, 32)
    assert plain["pooler_output"].shape == (3, 32)
    padded = run(path, {k: np.pad(v, ((0, 0), (0, 2))) for k, v in feeds.items()})
    np.testing.assert_allclose(padded["last_hidden_state"][:, :7], plain["last_hidden_state"], atol=1e-5)
    unmasked = run(path, {**feeds, "input_ids": np.roll(tokens, 1, axis=1)})
    assert np.abs(unmasked["last_hidden_state"] - plain["last_hidden_state"]).max() > 1e-2


@pytest.mark.parametrize("name", ["gpt2", "llama-1b"])
def test_decoder_with_cache_answers_as_without(name: str, tmp_path: Path) -> None:
    path, tokens = tiny(name, tmp_path), ids(2, 9)
    whole = run(path, decoder_feeds(name, tokens))
    assert whole["logits"].shape == (2, 9, 61)
    first = run(path, decoder_feeds(name, tokens[:, :6]))
    np.testing.assert_allclose(first["logits"], whole["logits"][:, :6], atol=1e-5)
    rest = run(path, decoder_feeds(name, tokens[:, 6:], first))
    np.testing.assert_allclose(rest["logits"], whole["logits"][:, 6:], atol=1e-5)
    np.testing.assert_allclose(rest["present.1.value"], whole["present.1.value"], atol=1e-5)


def test_decomposed_as_exporters_write_it(tmp_path: Path) -> None:
    model = onnx.load(tiny("bert-base", tmp_path))
    operators = Counter(node.op_type for node in model.graph.node)
    expected = {"MatMul": 2 * (6 + 2), "Erf": 2, "Softmax": 2, "LayerNormalization": 5, "Gemm": 1, "Tanh": 1}
    assert {kind: operators[kind] for kind in expected} == expected
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "/encoder/layer.1/attention/self/query/MatMul" in names
    dims = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert dims["onnx::MatMul_5"] == [32, 48]


def test_gpt2_stores_the_table_once(tmp_path: Path) -> None:
    graph = onnx.load(tiny("gpt2", tmp_path)).graph
    assert [t.name for t in graph.initializer if TINY["vocabulary"] in t.dims] == ["transformer.wte.weight"]
    readers = [node.op_type for node in graph.node if "transformer.wte.weight" in node.input]
    assert readers == ["Gather", "Transpose"]


def test_external_weights_are_the_inline_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.writer.PIECE", 100)  # several pieces per weight
    (tmp_path / "inline").mkdir()
    external = tiny("llama-1b", tmp_path, external=True)
    inline = tiny("llama-1b", tmp_path / "inline")
    assert external.stat().st_size < inline.stat().st_size / 2
    feeds = decoder_feeds("llama-1b", ids(1, 5))
    np.testing.assert_array_equal(run(external, feeds)["logits"], run(inline, feeds)["logits"])


def test_command_line(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    sizes = ["--layers", "1", "--hidden", "8", "--heads", "2", "--kv-heads", "1", "--vocabulary", "5"]
    command = [sys.executable, "-m", "models.shapes", "llama-1b", str(path), *sizes, "--intermediate", "12"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    assert Path(f"{path}.data").stat().st_size == 4 * (2 * 5 * 8 + 3 * 8 + 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 12)
