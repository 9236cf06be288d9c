"""Sizes as constants: what is the same in every run, Reshapes, sizes of what was moved; what stays computed."""

import numpy as np
import pytest
from onnx import numpy_helper

from tests.helpers import model, operators, rewrite, run

NAME = "sizes"
OPERATORS = {"operators": frozenset({NAME})}
HEADS, WIDTH = 4, 6
INDICES = "i = Constant <value_int = 0> () j = Constant <value_int = 1> () z = Constant <value_ints = [0]> ()"
# x [b, s, h * d] to heads, as TorchScript exports x.view(batch, tokens, -1, d).
VIEW = f"""
 {INDICES} rest = Constant <value_ints = [-1]> () width = Constant <value_ints = [{WIDTH}]> ()
 dims = Shape(x) b0 = Gather(dims, i) s0 = Gather(dims, j) b1 = Unsqueeze(b0, z) s1 = Unsqueeze(s0, z)
 target = Concat <axis = 0> (b1, s1, rest, width) h = Reshape(x, target)
"""
X = f"float[b, s, {HEADS * WIDTH}] x"


def draw(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def agree(source, result, **feeds):
    for expected, y in zip(run(source, **feeds), run(result, **feeds), strict=True):
        np.testing.assert_array_equal(y, expected)


def constants(proto):
    return {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in proto.graph.initializer}


@pytest.mark.parametrize("tokens", [1, 3])
def test_heads_are_split_without_asking_for_sizes(tmp_path, tokens):
    source = model(f"g ({X}) => (float[b, s, h, d] y) {{ {VIEW} y = Neg(h) }}")
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Reshape", "Neg"]
    assert list(constants(result.proto).values()) == [[0, 0, HEADS, WIDTH]]
    agree(source, result.proto, x=draw(2, tokens, HEADS * WIDTH))


def test_half_of_a_heads_width_is_a_number(tmp_path):
    half = """k = Constant <value_int = 3> () two = Constant <value_int = 2> () hd = Shape(h) d = Gather(hd, k)
     e = Div(d, two) e1 = Unsqueeze(e, z) last = Constant <value_ints = [3]> () y = Slice(h, z, e1, last)"""
    source = model(f"g ({X}) => (float[b, s, h, e] y) {{ {VIEW} {half} }}")
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Reshape", "Slice"]
    agree(source, result.proto, x=draw(2, 3, HEADS * WIDTH))


def test_what_was_repeated_for_its_size_alone_is_not_made(tmp_path):
    repeated = """wide = Constant <value_ints = [1, 1, 2, 1]> () u = Unsqueeze(x, k) e = Expand(u, wide)
     dims = Shape(e) s = Gather(dims, j) s1 = Unsqueeze(s, z) y = Slice(m, z, s1, z)"""
    text = f"g ({X}, float[t] m) => (float[n] y) {{ {INDICES} k = Constant <value_ints = [2]> () {repeated} }}"
    source = model(text)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Shape", "Gather", "Unsqueeze", "Slice"]
    agree(source, result.proto, x=draw(2, 3, HEADS * WIDTH), m=draw(8))


def test_in_a_body(tmp_path):
    text = f"""g ({X}, bool c) => (float[b, s, h, d] y) {{
        y = If (c) <then_branch = t () => (float[b, s, h, d] p) {{ {VIEW} p = Neg(h) }},
                    else_branch = e () => (float[b, s, h, d] q) {{ {VIEW} q = Abs(h) }}>
    }}"""
    source = model(text)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert sorted(operators(result.proto)) == ["Abs", "If", "Neg", "Reshape", "Reshape"]
    for condition in (True, False):
        agree(source, result.proto, x=draw(2, 3, HEADS * WIDTH), c=np.array(condition))


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        # The first size is that of another input.
        (
            "dims = Shape(a) n = Gather(dims, i) n1 = Unsqueeze(n, z) t = Concat <axis = 0> (n1, r) y = Reshape(x, t)",
            "",
        ),
        ("n = Cast <to = 7> (f) n1 = Unsqueeze(n, z) t = Concat <axis = 0> (n1, r) y = Reshape(x, t)", ", float f"),
    ],
    ids=["of another tensor", "an input"],
)
def test_sizes_of_other_things_stay_computed(tmp_path, body, inputs):
    text = f"""g (float[b, 24] x, float[n] a{inputs}) => (float[p, q] y) {{
        {INDICES} r = Constant <value_ints = [-1]> () {body} }}"""
    source = model(text)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert not result.replaced
    feeds = {"f": np.array(4, np.float32)} if inputs else {}
    agree(source, result.proto, x=draw(2, 24), a=draw(4), **feeds)


def test_a_zero_that_is_meant_stays(tmp_path):
    body = "dims = Shape(x) b0 = Gather(dims, z) t = Concat <axis = 0> (z, b0) y = Reshape <allowzero = 1> (x, t)"
    source = model(f"g (float[b, n] x) => (float[p, q] y) {{ {INDICES} {body} }}")
    result = rewrite(source, tmp_path, **OPERATORS)
    assert "Concat" in operators(result.proto)
    agree(source, result.proto, x=draw(3, 0))
