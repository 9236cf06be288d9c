"""Sparse initializers: dense where that takes less room, never lost."""

import numpy as np
import onnx
import pytest
from onnx import helper

import passes
from bct_onnx import files
from tests.helpers import SERIAL, model, random, relative_error, rewrite, run

K, N = 40, 64
TEXT = "g (float[m, 40] x) => (float[m, 64] y) { y = MatMul(x, w) }"


def thin(share: float, seed: int = 0, dtype=np.float32):
    """Return a weight of which a share is not zero."""
    return np.where(np.random.default_rng(seed).random((K, N)) < share, 9 * random(K, N, seed=seed), 0).astype(dtype)


def with_sparse(text: str, weight, flat: bool = True, **dense) -> onnx.ModelProto:
    source = model(text, **dense)
    places = np.flatnonzero(weight) if flat else np.argwhere(weight)
    values = onnx.numpy_helper.from_array(weight[weight != 0], "w")
    indices = onnx.numpy_helper.from_array(places.astype(np.int64))
    source.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, weight.shape))
    return source


@pytest.mark.parametrize("flat", [True, False])
def test_what_is_worth_it_becomes_codes(tmp_path, flat):
    weight = thin(0.2)
    result = rewrite(with_sparse(TEXT, weight, flat), tmp_path, bits=8, block_size=0)
    assert result.replaced == {"sparse": 1, "matmul": 1}
    assert [tensor.name for tensor in result.reports["matmul"].tensors] == ["w"]
    x = random(5, K, seed=1)
    assert relative_error(run(result.proto, x=x)[0], x @ weight) < 0.02


def through(source: onnx.ModelProto, folder, **options) -> tuple[onnx.ModelProto, list[str]]:
    """Return a model after the passes, which ONNX's checker does not know the sparse initializers of, and the skips."""
    onnx.save(source, folder / "source.onnx")
    read = files.read(folder / "source.onnx")
    graph = read.graph()
    reports = passes.run(graph, passes.Options(**(SERIAL | options)), checked=True)
    files.write(graph, read, folder / "rewritten.onnx")
    found = next(report for report in reports if report.name == "sparse")
    return onnx.load(folder / "rewritten.onnx"), [skipped.reason for skipped in found.skipped]


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (thin(0.02), "w takes 744 bytes sparse, 1600 as codes"),
        (np.where(thin(0.5) != 0, np.float32(np.inf), np.float32(0)), "w holds NaN, infinity or a mask"),
        (thin(0.5, dtype=np.int64), "w holds int64, no floats"),
    ],
)
def test_what_is_not_stays_sparse(tmp_path, weight, reason):
    kind = "int64" if weight.dtype == np.int64 else "float"
    source = with_sparse(TEXT.replace("float", kind), weight)
    proto, reasons = through(source, tmp_path, bits=4)
    assert reasons == [reason]
    assert len(proto.graph.sparse_initializer) == 1
    x = random(5, K, seed=1).astype(weight.dtype)
    np.testing.assert_array_equal(run(proto, x=x)[0], run(source, x=x)[0])


def test_a_kept_one_stays_sparse(tmp_path):
    proto, reasons = through(with_sparse(TEXT, thin(0.2)), tmp_path, keep=("^w$",))
    assert reasons == ["kept by the pattern '^w$'"]
    assert len(proto.graph.sparse_initializer) == 1
