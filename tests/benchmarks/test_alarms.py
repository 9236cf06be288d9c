"""The table of false alarms and misses: what is said of an error, and a row of a model from feeds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from benchmarks import alarms, feeds
from tests.helpers import MLP, K, model, random


@pytest.mark.parametrize(
    ("exit_code", "real", "said"),
    [(0, 0.2, "right"), (0, 0.3, "miss"), (1, 0.2, "false alarm"), (1, 0.3, "right"), (0, float("nan"), "miss")],
)
def test_a_verdict_compares_the_exit_code_with_the_error_on_real_inputs(exit_code: int, real: float, said: str) -> None:
    assert alarms.verdict(exit_code, 0.25, real) == said


def written(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model(MLP, w=random(K, K, seed=1), v=random(K, K, seed=2)), path)
    np.savez(folder / "real.npz", x=random(64, K, seed=3))
    return path


def test_both_errors_of_a_preset(tmp_path: Path) -> None:
    (row,) = alarms.measured(written(tmp_path), tmp_path / "real.npz", presets=["small"])
    assert (row.exit_code, row.bound, row.verdict) == (0, 0.7, "right")
    assert 0.01 < row.real < row.bound
    assert 0.01 < row.made < row.bound
    assert row.ratio > 2


def test_what_is_refused_is_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on made inputs that nothing keeps, and real inputs that are within the one of the preset."""
    path, compress = written(tmp_path), alarms.compress

    def stern(*arguments: object, max_rel_error: float = 0, **options: object) -> object:
        return compress(*arguments, max_rel_error=max_rel_error, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(alarms, "compress", stern)
    (row,) = alarms.measured(path, tmp_path / "real.npz", presets=["small"])
    assert (row.exit_code, row.verdict) == (1, "false alarm")
    assert "errs by" in row.said
    assert 0.01 < row.real < row.bound


def test_feeds_of_text_are_rows_of_as_many_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "<s>": 3}, unk_token="[UNK]"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    letters.save(str(tmp_path / "tokenizer.json"))
    onnx.save(model("g (int64[n, s] ids) => (int64[n, s] y) { y = Identity (ids) }"), tmp_path / "model.onnx")
    (tmp_path / "text.txt").write_text("a b a b\nb\nb b a\na a a a\n")
    names = ("text.txt", "model.onnx", "tokenizer.json", "feeds.npz")
    options = ["text", *(str(tmp_path / name) for name in names), "--width", "4", "--batch", "1"]
    assert CliRunner().invoke(feeds.main, options).exit_code == 0
    with np.load(tmp_path / "feeds.npz") as made:
        assert {name: array.tolist() for name, array in made.items()} == {
            "ids.0": [[3, 1, 2, 1]],
            "ids.1": [[3, 2, 2, 1]],
            "ids.2": [[3, 1, 1, 1]],
        }
