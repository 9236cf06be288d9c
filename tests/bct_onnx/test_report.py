"""What a report adds up to."""

import onnx

from bct_onnx import compress
from tests.helpers import model, random

TEXT = """g (int64[batch, seq] ids) => (float[batch, seq, 64] y) {
    x = Gather(table, ids) s = Add(x, large) a = MatMul(s, w) b = Relu(a) c = MatMul(b, v) y = Add(c, bias)
}"""


def test_sizes_by_operator_add_up_to_both_files(tmp_path):
    weights = {
        "table": random(500, 64, seed=1),
        "large": random(64, seed=2) * 1e9,
        "w": random(64, 128, seed=3),
        "v": random(128, 64, seed=4),
        "bias": random(64, seed=5),
    }
    onnx.save(model(TEXT, **weights), tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast", verify=False)
    sizes = report.sizes
    assert sum(before for before, _ in sizes.values()) == report.input.bytes == (tmp_path / "in.onnx").stat().st_size
    assert sum(after for _, after in sizes.values()) == report.output.bytes == (tmp_path / "out.onnx").stat().st_size
    assert list(sizes) == ["Gather", "MatMul", "Add", ""]
    assert sizes["Gather"][0] == weights["table"].nbytes
    assert sizes["MatMul"][0] == weights["w"].nbytes + weights["v"].nbytes
    # The bias of a product is no weight of its own.
    assert sizes["Add"] == (256, 256)
    data = report.to_dict()
    assert data["sizes"][0] == {"op": "Gather", "before": sizes["Gather"][0], "after": sizes["Gather"][1]}
    assert (data["memory"], data["verification"]) == (None, None)
