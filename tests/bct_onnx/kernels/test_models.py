"""Compressed models: the same answers with the native kernels and without, on many threads, in the benchmark."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import bct_onnx
from bct_onnx import kernels
from bct_onnx.bench.__main__ import main
from bct_onnx.sessions import Options, open_session

FIXTURES = Path(__file__).parents[3] / "models" / "fixtures"
NUMBERS = np.random.default_rng(0)


def feeds(rows: int, length: int) -> dict[str, np.ndarray]:
    ones = np.ones((rows, length), np.int64)
    return {
        "input_ids": NUMBERS.integers(5, 30, (rows, length)),
        "attention_mask": ones,
        "token_type_ids": 0 * ones,
    }


@pytest.fixture(scope="module", params=["fast", "small"])
def compressed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("compressed") / f"{request.param}.onnx"
    bct_onnx.compress(FIXTURES / "bert_optimum.onnx", target, preset=request.param, verify=False)
    return target


@pytest.mark.usefixtures("processor")
def test_answers_are_the_same(compressed):
    plain, native = open_session(compressed, Options(1)), bct_onnx.session(compressed, 2)
    for shape in ((1, 1), (3, 7), (2, 16)):
        fed = feeds(*shape)
        for expected, found in zip(plain.run(None, fed), native.run(None, fed), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_many_threads_on_one_session(compressed):
    native, fed = bct_onnx.session(compressed), feeds(3, 9)
    expected = native.run(None, fed)[0]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: native.run(None, fed)[0], range(40)):
            assert np.array_equal(found, expected)


def test_without_a_library_the_bodies_run(compressed, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "TARGET", tmp_path / "none.so")
    assert bct_onnx.session(compressed).run(None, feeds(1, 4))
    with pytest.raises(bct_onnx.BctError, match="no native kernels were built: install g"):
        kernels.library()


def test_benchmark_measures_both(compressed):
    source = str(FIXTURES / "bert_optimum.onnx")
    arguments = [source, str(compressed), "--native", "--shapes", "1x4", "--rounds", "1", "--seconds", "0"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"{compressed.stem}, native" in result.output
