"""SplitRowAttention: to the bit what RowAttention gives of the three parts, read where they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.functions.split_attention import BIASED, SPLIT_ATTENTION
from tests.bct_onnx.kernels import calls
from tests.bct_onnx.kernels.calls import call, run
from tests.bct_onnx.kernels.test_attention import draw, rows_of

FORMS = [(biased, masked) for biased in BIASED.values() for masked in (False, True)]
# Queries, heads of keys and values, and the width of values: of more than one panel, too.
SIZES = [
    ((2, 3, 40, 16), 3, 16),
    ((3, 4, 5, 20), 2, 24),
    ((1, 6, 70, 33), 1, 31),
    ((2, 2, 1, 8), 2, 8),
    ((1, 2, 20, 48), 2, 70),
]


@pytest.fixture(autouse=True)
def opset(monkeypatch):
    monkeypatch.setattr(calls, "OPSET", 23)


def both(biased, masked, q, shared, value_width, seed=0, **how):
    """Return what the call gives of all side by side, and what RowAttention gives of the three."""
    b, heads, tokens, width = q
    mask = (b, 1, tokens, tokens) if masked else None
    parts = draw(q, (b, shared, tokens, width), (b, shared, tokens, value_width), mask, seed)
    rows = {part: rows_of(parts[part]) for part in "qkv"}
    numbers = np.random.default_rng(seed + 1)
    biases = {part: numbers.standard_normal(rows[part].shape[2]).astype(np.float32) for part in biased}
    counts = {"scale": 0.3, "q_num_heads": heads, "kv_num_heads": shared}
    given_mask = {"mask": parts["mask"]} if masked else {}

    feeds = {"qkv": np.concatenate(list(rows.values()), axis=2), **given_mask}
    constants = {f"{part}_bias": bias[None] for part, bias in biases.items()}
    sizes = [rows[part].shape[2] for part in "qkv"]
    model = call(SPLIT_ATTENTION[biased, masked].name, feeds, constants, counts | {"sizes": sizes})
    (y,) = run(model, feeds, **how)

    summed = {part: x + biases.get(part, np.float32(0)) for part, x in rows.items()} | given_mask
    (expected,) = run(call("RowAttentionMasked" if masked else "RowAttention", summed, {}, counts), summed, **how)
    return y, expected


@pytest.mark.parametrize(("biased", "masked"), FORMS)
@pytest.mark.parametrize("shapes", SIZES)
@pytest.mark.usefixtures("processor")
def test_parts_lie_side_by_side(biased, masked, shapes):
    y, expected = both(biased, masked, *shapes)
    assert y.shape == expected.shape
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(("biased", "masked"), FORMS)
def test_bodies_say_the_same(biased, masked):
    for optimize in ("none", "all"):
        y, expected = both(biased, masked, *SIZES[1], native=False, optimize=optimize)
        assert np.array_equal(y, expected)


sizes = st.integers(1, 40)


@given(st.data(), st.sampled_from(FORMS), sizes, sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_any_sizes(data, form, tokens, width, value_width):
    batch, shared, sharing = (data.draw(st.integers(1, 3)) for _ in range(3))
    y, expected = both(
        *form, (batch, shared * sharing, tokens, width), shared, value_width, data.draw(st.integers(0, 99))
    )
    assert np.array_equal(y, expected)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("tokens", [2, 50])
def test_an_answer_does_not_depend_on_the_batch(tokens):
    counts = {"scale": 0.3, "q_num_heads": 2, "kv_num_heads": 2, "sizes": [32, 32, 48]}
    numbers = np.random.default_rng(0)
    qkv = numbers.standard_normal((4, tokens, 112)).astype(np.float32)
    qkv[1, 0, 5], qkv[1, 1, 40], qkv[1, 1, 100] = np.nan, 3e38, -np.inf
    biases = {"q_bias": numbers.standard_normal(32).astype(np.float32), "v_bias": np.ones(48, np.float32)}
    together = run(call("SplitRowAttentionBiasQV", {"qkv": qkv}, biases, counts), {"qkv": qkv})[0]
    for i in range(4):
        feeds = {"qkv": qkv[i : i + 1]}
        (alone,) = run(call("SplitRowAttentionBiasQV", feeds, biases, counts), feeds)
        np.testing.assert_array_equal(together[i : i + 1], alone)
    assert np.isnan(together[1]).any()
    assert np.isfinite(together[[0, 2, 3]]).all()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"sizes": [8, 8, 9]}, "sizes are not those"),
        ({"sizes": [8, 8, 4]}, "sizes are not those"),
        ({"sizes": [12, -4, 16]}, "sizes are not those"),
        ({"sizes": [2**62, 2**62, 24]}, "sizes are not those"),
        ({"sizes": [8, 16]}, "sizes are not those"),
        ({"sizes": [8, 4, 12]}, "different widths"),
        ({"q_num_heads": 0}, "above zero"),
        ({"q_num_heads": 3}, "no multiple of their heads"),
        ({"bias": np.zeros(7, np.float32)}, "a bias is not one number a column"),
        ({"bias": np.zeros((8, 1), np.float32)}, "a bias is not one number a column"),
        ({"qkv": np.zeros((3, 24), np.float32)}, r"not \[batch, tokens, width\]"),
    ],
)
@pytest.mark.usefixtures("processor")
def test_what_does_not_fit_is_an_error(wrong, reason):
    attributes = {"scale": 1.0, "q_num_heads": 2, "kv_num_heads": 2, "sizes": [8, 8, 8]} | wrong
    qkv, bias = (attributes.pop(key, None) for key in ("qkv", "bias"))
    feeds = {"qkv": np.zeros((1, 3, 24), np.float32) if qkv is None else qkv}
    biases = {"q_bias": np.zeros(8, np.float32) if bias is None else bias}
    with pytest.raises(Exception, match=reason):
        run(call("SplitRowAttentionBiasQ", feeds, biases, attributes), feeds)
