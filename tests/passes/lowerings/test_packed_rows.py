"""Tables that are only looked up stay packed, and what is looked up is what it was, bit for bit."""

import numpy as np
import pytest

from passes.lowerings import packed_rows
from tests.helpers import constant_nodes, model, operators, optimized, random, rewrite, run

ROWS = 60
IDS = np.array([[0, 59, -1], [7, -60, 0]])
LOOKUP = "g (int64[b, s] ids) => (float[b, s, %d] y) { y = Gather(t, ids) }"


def both(monkeypatch, folder, source, **options):
    """Return the model with its tables decoded when the session is made, and with packed ones."""
    found = []
    for smallest in (1 << 40, 0):
        monkeypatch.setattr(packed_rows, "SMALLEST_CODES", smallest)
        found.append(rewrite(source, folder, lowering="dense", **options))
    return found


def is_packed(result) -> bool:
    return any(node.op_type.startswith("BlockGatherRows") for node in result.proto.graph.node)


@pytest.mark.parametrize("block_size", [8, 32, 0])
@pytest.mark.parametrize("k", [45, 64])
@pytest.mark.parametrize("bits", range(2, 8))
def test_rows_are_those_of_the_decoded_table(tmp_path, monkeypatch, bits, k, block_size):
    source = model(LOOKUP % k, t=random(ROWS, k, seed=k) * 10.0 ** random(ROWS, 1, seed=2))
    whole, packed = both(monkeypatch, tmp_path, source, bits=bits, block_size=block_size)
    assert (is_packed(whole), is_packed(packed)) == (False, True)
    for ids in (IDS, IDS[:0], IDS[:, :0]):
        for optimize in (False, True):
            (y,) = run(packed.proto, optimize, ids=ids)
            assert y.shape == (*ids.shape, k)
            assert y.tobytes() == run(whole.proto, optimize, ids=ids)[0].tobytes()
    assert constant_nodes(optimized(packed.proto, tmp_path)) == []
    sizes = [result.reports["gather"].tensors[0].bytes_after for result in (whole, packed)]
    assert sizes[1] <= sizes[0] + (block_size == 0)


@pytest.mark.parametrize("shape", ["", "[n]", "[a, b, c]", "known in a run"])
def test_indices_of_any_rank(tmp_path, monkeypatch, shape):
    """Of none, one and three axes, and of as many as a run has."""
    ids = {"": np.array(59), "[n]": IDS[0]}.get(shape, IDS[:, :, None])
    axes = ", ".join([*"abc"[: ids.ndim], "40"])
    text = f"g (int64{shape} ids) => (float[{axes}] y) {{ y = Gather(t, ids) }}"
    feeds = {"ids": ids}
    if shape == "known in a run":
        inputs = "int64[n] flat, int64[m] shape"
        text = f"g ({inputs}) => (float[{axes}] y) {{ ids = Reshape(flat, shape) y = Gather(t, ids) }}"
        feeds = {"flat": ids.reshape(-1), "shape": np.array(ids.shape)}
    whole, packed = both(monkeypatch, tmp_path, model(text, t=random(ROWS, 40)), bits=4)
    assert is_packed(packed)
    assert ("Shape" in operators(packed.proto)) == (shape == "known in a run")
    (y,) = run(packed.proto, **feeds)
    assert y.shape == (*ids.shape, 40)
    assert y.tobytes() == run(whole.proto, **feeds)[0].tobytes()


KEPT = {
    "a product with the same table": """g (int64[b, s] ids) => (float[b, s, 60] y) {
        x = Gather(t, ids) u = Transpose(t) y = MatMul(x, u) }""",
    "a table of more axes": "g (int64[b] ids) => (float[b, 4, 40] y) { y = Gather(t, ids) }",
    "codes of whole bytes": LOOKUP % 40,
}


@pytest.mark.parametrize("why", KEPT)
def test_what_is_decoded_when_the_session_is_made(tmp_path, monkeypatch, why):
    table = random(15, 4, 40) if "axes" in why else random(ROWS, 40)
    _, packed = both(monkeypatch, tmp_path, model(KEPT[why], t=table), bits=8 if "bytes" in why else 4)
    assert not is_packed(packed)


def test_two_lookups_share_a_table(tmp_path, monkeypatch):
    text = """g (int64[b, s] ids, int64[n] more) => (float[b, s, 40] y, float[n, 40] z) {
        y = Gather(t, ids) z = Gather(t, more) }"""
    whole, packed = both(monkeypatch, tmp_path, model(text, t=random(ROWS, 40)), bits=6)
    assert len([t for t in packed.proto.graph.initializer if ".rows4" in t.name]) == 1
    feeds = {"ids": IDS, "more": IDS[0]}
    for y, expected in zip(run(packed.proto, **feeds), run(whole.proto, **feeds), strict=True):
        assert y.tobytes() == expected.tobytes()


def test_a_small_table_is_decoded(tmp_path):
    result = rewrite(model(LOOKUP % 40, t=random(ROWS, 40)), tmp_path, lowering="dense", bits=4)
    assert not is_packed(result)
