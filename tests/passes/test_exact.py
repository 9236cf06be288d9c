"""Passes that only rearrange a graph change no answer: on random models, with all of them at once."""

import numpy as np
import pytest

import passes
from bct_onnx import files
from bct_onnx.opsets import raise_opset
from benchmarks.fuzz import generate
from tests.helpers import SERIAL, optimized, run

PLAIN = {"sparse", "fold", "unfuse"}
EXACT = frozenset({*PLAIN, "tied", "attention", "biases", "absorb", "unread_rows", "fuse_gelu", "sizes"})
OPSET = 23
# Sums in another order, relative to the largest value: of float32 and of half precision.
TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float16): 2e-2}


def feeds(source, seed):
    """Return token numbers or activations, [2, 5] or [2, 5, width]."""
    rng = np.random.default_rng(seed)
    (given,) = source.graph.input
    *_, width = (dim.dim_value for dim in given.type.tensor_type.shape.dim)
    if given.name == "ids":
        return {"ids": rng.integers(0, 17, (2, 5))}
    kind = np.float16 if given.type.tensor_type.elem_type == 10 else np.float32
    return {given.name: rng.standard_normal((2, 5, width)).astype(kind)}


@pytest.mark.parametrize("seed", range(150))
def test_rearranged_graphs_compute_the_same(tmp_path, seed):
    check(generate.model(seed), seed, tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_what_the_session_fuses_is_taken_apart(tmp_path, seed):
    """Graphs as the runtime's optimizer saves them: FusedMatMul, SkipLayerNormalization, BiasGelu, Attention."""
    check(optimized(generate.model(seed), tmp_path), seed, tmp_path)


def check(source, seed, tmp_path):
    path = tmp_path / "source.onnx"
    path.write_bytes(raise_opset(source, OPSET).SerializeToString())
    read = files.read(path)
    graph = read.graph()
    passes.run(graph, passes.Options(operators=EXACT, **SERIAL), checked=True)
    files.write(graph, read, tmp_path / "result.onnx")
    given = feeds(source, seed)
    for one, other in zip(run(source, **given), run(tmp_path / "result.onnx", **given), strict=True):
        assert one.shape == other.shape
        error = np.abs(one.astype(np.float64) - other).max()
        assert error <= TOLERANCE[one.dtype] * max(1, np.abs(one).max())
