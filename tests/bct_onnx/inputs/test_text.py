"""Language models read text and caches of their own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from bct_onnx.arrays import Feed, Outputs
from bct_onnx.inputs.feeds import candidate_plans
from bct_onnx.inputs.made import OWN_FEEDS, OWN_ROWS, OWN_TOKENS, made_inputs, more_feeds, own_texts
from bct_onnx.inputs.text import Decoder, decoder_of, pair_caches
from bct_onnx.sessions import TooLongError

WORDS = 100
HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
PLAIN = "g (int64[batch, seq] input_ids) => (float[batch, seq, 100] logits) { logits = Gather(table, input_ids) }"
CACHED = """g (int64[batch, seq] input_ids, int64[batch, total_seq] attention_mask,
    float[batch, 2, past_seq, 4] past_key_0) => (float[batch, seq, 100] logits, float[batch, 2, t, 4] present_key_0) {
    logits = Gather(table, input_ids) present_key_0 = Identity(past_key_0) }"""


def model(text: str) -> onnx.ModelProto:
    proto = parse_model(HEAD + text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((WORDS, WORDS), np.float32), "table"))
    return proto


def sure(feed: Feed) -> Outputs:
    """Answer like a model that expects the next number, and whose cache holds the numbers that it read."""
    ids = np.asarray(feed["input_ids"])
    logits = 50.0 * np.eye(WORDS, dtype=np.float32)[(ids + 1) % WORDS]
    if "past_key_0" not in feed:
        return {"logits": logits}
    keys = np.broadcast_to(ids[:, None, :, None], (len(ids), 2, ids.shape[1], 4)).astype(np.float32)
    return {"logits": logits, "present_key_0": np.concatenate([feed["past_key_0"], keys], axis=2)}


def fills_gaps(feed: Feed) -> Outputs:
    """Answer like a model that expects in every place what stands there, and less what stands beside it."""
    own = np.eye(WORDS, dtype=np.float32)[np.asarray(feed["input_ids"])]
    return {"logits": 5 * own + np.roll(own, 1, axis=1) + np.roll(own, -1, axis=1)}


@pytest.mark.parametrize("text", [PLAIN, CACHED, PLAIN.replace("batch, seq", "4, 16")])
def test_every_token_follows_from_the_one_before(text: str) -> None:
    made = made_inputs(sure, Path("m.onnx"), model(text), 0, 60.0)
    assert all("text of its own" in kind for kind in made.kinds)
    for feed in made.feeds:
        ids = np.asarray(feed["input_ids"])
        steps = (ids[:, 1:] - ids[:, :-1]) % WORDS
        # Pieces of a long text begin anew; where the length is fixed a few rounds write a few tokens.
        assert (steps[:, :6] == 1).all()
        assert "batch" not in text or not steps.size or (steps == 1).mean() > 0.9


def test_a_cache_holds_the_tokens_before() -> None:
    made = made_inputs(sure, Path("m.onnx"), model(CACHED), 0, 60.0)
    cached = [feed for feed in made.feeds if np.shape(feed["past_key_0"])[2]]
    assert len(cached) == 2
    assert any("a cache of its own of 16" in kind for kind in made.kinds)
    for feed in cached:
        before, ids = np.asarray(feed["past_key_0"])[:, 0, :, 0], np.asarray(feed["input_ids"])
        np.testing.assert_array_equal((before[:, -1] + 1) % WORDS, ids[:, 0])
        assert np.shape(feed["attention_mask"])[1] == before.shape[1] + ids.shape[1]


@pytest.mark.parametrize("text", [PLAIN, CACHED])
def test_own_texts_are_many_tokens_and_the_same_every_time(text: str) -> None:
    feeds, again = (own_texts(sure, Path("m.onnx"), model(text)) for _ in range(2))
    assert len(feeds) == OWN_FEEDS
    for feed, other in zip(feeds, again, strict=True):
        ids = np.asarray(feed["input_ids"])
        assert ids.shape == (OWN_ROWS, OWN_TOKENS)
        assert ((ids[:, 1:] - ids[:, :-1]) % WORDS == 1).mean() > 0.9
        np.testing.assert_array_equal(ids, other["input_ids"])
    assert len({np.asarray(feed["input_ids"]).tobytes() for feed in feeds}) == OWN_FEEDS


def test_a_slow_model_writes_no_more_texts_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bct_onnx.inputs.made.OWN_SECONDS", -1.0)
    assert own_texts(sure, Path("m.onnx"), model(CACHED)) == []


@pytest.mark.parametrize("text", [PLAIN, CACHED])
def test_no_text_is_tried_again_after_a_run_that_takes_too_long(text: str) -> None:
    runs: list[Feed] = []

    def ends_late(feed: Feed) -> Outputs:
        runs.append(feed)
        if len(runs) > 2:
            raise TooLongError("a run took more than 5 s and was stopped")
        return sure(feed)

    assert own_texts(ends_late, Path("m.onnx"), model(text)) == []
    assert len(runs) == 3


def test_models_that_fill_gaps_have_no_texts_of_their_own() -> None:
    assert own_texts(fills_gaps, Path("m.onnx"), model(PLAIN)) == []


def test_more_feeds_are_like_the_first_and_the_same_every_time() -> None:
    proto = model(CACHED)
    first, answers, _ = made_inputs(sure, Path("m.onnx"), proto, 0, 60.0)
    (more, outputs), (again, _) = (more_feeds(sure, Path("m.onnx"), proto, (first, answers), 6) for _ in range(2))
    assert more[: len(first)] == first
    for feed, output in zip(more, outputs, strict=True):
        np.testing.assert_array_equal(output["logits"], sure(feed)["logits"])
    for one, other in zip(more, again, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_classes_of_tokens_are_no_text() -> None:
    proto = model(PLAIN.replace("100", "7"))
    plan = next(next(candidate_plans(proto, 0)))
    feed = plan.feed()
    answer = sure(feed)
    assert decoder_of(sure, plan, feed, {"logits": answer["logits"][..., :7]}) is None
    assert isinstance(decoder_of(sure, plan, feed, answer), Decoder)


def test_a_model_that_fills_gaps_writes_no_text() -> None:
    """It would write its first token again and again."""
    made = made_inputs(fills_gaps, Path("m.onnx"), model(PLAIN), 0, 60.0)
    assert not any("text of its own" in kind for kind in made.kinds)
    assert all(len(np.unique(feed["input_ids"])) > 2 for feed in made.feeds)


def test_codes_with_one_scale_of_all_tokens_write_text() -> None:
    def in_codes(feed: Feed) -> Outputs:
        logits = sure(feed)["logits"]
        return {"logits": logits + 1e-3 * np.float32(np.mean(feed["input_ids"]))}

    assert all("text of its own" in kind for kind in made_inputs(in_codes, Path("m.onnx"), model(PLAIN), 0, 60.0).kinds)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["past_key_values.0.key", "past_key_values.0.value"], ["logits", "present.0.key", "present.0.value"]),
        (["past_0", "past_1"], ["present_0", "present_1"]),
        (["past_key_self_0", "past_value_cross_0"], ["present_key_self_0", "present_value_cross_0"]),
        (["cache.layers.0.k_in"], ["cache.layers.0.k_out"]),
    ],
)
def test_caches_are_found_by_name(inputs: list[str], outputs: list[str]) -> None:
    assert pair_caches(inputs, outputs) == dict(zip(inputs, outputs[-len(inputs) :], strict=True))
    assert pair_caches([*inputs, "past_key_values.9.key"], outputs) == {}


def test_features_have_the_scale_that_the_first_weight_expects() -> None:
    sizes = np.float32([1, 1e4, 1e-3, 1, 1, 1, 1, 1])
    text = "g (float[batch, 8] features) => (float[batch, 16] y) { y = MatMul(features, w) }"
    proto = parse_model(HEAD + text)
    weight = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32) / sizes[:, None]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    (feed, *_), *_ = made_inputs(lambda feed: {"y": np.asarray(feed["features"]) @ weight}, Path("m"), proto, 0, 60.0)
    drawn = np.std(np.asarray(feed["features"]), axis=0)
    assert 1e3 < drawn[1] / drawn[0] < 1e5
    assert 1e-4 < drawn[2] / drawn[0] < 1e-2


def test_features_are_drawn_as_a_standardization_takes_them() -> None:
    text = """g (float[batch, 3] features) => (float[batch, 3] y) { d = Sub(features, mean) y = Div(d, deviation) }"""
    proto = parse_model(HEAD + text)
    mean, deviation = np.float32([500, -3, 0]), np.float32([100, 1, 1e-3])
    proto.graph.initializer.extend(
        [onnx.numpy_helper.from_array(a, n) for a, n in ((mean, "mean"), (deviation, "deviation"))]
    )
    made = made_inputs(lambda feed: {"y": (np.asarray(feed["features"]) - mean) / deviation}, Path("m"), proto, 0, 60.0)
    answers = np.concatenate([outputs["y"] for outputs in made.outputs])
    assert np.abs(answers).max() < 5
    assert 0.3 < answers.std() < 2


@pytest.mark.parametrize(
    ("inputs", "y", "counts"),
    [
        ("float[n, s, 8] x", "ReduceMean <axes = [1], keepdims = 0> (x)", [4, 1, 6, 1, 16]),
        ("float[1, s, 8] x", "ReduceMean <axes = [1], keepdims = 0> (x)", [1] * 7),
        ("float[n, s, 8] x", "Identity (x)", [4, 1, 6, 1]),
    ],
    ids=["one a text", "a fixed batch", "one a token"],
)
def test_an_output_of_few_answers_is_asked_for_more(inputs: str, y: str, counts: list[int]) -> None:
    """Twelve answers do not tell what the error of others will be."""
    proto = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float y) {{ y = {y} }}')

    def answer(feed: Feed) -> Outputs:
        x = np.asarray(feed["x"])
        return {"y": x.mean(axis=1) if "Reduce" in y else x}

    feeds = made_inputs(answer, Path("m.onnx"), proto, 0, 60.0).feeds
    assert [len(np.asarray(feed["x"])) for feed in feeds] == counts
    assert len({np.asarray(feed["x"]).tobytes() for feed in feeds}) == len(feeds)


@pytest.mark.parametrize("text", [PLAIN, CACHED])
def test_a_slow_machine_gets_fewer_texts_and_no_noise(text: str) -> None:
    made = made_inputs(sure, Path("m.onnx"), model(text), 0, 0.0)
    assert len(made.feeds) == 1
    assert "text of its own" in made.kinds[0]
