"""What lowerings say of themselves is so: passes and presets rely on it without a look at the name."""

import onnx
import pytest

import passes
from bct_onnx import files
from passes import LOWERINGS, Options, make_lowering
from tests.helpers import MLP, K, model, nodes, plain, random, rewrite

WEIGHTS = {"w": random(K, K), "v": random(K, K, seed=1)}
BATCH = "g (float[2, m, 64] x) => (float[2, m, 64] y) { y = MatMul(x, w) }"
BLOCK = 32
every_lowering = pytest.mark.parametrize("name", LOWERINGS)


@every_lowering
def test_standard_operators(tmp_path, name):
    result = rewrite(model(MLP, **WEIGHTS), tmp_path, lowering=name, block_size=BLOCK)
    assert result.replaced == {"matmul": 2}
    domains = {node.domain for node in nodes(plain(result.proto).graph)}
    assert (domains == {""}) == make_lowering(name).standard_only


@every_lowering
def test_integer_rows(tmp_path, name):
    result = rewrite(model(MLP, **WEIGHTS), tmp_path, lowering=name, block_size=BLOCK)
    quantized = "QuantizeLinear" in {node.op_type for node in nodes(plain(result.proto).graph)}
    assert quantized == make_lowering(name).integer_rows


@every_lowering
def test_batches(tmp_path, name):
    result = rewrite(model(BATCH, w=random(2, K, K)), tmp_path, lowering=name, block_size=BLOCK)
    assert result.replaced.get("matmul", 0) == make_lowering(name).batches


@every_lowering
def test_what_is_decoded_at_load_has_every_width(name):
    lowering = make_lowering(name)
    assert lowering.decoded_at_load == (lowering.format(3, BLOCK, K).bits == 3)


@every_lowering
def test_block_sizes(name):
    sizes = make_lowering(name).block_sizes
    for size in range(0, 300, 8):
        if not sizes or size in sizes:
            fmt = Options(lowering=name, block_size=size).form.format(4, size, K)
            assert fmt.blocks(K)[0] * fmt.blocks(K)[1] >= K
        else:
            with pytest.raises(ValueError, match=f"{name} weights take a block size of 16, 32, 64, 128 or 256, not"):
                Options(lowering=name, block_size=size)


def test_a_lowering_that_does_not_exist():
    with pytest.raises(
        ValueError, match="lowering must be one of dense, dense7, packed, both, qdq, shifts, not 'sparse'"
    ):
        Options(lowering="sparse")


def test_runs_do_not_know_of_each_other(tmp_path):
    """A lowering that has written one graph writes another as if it were new."""
    onnx.save(model(MLP, **WEIGHTS), tmp_path / "in.onnx")
    lowering, written = make_lowering("dense"), []
    for number in range(2):
        read = files.read(tmp_path / "in.onnx")
        graph = read.graph()
        passes.run(graph, Options(workers=1), lowering=lowering, checked=True)
        written.append(files.write(graph, read, tmp_path / f"{number}.onnx").sha256)
    assert written[0] == written[1]
