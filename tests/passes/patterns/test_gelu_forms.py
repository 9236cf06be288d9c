"""Gelu and its kin in every form that exporters write."""

import math

import numpy as np
import pytest

from passes.gelu.form import match_activation
from tests.passes.patterns.forms import FIXTURES, count, find, graph_of, read_graph

C = {
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "three": np.float32(3),
    "root": np.float32(math.sqrt(2)),
    "inverse": np.float32(1 / math.sqrt(2)),
    "cubic": np.float32(0.044715),
    "slope": np.float32(math.sqrt(2 / math.pi)),
    "quick": np.float32(1.702),
}
ERF = "d = Div(x, root) e = Erf(d) s = Add(e, one) "
TANH = "a = Mul(p, cubic) b = Add(x, a) c = Mul(b, slope) t = Tanh(c) s = Add(one, t) "
FORMS = {
    "gelu": {
        "node": "y = Gelu(x)",
        "microsoft node": "y = com.microsoft.Gelu(x)",
        "(x (1 + erf)) / 2": ERF + "m = Mul(x, s) y = Mul(m, half)",
        "(x (1 + erf)) over two": ERF + "m = Mul(s, x) y = Div(m, two)",
        "(x / 2) (1 + erf)": ERF + "h = Mul(half, x) y = Mul(h, s)",
        "x ((1 + erf) / 2)": ERF + "h = Mul(s, half) y = Mul(x, h)",
        "by the inverse root": "d = Mul(inverse, x) e = Erf(d) s = Add(one, e) m = Mul(x, s) y = Mul(half, m)",
        "root of a constant": "r = Sqrt(two) d = Div(x, r) e = Erf(d) s = Add(e, one) m = Mul(x, s) y = Mul(m, half)",
        "Identity between": ERF + "i = Identity(s) m = Mul(x, i) y = Mul(m, half)",
        "Constant nodes": "k = Constant<value = float {0.5}>() " + ERF + "m = Mul(x, s) y = Mul(m, k)",
    },
    "gelu_tanh": {
        "node": 'y = Gelu<approximate = "tanh">(x)',
        "FastGelu": "y = com.microsoft.FastGelu(x)",
        "Pow": "p = Pow(x, three) " + TANH + "h = Mul(x, half) y = Mul(h, s)",
        "x x x": "q = Mul(x, x) p = Mul(q, x) " + TANH + "h = Mul(half, x) y = Mul(h, s)",
        "half at the end": "p = Pow(x, three) " + TANH + "m = Mul(x, s) y = Mul(m, half)",
        "Megatron": "h = Mul(x, half) n = Mul(x, slope) a = Mul(x, cubic) b = Mul(a, x) c = Add(b, one)"
        " d = Mul(n, c) t = Tanh(d) s = Add(t, one) y = Mul(h, s)",
    },
    "quick_gelu": {
        "node": "y = com.microsoft.QuickGelu(x)",
        "sigmoid": "a = Mul(x, quick) s = Sigmoid(a) y = Mul(x, s)",
    },
    "silu": {
        "node": "y = com.microsoft.QuickGelu<alpha = 1.0>(x)",
        "sigmoid": "s = Sigmoid(x) y = Mul(s, x)",
        "exponential": "n = Neg(x) e = Exp(n) s = Add(one, e) y = Div(x, s)",
    },
}


@pytest.mark.parametrize(
    ("kind", "text"),
    [pytest.param(kind, text, id=f"{kind}: {name}") for kind, forms in FORMS.items() for name, text in forms.items()],
)
def test_form(tmp_path, kind, text):
    graph = graph_of(f"g (float[n] x) => (float[n] y) {{ {text} }}", tmp_path, **C)
    ((form,), skips) = find(graph, match_activation)
    assert (form.kind, form.x.name, form.bias, form.dtype) == (kind, "x", None, "float32")
    assert form.node.outputs[0].name == "y"
    assert not skips


def test_swish_node(tmp_path):
    graph = graph_of("g (float[n] x) => (float[n] y) { y = Swish(x) }", tmp_path, opset=24)
    assert find(graph, match_activation)[0][0].kind == "silu"


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_a_bias_in_the_node(tmp_path, op):
    text = f"g (float[n, 4] x) => (float[n, 4] y) {{ y = com.microsoft.{op}(x, b) }}"
    ((form,), _) = find(graph_of(text, tmp_path, b=np.ones(4, np.float32)), match_activation)
    assert form.bias.name == "b"


def test_half_precision_constants(tmp_path):
    half = {name: np.float16(value) for name, value in C.items()}
    text = "g (float16[n] x) => (float16[n] y) { " + ERF + "m = Mul(x, s) y = Mul(m, half) }"
    ((form,), _) = find(graph_of(text, tmp_path, **half), match_activation)
    assert (form.kind, form.dtype) == ("gelu", "float16")


def test_the_bias_before_is_no_part_of_it(tmp_path):
    text = "g (float[n, 4] z) => (float[n, 4] y) { x = Add(z, b) " + ERF + "m = Mul(x, s) y = Mul(m, half) }"
    ((form,), _) = find(graph_of(text, tmp_path, b=np.ones(4, np.float32), **C), match_activation)
    assert form.x.name == "x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ERF + "m = Mul(x, s) h = Mul(m, half) y = Identity(h) z = Neg(e)", "inner value e is also used by Neg"),
        (ERF + "m = Mul(x, s) y = Mul(m, half) z = Identity(m)", "inner value m is also used by"),
    ],
)
def test_an_inner_value_is_used_elsewhere(tmp_path, text, reason):
    graph = graph_of(f"g (float[n] x) => (float[n] y, float[n] z) {{ {text} }}", tmp_path, **C)
    forms, (skip,) = find(graph, match_activation)
    assert not forms
    assert reason in skip.reason


def test_an_inner_value_is_an_output(tmp_path):
    text = f"g (float[n] x) => (float[n] y, float[n] e) {{ {ERF} m = Mul(x, s) y = Mul(m, half) }}"
    forms, (skip,) = find(graph_of(text, tmp_path, **C), match_activation)
    assert not forms
    assert "e is an output of the graph" in skip.reason


@pytest.mark.parametrize(
    ("form", "changed"),
    [
        (FORMS["gelu"]["(x (1 + erf)) / 2"], {"half": 0.51}),
        (FORMS["gelu"]["(x (1 + erf)) / 2"], {"root": 1.5}),
        (FORMS["gelu_tanh"]["Pow"], {"cubic": 0.05}),
        (FORMS["gelu_tanh"]["Pow"], {"slope": 0.81}),
        (FORMS["quick_gelu"]["sigmoid"], {"quick": 1.5}),
    ],
)
def test_a_wrong_constant(tmp_path, form, changed):
    constants = C | {name: np.float32(value) for name, value in changed.items()}
    forms, (skip,) = find(
        graph_of(f"g (float[n] x) => (float[n] y) {{ {form} }}", tmp_path, **constants), match_activation
    )
    assert not forms
    assert "another constant" in skip.reason


@pytest.mark.parametrize(
    "text",
    [
        "s = Sigmoid(x) y = Mul(s, u)",
        "s = Tanh(x) y = Mul(s, x)",
        "s = Sigmoid(x) y = Mul(s, vector)",
        "e = Erf(x) y = Mul(e, half)",
        "y = Mul(x, u)",
    ],
)
def test_other_products_are_none(tmp_path, text):
    graph = graph_of(
        f"g (float[n, 4] x, float[n, 4] u) => (float[n, 4] y) {{ {text} }}",
        tmp_path,
        vector=np.ones(4, np.float32),
        **C,
    )
    assert find(graph, match_activation) == ([], [])


def test_quick_gelu_of_another_slope(tmp_path):
    text = "g (float[n] x) => (float[n] y) { y = com.microsoft.QuickGelu<alpha = 1.5>(x) }"
    forms, (skip,) = find(graph_of(text, tmp_path), match_activation)
    assert not forms
    assert "alpha is 1.5" in skip.reason


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixture(path):
    graph = read_graph(path)
    forms, skips = find(graph, match_activation)
    # BERT's pooler has a Tanh of its own; T5's feed-forward is a Relu.
    tanh = count(graph, "Tanh") if path.stem.startswith("gpt2") else 0
    assert len(forms) == count(graph, "Gelu", "Erf", "Sigmoid") + tanh
    assert not skips
