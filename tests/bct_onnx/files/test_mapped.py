"""A model as it is, with weights that ONNX Runtime maps."""

import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bct_onnx import BctError, files
from tests.helpers import model, random, run

TEXT = "g (float[m, 64] x) => (float[m, 64] y) { a = MatMul(x, w) y = Add(a, small) }"


def test_a_mapped_model_answers_the_same_and_holds_no_weights(tmp_path: Path) -> None:
    # Elsewhere, so that whatever refers to the source's file is missed.
    source, path = tmp_path / "in.onnx", tmp_path / "elsewhere" / "mapped.onnx"
    path.parent.mkdir()
    proto = model(TEXT, opset=21, w=random(64, 64, seed=1), small=random(1, 64, seed=2))
    inner = onnx.helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(random(64, 64, seed=3)))
    proto.graph.node.insert(0, inner)
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["y", "c"], ["z"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["m", 64]))
    onnx.save(proto, source)
    read = files.read(source)
    assert not files.is_mapped(read)
    mapped = files.write_mapped(read, path)
    x = random(5, 64, seed=4)
    for one, other in zip(run(source, x=x), run(path, x=x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert mapped.data.parent == path.parent
    assert mapped.data.stat().st_size >= 4 * 64 * 64
    assert files.is_mapped(files.read(path))
    (w,) = (t for t in onnx.load(path, load_external_data=False).graph.initializer if t.name == "w")
    assert w.data_location == onnx.TensorProto.EXTERNAL
    assert int({e.key: e.value for e in w.external_data}["offset"]) % 4096 == 0
    assert onnx.load(source) == proto
    onnx.checker.check_model(path)
    mapped.remove()
    assert list(path.parent.iterdir()) == []


def test_one_is_written_where_another_is_in_use_or_was_left(tmp_path: Path) -> None:
    source, path = tmp_path / "in.onnx", tmp_path / "mapped[1].onnx"
    onnx.save(model(TEXT, opset=21, w=random(64, 64, seed=1), small=random(1, 64, seed=2)), source)
    first, second = (files.write_mapped(files.read(source), path) for _ in range(2))
    assert first.data != second.data
    second.remove()
    assert sorted(tmp_path.iterdir()) == sorted([source, first.data])


def test_weights_beside_the_model_are_mapped_already_and_a_few_inside_do_not_count(tmp_path: Path) -> None:
    proto = model(TEXT, opset=21, w=random(64, 64, seed=1), small=np.ones((1, 64), np.float32))
    proto.graph.initializer.append(numpy_helper.from_array(random(300, seed=2), "inside"))
    onnx.save_model(
        proto, tmp_path / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=2 * 1200
    )
    assert files.is_mapped(files.read(tmp_path / "in.onnx"))


@pytest.mark.parametrize("room", [1000, 8000, 16_500])
def test_a_full_disk_is_one_line_and_leaves_neither_file(tmp_path: Path, room: int) -> None:
    """Room for nothing, for some of the weights, and for them but not for the model."""
    source, path = tmp_path / "in.onnx", tmp_path / "mapped.onnx"
    proto = model(TEXT, opset=21, w=random(64, 64, seed=1), small=random(1, 64, seed=2))
    proto.doc_string = "." * 20_000
    onnx.save(proto, source)
    read = files.read(source)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(BctError, match=r"mapped\.onnx: cannot be written: File too large$"):
            files.write_mapped(read, path)
        with pytest.raises(BctError, match=r"mapped\.onnx: cannot be written: File too large$"):
            files.write_proto(proto, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    path.unlink()
    assert list(tmp_path.iterdir()) == [source]
