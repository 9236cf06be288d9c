"""Sizes as polynomials of names, and shapes and small values followed through operators."""

import math

import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.graph.follow import find_shapes
from passes.graph.shapes import ONE, ZERO, Size, broadcast
from passes.graph.tidy import lift_constant_nodes
from tests.helpers import model

TERMS = st.dictionaries(
    st.lists(st.sampled_from("abc"), max_size=2).map(lambda names: tuple(sorted(names))), st.integers(-3, 3)
)
SIZES = TERMS.map(Size.of)
RUN = {"a": 2, "b": 3, "c": 7}


def value(size):
    return sum(factor * math.prod(RUN[name] for name in names) for names, factor in size.terms)


@given(SIZES, SIZES)
def test_arithmetic_is_that_of_every_run(x, y):
    assert value(x + y) == value(x) + value(y)
    assert value(x - y) == value(x) - value(y)
    assert value(x * y) == value(x) * value(y)
    assert x - x == ZERO
    quotient = x.over(y)
    assert quotient is None or quotient * y == x


@given(SIZES)
def test_what_is_called_positive_is(x):
    assert not x.is_positive or value(x) > 0
    assert x.static is None or x.static == value(x)


def test_broadcast():
    a, b = Size.named("a"), Size.named("b")
    assert broadcast((a, ONE), (b,)) == (a, b)
    assert broadcast((a,), (Size.known(4),)) == (Size.known(4),)
    assert broadcast((a,), (b,)) == broadcast((b,), (a,)) == broadcast((a,), (b,), (a,))


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Reshape(x, s)", "1*b,1*s,2,6"),
        (
            "d = Shape(x) b = Gather(d, i) n = Unsqueeze(b, z) t = Concat <axis = 0> (n, m, h) y = Reshape(x, t)",
            "1*b,1*s,2,6",
        ),
        ("c = Concat <axis = 1> (p, x) y = Identity(c)", "1*b,1*p+1*s,12"),
        ("d = Shape <start = 1, end = 2> (x) y = Slice(w, z, d, z)", "1*s,12"),
        ("a, b, y = Split <axis = -1, num_outputs = 3> (x)", "1*b,1*s,4"),
        ("y = Transpose <perm = [1, 0, 2]> (x)", "1*s,1*b,12"),
        ("t = Transpose <perm = [0, 2, 1]> (x) y = MatMul(x, t)", "1*b,1*s,1*s"),
        ("y = Attention <q_num_heads = 6, kv_num_heads = 3> (x, p, p)", "1*b,1*s,24"),
        (
            """k = Constant <value_ints = [0, 0, 2, 6]> () r = Reshape(x, k) t = Transpose <perm = [0, 2, 1, 3]> (r)
            y = Attention(t, t, t)""",
            "1*b,2,1*s,6",
        ),
        ("k = ReduceMean <keepdims = 1> (x, m) y = Sub(x, k)", "1*b,1*s,12"),
        ("y = NonZero(x)", "?"),
    ],
)
def test_shapes(body, shape):
    constants = """s = Constant <value_ints = [0, 0, 2, 6]> () z = Constant <value_ints = [0]> ()
     i = Constant <value_int = 0> () m = Constant <value_ints = [-1]> () h = Constant <value_ints = [2, 6]> ()"""
    text = f"g (float[b, s, 12] x, float[b, p, 12] p, float[512, 12] w) => (float y) {{ {constants} {body} }}"
    graph = gs.import_onnx(model(text))
    lift_constant_nodes(graph)
    graph.outputs[0].shape = None
    found = find_shapes(graph).shape(graph.outputs[0])
    assert ("?" if found is None else ",".join(map(str, found))) == shape


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Slice(x, z, eight, i1)", "1*b,?,12"),
        ("y = Slice(x, back8, end, i1)", "1*b,?,12"),
        ("y = Slice(x, back, end, i1)", "1*b,1,12"),
        ("y = Slice(w, z, eight)", "8,12"),
        (
            "d = Shape <start = 1, end = 2> (x) n = Neg(d) c = Concat <axis = 1> (x, x) y = Slice(c, n, end, i1)",
            "1*b,?,12",
        ),
        (
            "d = Shape <start = 1, end = 2> (x) m = Mul(d, back) c = Concat <axis = 1> (x, x) y = Slice(c, m, end, i1)",
            "1*b,1*s,12",
        ),
        ("d = Shape <start = 1, end = 2> (x) n = Neg(d) y = Slice(x, z, end, i1, n)", "1*b,?,12"),
        ("d = Shape <start = 1, end = 2> (x) n = Add(d, back8) y = Slice(w, z, n)", "?,12"),
        ("n = NonZero(x) d = Cast <to = 7> (n) y = Slice(x, d, d)", "?,?,?"),
        ("none = Constant <value = int64[0] {}> () y = ReduceSum <keepdims = 1> (x, none)", "1,1,1"),
        ("o = Constant <value = int64[2, 2] {1, 2, 3, 4}> () c = Concat <axis = 1> (o, o) y = Identity(c)", "2,4"),
        ("q = Cast <to = 7> (x) r = Reshape(i1, q) y = Identity(r)", "?"),
    ],
)
def test_what_is_not_known_is_not_guessed(body, shape):
    constants = """z = Constant <value_ints = [0]> () i1 = Constant <value_ints = [1]> ()
     eight = Constant <value_ints = [8]> () back = Constant <value_ints = [-1]> ()
     back8 = Constant <value_ints = [-8]> () end = Constant <value_ints = [9223372036854775807]> ()"""
    text = f"g (float[b, s, 12] x, float[512, 12] w) => (float y) {{ {constants} {body} }}"
    graph = gs.import_onnx(model(text))
    lift_constant_nodes(graph)
    graph.outputs[0].shape = None
    found = find_shapes(graph).shape(graph.outputs[0])
    known = "?" if found is None else ",".join("?" if "?" in str(size) else str(size) for size in found)
    assert known == shape


def test_names_of_a_body_say_nothing():
    body = """body = b (int64 n, bool c, float[s] u) => (bool c2, float[s] u2)
     { c2 = Identity(c) u2 = Concat <axis = 0> (u, u) }"""
    graph = gs.import_onnx(model(f"g (int64 n, bool c, float[s] x) => (float[t] y) {{ y = Loop <{body}> (n, c, x) }}"))
    inner = graph.nodes[0].attrs["body"]
    found = find_shapes(graph)
    assert found.shape(inner.inputs[2]) != found.shape(graph.inputs[2])
