"""The same input and options give the same file: on every run, with any number of workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import passes
from bct_onnx import compress, files
from bct_onnx.files.reader import file_hash
from bct_onnx.presets import PRESETS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are encoded in several chunks."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (int64[2, 3] ids) => (float[2, 3, 700] y) {
            x = Gather(table, ids)
            q = MatMul(x, w)
            k = MatMul(x, v)
            y = Add(q, k) }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"table": (900, 500), "w": (500, 700), "v": (500, 700)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    path = tmp_path_factory.mktemp("source") / "in.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_any_number_of_workers_gives_the_same_file(source: Path, tmp_path: Path, bits: int, lowering: str) -> None:
    hashes = set()
    for workers in (1, 2, 3):
        model = files.read(source)
        graph = model.graph()
        options = replace(PRESETS["balanced"], bits=bits, block_size=32, lowering=lowering, workers=workers)
        passes.run(graph, options)
        hashes.add(files.write(graph, model, tmp_path / f"{workers}.onnx").sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize("external_data", ["never", "always"])
def test_runs_repeat(source: Path, tmp_path: Path, external_data: files.ExternalData) -> None:
    reports = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        target = tmp_path / str(number) / "out.onnx"
        reports.append(compress(source, target, external_data=external_data))
        external = sorted(target.parent.glob("*.data"))
        assert reports[-1].output.sha256 == file_hash(target, external)
        assert len(external) == (external_data == "always")
    assert reports[0].output.sha256 == reports[1].output.sha256
