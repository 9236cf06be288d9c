"""Weights that are stored twice become one."""

import numpy as np
import pytest

from tests.helpers import model, random, rewrite, run

W = random(40, 40, seed=1)
TWICE = "g (float[m, 40] x) => (float[m, 40] y) { u = MatMul(x, a) v = Relu(u) y = MatMul(v, b) }"


def tied(tmp_path, a, b):
    """Return the names of the copies found, and of the weights encoded."""
    result = rewrite(model(TWICE, a=a, b=b), tmp_path)
    copies = [tensor.name for tensor in result.reports["tied"].tensors]
    return copies, [tensor.name for tensor in result.reports["matmul"].tensors]


def test_equal_weights_are_one(tmp_path):
    assert tied(tmp_path, W, W.copy()) == (["b"], ["a"])


def test_a_transposed_copy_is_the_original_read_the_other_way_round(tmp_path):
    assert tied(tmp_path, W, W.T.copy()) == (["b"], ["a", "a"])


def test_answers_are_those_of_the_two(tmp_path):
    source = model(TWICE, a=W, b=W.T.copy())
    x = random(3, 40)
    (exact,), (y,) = run(source, x=x), run(rewrite(source, tmp_path, bits=8).proto, x=x)
    np.testing.assert_allclose(y, exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize("place", [(0, 0), (39, 39), (20, 21)])
def test_one_different_value_makes_another_weight(tmp_path, place):
    other = W.copy()
    other[place] += 1e-6
    assert tied(tmp_path, W, other) == ([], ["a", "b"])


def test_a_copy_that_is_an_output_stays(tmp_path):
    text = "g (float[m, 40] x) => (float[m, 40] y, float[40, 40] b) { u = MatMul(x, a) y = MatMul(u, b) }"
    result = rewrite(model(text, a=W, b=W.copy()), tmp_path)
    assert result.reports["tied"].tensors == []
    np.testing.assert_array_equal(run(result.proto, x=random(1, 40))[1], W)


def test_weights_of_other_types_are_apart(tmp_path):
    text = """g (float[m, 40] x) => (float[m, 40] y) {
        u = MatMul(x, a) h = Cast <to = 10> (u) v = MatMul(h, b) y = Cast <to = 1> (v)
    }"""
    half = random(64, 40, seed=2).astype(np.float16)
    weights = {"a": np.tile(half[:40], (1, 1)).astype(np.float32), "b": half[:40].repeat(1, axis=0)}
    assert rewrite(model(text, **weights), tmp_path).reports["tied"].tensors == []


def test_nan_is_equal_to_nothing(tmp_path):
    weight = np.where(np.arange(1600).reshape(40, 40) == 77, np.float32(np.nan), W)
    assert tied(tmp_path, weight, weight.copy())[0] == []
