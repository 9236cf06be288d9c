"""Channels of a normalization are shifted and scaled for the products that read it, exactly."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from passes import ChannelRange
from tests.helpers import model, operators, random, rewrite, run

WIDTH, N = 64, 96
NORM = "n = LayerNormalization<axis = -1, epsilon = 1e-5>(x, g, b) "
ALONE = "g (float[m, 64] x) => (float[m, 96] y) { " + NORM + "p = MatMul(n, w) y = Add(p, c) }"
RESIDUAL = (
    "g (float[m, 64] x) => (float[m, 96] y, float[m, 96] z, float[m, 64] r) { "
    + NORM
    + "p = MatMul(n, w) y = Add(p, c) z = Gemm<transB = 1>(n, v, d) r = Relu(n) }"
)
DENSE = {"operators": frozenset({"even_channels", "matmul"}), "bits": 8, "block_size": 0}
ONLY = DENSE | {"operators": frozenset({"even_channels"})}


def weights(text: str, large: float = 9.0) -> dict[str, np.ndarray]:
    """Return the constants of a graph: a normalization with one channel as large as is said, or with even ones."""
    bias = random(WIDTH, seed=5)
    bias[7] = large
    given = {
        "g": np.abs(random(WIDTH, seed=4)) + np.float32(0.5) if large else np.ones(WIDTH, np.float32),
        "b": bias if large else np.zeros(WIDTH, np.float32),
        "w": random(WIDTH, N, seed=1),
        "c": random(N, seed=2),
        "v": random(N, WIDTH, seed=3),
        "d": random(N, seed=6),
    }
    return {name: array for name, array in given.items() if re.search(rf"[(,] ?{name}[,)]", text)}


def seen(given: dict[str, np.ndarray], x: np.ndarray) -> dict[str, ChannelRange]:
    rows = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * given["g"] + given["b"]
    return {"n": ChannelRange(rows.min(axis=0), rows.mean(axis=0), rows.max(axis=0), rows)}


@pytest.mark.parametrize("text", [ALONE, RESIDUAL])
def test_the_products_are_the_same_and_quantized_with_less_noise(text: str, tmp_path: Path) -> None:
    given, x = weights(text), random(50, WIDTH, seed=9)
    proto = model(text, **given)
    expected = run(proto, x=x)
    exact = rewrite(proto, tmp_path, seen(given, x), **ONLY)
    assert exact.replaced == {"even_channels": 1}
    for one, other in zip(run(exact.proto, x=x), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert operators(exact.proto).count("LayerNormalization") == (2 if text is RESIDUAL else 1)
    before, after = (
        np.linalg.norm(run(rewrite(proto, tmp_path, ranges, **DENSE).proto, x=x)[0] - expected[0])
        for ranges in ({}, seen(given, x))
    )
    assert after < 0.6 * before


def test_means_far_from_the_bias_are_taken_as_they_are_rounded(tmp_path: Path) -> None:
    """The file holds float16, where a bias 2 away from the mean errs by half a thousandth: above tolerance."""
    given, x = weights(ALONE), random(50, WIDTH, seed=9)
    proto, known = model(ALONE, **given), seen(given, x)["n"]
    mean = known.mean + np.float32(2) * (given["g"] < 1)
    exact = rewrite(proto, tmp_path, {"n": replace(known, mean=mean)}, **ONLY)
    assert exact.replaced == {"even_channels": 1}
    np.testing.assert_allclose(run(exact.proto, x=x)[0], run(proto, x=x)[0], rtol=1e-4, atol=1e-4)


def test_reports_speak_of_the_weight_as_the_model_names_it(tmp_path: Path) -> None:
    given, x = weights(ALONE), random(50, WIDTH, seed=9)
    reports = rewrite(model(ALONE, **given), tmp_path, seen(given, x), **DENSE).reports
    assert [tensor.name for report in reports.values() for tensor in report.tensors] == ["w"]


@pytest.mark.parametrize(
    ("large", "lowering", "known"),
    [
        (0.0, "dense", True),  # nothing to gain
        (9.0, "packed", True),
        (9.0, "dense", False),
    ],
)
def test_left_alone(large: float, lowering: str, known: bool, tmp_path: Path) -> None:
    given, x = weights(ALONE, large), random(50, WIDTH, seed=9)
    options = ONLY | {"lowering": lowering}
    assert not rewrite(model(ALONE, **given), tmp_path, seen(given, x) if known else None, **options).replaced


def test_without_biases_channels_are_only_scaled(tmp_path: Path) -> None:
    text = "g (float[m, 64] x) => (float[m, 96] y) { " + NORM + "y = MatMul(n, w) }"
    given, x = weights(text), random(50, WIDTH, seed=9)
    proto = model(text, **given)
    changed = rewrite(proto, tmp_path, seen(given, x), **ONLY)
    assert changed.replaced == {"even_channels": 1}
    np.testing.assert_allclose(run(changed.proto, x=x)[0], run(proto, x=x)[0], rtol=1e-4, atol=1e-4)
