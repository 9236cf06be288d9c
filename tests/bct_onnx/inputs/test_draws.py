"""Tokens are drawn from the likeliest part of what a model expects, as often as it expects them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bct_onnx.inputs.text import NUCLEUS, draw

LOGITS = st.floats(-60, 60, width=32) | st.sampled_from([-np.inf, -1e30, 0.0])


def nucleus(logits: np.ndarray) -> np.ndarray:
    """Return which tokens of a row are among the likeliest that together have NUCLEUS, and ties with the last."""
    odds = np.exp(logits.astype(np.float64) - logits.max())
    odds /= odds.sum()
    ordered = np.sort(odds)[::-1]
    last = ordered[np.cumsum(ordered) - ordered < NUCLEUS][-1]
    return np.asarray(odds >= last * (1 - 1e-9))


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 60)), elements=LOGITS), st.integers(0, 99))
def test_only_the_likeliest_are_drawn(logits: np.ndarray, seed: int) -> None:
    logits[:, 0] = 1.0
    drawn = draw(logits, np.random.default_rng(seed))
    assert drawn.shape == logits.shape[:1]
    assert all(nucleus(row)[token] for row, token in zip(logits, drawn, strict=True))


@pytest.mark.parametrize("words", [4, 5000])
def test_tokens_are_drawn_as_often_as_they_are_expected(words: int) -> None:
    logits = np.full((4000, words), -12.0, np.float32)
    logits[:, :3] = [0, 1, 2]
    logits[:, 3] = -9
    counts = np.bincount(draw(logits, np.random.default_rng(0)), minlength=words)
    # The third likeliest is the last inside: 2 and 1 have 0.91 of all.
    odds = np.exp([0, 1, 2])
    np.testing.assert_allclose(counts[:3] / len(logits), odds / odds.sum(), atol=0.03)
    assert not counts[3:].any()


def test_logits_of_a_sequence_are_drawn_place_by_place() -> None:
    logits = 50 * np.eye(7, dtype=np.float32)[np.arange(12).reshape(3, 4) % 7]
    np.testing.assert_array_equal(draw(logits, np.random.default_rng(1)), np.arange(12).reshape(3, 4) % 7)
