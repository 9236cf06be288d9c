"""A model as it is, with weights that ONNX Runtime maps."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bct_onnx import files
from tests.helpers import model, random, run

TEXT = "g (float[m, 64] x) => (float[m, 64] y) { a = MatMul(x, w) y = Add(a, small) }"


def test_a_mapped_model_answers_the_same_and_holds_no_weights(tmp_path: Path) -> None:
    source, path = tmp_path / "in.onnx", tmp_path / "mapped.onnx"
    proto = model(TEXT, opset=21, w=random(64, 64, seed=1), small=random(1, 64, seed=2))
    inner = onnx.helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(random(64, 64, seed=3)))
    proto.graph.node.insert(0, inner)
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["y", "c"], ["z"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["m", 64]))
    onnx.save(proto, source)
    read = files.read(source)
    assert not files.is_mapped(read)
    data = files.write_mapped(read, path)
    x = random(5, 64, seed=4)
    for one, other in zip(run(source, x=x), run(path, x=x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert data.parent == path.parent
    assert data.stat().st_size >= 4 * 64 * 64
    assert files.is_mapped(files.read(path))
    (w,) = (t for t in onnx.load(path, load_external_data=False).graph.initializer if t.name == "w")
    assert w.data_location == onnx.TensorProto.EXTERNAL
    assert int({e.key: e.value for e in w.external_data}["offset"]) % 4096 == 0
    assert onnx.load(source) == proto
    onnx.checker.check_model(path)
