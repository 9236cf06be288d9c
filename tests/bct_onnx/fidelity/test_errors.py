"""One figure for how far answers are apart: what it is by kind of output, and what it does not fall for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bct_onnx.fidelity import Answers, Kind, OutputError, output_errors, overall_error
from bct_onnx.fidelity.kinds import output_kind
from bct_onnx.fidelity.outputs import REAL_SHARE, find_mismatch, output_error

Array = NDArray[np.float32]


def one(expected: Array, answered: Array, name: str = "y", **feed: np.ndarray) -> OutputError:
    """Measure an output over one feed."""
    return output_error(name, [expected], [answered], [feed])


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("logits", (2, 9, 500), Kind.TOKENS),
        ("logits", (2, 9, 7), Kind.CLASSES),
        ("logits", (2, 3), Kind.CLASSES),
        ("scores", (2, 9, 500), Kind.CLASSES),
        ("forecast", (2, 4), Kind.VALUES),
        ("last_hidden_state", (2, 9, 64), Kind.VALUES),
        ("present.0.key", (2, 4, 9, 16), Kind.CACHE),
    ],
)
def test_kinds(name: str, shape: tuple[int, ...], kind: Kind) -> None:
    assert output_kind(name, [normal(*shape)]) is kind
    assert output_kind(name, [np.zeros(shape, np.int64)]) is Kind.EXACT


@given(offset=st.floats(-1e3, 1e3), part=st.floats(0.01, 2))
def test_what_all_rows_share_is_no_signal(offset: float, part: float) -> None:
    values = normal(50, 6).astype(np.float64)
    noise = part * normal(50, 6, seed=1)
    plain = one(values, values + noise).error
    assert plain is not None
    assert one(values + offset, values + offset + noise).error == pytest.approx(plain, rel=1e-6)
    spread = np.linalg.norm(values - values.mean(axis=0), axis=0)
    each = np.square(np.linalg.norm(noise, axis=0) / spread)
    assert plain == pytest.approx(math.sqrt(each.mean()), rel=1e-6)


def test_quantities_of_other_units_are_measured_by_their_own_spread() -> None:
    values = normal(64, 2) * np.float32([1, 100])
    wrong = values.copy()
    wrong[:, 0] = values[:, 0].mean()
    assert one(values, wrong).error == pytest.approx(math.sqrt(0.5), rel=1e-5)


def test_a_common_direction_does_not_hide_that_embeddings_are_shuffled() -> None:
    common = 10 * normal(1, 96)
    embeddings = common + normal(40, 96, seed=1)
    assert one(embeddings, np.roll(embeddings, 1, axis=0)).error == pytest.approx(math.sqrt(2), rel=0.1)


def test_many_classes_are_measured_by_their_distance_from_each_other() -> None:
    logits = normal(1, 100) + 0.01 * normal(20, 100, seed=1)
    other = logits + 0.1 * normal(20, 100, seed=2) + 50
    assert one(logits, other, "logits").error == pytest.approx(0.1, rel=0.15)


def test_the_worst_feed_counts_and_small_feeds_are_one() -> None:
    feeds = [normal(10, 4, seed=s) for s in range(3)]
    answers = [feeds[0], feeds[1] + np.float32(1.0) * normal(10, 4, seed=7), feeds[2]]
    error = output_error("y", feeds, answers, [{}] * 3)
    assert error.worst == 1
    assert error.error == pytest.approx(1.0, rel=0.3)
    assert error.mean == pytest.approx(error.error / math.sqrt(3))
    small = [array[:1] for array in feeds]
    joined = output_error("y", [*small, feeds[0]], [answers[1][:1], *small[1:], feeds[0]], [{}] * 4)
    assert joined.worst in (0, 1, 2)


def test_next_tokens_err_by_their_divergence() -> None:
    logits = 4 * normal(4, 7, 80)
    other = logits + 0.3 * normal(4, 7, 80, seed=1)
    p, q = (np.exp(z.astype(np.float64)) / np.exp(z.astype(np.float64)).sum(-1, keepdims=True) for z in (logits, other))
    divergence = float((p * np.log(p / q)).sum(-1).mean())
    error = one(logits, other, "logits")
    assert error.divergence == pytest.approx(divergence, rel=1e-5)
    assert error.error == pytest.approx(math.sqrt(REAL_SHARE * divergence / 2), rel=1e-5)
    assert error.perplexity == pytest.approx(math.expm1(REAL_SHARE * divergence), rel=1e-5)
    shifted = one(logits, logits + 5, "logits")
    assert shifted.error == pytest.approx(0, abs=1e-3)


def test_tokens_that_a_mask_leaves_out_do_not_count() -> None:
    hidden, mask = normal(2, 9, 16), np.ones((2, 9), np.int64)
    mask[1, 5:] = 0
    other = hidden.copy()
    other[1, 5:] = 100
    assert one(hidden, other, attention_mask=mask).error == 0
    assert one(hidden, other).error > 1
    behind_cache = np.concatenate([np.ones((2, 4), np.int64), mask], axis=1)
    assert one(hidden, other, attention_mask=behind_cache).error == 0


def test_the_beginning_of_a_long_text_does_not_count() -> None:
    logits = normal(1, 40, 80)
    other = logits.copy()
    other[:, :8] = 0
    assert one(logits, other, "logits").error == 0
    assert one(logits[:, :10], other[:, :10], "logits").error > 0.1


def test_equal_rows_and_few_rows_are_measured_by_their_size() -> None:
    constant = np.full((9, 3), 5, np.float32)
    error = one(constant, constant * np.float32(1.1))
    assert error.error == pytest.approx(0.1, rel=1e-5)
    assert not error.spread
    assert one(normal(2, 3), normal(2, 3)).spread is False


def test_zeros_are_judged_by_size() -> None:
    zeros = np.zeros((5, 20), np.float32)
    assert one(zeros, zeros + np.float32(1e-4)).error == 0
    assert one(zeros, zeros + np.float32(0.1)).error > 1e3


def test_masked_values_count_for_nothing_but_their_place() -> None:
    reference = np.array([[1, 2, -np.inf, np.nan, np.finfo(np.float32).min]], np.float32)
    assert find_mismatch(reference, reference) is None
    error = one(reference, reference * np.array([1.5, 1.5, 1, 1, 1], np.float32))
    assert error.relative == pytest.approx(0.5)
    assert find_mismatch(reference, -reference) is not None
    assert find_mismatch(reference, np.nan_to_num(reference)) is not None
    half = np.array([1, 65504], np.float16)
    assert find_mismatch(half, np.array([1, np.inf], np.float16)) is None


def test_decisions_count_rows_of_all_feeds() -> None:
    eye = np.eye(4, dtype=np.float32)
    error = output_error("logits", [eye, eye[:1]], [eye, eye[1:2]], [{}, {}])
    assert error.decisions == pytest.approx(4 / 5)


def test_rows_of_other_lengths_are_values() -> None:
    error = output_error("start_logits", [normal(4, 9), normal(4, 5)], [normal(4, 9), normal(4, 5)], [{}, {}])
    assert error.error == 0


def test_one_figure_of_all_outputs() -> None:
    feeds = [{}]
    y, cache = normal(20, 4), normal(2, 3, 4, 5)
    answered = [{"y": y + np.float32(0.1) * normal(20, 4, seed=1), "present.0": cache * 0}]
    errors, mismatches = output_errors(Answers(feeds, [{"y": y, "present.0": cache}]), answered)
    assert not mismatches
    assert overall_error(errors, mismatches, worst=True) == errors["y"].error < 0.2
    assert errors["present.0"].error == pytest.approx(1.0, rel=0.1)
    alone = {"present.0": errors["present.0"]}
    assert overall_error(alone, {}, worst=False) == errors["present.0"].mean
    _, mismatches = output_errors(Answers(feeds, [{"y": y}]), [{"y": y[:2]}])
    assert mismatches["y"].startswith("has shape [2, 4]")
    assert overall_error({}, mismatches, worst=True) == math.inf
    assert output_errors(Answers(feeds, [{"y": y}]), [{}])[1] == {"y": "is missing"}


def test_every_feed_has_a_figure_and_the_worst_is_the_largest() -> None:
    """Feeds of 8 rows and more stand for themselves, those of fewer share one figure, an empty one has none."""
    counts = (9, 3, 20, 0, 2)
    expected = [normal(count, 16, seed=count) for count in counts]
    answered = [
        one + size * normal(*one.shape, seed=9) for one, size in zip(expected, (0.1, 1, 0.3, 1, 2), strict=True)
    ]
    error = output_error("y", expected, answered, [{} for _ in counts])
    assert error.by_feed is not None
    far, few, near, none, fewer = error.by_feed
    assert none is None
    assert few == fewer == error.error
    assert far == pytest.approx(0.1, rel=0.3)
    assert near == pytest.approx(0.3, rel=0.3)
    assert few == pytest.approx(1.5, rel=0.3)
    assert error.worst == 4
