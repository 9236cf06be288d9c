"""Weights that take turns to be decoded: a session is done with all of them when it is made, and computes the same."""

import numpy as np
import pytest
from onnx import TensorProto

from bct_onnx.sessions import Options, open_session
from passes.functions.turn import MOST
from passes.graph import turns
from tests.helpers import constant_nodes, model, operators, optimized, random, rewrite, run

WEIGHTS = {f"w{i}": random(40 + 8 * i, 40 + 8 * (i + 1), seed=i) for i in range(2 * MOST)}
PRODUCTS = "\n".join(f"x{i + 1} = MatMul(x{i}, w{i})" for i in range(len(WEIGHTS)))
WIDTH = WEIGHTS[f"w{len(WEIGHTS) - 1}"].shape[1]
TEXT = f"g (float[b, 40] x0) => (float[b, {WIDTH}] x{len(WEIGHTS)}) {{ {PRODUCTS} }}"
X = random(3, 40, seed=1)
# The opset, from 21 on with planes of int4, and the width of codes.
forms = pytest.mark.parametrize(("opset", "bits"), [(18, 4), (18, 6), (20, 3), (21, 4), (21, 6), (21, 7)])


@pytest.fixture
def written(tmp_path, monkeypatch, opset, bits):
    """Return the model without turns and with them."""
    found = []
    for smallest in (1 << 40, 0):
        monkeypatch.setattr(turns, "SMALLEST_BYTES", smallest)
        found.append(rewrite(model(TEXT, opset, **WEIGHTS), tmp_path, lowering="dense", bits=bits).proto)
    return found


@forms
def test_a_session_has_nothing_left_to_decode(tmp_path, written, opset, bits):
    """All turns are taken: of what decodes weights, and of the turns, no node is left, and answers are the same."""
    del opset
    plain, turning = written
    calls = [node.op_type for node in turning.graph.node]
    assert calls.count("Turn") == MOST
    assert "Turn" not in [node.op_type for node in plain.graph.node]
    planes = {tensor.data_type for tensor in turning.graph.initializer}
    assert (TensorProto.INT4 in planes) == (turning.opset_import[0].version >= 21 and bits == 7)
    folded = optimized(turning, tmp_path)
    assert constant_nodes(folded) == []
    assert not {"BitShift", "BitwiseOr", "BitwiseAnd"} & set(operators(folded))
    assert sorted(operators(folded)) == sorted(operators(optimized(plain, tmp_path)))
    (y,) = run(turning, x0=X)
    assert y.tobytes() == run(plain, x0=X)[0].tobytes()


@forms
def test_answers_are_the_same_however_a_session_is_made(written, opset, bits):
    """Where nothing is folded, and where pairs of QuantizeLinear and DequantizeLinear are left alone."""
    del opset, bits
    plain, turning = written
    assert run(turning, optimize=False, x0=X)[0].tobytes() == run(plain, optimize=False, x0=X)[0].tobytes()
    options = Options(1, entries={"session.disable_quant_qdq": "1"})
    (y,) = open_session(turning.SerializeToString(), options).run(None, {"x0": X})
    assert y.tobytes() == run(plain, x0=X)[0].tobytes()


@forms
def test_a_turn_takes_less_the_more_was_decoded_before(written, opset, bits):
    """No turn is the first, which comes with what waits for none; what was decoded and six times a turn is as much."""
    del opset, bits
    _, turning = written
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in turning.graph.initializer}
    taken: dict[str, int] = {}
    for node in turning.graph.node:
        turn = next((name for name in node.input if name.startswith("turn")), None)
        if turn is not None and node.op_type != "Turn":
            taken[turn] = taken.get(turn, 0) + sum(sizes.get(name, 0) for name in node.input)
    found = np.array([taken[f"turn{number}"] for number in range(2, MOST + 1)])
    assert len(taken) == MOST - 1
    peaks = np.cumsum(found) - found + 6 * found
    assert peaks.max() <= 1.3 * peaks.min()


def test_small_models_have_none(tmp_path):
    result = rewrite(model(TEXT, **WEIGHTS), tmp_path, lowering="dense", bits=4)
    assert "Turn" not in [node.op_type for node in result.proto.graph.node]
