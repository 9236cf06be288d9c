"""Decomposed Gelus become one operator, others stay."""

import numpy as np
import pytest

from tests.helpers import model, operators, rewrite, run

FUSE = {"operators": frozenset({"fuse_gelu"})}
ONE = "r = Constant <value = float {1.4142135}> () one = Constant <value = float {1.0}> ()"
GELU = f"""{ONE} half = Constant <value = float {{0.5}}> ()
 a = Div(x, r) e = Erf(a) b = Add(e, one) c = Mul(x, b) y = Mul(c, half)"""


def graph(text, opset=20, outputs=""):
    return model(f"g (float[n] x) => (float[n] y{outputs}) {{ {text} }}", opset, 9)


DOUBLE = model(
    "g (double[n] x) => (double[n] y) { a = Div(x, r) e = Erf(a) b = Add(e, one) c = Mul(x, b) y = Mul(c, half) }",
    r=np.sqrt(2.0),
    one=np.ones(()),
    half=np.array(0.5),
)


def test_a_decomposed_gelu_is_one_operator(tmp_path):
    source = graph(GELU)
    result = rewrite(source, tmp_path, **FUSE)
    assert operators(result.proto) == ["Gelu"]
    x = np.linspace(-9, 9, 999).astype(np.float32)
    for one, other in zip(run(source, x=x), run(result.proto, x=x), strict=True):
        assert np.abs(one - other).max() <= 1e-6


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (graph(GELU, outputs=", float[n] e"), {}),
        (graph(GELU, opset=17), {}),
        (graph(f"{ONE} a = Mul(x, r) e = Tanh(a) b = Add(e, one) y = Mul(x, b)"), {}),
        (graph("a = Sigmoid(x) y = Mul(x, a)"), {}),
        (DOUBLE, {}),
        (graph(GELU), {"lowering": "packed"}),
    ],
    ids=[
        "a part is an output",
        "an opset without Gelu",
        "unlike one",
        "another function",
        "double precision",
        "another lowering",
    ],
)
def test_what_stays(tmp_path, source, options):
    result = rewrite(source, tmp_path, **FUSE, **options)
    assert "Gelu" not in operators(result.proto)
    assert result.replaced == {}
