"""LayerNormalizationQuantizeRows: floats within their bound, codes those of these floats, rows apart."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.functions import normalize_rows, quantize_rows
from tests.bct_onnx.kernels.calls import Array, call, run, session

ENDINGS = ["", "Like", "ByDivision"]
EPSILON = 1e-5


def hold(ending: str, x: Array, seed: int = 0, **how: Any) -> None:
    k, numbers = x.shape[-1], np.random.default_rng(seed)
    gain, bias = (numbers.standard_normal(k).astype(np.float32) for _ in range(2))
    zeros = {"zeros": np.full((*x.shape[:-1], 1), 128, np.uint8)} if ending == "Like" else {}
    attributes = {"epsilon": EPSILON} | ({} if ending == "ByDivision" else {"block_size": k})
    model = call(f"LayerNormalizationQuantizeRows{ending}", {"x": x, **zeros}, {"gain": gain, "bias": bias}, attributes)
    y, q, scale, *others = run(model, {"x": x, **zeros}, **how)
    expected, _, _ = normalize_rows.reference(x, gain, bias, EPSILON)
    deviation = np.sqrt(x.astype(np.float64).var(-1, keepdims=True) + EPSILON)
    bound = normalize_rows.BOUND * np.abs(x).max(-1, keepdims=True) / deviation * np.abs(gain)
    assert (np.abs(y - expected.astype(np.float64)) <= bound + np.spacing(np.abs(bias)) + np.spacing(np.abs(y))).all()
    codes, scales = quantize_rows.reference(y)
    assert np.array_equal(scale, scales)
    assert np.abs(q.astype(int) - codes).max(initial=0) <= (how.get("native", True) is False)
    assert all((other == 128).all() for other in others)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 64), (1, 33, 100), (4, 1, 768), (0, 8)])
@pytest.mark.usefixtures("processor")
def test_every_form_is_the_reference(ending, shape):
    hold(ending, np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 3 + 1)


@given(st.integers(1, 5), st.integers(1, 300), st.floats(-100, 100), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_rows_of_any_length(rows, k, mean, deviation, seed):
    x = np.random.default_rng(seed).standard_normal((rows, k)) * deviation + mean
    hold("", x.astype(np.float32), seed)


@pytest.mark.parametrize("ending", ENDINGS)
def test_bodies_say_the_same(ending):
    hold(ending, np.random.default_rng(1).standard_normal((3, 9, 64)).astype(np.float32), native=False, optimize="none")


@pytest.mark.usefixtures("processor")
def test_rows_do_not_depend_on_their_neighbours():
    x = np.random.default_rng(0).standard_normal((67, 100)).astype(np.float32)
    x[5], x[6], x[7, 3], x[8, 4] = 0, 3e38, np.nan, np.inf
    constants = {"gain": np.ones(100, np.float32), "bias": np.zeros(100, np.float32)}
    attributes = {"epsilon": EPSILON, "block_size": 100}
    native = session(call("LayerNormalizationQuantizeRows", {"x": x}, constants, attributes))
    together = native.run(None, {"x": x})
    assert np.array_equal(together[0][5], constants["bias"])
    assert np.isnan(together[0][7]).all()
    for row in (0, 4, 5, 9, 66):
        for found, all_rows in zip(native.run(None, {"x": x[row : row + 1]}), together, strict=True):
            assert np.array_equal(found, all_rows[row : row + 1])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 64), (1, 33, 100), (0, 8)])
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.usefixtures("processor")
def test_two_gains_are_two_calls(ending, shape, native):
    k, numbers = shape[-1], np.random.default_rng(2)
    x = numbers.standard_normal(shape).astype(np.float32) * 3 + 1
    if x.size > 200:
        x[0, 0, 5], x[0, 1, 6], x[0, 2] = np.nan, np.inf, 0
    names = ("gain", "bias", "even_gain", "even_bias")
    values = {name: numbers.standard_normal(k).astype(np.float32) for name in names}
    zeros = {"zeros": np.full((*shape[:-1], 1), 128, np.uint8)} if ending == "Like" else {}
    attributes = {"epsilon": EPSILON} | ({} if ending == "ByDivision" else {"block_size": k})
    how = {"native": native, "optimize": "all" if native else "none"}

    def call_of(name: str, constants: dict[str, Array]) -> list[Array]:
        model = call(f"LayerNormalization{name}QuantizeRows{ending}", {"x": x, **zeros}, constants, attributes)
        return run(model, {"x": x, **zeros}, **how)

    y, *_ = call_of("", {name: values[name] for name in names[:2]})
    _, *codes = call_of("", {name: values[f"even_{name}"] for name in names[:2]})
    for found, expected in zip(call_of("Even", values), [y, *codes], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["even_gain", "even_bias"])
def test_other_gains_that_do_not_fit_are_an_error(name):
    names = ("gain", "bias", "even_gain", "even_bias")
    constants = {each: np.ones(8, np.float32) for each in names} | {name: np.ones(9, np.float32)}
    x = np.zeros((2, 8), np.float32)
    model = call("LayerNormalizationEvenQuantizeRows", {"x": x}, constants, {"epsilon": EPSILON, "block_size": 8})
    with pytest.raises(Exception, match="gain or bias is not one number a column"):
        run(model, {"x": x})


@pytest.mark.parametrize("name", ["gain", "bias"])
@pytest.mark.parametrize("other", [np.ones(1, np.float32), np.ones((1, 8), np.float32), np.ones(9, np.float32)])
def test_what_does_not_fit_is_an_error(name, other):
    constants = {"gain": np.ones(8, np.float32), "bias": np.ones(8, np.float32), name: other}
    x = np.zeros((2, 8), np.float32)
    model = call("LayerNormalizationQuantizeRows", {"x": x}, constants, {"epsilon": EPSILON, "block_size": 8})
    with pytest.raises(Exception, match="LayerNormalizationQuantizeRows: gain or bias is not one number a column"):
        run(model, {"x": x})
