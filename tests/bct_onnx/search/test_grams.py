"""What is known of activations, and the codes that rely on it."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bct_onnx import files
from bct_onnx.search import Grams, compensating_coder
from bct_onnx.search import grams as module
from bct_onnx.search.grams import _together, product_inputs
from passes.formats.block import BlockFormat, decode
from passes.formats.compensated import compensate
from passes.formats.encode import encode
from tests.bct_onnx.search.conftest import K
from tests.helpers import random


def test_grams_are_of_the_activations_and_codes_rely_on_them(source) -> None:
    proto = files.read(source)
    names = product_inputs(proto.graph())
    assert names == {"x": K, "b": K}
    rows = [random(150, K, seed=7), random(150, K, seed=8)]
    grams = Grams(source, names, [{"x": part} for part in rows])
    x = np.concatenate(rows)
    hidden = np.maximum(x @ random(K, K, seed=1), 0)
    for name, activation in (("x", x), ("b", hidden)):
        seen = grams.get(name)
        assert seen is not None
        gram = seen.everything
        assert gram.samples == 300
        rows_of_one = activation / np.sqrt(np.square(activation).mean(axis=1, keepdims=True))
        np.testing.assert_allclose(gram.matrix, rows_of_one.T @ rows_of_one / 300, rtol=1e-3, atol=1e-5)
    assert grams.get("nothing") is None
    fmt, v = BlockFormat.shifted(4, 8), random(K, K, seed=2)
    coder = compensating_coder(grams)
    expected = compensate(v, grams.get("b").everything, fmt)
    np.testing.assert_array_equal(decode(coder(v, fmt, "b", 1)), decode(expected))
    np.testing.assert_array_equal(decode(coder(v, fmt, None, 1)), decode(encode(v, fmt)))


@pytest.mark.parametrize("value", [1e4, 1e30])
def test_a_row_that_is_larger_than_others_counts_as_much_as_they_do(source: Path, value: float) -> None:
    rows = random(400, K, seed=7)
    large = rows.copy()
    large[5] *= np.float32(value)
    large[6] = 0
    one, other = (Grams(source, {"x": K}, [{"x": each}]).get("x") for each in (rows, large))
    assert one is not None and other is not None
    left = one.everything.matrix - np.outer(rows[6], rows[6]) / (400 * np.square(rows[6]).mean())
    np.testing.assert_allclose(other.everything.matrix, left, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_say_nothing(source: Path, value: float) -> None:
    rows, v, fmt = random(400, K, seed=7), random(K, K, seed=2), BlockFormat.shifted(4, 8)
    rows[5, 3] = value
    grams = Grams(source, {"x": K}, [{"x": rows}])
    assert grams.get("x") is None
    np.testing.assert_array_equal(decode(compensating_coder(grams)(v, fmt, "x", 1)), decode(encode(v, fmt)))


def test_codes_in_a_trellis_give_way_where_fitted_ones_err_less(source: Path) -> None:
    """Channels that are one channel are easy to make up for; independent ones are not."""
    v, fmt = random(K, K, seed=2), BlockFormat.best(4, 8)
    alike = np.repeat(random(400, 4, seed=7), K // 4, axis=1)
    for rows, fitted in ((alike, True), (random(400, K, seed=8), False)):
        coder = compensating_coder(Grams(source, {"x": K}, [{"x": rows}]))
        assert coder(v, fmt, "x", 1).format.trellis is not fitted


def test_what_is_kept_is_captured_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, feeds = {"x": K, "b": K}, [{"x": random(400, K, seed=7)}]
    plain = Grams(source, names, feeds)
    expected = {name: plain.get(name) for name in names}
    monkeypatch.setattr(module, "TOGETHER_BYTES", 1)
    for room, runs in ((1 << 30, 2), (0, 4)):
        monkeypatch.setattr(module, "KEPT_BYTES", room)
        captured: list[list[str]] = []
        with closing(files.Scratch(tmp_path / "out.onnx")) as scratch:
            grams = Grams(source, names, feeds, move=scratch.move)
            capture = grams._capture

            def counted(group: list[str], capture=capture, captured=captured):
                captured.append(group)
                return capture(group)

            monkeypatch.setattr(grams, "_capture", counted)
            for name in [*names, *names]:
                seen, other = grams.get(name), expected[name]
                assert seen is not None and other is not None
                np.testing.assert_array_equal(seen.everything.matrix, other.everything.matrix)
        assert len(captured) == runs


def test_wide_activations_are_captured_one_by_one() -> None:
    wide = 1 << 13
    assert list(_together({"a": 8, "b": 16, "c": wide, "d": wide, "e": 8})) == [["a", "b"], ["c"], ["d"], ["e"]]
