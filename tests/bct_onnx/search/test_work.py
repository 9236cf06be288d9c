"""What a run costs, and how many fit into the time there is."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import files
from bct_onnx.search.switchable import SwitchableModel
from bct_onnx.search.work import (
    NODE_SECONDS,
    RATE,
    SHARE,
    Affordable,
    affordable,
    nominal_seconds,
    products_of,
    with_sizes,
)
from bct_onnx.sessions import MemoryUse, Session
from passes import Options
from tests.bct_onnx.search.conftest import K
from tests.helpers import model, random, run


def test_a_run_costs_its_multiplications(source, tmp_path) -> None:
    proto = onnx.load(source)
    onnx.save(with_sizes(proto), tmp_path / "sized.onnx")
    run_sized = Session(tmp_path / "sized.onnx").run
    products, nodes = products_of(proto), len(proto.graph.node)
    answers = [run_sized({"x": random(rows, K, seed=1)}) for rows in (10, 1000)]
    costs = [nominal_seconds(products, nodes, answer) for answer in answers]
    fixed = NODE_SECONDS * nodes
    assert costs == pytest.approx([fixed + 2 * rows * K * K / RATE for rows in (10, 1000)])


def test_without_memory_every_weight_is_multiplied_with_every_row(source, tmp_path) -> None:
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx", MemoryUse.MAPPED)
    few, many = ({"x": random(rows, K, seed=1)} for rows in (10, 1000))
    (answer, _), (cheap, dear) = switchable.answers_and_costs([few, many])
    np.testing.assert_allclose(answer["y"], run(source, **few)[0], rtol=1e-5, atol=1e-5)
    assert dear - cheap == pytest.approx(2 * 990 * K * K / RATE)


def test_a_convolution_costs_its_window_for_every_result(tmp_path: Path) -> None:
    text = "g (float[n, 3, 16, 16] x) => (float[n, 8, 4, 4] y) { y = Conv <strides = [4, 4]> (x, w) }"
    proto = model(text, opset=21, w=random(8, 3 * 16, seed=1).reshape(8, 3, 4, 4))
    feed = {"x": random(2, 3 * 256, seed=2).reshape(2, 3, 16, 16)}
    onnx.save(with_sizes(proto), tmp_path / "sized.onnx")
    cost = nominal_seconds(products_of(proto), 1, Session(tmp_path / "sized.onnx").run(feed))
    assert cost == pytest.approx(NODE_SECONDS + 2 * 8 * 16 * 48 / RATE)


def test_what_fits_is_counted() -> None:
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=10 / SHARE) == Affordable(1, 10)
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=20 / SHARE) == Affordable(2, 10)
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=4.5) == Affordable(1, 4)
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=0.0) == Affordable(1, 1)
