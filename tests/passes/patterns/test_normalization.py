"""Layer normalization and its kin in every form that exporters write."""

import numpy as np
import pytest

from passes.layer_normalization.form import match_normalization
from tests.passes.patterns.forms import FIXTURES, count, find, graph_of, read_graph

WIDTH = 6
RNG = np.random.default_rng(5)
C = {
    "gain": RNG.normal(1, 0.2, WIDTH).astype(np.float32),
    "shift": RNG.normal(0, 0.2, WIDTH).astype(np.float32),
    "eps": np.float32(1e-5),
    "one": np.float32(1),
    "two": np.float32(2),
    "minus": np.array([-1], np.int64),
    "plus": np.array([2], np.int64),
}
MEAN = "m = ReduceMean(x, minus) d = Sub(x, m) "
SQUARE = "q = Pow(d, two) v = ReduceMean(q, minus) w = Add(v, eps) r = Sqrt(w) "
AFFINE = "z = Mul(n, gain) y = Add(z, shift)"
# Text, whether the mean is subtracted, whether there is a bias.
FORMS = {
    "node": ("y = LayerNormalization<epsilon = 1.0e-5>(x, gain, shift)", True, True),
    "node without bias": ("y = LayerNormalization(x, gain)", True, False),
    "node, axis 2": ("y = LayerNormalization<axis = 2>(x, gain, shift)", True, True),
    "simplified node": ("y = SimplifiedLayerNormalization(x, gain)", False, False),
    "Pow": (MEAN + SQUARE + "n = Div(d, r) " + AFFINE, True, True),
    "Mul for the square": (
        MEAN + "q = Mul(d, d) v = ReduceMean(q, minus) w = Add(eps, v) r = Sqrt(w) n = Div(d, r) " + AFFINE,
        True,
        True,
    ),
    "a second Sub": (
        MEAN + "e = Sub(x, m) f = Identity(e) q = Pow(f, two) v = ReduceMean(q, minus) w = Add(v, eps) r = Sqrt(w) "
        "n = Div(d, r) " + AFFINE,
        True,
        True,
    ),
    "the last axis by number": (
        "m = ReduceMean(x, plus) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, plus) w = Add(v, eps) r = Sqrt(w) "
        "n = Div(d, r) " + AFFINE,
        True,
        True,
    ),
    "commuted": (MEAN + SQUARE + "n = Div(d, r) z = Mul(gain, n) y = Add(shift, z)", True, True),
    "without bias": (MEAN + SQUARE + "n = Div(d, r) y = Mul(n, gain)", True, False),
    "Reciprocal": (MEAN + SQUARE + "i = Reciprocal(r) n = Mul(d, i) " + AFFINE, True, True),
    "batch normalization's order": (
        MEAN
        + SQUARE
        + "i = Reciprocal(r) g = Mul(i, gain) a = Mul(x, g) b = Mul(m, g) c = Sub(shift, b) y = Add(a, c)",
        True,
        True,
    ),
    "Casts between": (
        "f = Cast<to = 1>(x) m = ReduceMean(f, minus) d = Sub(f, m) " + SQUARE + "n = Div(d, r) k = Cast<to = 1>(n) "
        "z = Mul(k, gain) y = Add(z, shift)",
        True,
        True,
    ),
    "root mean square": (
        "q = Pow(x, two) v = ReduceMean(q, minus) w = Add(v, eps) r = Sqrt(w) i = Div(one, r) n = Mul(x, i) "
        "y = Mul(gain, n)",
        False,
        False,
    ),
    "root mean square by Reciprocal": (
        "q = Mul(x, x) v = ReduceMean(q, minus) w = Add(v, eps) r = Sqrt(w) i = Reciprocal(r) n = Mul(i, x) "
        "y = Mul(n, gain)",
        False,
        False,
    ),
}


def graph(text, folder, **changed):
    return graph_of(f"g (float[a, b, c] x) => (float[a, b, c] y) {{ {text} }}", folder, **(C | changed))


@pytest.mark.parametrize("name", FORMS)
def test_form(tmp_path, name):
    text, centered, biased = FORMS[name]
    ((form,), skips) = find(graph(text, tmp_path), match_normalization)
    assert not skips
    assert (form.x.name, form.node.outputs[0].name) == ("x", "y")
    assert (form.width, form.centered, form.dtype, form.output_dtype) == (WIDTH, centered, "float32", "float32")
    assert form.epsilon == pytest.approx(1e-5)
    np.testing.assert_allclose(form.scale, C["gain"], rtol=1e-6)
    assert (form.bias is not None) == biased
    if biased:
        np.testing.assert_allclose(form.bias, C["shift"], rtol=1e-6, atol=1e-9)
    assert {source.name for source in form.sources} == {"gain", "shift"} if biased else {"gain"}


def test_root_mean_square_node(tmp_path):
    text = "g (float[a, 6] x) => (float[a, 6] y) { y = RMSNormalization<epsilon = 1.0e-6>(x, gain) }"
    ((form,), _) = find(graph_of(text, tmp_path, opset=23, gain=C["gain"]), match_normalization)
    assert (form.centered, form.epsilon) == (False, pytest.approx(1e-6))


@pytest.mark.parametrize(
    ("op", "centered"), [("SkipLayerNormalization", True), ("SkipSimplifiedLayerNormalization", False)]
)
def test_a_residual_in_the_node(tmp_path, op, centered):
    parameters = "gain, shift, extra" if centered else "gain, extra"
    text = (
        f"g (float[a, b, 6] x, float[a, b, 6] h) => (float[a, b, 6] y, float[a, b, 6] total) "
        f"{{ y, n1, n2, total = com.microsoft.{op}<epsilon = 1.0e-5>(x, h, {parameters}) }}"
    )
    ((form,), _) = find(graph_of(text, tmp_path, extra=np.ones(6, np.float32), **C), match_normalization)
    assert [tensor.name for tensor in form.addends] == ["h", "extra"]
    assert (form.centered, form.total.name, form.bias is not None) == (centered, "total", centered)


def test_half_precision_computed_in_float(tmp_path):
    text = (
        "g (float16[a, b, 6] x) => (float16[a, b, 6] y) { f = Cast<to = 1>(x) q = Pow(f, two) v = ReduceMean(q, minus)"
        " w = Add(v, eps) r = Sqrt(w) i = Div(one, r) n = Mul(f, i) h = Cast<to = 10>(n) y = Mul(gain, h) }"
    )
    changed = C | {"gain": C["gain"].astype(np.float16)}
    ((form,), _) = find(graph_of(text, tmp_path, **changed), match_normalization)
    assert (form.x.name, form.dtype, form.output_dtype) == ("x", "float16", "float16")


def test_without_scale_the_width_is_the_tensor_s(tmp_path):
    text = "g (float[a, 6] x) => (float[a, 6] y) { " + MEAN + SQUARE + "y = Div(d, r) }"
    ((form,), _) = find(graph_of(text, tmp_path, **C), match_normalization)
    assert (form.width, form.bias, list(form.scale)) == (6, None, pytest.approx([1.0] * 6))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (MEAN + SQUARE + "n = Div(d, r) z = Mul(n, gain) y = Add(z, shift) o = Identity(v)", "value v is also used by"),
        (MEAN + SQUARE + "n = Div(d, r) z = Mul(n, gain) y = Add(z, shift) o = Neg(r)", "value r is also used by Neg"),
    ],
)
def test_an_inner_value_is_used_elsewhere(tmp_path, text, reason):
    text = f"g (float[a, b, c] x) => (float[a, b, c] y, float[a, b, k] o) {{ {text} }}"
    forms, (skip,) = find(graph_of(text, tmp_path, **C), match_normalization)
    assert not forms
    assert reason in skip.reason


def test_an_inner_value_is_an_output(tmp_path):
    text = f"g (float[a, b, c] x) => (float[a, b, c] y, float[a, b, k] r) {{ {MEAN + SQUARE} n = Div(d, r) {AFFINE} }}"
    forms, (skip,) = find(graph_of(text, tmp_path, **C), match_normalization)
    assert not forms
    assert "r is an output of the graph" in skip.reason


def test_a_mean_used_elsewhere_leaves_what_follows_it(tmp_path):
    text = (
        f"g (float[a, b, c] x) => (float[a, b, c] y, float[a, b, k] o) "
        f"{{ {MEAN + SQUARE} n = Div(d, r) {AFFINE} o = Neg(m) }}"
    )
    ((form,), _) = find(graph_of(text, tmp_path, **C), match_normalization)
    assert (form.x.name, form.centered) == ("d", False)


def test_the_plain_normalization_is_an_output(tmp_path):
    text = f"g (float[a, b, 6] x) => (float[a, b, 6] y, float[a, b, 6] n) {{ {MEAN + SQUARE} n = Div(d, r) {AFFINE} }}"
    forms, skips = find(graph_of(text, tmp_path, **C), match_normalization)
    assert [form.node.outputs[0].name for form in forms] == ["n"]
    assert len(skips) == 1


@pytest.mark.parametrize(
    "text",
    [
        # Cubes, no squares.
        MEAN + "q = Pow(d, three) v = ReduceMean(q, minus) w = Add(v, eps) r = Sqrt(w) n = Div(d, r) " + AFFINE,
        # The mean over another axis.
        "m = ReduceMean(x, first) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, first) w = Add(v, eps) r = Sqrt(w) "
        "n = Div(d, r) " + AFFINE,
        "m = ReduceMean(x, minus) n = Sub(x, m) " + AFFINE,
    ],
)
def test_others_are_none(tmp_path, text):
    graph_ = graph(text, tmp_path, three=np.float32(3), first=np.array([1], np.int64))
    assert not find(graph_, match_normalization)[0]


def test_epsilon_outside_of_the_root_is_left_with_a_reason(tmp_path):
    text = MEAN + "q = Mul(d, d) v = ReduceMean(q, minus) r = Sqrt(v) w = Add(r, eps) n = Div(d, w) " + AFFINE
    forms, (skip,) = find(graph(text, tmp_path), match_normalization)
    assert not forms
    assert "like a normalization" in skip.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = LayerNormalization<axis = 1>(x, table, table)", "axis is 1"),
        ("k = Neg(gain) y = LayerNormalization(x, k)", "not a constant"),
        ("y, m, s = LayerNormalization(x, gain) z = Neg(m)", "statistics are used"),
        ("y = com.microsoft.EmbedLayerNormalization(x)", "fused embedding"),
    ],
)
def test_nodes_left_with_a_reason(tmp_path, text, reason):
    text = f"g (float[a, b, c] x) => (float[a, b, c] y{', float[a, b, k] z' if 'z =' in text else ''}) {{ {text} }}"
    forms, (skip,) = find(graph_of(text, tmp_path, table=np.ones((2, 6), np.float32), **C), match_normalization)
    assert not forms
    assert reason in skip.reason


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixture(path):
    graph_ = read_graph(path)
    forms, skips = find(graph_, match_normalization)
    nodes, means = count(graph_, "LayerNormalization", "SimplifiedLayerNormalization"), count(graph_, "ReduceMean")
    # T5 and Llama take one mean a normalization, the others two.
    assert len(forms) == nodes + (means if path.stem.startswith(("t5", "llama")) else means // 2)
    assert all(form.centered != path.stem.startswith(("t5", "llama")) for form in forms)
    assert not skips
