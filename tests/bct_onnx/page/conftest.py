"""Reports as data, as `--json` writes them: of a small model, made once."""

import copy
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from bct_onnx import compress
from tests.helpers import model as from_text
from tests.helpers import random

Data = dict[str, Any]
# Two layers by the names of their weights, a table and a head.
LAYERS = """g (int64[batch, seq] ids) => (float[batch, seq, 8] y) {
    x = Gather(table, ids)
    a = MatMul(x, enc_0_up) b = Relu(a) c = MatMul(b, enc_0_down)
    d = MatMul(c, enc_1_up) e = Relu(d) f = MatMul(e, enc_1_down)
    y = MatMul(f, head)
}"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Return the report of a model with two layers."""
    folder = tmp_path_factory.mktemp("page")
    weights = {
        "table": random(300, 64, seed=1),
        **{f"enc_{layer}_up": random(64, 128, seed=2 + layer) for layer in range(2)},
        **{f"enc_{layer}_down": random(128, 64, seed=5 + layer) for layer in range(2)},
        "head": random(64, 8, seed=9),
    }
    source = from_text(LAYERS, **weights)
    for tensor in source.graph.initializer:
        if tensor.name.startswith("enc"):
            _, layer, role = tensor.name.split("_")
            rename(source, tensor.name, f"enc.layer.{layer}.{role}.weight")
    onnx.save(source, folder / "in.onnx")
    report = compress(folder / "in.onnx", folder / "out.onnx", max_drop=0.1)
    data = json.loads(json.dumps(report.to_dict()))
    # As measured elsewhere: no process of its own for every test.
    data["memory"] = {"peak_bytes_before": 4_000_000, "peak_bytes": 2_000_000, "seconds_before": 0.2, "seconds": 0.1}
    assert isinstance(data, dict)
    return data


@pytest.fixture
def report(made: Data) -> Data:
    """Return a copy of that report, to be changed."""
    return copy.deepcopy(made)


def rename(source: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name, wherever it stands."""
    for tensor in (*source.graph.initializer, *source.graph.input, *source.graph.output):
        tensor.name = new if tensor.name == old else tensor.name
    for node in source.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def save(data: Data, path: Path) -> Path:
    """Write data as JSON."""
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
