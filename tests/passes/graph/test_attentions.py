"""Attention as a call of a function: which nodes become one, which stay; stock sessions see the very node."""

import numpy as np
import onnx
import pytest

from tests import helpers
from tests.helpers import rewrite, run

ROWS = "float[b, s, 8] q, float[b, t, 8] k, float[b, t, 8] v"
HEADS = "float[b, 4, s, 2] q, float[b, 2, t, 2] k, float[b, 2, t, 3] v"
COUNTS = "scale = 0.5, q_num_heads = 4, kv_num_heads = 4"


def graph(attention, inputs, outputs="float[b, s, w] y"):
    return helpers.model(f"g ({inputs}) => ({outputs}) {{ {attention} }}", 23, 11)


def written(source, folder, **options):
    return rewrite(source, folder, **({"operators": frozenset({"attention"})} | options)).proto


@pytest.mark.parametrize(
    ("attention", "inputs", "name"),
    [
        (f"y = Attention <{COUNTS}> (q, k, v)", ROWS, "RowAttention"),
        (f"y = Attention <{COUNTS}> (q, k, v, m)", f"{ROWS}, float[b, 1, s, t] m", "RowAttentionMasked"),
        (f"y = Attention <{COUNTS}, is_causal = 0> (q, k, v, m)", f"{ROWS}, float[s, t] m", "RowAttentionMasked"),
        ("y = Attention <scale = 0.5> (q, k, v)", HEADS, "HeadAttention"),
        ("y = Attention <scale = 0.5> (q, k, v, m)", f"{HEADS}, float[1, 4, s, t] m", "HeadAttentionMasked"),
    ],
)
def test_nodes_that_become_calls(tmp_path, attention, inputs, name):
    outputs = "float[b, s, w] y" if name.startswith("Row") else "float[b, h, s, w] y"
    source = graph(attention, inputs, outputs)
    result = written(source, tmp_path)
    (call,) = result.graph.node
    assert (call.domain, call.op_type) == ("bct_onnx", name)
    assert list(call.input) == [value.name for value in source.graph.input]
    numbers = np.random.default_rng(0)
    sizes = {"b": 2, "s": 3, "t": 5}
    feeds = {
        value.name: numbers.standard_normal(
            [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in source.graph.input
    }
    for optimize in (False, True):
        (expected,), (y,) = run(source, optimize, **feeds), run(result, optimize, **feeds)
        assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    ("attention", "inputs"),
    [
        ("y = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)", ROWS),
        (f"y = Attention <{COUNTS}, is_causal = 1> (q, k, v)", ROWS),
        (f"y = Attention <{COUNTS}, softcap = 2.0> (q, k, v)", ROWS),
        (f"y = Attention <{COUNTS}> (q, k, v, m)", f"{ROWS}, bool[b, 1, s, t] m"),
        (f"y = Attention <{COUNTS}> (q, k, v, m)", f"{ROWS}, float[b, 1, s, u] m"),
        (f"y = Attention <{COUNTS}> (q, k, v, , pk, pv)", f"{ROWS}, float[b, 4, p, 2] pk, float[b, 4, p, 2] pv"),
        (f"y, pk, pv = Attention <{COUNTS}> (q, k, v)", ROWS),
        (f"y = Attention <{COUNTS}> (q, k, v)", ROWS.replace("float", "float16")),
    ],
    ids=["no scale", "causal", "cap", "bool", "other keys", "cache", "more outputs", "float16"],
)
def test_nodes_that_stay(tmp_path, attention, inputs):
    kind = "float16" if "float16" in inputs else "float"
    more = ", float[b, 4, u, 2] pk, float[b, 4, u, 2] pv" if "y, pk" in attention else ""
    result = written(graph(attention, inputs, f"{kind}[b, s, 8] y{more}"), tmp_path)
    assert [node.op_type for node in result.graph.node] == ["Attention"]
    assert not result.functions


def test_standard_operators_only(tmp_path):
    source = graph(f"y = Attention <{COUNTS}> (q, k, v)", ROWS)
    result = written(source, tmp_path, lowering="qdq")
    assert [node.op_type for node in result.graph.node] == ["Attention"]
    assert onnx.checker.check_model(result) is None
