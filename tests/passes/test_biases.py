"""Biases that move: the same function with fewer additions; and those that have to stay."""

from functools import partial

import numpy as np
import pytest

from tests import helpers
from tests.helpers import K, operators, random
from tests.passes import additions

check = partial(additions.check, "biases")
INPUT = f"float[b, s, {K}] x"
HEADS = "q_num_heads = 4, kv_num_heads = 4"

QUERY = "q0 = MatMul(x, wq) q = Add(q0, bq)"
KEY = "k0 = MatMul(x, wk) k = Add(bk, k0)"
VALUE = "v0 = MatMul(x, wv) v = Add(v0, bv)"
ATTENTION = f"a = Attention <{HEADS}> (q, k, v)"
OUTPUT = "o = MatMul(a, wo) y = Add(o, bo)"


def attention(*changed, outputs=""):
    """An attention whose lines are replaced by those of `changed` that make the same tensor."""
    lines = dict(zip("qkvay", (QUERY, KEY, VALUE, ATTENTION, OUTPUT), strict=True))
    lines |= {line.split(" = ")[0].strip(): line for line in changed}
    text = f"g ({INPUT}) => (float[b, s, {K}] y{outputs}) {{ {' '.join(lines.values())} }}"
    weights = {f"w{name}": random(K, K, seed=number) * 2 for number, name in enumerate("qkvo")}
    weights |= {f"b{name}": random(K, seed=9 + number) * 8 for number, name in enumerate("qkvo")}
    return helpers.model(text, 23, 11, **weights)


NORM = "n = LayerNormalization <axis = -1> (x, scale, shift)"
MLP = "h0 = MatMul(n, w) h = Add(h0, b) r = Relu(h) z0 = MatMul(r, v) z = Add(z0, c) y = Add(n, z)"


# The branch reads the normalization itself.
SELF = "h0 = MatMul(n, square) z = Add(h0, c) y = Add(n, z)"


def residual(norm=NORM, mlp=MLP, outputs="", size=0.2):
    """A normalization, two products and the sum; `size` is that of the bias that is to move."""
    text = f"g ({INPUT}) => (float[b, s, {K}] y{outputs}) {{ {norm} {mlp} }}"
    return helpers.model(
        text,
        w=random(K, 2 * K, seed=1),
        b=random(2 * K, seed=2),
        v=random(2 * K, K, seed=3),
        c=np.linspace(-size, size, K, dtype=np.float32),
        scale=1 + random(K, seed=4),
        shift=random(K, seed=5),
        square=random(K, K, seed=6),
        more=random(K, seed=7),
    )


def test_key_needs_no_bias_and_that_of_the_value_moves_into_the_projection(tmp_path):
    check(attention(), tmp_path, 2, 1)


def test_a_key_alone_gives_up_its_bias(tmp_path):
    check(attention("v = MatMul(x, wv)"), tmp_path, 2, 1)


def test_a_bias_moves_from_one_gemm_to_others(tmp_path):
    shapes = f"rows = Constant <value_ints = [-1, {K}]> () whole = Constant <value_ints = [2, 5, {K}]> ()"
    norm = f"{shapes} x2 = Reshape(x, rows) n = LayerNormalization <axis = -1> (x2, scale, shift)"
    mlp = "h = Gemm(n, w, b) r = Relu(h) z = Gemm(r, v, c) y2 = Add(z, n) y = Reshape(y2, whole)"
    proto = check(residual(norm, mlp), tmp_path, 1, 1)
    assert [len(node.input) for node in proto.graph.node if node.op_type == "Gemm"] == [3, 2]


DECOMPOSED = """
 m = ReduceMean <axes = [-1]> (x) d = Sub(x, m) two = Constant <value = float {2}> () p = Pow(d, two)
 s = ReduceMean <axes = [-1]> (p) e = Constant <value = float {1e-5}> () t = Add(s, e) u = Sqrt(t)
 f = Div(d, u) g = Mul(f, scale) n = Add(g, shift)
"""


def test_a_bias_of_the_branch_moves_into_the_normalization(tmp_path):
    check(residual(), tmp_path, 2, 1)


def test_a_decomposed_normalization_takes_the_bias(tmp_path):
    source = residual(DECOMPOSED)
    source.opset_import[0].version = 17
    check(source, tmp_path, 4, 1)


@pytest.mark.parametrize(
    ("changed", "outputs", "adds"),
    [
        (["k = MatMul(x, wk)", "v = MatMul(x, wv)"], "", 2),
        (["a = Attention <" + HEADS + ", is_causal = 1> (q, k, v)"], "", 4),
        (["a = Attention <" + HEADS + ", softcap = 1.0> (q, k, v)"], "", 4),
        ([], f", float[b, s, {K}] k", 3),
        ([], f", float[b, s, {K}] v", 3),
    ],
    ids=["none has a bias", "causal", "a tanh", "keys are an output", "values are an output"],
)
def test_biases_of_attention_that_stay(tmp_path, changed, outputs, adds):
    check(attention(*changed, outputs=outputs), tmp_path, adds, int(bool(outputs)))


@pytest.mark.parametrize(
    "source",
    [
        residual(size=5.0),
        residual(outputs=f", float[b, s, {K}] n"),
        residual(outputs=f", float[b, s, {K}] z"),
        residual(mlp=MLP.replace("h0 = MatMul(n, w)", "n2 = Relu(n) h0 = MatMul(n2, w)")),
        residual(mlp=MLP.replace("h = Add(h0, b)", "h = Relu(h0)")),
        residual(mlp=SELF),
        residual(additions.IN_PARTS),
        residual(additions.COMPUTED_BIAS),
    ],
    ids=[
        "too large",
        "the normalization is an output",
        "the branch is an output",
        "another reader",
        "no other bias",
        "a product of its own",
        "a bias in parts",
        "a bias that is computed",
    ],
)
def test_biases_of_branches_that_stay(tmp_path, source):
    check(source, tmp_path, operators(source).count("Add"), 0)


@pytest.mark.parametrize("first", ["the normalization", "attention"])
def test_a_projection_whose_bias_moves_as_well(tmp_path, first):
    """The value's bias becomes a part of it, before or not at all."""
    query = "q0 = MatMul(n, wq) q1 = Add(q0, bq) q = LayerNormalization <axis = -1> (q1, scale, shift)"
    body = f"{NORM} {query} {KEY} {VALUE} {ATTENTION}"
    if first == "attention":
        body = f"{QUERY} {KEY} {VALUE} {ATTENTION} {NORM}"
    text = f"g ({INPUT}) => (float[b, s, {K}] y) {{ {body} o = MatMul(a, wo) z = Add(o, c) y = Add(n, z) }}"
    weights = {f"w{name}": random(K, K, seed=number) * 2 for number, name in enumerate("qkvo")}
    weights |= {f"b{name}": random(K, seed=9 + number) * 8 for number, name in enumerate("qkv")}
    norm = {"scale": 1 + random(K, seed=4), "shift": random(K, seed=5), "c": random(K) / 5}
    check(helpers.model(text, 23, 11, **weights, **norm), tmp_path, *((3, 2) if first != "attention" else (3, 1)))


def test_what_is_kept_keeps_its_bias(tmp_path):
    check(residual(), tmp_path, 3, 0, keep=("^w$",))


def test_other_lowerings_add_biases_on_their_way(tmp_path):
    check(residual(), tmp_path, 3, 0, lowering="packed")
