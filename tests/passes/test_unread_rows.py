"""One row is read: the nodes behind compute no other, and the same for that one."""

import numpy as np
import onnx
import pytest

import passes
from bct_onnx import files
from tests.helpers import K, model, operators, random, rewrite, run

X = random(2, 5, K, seed=1)
# float32 sums in another order.
TOLERANCE = 2e-5
# Of five products in a row, whose int8 activations err by up to 1.5 % each (see test_matmul.py), not all the same way.
CHAIN_ERROR = 0.05
FIRST = "i = Constant <value_int = 0> () y = Gather <axis = 1> ({}, i)"
LAST = "i = Constant <value_ints = [-1]> () y = Gather <axis = -2> ({}, i)"
SLICE = """s = Constant <value_ints = [{start}]> () e = Constant <value_ints = [{end}]> ()
 a = Constant <value_ints = [{axis}]> () y = Slice({{}}, s, e, a)"""
SLICE_FIRST = SLICE.format(start=0, end=1, axis=1)
SLICE_LAST = SLICE.format(start=-1, end=2**63 - 1, axis=-2)
ATTENTION = """n = LayerNormalization <axis = -1> (x, scale, shift)
 q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv)
 c = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v) o = MatMul(c, wo) r = Add(o, x)"""
MLP = """m = LayerNormalization <axis = 2> (r, scale, shift) h = MatMul(m, w1) h1 = Add(h, b1) g = Gelu(h1)
 z = MatMul(g, w2) t = Add(z, r)"""
NORM = """last = Constant <value_ints = [-1]> () mean = ReduceMean(t, last) d = Sub(t, mean) sq = Mul(d, d)
 var = ReduceMean(sq, last) eps = Constant <value = float {1e-5}> () ve = Add(var, eps) std = Sqrt(ve) u = Div(d, std)
 p = Mul(u, scale) f = Add(p, shift)"""
WEIGHTS = {
    **{f"w{name}": random(K, K, seed=2 + place) for place, name in enumerate("qkvo")},
    "w1": random(K, 2 * K, seed=6),
    "b1": random(2 * K, seed=7),
    "w2": random(2 * K, K, seed=8),
    "scale": 1 + random(K, seed=9),
    "shift": random(K, seed=10),
}


def layer(taken=FIRST, attention=ATTENTION, mlp=MLP, x="b, s, 64", inputs="", outputs="", y="b, k"):
    """A layer of a transformer, and what takes a row of it."""
    body = f"{attention} {mlp} {NORM} {taken.format('f')}"
    return model(f"g (float[{x}] x{inputs}) => (float[{y}] y{outputs}) {{ {body} }}", 23, 11, **WEIGHTS)


def check(source, folder, replaced, **feeds):
    """Compare a model before and after the pass; return the new one."""
    result = rewrite(source, folder, operators=frozenset({"unread_rows"}))
    assert result.replaced.get("unread_rows", 0) == replaced
    for one, other in zip(run(source, **feeds), run(result.proto, **feeds), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max(initial=0) <= TOLERANCE * max(1, np.abs(one).max(initial=0))
    return result.proto


def rows(proto, names, **feeds):
    """Return how many rows inner tensors have."""
    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names.split())
    return [array.shape[-2] for array in run(seen, optimize=False, **feeds)]


@pytest.mark.parametrize(
    ("taken", "y"), [(FIRST, "b, k"), (LAST, "b, 1, k"), (SLICE_FIRST, "b, 1, k"), (SLICE_LAST, "b, 1, k")]
)
def test_a_layer_computes_the_row_that_is_read(tmp_path, taken, y):
    proto = check(layer(taken, y=y), tmp_path, 1, x=X)
    assert rows(proto, "n k v q c r m h g t d std f", x=X) == [5, 5, 5, *10 * [1]]


@pytest.mark.parametrize("x", ["b, 5, 64", "2, s, 64", "2, 5, 64"])
def test_sizes_may_be_known_or_not(tmp_path, x):
    assert rows(check(layer(x=x), tmp_path, 1, x=X), "q h", x=X) == [1, 1]


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [("b, 1, s, s", (2, 1, 5, 5)), ("1, 4, s, s", (1, 4, 5, 5)), ("s, s", (5, 5))],
)
def test_a_mask_loses_the_rows_of_queries(tmp_path, sizes, shape):
    """Not those of keys, of which there are as many."""
    source = layer(LAST, ATTENTION.replace("k, v)", "k, v, mask)"), inputs=f", float[{sizes}] mask", y="b, 1, k")
    mask = np.where(np.random.default_rng(0).random(shape) < 0.5, 0, -9).astype(np.float32)
    assert rows(check(source, tmp_path, 1, x=X, mask=mask), "q c", x=X, mask=mask) == [1, 1]


@pytest.mark.parametrize(
    ("attention", "inputs", "feeds"),
    [
        (ATTENTION.replace("<q", "<is_causal = 1, q"), "", {}),
        (ATTENTION.replace("k, v)", "k, v, mask)"), ", float[p, l] mask", {"mask": random(5, 5)}),
        (ATTENTION.replace("q, k, v)", "q, k, q)"), "", {}),
        (
            ATTENTION.replace("k, v)", "k, v, , past, past)").replace("c =", "c, present_k, present_v ="),
            ", float[b, 4, 3, 16] past",
            {"past": random(2, 4, 3, 16)},
        ),
    ],
    ids=["causal", "a mask of unknown rows", "the query is the value, too", "a cache"],
)
def test_attention_that_needs_all_queries_keeps_them(tmp_path, attention, inputs, feeds):
    """What follows it does not."""
    proto = check(layer(attention=attention, inputs=inputs), tmp_path, 1, x=X, **feeds)
    assert rows(proto, "q o h", x=X, **feeds) == [5, 1, 1]


TWO_RESULTS = "h0, a, b, h2 = com.microsoft.SkipLayerNormalization (h, h, wide)"


def behind(change):
    """The MLP with something added to its first product."""
    return MLP.replace("h1 = Add(h, b1)", f"{change} h1 = Add(h0, b1)")


@pytest.mark.parametrize(
    ("mlp", "outputs", "expected"),
    [
        (MLP, ", float[b, s, 64] m", [5, 5, 1, 1]),
        (f"{MLP} two = Add(h, h) most = ReduceMax <keepdims = 0> (two)", ", float most", [5, 5, 5, 1]),
        (behind("over = Constant <value_ints = [1]> () d0 = ReduceMax(h, over) h0 = Sub(h, d0)"), "", [5, 5, 5, 1]),
        (behind("h2 = Softmax <axis = 1> (h) h0 = Add(h, h2)"), "", [5, 5, 5, 1]),
        (behind("k0 = MatMul(square, h) h0 = Add(h, k0)"), "", [5, 5, 5, 1]),
        (behind("h0 = Add(h, rows)"), "", [1, 1, 1, 1]),
        (behind("h0 = Add(h, row)"), "", [1, 1, 1, 1]),
        (MLP.replace("h = MatMul(m", "m2 = RMSNormalization <axis = -1> (m, norm) h = MatMul(m2"), "", [1, 1, 1, 1]),
        (behind("h2 = Identity(h) h0 = com.microsoft.SkipLayerNormalization (h, h2, wide)"), "", [1, 1, 1, 1]),
        (behind(f"{TWO_RESULTS} most = ReduceMax <keepdims = 0> (h2)"), ", float most", [5, 5, 5, 1]),
        (MLP.replace("h = MatMul(m", "m2 = RMSNormalization <axis = 1> (m, norm) h = MatMul(m2"), "", [5, 5, 1, 1]),
    ],
    ids=[
        "an output",
        "another reader",
        "a reduction over rows",
        "Softmax over rows",
        "rows as the second factor",
        "rows from elsewhere",
        "one row from elsewhere",
        "a scale a row",
        "fused",
        "two results",
        "normalized together",
    ],
)  # fmt: skip
def test_what_else_reads_rows_gets_them_all(tmp_path, mlp, outputs, expected):
    inputs = {"rows": (2, 5, 128), "row": (2, 1, 128), "square": (5, 5), "wide": (128,), "norm": (5, 64)}
    feeds = {name: random(*shape) for name, shape in inputs.items() if f"{name})" in mlp or f"({name}" in mlp}
    declared = "".join(f", float[{', '.join(map(str, array.shape))}] {name}" for name, array in feeds.items())
    source = layer(mlp=mlp, x="2, 5, 64", inputs=declared, outputs=outputs)
    proto = check(source, tmp_path, 1, x=X, **feeds)
    assert rows(proto, "r m h g", x=X, **feeds) == expected


@pytest.mark.parametrize(
    "source",
    [
        layer(outputs=", float[b, s, 64] f"),
        layer(FIRST.replace("= 0", "= 1")),
        layer(SLICE.format(start=0, end=2, axis=1), y="b, two, k"),
        layer(SLICE.format(start=0, end=1, axis=2), y="b, s, one"),
        layer(x="b, 1, 64"),
        layer(mlp=behind("h0 = Add(h, unknown)"), inputs=", float[b, p, 128] unknown"),
        layer(SLICE.format(start=-1, end=3, axis=1), y="b, none, k"),
        layer(SLICE.format(start="0, 0", end="1, 1", axis="1, 2"), y="b, one, two"),
        layer(FIRST.replace("axis = 1", "axis = 2"), y="b, s"),
        layer(
            SLICE_LAST.replace("y = Slice({}, s, e, a)", "t2 = Neg(a) u2 = Div(t2, a) y = Slice({}, s, e, a, u2)"),
            y="b, n, k",
        ),
        layer(
            SLICE_LAST.replace(
                "y = Slice({}, s, e, a)", "back = Constant <value_ints = [-1]> () y = Slice({}, s, e, a, back)"
            ),
            y="b, n, k",
        ),
    ],
    ids=[
        "all rows are an output",
        "the second",
        "two",
        "sliced columns",
        "there is one",
        "perhaps more rows",
        "not even the last",
        "rows and columns",
        "a column",
        "in steps that are not known",
        "backwards",
    ],
)
def test_what_stays(tmp_path, source):
    feeds = {"x": X[:, :1] if source.graph.input[0].type.tensor_type.shape.dim[1].dim_value else X}
    feeds |= {value.name: random(2, 5, 128) for value in source.graph.input[1:]}
    check(source, tmp_path, 0, **feeds)


@pytest.mark.parametrize(
    ("body", "y", "expected"),
    [
        ("d = MatMul(x, square) h = ReduceMax <keepdims = 0> (d, last) y = Gather <axis = 0> (h, i)", "n", 64),
        ("d = MatMul(x, square) h = MatMul(d, vector) y = Gather <axis = 0> (h, i)", "n", 64),
        ("d = MatMul(x, batch) h = Relu(d) y = Gather <axis = 0> (h, i)", "n, n", 64),
        ("d = MatMul(x, batch) h = Relu(d) y = Gather <axis = 1> (h, i)", "n, n", 1),
        ("d = MatMul(x, square) h = Shrink(d) g = MatMul(h, square) y = Gather <axis = 1> (g, i)", "n, n", 64),
        ("c = Shrink(x) d = MatMul(c, square) h = Relu(d) y = Gather <axis = 1> (h, i)", "n, n", 64),
        ("w = Shrink(square) d = MatMul(x, w) h = Relu(d) y = Gather <axis = 1> (h, i)", "n, n", 64),
        ("d = MatMul(x, square) h = Relu(d) y = Gather <axis = 2> (h, i)", "n, n", 64),
    ],
    ids=["reduced", "a vector", "a batch", "its rows", "unknown", "unknown at first", "unknown weight", "columns"],
)
def test_equal_sizes_are_not_taken_for_rows(tmp_path, body, y, expected):
    constants = "i = Constant <value_int = 0> () last = Constant <value_ints = [-1]> ()"
    weights = {"square": random(K, K), "vector": random(K), "batch": random(K, K, K)}
    used = {name: array for name, array in weights.items() if name in body}
    known = "64, 64" if "axis = 0" in body and "batch" not in body else "64, 64, 64"
    declared = f"<float[64, 64, 64] d, float[{known}] h>"
    source = model(f"g (float[64, 64, 64] x) => (float[{y}] y) {declared} {{ {constants} {body} }}", 23, 11, **used)
    x = random(K, K, K)
    assert rows(check(source, tmp_path, int("g =" in body or expected == 1), x=x), "d", x=x) == [expected]


def test_the_first_sample_has_all_keys(tmp_path):
    """Products and normalizations go by samples, too; Attention is left as it is."""
    source = layer(FIRST.replace("axis = 1", "axis = 0"), y="s, k")
    proto = check(source, tmp_path, 1, x=X)
    assert "c.row" in {name for node in proto.graph.node for name in node.output}


def test_what_is_read_twice_is_taken_once(tmp_path):
    """The query's product and the sum read the same row."""
    source = layer(attention=ATTENTION.replace("Add(o, x)", "Add(o, n)"))
    assert operators(check(source, tmp_path, 1, x=X)).count("Slice") == 1


def test_rows_of_a_constant_are_taken_at_once(tmp_path):
    source = layer(mlp=behind("h0 = Add(h, positions)"), x="b, 5, 64")
    source.graph.initializer.append(onnx.numpy_helper.from_array(random(5, 2 * K), "positions"))
    proto = check(source, tmp_path, 1, x=X)
    assert (1, 2 * K) in {tuple(tensor.dims) for tensor in proto.graph.initializer}


def test_of_no_rows_none_is_taken(tmp_path):
    source = layer(SLICE_FIRST, attention="r = Identity(x)", y="b, n, k")
    check(source, tmp_path, 1, x=X)
    check(source, tmp_path, 1, x=X[:, :0])


def test_the_attention_of_the_runtime_multiplies_first(tmp_path):
    """It has another operator of the name: of one row it would make all keys."""
    attention = "c = com.microsoft.Attention <num_heads = 4> (x, wqkv, bqkv) o = MatMul(c, wo) r = Add(o, x)"
    source = layer(attention=attention)
    arrays = {"wqkv": random(K, 3 * K, seed=11), "bqkv": random(3 * K, seed=12)}
    source.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    assert rows(check(source, tmp_path, 1, x=X), "c h", x=X) == [5, 1]


def test_what_a_body_is_given_stays(tmp_path):
    """There is no place behind it where a row could be taken."""
    body = """body = b (float[5, 64] s) => (float[64] row)
     { h = MatMul(s, w) i = Constant <value_int = 0> () row = Gather <axis = 0> (h, i) }"""
    text = f"g (float[2, 5, 64] x) => (float[2, 64] y) {{ y = Scan <num_scan_inputs = 1, {body}> (x) }}"
    check(model(text, 23, 11, w=random(K, K)), tmp_path, 0, x=X)


def test_an_unknown_mask(tmp_path):
    attention = ATTENTION.replace("c =", "masks = Shrink(mask) c =").replace("k, v)", "k, v, masks)")
    mask = random(2, 1, 5, 5)
    proto = check(layer(attention=attention, inputs=", float[b, 1, s, s] mask"), tmp_path, 1, x=X, mask=mask)
    assert rows(proto, "q h", x=X, mask=mask) == [5, 1]


def test_codes_are_made_for_all_rows_of_the_activation(tmp_path):
    """What is known of an activation goes by its name in the input model."""
    onnx.save(layer(), tmp_path / "source.onnx")
    seen = []

    def coder(weight, fmt, activation, workers):
        seen.append(activation)
        return passes.plain_codes(weight, fmt, activation, workers)

    graph = files.read(tmp_path / "source.onnx").graph()
    passes.run(graph, passes.Options(bits=8, block_size=0, workers=1), coder=coder, checked=True)
    assert seen == ["n", "n", "c", "m", "g"]


def test_widths_chosen_for_other_groups(tmp_path):
    """The query leaves the group that its width was chosen for."""
    result = rewrite(layer(), tmp_path, bits=4, block_size=8, bits_for={"wq + wk + wv": 6, "wo": 5, "w1": 3})
    widths = {tensor.name: tensor.bits for tensor in result.reports["matmul"].tensors}
    assert widths == {"wq": 6, "wk + wv": 6, "wo": 5, "w1": 3, "w2": 4}


def test_without_a_product_nothing_is_saved(tmp_path):
    source = model("g (float[b, s, 64] x) => (float[b, 64] y) { a = Relu(x) " + FIRST.format("a") + " }", 23, 11)
    check(source, tmp_path, 0, x=X)


def test_the_whole_chain_multiplies_one_row(tmp_path):
    """Query and MLP in integers; keys and values still are one multiplication."""
    source = layer()
    result = rewrite(source, tmp_path, bits=8, block_size=0)
    assert result.replaced["unread_rows"] == 1
    assert operators(result.proto).count("MatMulIntegerToFloat") == 5
    one, other = run(source, x=X)[0], run(result.proto, x=X)[0]
    assert np.abs(one - other).max() <= CHAIN_ERROR * np.abs(one).max()
