"""The compiled encoder: to the bit what numpy encodes, on every kind of processor; the same files without it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bct_onnx import compress, kernels
from passes.formats import encode_trellis, trellis
from passes.formats.block import BlockFormat, BlockTensor
from passes.formats.compiled import FEWEST, Encoder
from passes.formats.encode import COLUMNS, encode
from tests.helpers import model
from tests.passes.formats.test_encode import same

# The processor is set once a test and stays for its examples.
examples = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
blocks = st.sampled_from([0, 8, 16, 32, 128])
formats = st.one_of(
    st.builds(BlockFormat.best, st.sampled_from(trellis.WIDTHS), blocks),
    st.builds(BlockFormat.shifted, st.integers(2, 8), blocks),
    st.builds(BlockFormat.fine, st.integers(2, 8), blocks),
    st.builds(BlockFormat.multiples, st.integers(2, 8), blocks),
    st.builds(BlockFormat.shifts_only, st.integers(2, 8), blocks),
)
KINDS = ("normal", "columns", "far", "zeros", "outlier", "levels", "rows", "huge", "tiny", "all zeros")


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Draw a [k, n] weight, n around what is worked on at a time: zeros, the largest numbers and the smallest."""
    k = draw(st.sampled_from([1, 7, 8, 9, 31, 33, 130]))
    n = draw(st.sampled_from([1, 2, FEWEST - 1, FEWEST, FEWEST + 1, 31, 32, 33, 63, 65, COLUMNS + 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    matrix = rng.standard_normal((k, n))
    match draw(st.sampled_from(KINDS)):
        case "columns":
            matrix *= 10.0 ** rng.integers(-4, 5, n)
        case "far":
            matrix *= 10.0 ** rng.integers(-36, 1, n)
        case "zeros":
            matrix *= rng.integers(0, 2, (k, n)) * rng.integers(0, 2, n)
        case "outlier":
            matrix[rng.integers(k), rng.integers(n)] *= 1e4
        case "levels":
            matrix = np.rint(2 * matrix)
        case "rows":
            matrix *= 10.0 ** rng.integers(-4, 5, (k, 1))
        case "huge":
            matrix *= 2.0**126 / np.abs(matrix).max()
        case "tiny":
            matrix *= 2.0**-140
        case "all zeros":
            matrix *= 0
    found = matrix.astype(np.float32)
    return np.asfortranarray(found) if draw(st.booleans()) else found


@pytest.fixture
def library(processor: str) -> Encoder:
    """Return the encoder that the package offers, on a kind of processor."""
    kernels.offer_encoder()
    assert Encoder.offered is not None, processor
    return Encoder.offered


@contextmanager
def offered(encoder: Encoder | None) -> Iterator[None]:
    """Have weights encoded by a library, or by numpy."""
    before, Encoder.offered = Encoder.offered, encoder
    try:
        yield
    finally:
        Encoder.offered = before


def both(
    weight: np.ndarray, fmt: BlockFormat, encoder: Encoder, how: Callable[..., BlockTensor] = encode
) -> tuple[BlockTensor, BlockTensor]:
    """Return what the library encodes, by two threads, and what numpy does."""
    with offered(encoder):
        compiled = how(weight, fmt, workers=2)
    with offered(None):
        return compiled, how(weight, fmt)


def noted(called: list[str], name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function and note its name."""
    called.append(name)
    return function(*arguments)


@given(weight=weights(), fmt=formats)
@examples
@example(weight=np.ones((8, FEWEST), np.float32), fmt=BlockFormat.best(4, 8))
def test_the_same_codes_scales_shifts_and_errors(library, weight, fmt):
    assert same(*both(weight, fmt, library))


@given(weight=weights(), fmt=st.builds(BlockFormat.best, st.sampled_from(trellis.WIDTHS), blocks))
@examples
def test_the_same_in_a_trellis_where_codes_that_stand_for_themselves_are_better(library, weight, fmt):
    assert same(*both(weight, fmt, library, encode_trellis.encode))


@pytest.mark.parametrize("bits", trellis.WIDTHS)
def test_the_same_codes_in_a_trellis(library, bits):
    """Of normal numbers, whose codes in a trellis are the better ones, over many steps."""
    weight = np.random.default_rng(bits).standard_normal((1001, 75)).astype(np.float32)
    compiled, expected = both(weight, BlockFormat.best(bits, 8), library)
    assert expected.format.trellis
    assert same(compiled, expected)


def test_a_tie_of_shifts_goes_to_the_shift(library):
    """7.5 is as far from 7, the highest code, as from 8, which a shift has."""
    weight = np.zeros((24, FEWEST), np.float32)
    weight[:8], weight[8], weight[16:] = 14, 7.5, 12
    compiled, expected = both(weight, BlockFormat.shifted(4, 8), library)
    np.testing.assert_array_equal(expected.exponents, 1)
    assert same(compiled, expected)


def test_half_precision_and_parts_of_an_array(library):
    weight = np.random.default_rng(0).standard_normal((130, 80)).astype(np.float16)
    for part in (weight, weight[1::2, ::2], weight[::-1, ::-1].T):
        assert same(*both(part, BlockFormat.best(4, 32), library))


def test_rows_that_weigh_differently_are_left_to_numpy(library):
    rng = np.random.default_rng(0)
    weight, importance = rng.standard_normal((64, 32)).astype(np.float32), rng.random(64)
    with offered(library):
        compiled = encode(weight, BlockFormat.shifted(4, 8), 1, importance)
    with offered(None):
        assert same(encode(weight, BlockFormat.shifted(4, 8), 1, importance), compiled)


def test_it_is_used_where_it_is_offered(library, monkeypatch):
    """All four functions, once a slice of columns, and nothing of what numpy would do instead."""
    called = []
    for name in ("codes", "expected", "tried", "rounded"):
        monkeypatch.setattr(library, name, partial(noted, called, name, getattr(library, name)))
    monkeypatch.setattr(encode_trellis, "least_paths", None)
    encode(np.random.default_rng(0).standard_normal((64, FEWEST)).astype(np.float32), BlockFormat.best(4, 8))
    assert sorted(set(called)) == ["codes", "expected", "rounded", "tried"]


@pytest.mark.parametrize("content", [None, b"", b"not a library"])
def test_without_a_library_that_loads_numpy_encodes(monkeypatch, tmp_path, content):
    target = tmp_path / "kernels.so"
    if content is not None:
        target.write_bytes(content)
    monkeypatch.setattr(kernels, "TARGET", target)
    kernels.offer_encoder()
    assert Encoder.offered is None


@pytest.mark.parametrize("preset", ["small", "fast", "portable"])
def test_files_are_the_same_without_it(monkeypatch, tmp_path: Path, preset):
    rng = np.random.default_rng(0)
    shapes = {"w": (96, 200), "v": (200, 96)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    text = "g (float[m, 96] x) => (float[m, 96] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
    source = tmp_path / "in.onnx"
    onnx.save(model(text, **arrays), source)
    expected = compress(source, tmp_path / "with.onnx", preset=preset, verify=False).output.sha256
    assert Encoder.offered is not None
    monkeypatch.setattr(kernels, "TARGET", tmp_path / "none.so")
    Encoder.offered = None
    assert compress(source, tmp_path / "without.onnx", preset=preset, verify=False).output.sha256 == expected
    assert Encoder.offered is None
