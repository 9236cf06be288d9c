"""RowAttention and HeadAttention: what the numpy reference says, within the bound of their products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.functions.attention import ATTENTION, BFLOAT16, LOWEST, apart, reference
from tests.bct_onnx.kernels import calls
from tests.bct_onnx.kernels.calls import call, run

# Sums of float32 in another order, relative to the sum of magnitudes.
FLOAT = 2e-6
SCALE = 0.3
SPECIAL = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-44]


@pytest.fixture(autouse=True)
def opset(monkeypatch):
    monkeypatch.setattr(calls, "OPSET", 23)


def draw(q, k, v, mask=None, seed=0):
    """Return query, key, value and mask of these shapes, heads first."""
    numbers = np.random.default_rng(seed)
    parts = {
        name: numbers.standard_normal(shape).astype(np.float32) for name, shape in zip("qkv", (q, k, v), strict=True)
    }
    if mask is not None:
        hidden = numbers.choice(np.array([0, -1.5, -np.inf, LOWEST], np.float32), mask)
        parts["mask"] = hidden
    return parts


def rows_of(heads):
    """Return [b, s, h * d] of [b, h, s, d]."""
    b, h, s, d = heads.shape
    return np.ascontiguousarray(heads.transpose(0, 2, 1, 3)).reshape(b, s, h * d)


def attend(parts, heads_first=True, native=True, scale=SCALE):
    """Return what the operator gives, heads first."""
    attributes, feeds = {"scale": scale}, dict(parts)
    if not heads_first:
        attributes |= {"q_num_heads": parts["q"].shape[1], "kv_num_heads": parts["k"].shape[1]}
        feeds |= {name: rows_of(parts[name]) for name in "qkv"}
    function = ATTENTION[heads_first, "mask" in parts]
    (y,) = run(call(function.name, feeds, {}, attributes), feeds, native)
    return y if heads_first else apart(y, parts["q"].shape[1])


def error_allowed(parts, processor):
    """Return what y may be off by, [b, h, s, e], as the reference says."""
    shared = parts["q"].shape[1] // parts["k"].shape[1]
    q, k, v = (np.abs(parts[n].astype(np.float64)) for n in "qkv")
    k, v = (np.repeat(x, shared, axis=1) for x in (k, v))
    unit = BFLOAT16 * 1.01 if processor == "amx" else FLOAT
    scores = unit * SCALE * (q @ k.swapaxes(2, 3)).max(-1, keepdims=True) + FLOAT
    return (2 * np.expm1(scores) + unit + FLOAT) * v.max(axis=2, keepdims=True) + 1e-30


def check(parts, processor, heads_first=True):
    y = attend(parts, heads_first)
    exact = {name: x.astype(np.float64) for name, x in parts.items()}
    expected = reference(**exact, scale=SCALE)
    assert y.shape == expected.shape
    assert y.dtype == np.float32
    assert (np.abs(y - expected) <= error_allowed(parts, processor)).all()


@pytest.mark.parametrize(
    ("q", "k", "v", "mask"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), None),
        ((2, 3, 128, 64), (2, 3, 128, 64), (2, 3, 128, 64), (2, 1, 128, 128)),
        ((1, 2, 33, 31), (1, 2, 47, 31), (1, 2, 47, 17), (33, 47)),
        ((2, 4, 40, 80), (2, 2, 65, 80), (2, 2, 65, 96), (1, 4, 40, 65)),
        ((1, 6, 1, 64), (1, 2, 300, 64), (1, 2, 300, 64), (1, 1, 1, 300)),
        ((1, 2, 200, 33), (1, 1, 16, 33), (1, 1, 16, 130), (2, 200, 16)),
        ((3, 2, 4, 20), (3, 1, 9, 20), (3, 1, 9, 70), (3, 2, 4, 9)),
    ],
)
@pytest.mark.parametrize("heads_first", [False, True])
def test_reference(processor, q, k, v, mask, heads_first):
    check(draw(q, k, v, mask), processor, heads_first)


sizes = st.integers(1, 70)


@given(st.data(), sizes, sizes, sizes, sizes)
@settings(max_examples=60, deadline=None)
def test_any_sizes(data, tokens, keys, width, value_width):
    batch, groups, shared = (data.draw(st.integers(1, 3)) for _ in range(3))
    masks = (1, batch), (1, groups * shared)
    mask = data.draw(st.none() | st.tuples(*map(st.sampled_from, masks), st.just(tokens), st.just(keys)))
    k = (batch, groups, keys, width)
    parts = draw((batch, groups * shared, tokens, width), k, (*k[:3], value_width), mask, data.draw(st.integers(0, 99)))
    # The kind of processor is the best there is, whose products may be in bfloat16.
    check(parts, "amx", data.draw(st.booleans()))


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("name", ["q", "k", "v", "mask"])
@pytest.mark.parametrize("tokens", [2, 12])
def test_special_values_stay_where_they_are(name, value, tokens):
    parts = draw((2, 2, tokens, 20), (2, 2, 19, 20), (2, 2, 19, 20), (2, 2, tokens, 19))
    parts["mask"][...] = 0
    parts[name][1, 0, 1, 7] = value
    y, expected = attend(parts), reference(**parts, scale=np.float32(SCALE))
    assert (np.isnan(y) == np.isnan(expected)).all()
    assert (np.isinf(y) == np.isinf(expected)).all()
    others = (0, 0), (0, 1), (1, 1)
    without = {each: x.copy() for each, x in parts.items()}
    without[name][1, 0, 1, 7] = 0
    assert all(np.array_equal(y[at], attend(without)[at]) for at in others)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("tokens", [3, 40])
@pytest.mark.parametrize("hidden", [-np.inf, LOWEST])
def test_who_sees_nothing_gets_zeros_as_stock(tokens, hidden):
    parts = draw((1, 2, tokens, 16), (1, 2, 21, 16), (1, 2, 21, 16), (1, 1, tokens, 21))
    parts["mask"][...] = 0
    parts["mask"][0, 0, 1] = hidden
    parts["mask"][0, 0, 2, :20] = hidden
    y, stock = attend(parts), attend(parts, native=False)
    assert (y[:, :, 1] == 0).all()
    assert (stock[:, :, 1] == 0).all()
    np.testing.assert_allclose(y[:, :, 2], parts["v"][:, :, 20], rtol=2**-8)
    np.testing.assert_allclose(y, stock, atol=0.05)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("tokens", [1, 5, 90])
def test_an_answer_does_not_depend_on_the_batch(tokens):
    parts = draw((5, 4, tokens, 24), (5, 2, 77, 24), (5, 2, 77, 24), (5, 1, tokens, 77))
    together = attend(parts)
    for i in range(5):
        alone = attend({name: x[i : i + 1] for name, x in parts.items()})
        assert np.array_equal(together[i : i + 1], alone)


@pytest.mark.usefixtures("processor")
def test_nothing_asked():
    assert attend(draw((0, 2, 3, 8), (0, 2, 4, 8), (0, 2, 4, 8))).shape == (0, 2, 3, 8)
    assert attend(draw((1, 2, 0, 8), (1, 2, 4, 8), (1, 2, 4, 8)), heads_first=False).shape == (1, 2, 0, 8)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (((1, 2, 3, 8), (2, 2, 4, 8), (1, 2, 4, 8)), "of different batches"),
        (((1, 3, 3, 8), (1, 2, 4, 8), (1, 2, 4, 8)), "no multiple of those of the key"),
        (((1, 3, 3, 8), (1, 0, 4, 8), (1, 0, 4, 8)), "no multiple of those of the key"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 1, 4, 8)), "different numbers of heads"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 2, 5, 8)), "different numbers of tokens"),
        (((1, 2, 3, 8), (1, 2, 4, 7), (1, 2, 4, 8)), "different widths"),
        (((1, 2, 3, 0), (1, 2, 4, 0), (1, 2, 4, 8)), "heads have no width"),
        (((1, 2, 3, 8), (1, 2, 0, 8), (1, 2, 0, 8)), "there are no keys"),
        (((2, 3, 8), (2, 4, 8), (2, 4, 8)), r"not \[batch, heads, tokens, width\]"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 2, 4, 8), (4,)), "neither 2 nor 3 nor 4 axes"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 2, 4, 8), (2, 1, 3, 4)), "another batch"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 2, 4, 8), (3, 3, 4)), "another number of heads"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 2, 4, 8), (1, 4)), "tokens than the query"),
        (((1, 2, 3, 8), (1, 2, 4, 8), (1, 2, 4, 8), (3, 1)), "tokens than the key"),
    ],
)
@pytest.mark.usefixtures("processor")
def test_what_does_not_fit_is_an_error(shapes, reason):
    with pytest.raises(Exception, match=reason):
        attend(draw(*shapes))


@pytest.mark.parametrize(
    ("heads", "reason"), [((0, 1), "above zero"), ((1, -1), "above zero"), ((3, 1), "no multiple of their heads")]
)
def test_hostile_numbers_of_heads(heads, reason):
    x = np.zeros((1, 2, 8), np.float32)
    feeds = {"q": x, "k": x, "v": x}
    attributes = {"scale": 1.0, "q_num_heads": heads[0], "kv_num_heads": heads[1]}
    with pytest.raises(Exception, match=reason):
        run(call("RowAttention", feeds, {}, attributes), feeds)
