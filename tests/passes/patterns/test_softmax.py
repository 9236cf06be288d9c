"""Softmax in every form that exporters write."""

import numpy as np
import pytest

from passes.softmax.form import match_softmax
from tests.passes.patterns.forms import FIXTURES, count, find, graph_of, read_graph

MINUS = np.array([-1], np.int64)


def forms_of(text, folder, opset=21, **weights):
    graph = graph_of(
        f"g (float[a, b, c] x, float[b, c] mask) => (float[a, b, c] y) {{ {text} }}", folder, opset, **weights
    )
    return find(graph, lambda node, is_output: match_softmax(node, opset, is_output))


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_any_axis(tmp_path, axis):
    ((form,), _) = forms_of(f"y = Softmax<axis = {axis}>(x)", tmp_path)
    assert (form.axis, form.x.name, form.mask, form.dtype) == (axis, "x", None, "float32")


@pytest.mark.parametrize(
    "text",
    [
        "m = ReduceMax(x, minus) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, minus) y = Div(e, s)",
        "e = Exp(x) s = ReduceSum(e, minus) i = Reciprocal(s) y = Mul(i, e)",
    ],
)
def test_decomposed(tmp_path, text):
    ((form,), skips) = forms_of(text, tmp_path, minus=MINUS)
    assert (form.x.name, form.axis, form.node.outputs[0].name) == ("x", -1, "y")
    assert not skips


@pytest.mark.parametrize(
    "text",
    [
        "s = MatMul(x, w) t = Add(s, mask)",
        "s = MatMul(x, w) t = Add(mask, s)",
        "s = MatMul(x, w) k = Add(mask, s) t = Cast<to = 1>(k)",
    ],
)
def test_an_additive_mask(tmp_path, text):
    ((form,), _) = forms_of(f"{text} y = Softmax(t)", tmp_path, w=np.eye(4, dtype=np.float32))
    assert (form.scores.name, form.mask.name, form.x.name, form.add.op) == ("s", "mask", "t", "Add")


def test_masked_scores_that_somebody_else_reads_stay(tmp_path):
    ((form,), _) = forms_of("t = Add(x, mask) n = Neg(t) z = Softmax(t) y = Add(z, n)", tmp_path)
    assert (form.mask, form.scores.name) == (None, "t")


def test_a_sum_of_something_else_is_none(tmp_path):
    text = "e = Exp(x) n = Mul(e, e) s = ReduceSum(n, minus) y = Div(e, s)"
    assert forms_of(text, tmp_path, minus=MINUS) == ([], [])


def test_an_inner_value_is_used_elsewhere(tmp_path):
    text = "e = Exp(x) s = ReduceSum(e, minus) p = Div(e, s) n = Neg(e) y = Add(p, n)"
    forms, (skip,) = forms_of(text, tmp_path, minus=MINUS)
    assert not forms
    assert "value e is also used by Neg" in skip.reason


@pytest.mark.parametrize(("axis", "found"), [(-1, -1), (2, -1), (1, None)])
def test_before_opset_13_several_axes_count_as_one(tmp_path, axis, found):
    forms, skips = forms_of(f"y = Softmax<axis = {axis}>(x)", tmp_path, opset=12)
    assert [form.axis for form in forms] == ([] if found is None else [found])
    assert [skip.reason for skip in skips] == (
        ["before opset 13 its axis 1 of a tensor of rank 3 takes several axes as one"] if found is None else []
    )


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixture(path):
    graph = read_graph(path)
    forms, skips = find(graph, lambda node, is_output: match_softmax(node, int(graph.opset), is_output))
    assert len(forms) == count(graph, "Softmax")
    assert not skips
