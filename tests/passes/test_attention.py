"""Attention in the forms of several exporters: one kernel, the same numbers; what has to stay, and why."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx.inputs import candidate_plans
from bct_onnx.opsets import opset_of, raise_opset
from tests import helpers
from tests.helpers import operators, rewrite, run, session

FIXTURES = Path(__file__).parents[2] / "models" / "fixtures"
NAME = "attention"
OPERATORS = {"operators": frozenset({NAME})}
LOWEST = np.float32(np.finfo(np.float32).min)
BATCH, TOKENS, PAST, HEADS, WIDTH = 2, 5, 3, 4, 6
ROWS = HEADS * WIDTH
# float32 sums in another order.
TOLERANCE = 1e-5

INPUTS = f"float[b, s, {ROWS}] q, float[b, t, {ROWS}] k, float[b, t, {ROWS}] v"
HEAD = f"""
 shape = Constant <value_ints = [0, 0, {HEADS}, {WIDTH}]> ()
 q4 = Reshape(q, shape) k4 = Reshape(k, shape) v4 = Reshape(v, shape)
 qt = Transpose <perm = [0, 2, 1, 3]> (q4) vt = Transpose <perm = [0, 2, 1, 3]> (v4)
"""
KEY = "kt = Transpose <perm = [0, 2, 3, 1]> (k4)"
SCORES = "scores = MatMul(qt, kt)"
SOFTMAX = "p = Softmax <axis = -1> (x)"
TAIL = f"""
 o = MatMul(p, vt) ot = Transpose <perm = [0, 2, 1, 3]> (o)
 rows = Constant <value_ints = [0, 0, {ROWS}]> () y = Reshape(ot, rows)
"""
SAME = "x = Identity(scores)"
TWO = "two = Constant <value = float {2}> ()"
LOW = "zero = Constant <value = float {0}> () low = Constant <value = float {-3.4028235e38}> ()"


def graph(*body, more="", key=KEY, scores=SCORES, softmax=SOFTMAX, tail=TAIL, inputs=INPUTS, outputs="", head=HEAD):
    result = f"float[b, s, {ROWS}] y{outputs}"
    return f"g ({inputs}{more}) => ({result}) {{ {head} {key} {scores} {' '.join(body)} {softmax} {tail} }}"


def model(text, **weights):
    """Attention is a standard operator from opset 23 on."""
    return helpers.model(text, 23, 11, **weights)


def draw(*shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def projections(tokens=TOKENS, total=TOKENS):
    return {
        name: draw(BATCH, count, ROWS, seed=seed)
        for seed, (name, count) in enumerate((("q", tokens), ("k", total), ("v", total)))
    }


def agree(source, result, **feeds):
    for optimize in (False, True):
        for expected, y in zip(run(source, optimize, **feeds), run(result, optimize, **feeds), strict=True):
            assert y.shape == expected.shape
            np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE * np.nanmax(np.abs(expected)))


def attributes(proto):
    node = next(node for node in helpers.plain(proto).graph.node if node.op_type == "Attention")
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


@pytest.mark.parametrize(
    ("body", "scale"),
    [
        (["x = Identity(scores)"], 1),
        ([TWO, "x = Div(scores, two)"], 1 / 2),
        ([TWO, "x = Mul(two, scores)"], 2),
        ([TWO, "a = Mul(scores, two) b = Cast <to = 1> (a) x = Div(b, two)"], 1),
    ],
    ids=["none", "Div", "Mul", "both"],
)
def test_factors_of_the_scores(tmp_path, body, scale):
    source = model(graph(*body))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Attention"]
    assert attributes(result.proto) == {"q_num_heads": HEADS, "kv_num_heads": HEADS, "scale": pytest.approx(scale)}
    agree(source, result.proto, **projections())


# scaled_dot_product_attention as TorchScript exports it: the root of the scale on both sides, from the query's shape.
ROOTS = """
 dims = Shape(qt) last = Constant <value_ints = [-1]> () end = Constant <value_ints = [9223372036854775807]> ()
 width = Slice(dims, last, end) wide = Cast <to = 1> (width) root = Sqrt(wide)
 one = Constant <value_floats = [1.0]> () scale = Div(one, root) half = Sqrt(scale)
 qs = Mul(qt, half) ks = Mul(kt, half) scores = MatMul(qs, ks)
"""
# GPT-2 as TorchScript exports it.
POWER = """
 dims = Shape(v4) last = Constant <value_ints = [-1]> () end = Constant <value_ints = [9223372036854775807]> ()
 one = Slice(dims, last, end) width = Squeeze(one) wide = Cast <to = 1> (width)
 half = Constant <value = float {0.5}> () root = Pow(wide, half)
 none = Constant <value = int64[0] {}> () nil = ConstantOfShape(none) sum = Add(nil, root)
 raw = MatMul(qt, kt) scores = Div(raw, sum)
"""


@pytest.mark.parametrize("scores", [ROOTS, POWER], ids=["roots", "power"])
def test_scale_computed_from_shapes(tmp_path, scores):
    source = model(graph("x = Identity(scores)", scores=scores))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert attributes(result.proto)["scale"] == pytest.approx(WIDTH**-0.5)
    assert operators(result.proto) == ["Attention"]
    agree(source, result.proto, **projections())


# An exporter's chunk: bounds computed from a shape.
CHUNKS = """
 dims = Shape <start = 2> (x) three = Constant <value_ints = [3]> () one = Div(dims, three)
 zero = Constant <value_ints = [0]> () two = Add(one, one) axis = Constant <value_ints = [2]> ()
 q = Slice(x, zero, one, axis) k = Slice(x, one, two, axis) v = Slice(x, two, dims, axis)
"""


def test_chunks_whose_width_the_runtime_cannot_follow(tmp_path):
    tail = f"{TAIL.replace('y = ', 'a = ')} y = MatMul(a, w)"
    inputs, softmax = f"float[b, s, {3 * ROWS}] x", "p = Softmax <axis = -1> (scores)"
    text = graph(inputs=inputs, head=CHUNKS + HEAD, softmax=softmax, tail=tail)
    source = model(text, w=draw(ROWS, ROWS, seed=4))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto).count("Attention") == 1
    agree(source, result.proto, x=draw(BATCH, TOKENS, 3 * ROWS, seed=1))


PLAIN_KEY = "kh = Transpose <perm = [0, 2, 1, 3]> (k4) kt = Transpose <perm = [0, 1, 3, 2]> (kh)"
# Dynamo's way to swap the last two axes.
MATRICES = """
 kh = Transpose <perm = [0, 2, 1, 3]> (k4) kd = Shape(kh)
 one = Constant <value_ints = [-1]> () two = Constant <value_ints = [-2]> () zero = Constant <value_ints = [0]> ()
 end = Constant <value_ints = [9223372036854775807]> ()
 lead = Slice(kd, zero, two) t = Slice(kd, two, one) w = Slice(kd, one, end)
 flat = Concat <axis = 0> (one, t, w) km = Reshape(kh, flat) ks = Transpose <perm = [0, 2, 1]> (km)
 whole = Concat <axis = 0> (lead, w, t) kt = Reshape(ks, whole)
"""


@pytest.mark.parametrize("key", [PLAIN_KEY, MATRICES], ids=["Transpose", "matrices"])
def test_keys_transposed_twice(tmp_path, key):
    source = model(graph("x = Identity(scores)", key=key))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Attention"]
    agree(source, result.proto, **projections())


CACHE = f", float[b, {HEADS}, p, {WIDTH}] pk, float[b, {HEADS}, p, {WIDTH}] pv"
PRESENT = f", float[b, {HEADS}, pt, {WIDTH}] kc, float[b, {HEADS}, pt, {WIDTH}] vc"


def test_a_cache_goes_in_as_it_is(tmp_path):
    key = """kh = Transpose <perm = [0, 2, 1, 3]> (k4) kc = Concat <axis = -2> (pk, kh)
     vc = Concat <axis = -2> (pv, vt) kt = Transpose <perm = [0, 1, 3, 2]> (kc)"""
    source = model(
        graph("x = Identity(scores)", key=key, more=CACHE, outputs=PRESENT, tail=TAIL.replace("p, vt", "p, vc"))
    )
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {NAME: 1}
    made = ["Reshape", "Transpose", "Concat"] * 2 + ["Attention", "Reshape", "Transpose", "Transpose", "Reshape"]
    assert sorted(operators(result.proto)) == sorted(made)
    cache = {name: draw(BATCH, HEADS, PAST, WIDTH, seed=9) for name in ("pk", "pv")}
    agree(source, result.proto, **projections(), **cache)


GROUPS, SHARED = 2, HEADS // 2
# Each head of keys and values serves two of the query, side by side, as exporters of transformers write it.
REPEATS = f"""
 two = Constant <value_ints = [2]> () none = Constant <value_ints = [0]> () rest = Constant <value_ints = [{WIDTH}]> ()
 one = Constant <value_ints = [1]> () three = Constant <value_ints = [3]> ()
 times = Constant <value_ints = [{GROUPS}]> () few = Constant <value_ints = [{SHARED}]> ()
 all = Constant <value_ints = [{HEADS}]> ()
 kd = Shape(kc) batch = Slice(kd, none, one) length = Slice(kd, two, three)
 wide = Concat <axis = 0> (batch, few, times, length, rest) flat = Concat <axis = 0> (batch, all, length, rest)
 ku = Unsqueeze(kc, two) ke = Expand(ku, wide) kr = Reshape(ke, flat)
 vu = Unsqueeze(vc, two) ve = Expand(vu, wide) vr = Reshape(ve, flat)
 kt = Transpose <perm = [0, 1, 3, 2]> (kr)
"""
GROUPED_HEAD = f"""
 shape = Constant <value_ints = [0, 0, {HEADS}, {WIDTH}]> ()
 small = Constant <value_ints = [0, 0, {SHARED}, {WIDTH}]> ()
 q4 = Reshape(q, shape) k4 = Reshape(k, small) v4 = Reshape(v, small) qt = Transpose <perm = [0, 2, 1, 3]> (q4)
 kh = Transpose <perm = [0, 2, 1, 3]> (k4) vh = Transpose <perm = [0, 2, 1, 3]> (v4)
"""
GROUPED_INPUTS = f"float[b, s, {ROWS}] q, float[b, t, {SHARED * WIDTH}] k, float[b, t, {SHARED * WIDTH}] v"
CACHED = "kc = Concat <axis = 2> (pk, kh) vc = Concat <axis = 2> (pv, vh)"
UNCACHED = "kc = Identity(kh) vc = Identity(vh)"


def grouped(joined, repeats=REPEATS, **more):
    return model(graph(SAME, head=GROUPED_HEAD + joined, key=repeats, tail=TAIL.replace("p, vt", "p, vr"), **more))


def narrow(names, tokens, seed=3):
    return {name: draw(BATCH, tokens, SHARED * WIDTH, seed=seed + n) for n, name in enumerate(names)}


def test_heads_of_keys_that_several_of_the_query_share(tmp_path):
    source = grouped(UNCACHED.replace("Identity(kh)", "Neg(kh)"), inputs=GROUPED_INPUTS)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {NAME: 1}
    assert not {"Expand", "Softmax"} & set(operators(result.proto))
    agree(source, result.proto, q=draw(BATCH, TOKENS, ROWS, seed=1), **narrow("kv", TOKENS))


def test_shared_heads_in_rows_say_how_many_there_are(tmp_path):
    source = grouped(UNCACHED, inputs=GROUPED_INPUTS)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Attention"]
    assert {**attributes(result.proto), "scale": 1} == {"q_num_heads": HEADS, "kv_num_heads": SHARED, "scale": 1}
    agree(source, result.proto, q=draw(BATCH, TOKENS, ROWS, seed=1), **narrow("kv", TOKENS))


def test_a_cache_of_shared_heads_stays_as_small_as_it_is(tmp_path):
    cache = f", float[b, {SHARED}, p, {WIDTH}] pk, float[b, {SHARED}, p, {WIDTH}] pv"
    present = f", float[b, {SHARED}, pt, {WIDTH}] kc, float[b, {SHARED}, pt, {WIDTH}] vc"
    source = grouped(CACHED, inputs=GROUPED_INPUTS, more=cache, outputs=present)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {NAME: 1}
    (attention,) = [node for node in result.proto.graph.node if node.op_type == "HeadAttention"]
    assert list(attention.input[1:3]) == ["kc", "vc"]
    past = {name: draw(BATCH, SHARED, PAST, WIDTH, seed=9 + n) for n, name in enumerate(("pk", "pv"))}
    agree(source, result.proto, q=draw(BATCH, TOKENS, ROWS, seed=1), **narrow("kv", TOKENS), **past)


@pytest.mark.parametrize(
    "repeats",
    [
        REPEATS.replace("ku = Unsqueeze(kc, two)", "ku = Unsqueeze(kc, one)").replace(
            "ke = Expand(ku, wide)", "kx = Concat <axis = 0> (batch, times, few, length, rest) ke = Expand(ku, kx)"
        ),
        REPEATS.replace("ve = Expand(vu, wide)", "vw = Expand(vu, wide) ve = Abs(vw)"),
    ],
    ids=["side by side in another order", "not only repeated"],
)
def test_heads_that_are_repeated_otherwise_go_in_as_they_are(tmp_path, repeats):
    source = grouped(UNCACHED, repeats=repeats, inputs=GROUPED_INPUTS)
    result = rewrite(source, tmp_path, **OPERATORS)
    assert "Expand" in operators(result.proto)
    agree(source, result.proto, q=draw(BATCH, TOKENS, ROWS, seed=1), **narrow("kv", TOKENS))


PADDING, FULL = ", float[b, 1, 1, t] m", ", float[b, 1, s, t] m"
CONDITION = ", bool[1, 1, s, t] c"
CAUSAL = np.tri(TOKENS, dtype=bool)[None, None]


def padding(rows=1):
    mask = np.zeros((BATCH, 1, rows, TOKENS), np.float32)
    mask[1, ..., -2:] = LOWEST
    return mask


@pytest.mark.parametrize(
    ("more", "body", "feeds", "expands"),
    [
        (PADDING, ["x = Add(scores, m)"], {"m": padding()}, 1),
        (FULL, ["x = Add(m, scores)"], {"m": padding(TOKENS)}, 0),
        (", float[s, t] m", ["x = Add(scores, m)"], {"m": padding(TOKENS)[1, 0]}, 1),
        (CONDITION, [LOW, "x = Where(c, scores, low)"], {"c": CAUSAL}, 0),
        (CONDITION, [LOW, "x = Where(c, low, scores)"], {"c": ~CAUSAL}, 0),
        (CONDITION + PADDING, [LOW, "a = Where(c, scores, low) x = Add(a, m)"], {"c": CAUSAL, "m": padding()}, 0),
    ],
    ids=["padding", "full", "matrix", "shown", "hidden", "both"],
)
def test_masks(tmp_path, more, body, feeds, expands):
    source = model(graph(*body, more=more))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {NAME: 1}
    assert operators(result.proto).count("Expand") == expands
    assert not {"Softmax", "MatMul", "Transpose"} & set(operators(result.proto))
    agree(source, result.proto, **projections(), **feeds)


def test_a_condition_expanded_to_the_scores(tmp_path):
    body = [LOW, "dims = Shape(scores) wide = Expand(c, dims) b = Cast <to = 9> (wide) x = Where(b, low, scores)"]
    source = model(graph(*body, more=", bool[b, 1, 1, t] c"))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert "MatMul" not in operators(result.proto)
    agree(source, result.proto, **projections(), c=padding() < 0)


def test_rows_without_any_key_stay_zeros(tmp_path):
    guard = "s = Softmax <axis = -1> (x) n = IsNaN(s) nil = Constant <value = float {0}> () p = Where(n, nil, s)"
    source = model(graph("x = Add(scores, m)", more=FULL, softmax=guard))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Attention", "IsNaN", "Where"]
    mask = np.where(padding(TOKENS) < 0, -np.inf, 0).astype(np.float32)
    mask[0, :, 2] = -np.inf
    agree(source, result.proto, **projections(), m=mask)
    assert not run(result.proto, **projections(), m=mask)[0][0, 2].any()


def test_a_guard_against_nan_goes_where_there_is_none(tmp_path):
    guard = "s = Softmax <axis = -1> (x) n = IsNaN(s) p = Where(n, zero, s)"
    source = model(graph(LOW, "m = Where(c, zero, low) x = Add(scores, m)", more=CONDITION, softmax=guard))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Where", "Attention"]
    agree(source, result.proto, **projections(), c=CAUSAL)


def test_two_layers_share_a_mask(tmp_path):
    first = HEAD + KEY + SCORES + " x = Add(scores, m) " + SOFTMAX + TAIL
    renamed = re.sub(r"\b(shape|q4|k4|v4|qt|vt|kt|scores|x|p|o|ot|rows)\b", r"\g<1>2", first)
    second = re.sub(r"\bq\b", "y", re.sub(r"\by\b", "z", renamed))
    source = model(f"g ({INPUTS}{PADDING}) => (float[b, s, {ROWS}] z) {{ {first} {second} }}")
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {NAME: 2}
    assert operators(result.proto).count("Expand") == 1
    agree(source, result.proto, **projections(), m=padding())


def test_readers_of_the_transposed_product_keep_it(tmp_path):
    tail = TAIL + "n = Shape(ot)"
    source = model(graph("x = Identity(scores)", tail=tail, outputs=", int64[4] n"))
    result = rewrite(source, tmp_path, **OPERATORS)
    assert operators(result.proto) == ["Attention", "Reshape", "Shape"]
    agree(source, result.proto, **projections())


SIXTEEN = INPUTS.replace("float[", "float16[")
LATE = "a = Add(scores, m) two = Constant <value = float {2}> () x = Mul(a, two)"
HIGH = "high = Constant <value = float {-10000}> () x = Where(c, scores, high)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(SAME, outputs=f", float[b, {HEADS}, s, t] p"), "its inner value p is an output of the graph"),
        (
            graph(SAME, tail=TAIL + "n = Abs(p)", outputs=f", float[b, {HEADS}, s, t] n"),
            "its inner value p is also used by Abs",
        ),
        (graph(LATE, more=PADDING), "its scores are multiplied after a mask is applied"),
        (graph(HIGH, more=CONDITION), "hidden scores are replaced with -10000"),
        (graph(SAME, softmax="p = Softmax <axis = 2> (x)"), "its Softmax is along axis 2"),
        (graph(SAME, key=KEY.replace("0, 2, 3, 1", "1, 2, 3, 0")), "nothing is known of the shape of its key"),
        (graph(SAME, inputs=SIXTEEN).replace(") => (float[", ") => (float16["), "its type is float16"),
    ],
    ids=["output", "used", "scaled late", "high", "axis", "key", "float16"],
)
def test_what_has_to_stay(tmp_path, text, reason):
    result = rewrite(model(text), tmp_path, **OPERATORS)
    assert not result.replaced
    (said,) = result.skips(NAME).values()
    assert said.startswith(reason)


HEADS_FIRST = {
    "rotated query": graph(SAME, scores="r = Neg(qt) scores = MatMul(r, kt)"),
    "rotated query and key": graph(
        SAME,
        key=PLAIN_KEY.replace("(kh)", "(kn)").replace("kt =", "kn = Neg(kh) kt ="),
        scores="r = Neg(qt) scores = MatMul(r, kt)",
    ),
    "heads not joined": graph(SAME, tail=TAIL.replace("0, 2, 1, 3", "2, 0, 1, 3")),
}


@pytest.mark.parametrize("name", HEADS_FIRST)
def test_heads_first_where_rows_cannot_be(tmp_path, name):
    source = model(HEADS_FIRST[name])
    result = rewrite(source, tmp_path, **OPERATORS)
    assert result.replaced == {NAME: 1}
    assert "Softmax" not in operators(result.proto)
    agree(source, result.proto, **projections())


def test_below_its_opset_attention_stays_apart(tmp_path):
    assert "Attention" not in operators(rewrite(helpers.model(graph(SAME)), tmp_path, **OPERATORS).proto)


@pytest.mark.parametrize(
    "options",
    [
        {"lowering": "qdq", "bits": 8, **OPERATORS},
        {"operators": frozenset({NAME, "softmax"})},
        {"operators": frozenset({"matmul"})},
    ],
    ids=["qdq", "integers", "not asked for"],
)
def test_requests_that_leave_attention_apart(tmp_path, options):
    result = rewrite(model(graph(SAME)), tmp_path, **options)
    assert "Attention" not in operators(result.proto)


def entries():
    return json.loads((FIXTURES / "INDEX.json").read_text())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["name"])
def test_exporters(tmp_path, entry):
    source = onnx.load(FIXTURES / entry["file"])
    # Raised from below opset 13, a Softmax whose rank the converter cannot tell comes between Flatten and Reshape.
    flat = opset_of(source) < 13
    source = source if opset_of(source) >= 23 else raise_opset(source, 23)
    result = rewrite(source, tmp_path, **OPERATORS)
    softmaxes = operators(source).count("Softmax")
    left = softmaxes if flat or "float16" in entry["name"] else 0
    assert result.replaced.get(NAME, 0) == softmaxes - left
    if left:
        return
    sessions = [session(FIXTURES / entry["file"], optimize=False), session(tmp_path / "rewritten.onnx", optimize=False)]
    feed = first_feed(source, sessions[0])
    for expected, y in zip(*(it.run(None, feed) for it in sessions), strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4 * max(np.abs(expected).max(initial=0), 1e-6))


def first_feed(source, runner):
    """Return the first feed that a model runs on."""
    for group in candidate_plans(source, seed=0):
        for plan in group:
            feed = plan.feed()
            try:
                runner.run(None, feed)
            except Exception:
                break
            return feed
    raise AssertionError("no feed runs")


def test_a_mask_has_the_rows_of_the_queries(tmp_path):
    """One of them is read: one of the mask's is enough."""
    tail = TAIL.replace("y =", "all =") + " i = Constant <value_int = 0> () y = Gather <axis = 1> (all, i)"
    text = graph("x = Add(scores, mask)", tail=tail, more=", float[b, 1, 1, t] mask")
    source = model(text.replace(f"(float[b, s, {ROWS}] y", f"(float[b, {ROWS}] y"))
    result = rewrite(source, tmp_path, operators=frozenset({NAME, "unread_rows"}))
    assert result.replaced == {NAME: 1, "unread_rows": 1}
    agree(source, result.proto, **projections(), mask=draw(BATCH, 1, 1, TOKENS, seed=5))
