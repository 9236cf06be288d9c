"""Codes in whole bytes that stand for narrower ones: the same numbers, and files that answer the same to the bit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import passes
from bct_onnx import compress, files, search
from bct_onnx.compression.tries import Tries
from bct_onnx.search import decoded, memoized
from passes import Options, plain_codes
from passes.formats.block import BlockFormat, decode
from passes.formats.encode import encode
from tests.bct_onnx.search.conftest import K
from tests.helpers import model as model_of
from tests.helpers import random, run


@given(
    st.integers(1, 70), st.integers(1, 40), st.integers(2, 7), st.sampled_from([0, 8, 32]), st.booleans(), st.booleans()
)
def test_the_same_numbers_lie_in_whole_bytes(k: int, n: int, bits: int, block: int, best: bool, by_rows: bool) -> None:
    weight = random(n, k, seed=k * n).T if by_rows else random(k, n, seed=k * n)
    weight[:, n // 2] = 0
    fmt = BlockFormat.best(bits, block) if best else BlockFormat.shifted(bits, block)
    narrow = encode(weight, fmt)
    whole = decoded(lambda *_: narrow)(weight, fmt, None, 2)
    assert whole.format == BlockFormat.shifted(8, 0)
    assert whole.codes.shape == (1, -(-k // 8) * 8, n)
    np.testing.assert_array_equal(decode(whole), decode(narrow))
    assert whole.sqnr_db == narrow.sqnr_db


def test_what_is_in_whole_bytes_or_cannot_be_stays_as_it_is() -> None:
    weight = random(64, 32)
    for fmt in (BlockFormat.shifted(8, 0), BlockFormat.fine(4, 32), BlockFormat.multiples(4, 32)):
        tensor = encode(weight, fmt)
        assert decoded(lambda *_, tensor=tensor: tensor)(weight, fmt, None, 1) is tensor


def test_codes_are_decoded_once() -> None:
    weight, fmt = random(64, 32), BlockFormat.best(4, 8)
    made: list[np.ndarray] = []

    def move(array: np.ndarray) -> np.ndarray:
        made.append(array)
        return array

    coder = decoded(memoized(plain_codes), move)
    assert coder(weight, fmt, None, 1) is coder(weight.copy(), fmt, None, 1)
    assert len(made) == 1
    assert coder(weight, BlockFormat.best(3, 8), None, 1) is not coder(weight, fmt, None, 1)


@pytest.mark.parametrize("lowering", ["dense", "dense7"])
@pytest.mark.parametrize("bits", [2, 5])
def test_a_file_of_them_answers_the_same_to_the_bit(source: Path, tmp_path: Path, lowering: str, bits: int) -> None:
    options, x = Options(bits=bits, block_size=8, lowering=lowering), random(5, K, seed=3)
    answers = []
    for number, coder in enumerate((plain_codes, decoded(memoized(plain_codes)))):
        model = files.read(source)
        graph = model.graph()
        passes.run(graph, options, coder=coder)
        files.write(graph, model, path := tmp_path / f"{number}.onnx", lasting=False)
        answers.append(run(path, x=x)[0])
    np.testing.assert_array_equal(*answers)
    assert not np.array_equal(answers[0], run(source, x=x)[0])


def test_so_do_weights_side_by_side_with_widths_of_their_own(tmp_path: Path) -> None:
    text = """g (float[m, 64] x) => (float[m, 64] y, float[m, 64] z, float[m, 64] t) {
        y = MatMul(x, q) z = MatMul(x, k) t = MatMul(x, v) }"""
    weights = {name: random(K, K, seed=number) for number, name in enumerate("qkv")}
    onnx.save(model_of(text, **weights), tmp_path / "in.onnx")
    options, x = Options(bits=3, block_size=8, lowering="dense", bits_for={"q": 2, "v": 6}), random(5, K, seed=3)
    answers = []
    for number, coder in enumerate((plain_codes, decoded(memoized(plain_codes)))):
        model = files.read(tmp_path / "in.onnx")
        graph = model.graph()
        passes.run(graph, options, coder=coder)
        files.write(graph, model, path := tmp_path / f"{number}.onnx", lasting=False)
        answers.append(np.stack(run(path, x=x)))
    np.testing.assert_array_equal(*answers)
    assert np.square(answers[0] - np.stack(run(tmp_path / "in.onnx", x=x))).mean() > 0


def test_a_search_writes_its_own_codes_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the file that is written is that of the try before it, whose answers were the same."""
    tried: list[float] = []
    written: list[Path] = []
    exact, write = Tries.exact, files.write

    def told(self: Tries, bits: dict[str, int]) -> float:
        tried.append(exact(self, bits))
        return tried[-1]

    def watched(*args, lasting: bool = True, **named):
        if lasting:
            written.append(args[2])
        return write(*args, lasting=lasting, **named)

    monkeypatch.setattr(Tries, "exact", told)
    monkeypatch.setattr(files, "write", watched)
    report = compress(source, tmp_path / "out.onnx", max_drop=0.1)
    assert len(written) == 1
    assert report.search is not None
    assert report.search.error in tried
    assert report.search.met


def test_a_file_that_answers_otherwise_is_measured_itself(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    exact = Tries.exact

    def told(self: Tries, bits: dict[str, int]) -> float:
        tried.append(exact(self, bits))
        return tried[-1]

    monkeypatch.setattr(Tries, "exact", told)
    monkeypatch.setattr(search, "decoded", lambda coder, _: lambda weight, *rest: coder(weight * 1.02, *rest))
    report = compress(source, tmp_path / "out.onnx", max_drop=0.2)
    assert report.search is not None
    assert tried
    assert report.search.error not in tried
