"""Weights to blame are found in few tries, and kept in float where they are small."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bct_onnx import VerificationError, compress
from bct_onnx.compression.mend import MOST_BLAMED, find_culprits
from tests.helpers import model, random

# Values between two far apart whose difference is what counts: no scale of a column or a block stands for them.
DIFFERENCE = """g (float[m, 64] x) => (float[m, 512] y) {
  a = MatMul(x, w) b = MatMul(x, v) c = Sub(a, b) d = Mul(c, large) e = MatMul(d, u) y = Tanh(e) }"""
K = 64


@given(st.integers(1, 60), st.sets(st.integers(0, 59), min_size=1, max_size=MOST_BLAMED))
def test_just_the_needed_weights_are_found_in_few_tries(count: int, needed: set[int]) -> None:
    names = [f"w{number}" for number in range(count)]
    guilty = {f"w{number % count}" for number in needed}
    tries = 0

    def mends(kept: list[str]) -> bool:
        nonlocal tries
        tries += 1
        return guilty <= set(kept)

    assert set(find_culprits(names, mends)) == guilty
    assert tries <= 1 + len(guilty) * (count.bit_length() + 1)


def test_nobody_is_blamed_for_what_floats_do_not_mend() -> None:
    assert find_culprits(["a", "b"], lambda _: False) == []


@pytest.fixture
def near(tmp_path: Path) -> Path:
    """Make a model with a large weight that bears few bits and two equal but for a thousandth, which do not."""
    v = random(K, K, seed=1)
    w = v + np.float32(1e-3) * random(K, K, seed=2)
    path = tmp_path / "in.onnx"
    weights = {"w": w, "v": v, "u": random(K, 8192, seed=3)[:, :512] / 8, "large": np.array(1e3, np.float32)}
    onnx.save(model(DIFFERENCE, opset=21, **weights), path)
    return path


def test_a_refusal_names_the_weights_and_the_option(near: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"errs by .* of its spread.*in float .* mend it: --keep '\^") as caught:
        compress(near, tmp_path / "out.onnx", preset="small")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_small_weights_are_kept_in_float_by_themselves(near: Path, tmp_path: Path) -> None:
    proto = onnx.load(near)
    wide = onnx.helper.make_node("MatMul", ["y", "wide"], ["z"])
    proto.graph.node.append(wide)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random(512, 1024, seed=4), "wide"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["m", 1024]))
    onnx.save(proto, near)
    report = compress(near, tmp_path / "out.onnx", preset="small")
    assert any(note.startswith("kept in float, since their codes harm the answers") for note in report.notes)
    assert report.ratio > 4
