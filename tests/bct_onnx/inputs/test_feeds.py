"""Feeds are made from a model's own inputs, or read from a file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from bct_onnx.arrays import Feed
from bct_onnx.errors import BctError
from bct_onnx.inputs.feeds import candidate_plans, load_feeds
from bct_onnx.inputs.flow import flatten
from bct_onnx.inputs.roles import ModelInput, Role, find_inputs
from bct_onnx.inputs.values import make_value

HEAD = '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>'


def model(text: str, **dims: tuple[int, ...]) -> onnx.ModelProto:
    """Parse a graph and give it initializers that have dims and type but no data."""
    parsed = parse_model(HEAD + text)
    for name, shape in dims.items():
        parsed.graph.initializer.add(name=name, dims=shape, data_type=onnx.TensorProto.FLOAT)
    return parsed


def inputs(proto: onnx.ModelProto) -> Mapping[str, ModelInput]:
    return {entry.name: entry for entry in find_inputs(proto, flatten(proto))}


def first_group(proto: onnx.ModelProto, seed: int = 0) -> list[Feed]:
    return [plan.feed() for plan in next(candidate_plans(proto, seed))]


def shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value) for name, value in feed.items()}


def test_token_ids_are_rows_of_the_table_they_reach() -> None:
    proto = model(
        """g (int64[batch, seq] a, float[1, 50] b, int64[batch, seq] c) => (float[M] y) {
            a32 = Cast<to=6>(a) shape = Constant<value = int64[1] {-1}>() flat = Reshape(a32, shape)
            ya = Gather(table, flat)
            bi = Cast<to=7>(b) yb = Gather<axis=1>(turned, bi)
            half = Cast<to=10>(other) single = Cast<to=1>(half) t = Transpose<perm=[1, 0]>(single)
            yc = Gather(t, c)
        }""",
        table=(30, 4),
        turned=(4, 7),
        other=(4, 11),
    )
    found = inputs(proto)
    assert {name: (entry.role, entry.table_rows) for name, entry in found.items()} == {
        "a": (Role.IDS, 30),
        "b": (Role.IDS, 7),
        "c": (Role.IDS, 11),
    }
    feed = first_group(proto)[3]
    assert feed["a"].dtype == np.int64  # type: ignore[union-attr]
    assert feed["b"].dtype == np.float32  # type: ignore[union-attr]
    assert 20 < np.max(feed["a"]) < 30
    assert np.min(feed["a"]) >= 0
    assert np.max(feed["b"]) == 6


def test_the_smallest_table_bounds_the_ids() -> None:
    proto = model("g (int64[n] i) => (float[n, 4] y) { a = Gather(t, i) b = Gather(u, i) }", t=(9, 4), u=(5, 4))
    assert inputs(proto)["i"].table_rows == 5


@pytest.mark.parametrize(
    ("node", "rows"),
    [
        ("e, m = com.microsoft.EmbedLayerNormalization(x, x, t, u, v)", 3),
        ("e = com.microsoft.GatherBlockQuantized<block_size=16>(u, x, v)", 7),
    ],
)
def test_token_ids_reach_contributed_operators(node: str, rows: int) -> None:
    found = inputs(model(f"g (int64[b, s] x) => (float[b] e) {{ {node} }}", t=(9, 4), u=(7, 4), v=(3, 4)))
    assert found["x"].table_rows == rows


def test_token_ids_are_found_in_bodies_and_functions() -> None:
    proto = model(
        """g (int64[b, s] in_if, int64[b, s] in_loop, int64[b, s] in_function, int64 count, bool yes)
        => (float[A] y) {
            a = If (yes) <then_branch = g1 () => (float[A] p) { p = Gather(t, in_if) },
                          else_branch = g2 () => (float[A] q) { q = Gather(t, in_if) }>
            b = Loop (count, yes, in_loop) <
                body = g3 (int64 i, bool c, int64[b, s] carried) => (bool d, int64[b, s] r, float[A] e) {
                    d = Identity(c) r = Identity(carried) e = Gather(u, carried)
                }
            >
            y = own.lookup(v, in_function)
        }
        <domain: "own", opset_import: ["" : 18]>
        lookup (table, ids) => (rows) { moved = Identity(ids) rows = Gather(table, moved) }""",
        t=(10, 2),
        u=(11, 2),
        v=(12, 2),
    )
    found = inputs(proto)
    assert [found[name].table_rows for name in ("in_if", "in_loop", "in_function")] == [10, 11, 12]


def test_values_flow_out_of_a_branch() -> None:
    proto = model(
        """g (int64[b, s] ids, bool yes) => (float[A] y) {
            a = If (yes) <then_branch = g1 () => (int64[b, s] p) { p = Identity(ids) },
                          else_branch = g2 () => (int64[b, s] q) { q = Neg(ids) }>
            y = Gather(t, a)
        }""",
        t=(6, 2),
    )
    assert inputs(proto)["ids"].table_rows == 6


@pytest.mark.parametrize(
    ("declared", "node", "role"),
    [
        ("int64[b, s] attention_mask", "y = Neg(attention_mask)", Role.MASK),
        ("int64[b, s] input_2", "f = Cast<to=1>(input_2) y = Sub(one, f)", Role.MASK),
        ("bool[b, s] z", "y = Not(z)", Role.MASK),
        ("float[b, 1, q, k] mask", "y = Add(mask, one)", Role.ADDITIVE_MASK),
        ("float[b, 1, q, k] mask", "u = Sub(one, mask) y = Mul(u, one)", Role.MASK),
        ("int64[b, s] token_type_ids", "y = Gather(one, token_type_ids)", Role.TYPES),
        ("int64[b, s] position_ids", "y = Gather(one, position_ids)", Role.POSITIONS),
        ("float[b, 2, past, 4] past_key_values_0_key", "y = Neg(one)", Role.CACHE),
        ("bool[1] use_cache_branch", "y = Neg(one)", Role.CACHE_FLAG),
        ("bool condition", "y = Neg(one)", Role.FLAG),
        ("int32[1] max_length", "y = Neg(one)", Role.CONTROL),
        ("int32[batch] mask_index", "y = com.microsoft.Attention(one, one, one, mask_index)", Role.LENGTHS),
        ("int32[b] k", "y = com.microsoft.GroupQueryAttention(one, one, one, one, one, k)", Role.LAST),
        ("int32 k", "y = com.microsoft.GroupQueryAttention(one, one, one, one, one, one, k)", Role.TOTAL),
        ("float[4, 8] w", "y = MatMul(one, w)", Role.WEIGHT),
        ("uint8[b, 3, h, w] x", "y = Cast<to=1>(x)", Role.BYTES),
        ("string[n] s", "y = Identity(s)", Role.TEXT),
        ("float[b, s, 8] hidden", "y = Neg(hidden)", Role.NUMBERS),
    ],
)
def test_roles(declared: str, node: str, role: Role) -> None:
    name = declared.rsplit(maxsplit=1)[-1]
    proto = model(f"g ({declared}) => (float[A] y) {{ {node} }}", one=(2, 4))
    assert inputs(proto)[name].role is role


GROUPED = "y, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>({}, key, val, one, one)"


@pytest.mark.parametrize(
    ("made", "attention", "columns"),
    [
        ("q = MatMul(h, w) k = MatMul(h, v)", "q, k, k", 24),
        ("p = MatMul(h, w)", "p, , ", 48),
        (
            "p = MatMul(h, w) qs, k, vs = Split<axis = -1>(p, n) r = Reshape(qs, n)"
            " m = SimplifiedLayerNormalization<axis = -1>(r, n) q = Reshape(m, n)",
            "q, k, vs",
            48,
        ),
    ],
    ids=["products apart", "packed", "one product, split and normalized"],
)
def test_a_cache_has_heads_as_wide_as_their_product_makes_them(made: str, attention: str, columns: int) -> None:
    proto = model(
        f"""g (float[b, s, 8] h, float[b, 2, past, d] key, float[b, 2, past, d] val) => (float[A] y)
            {{ {made} {GROUPED.format(attention)} }}""",
        w=(8, columns),
        v=(8, 12),
        n=(3,),
        one=(1,),
    )
    assert inputs(proto)["key"].axis_sizes == inputs(proto)["val"].axis_sizes == {-1: 6}


def test_a_cache_of_a_window_is_as_long_as_the_window() -> None:
    attention = GROUPED.format("h, h, h").replace("= 2>", "= 2, local_window_size = 7, sliding_window_cache = 1>")
    proto = model(
        f"""g (float[b, s, 8] x, float[b, 2, past, d] key, float[b, 2, past, d] val) => (float[A] y)
            {{ h = MatMul(x, w) {attention} }}""",
        w=(8, 24),
        one=(1,),
    )
    assert inputs(proto)["key"].axis_sizes == {-1: 3, -2: 7}


def test_a_cache_has_heads_as_wide_as_a_product_in_a_function_makes_them() -> None:
    """The columns of the product are an attribute of the call."""
    codes, name = "com.microsoft.MatMulNBits <K = 8, N: int = @columns, bits = 4, block_size = 16>", "Product"
    text = f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1, "own": 1]>
        g (float[b, s, 8] h, uint8[n] w, float[n] e, float[b, 2, past, d] key, float[b, 2, past, d] val)
        => (float[A] y) {{
            q = own.{name} <columns = 24> (h, w, e) {GROUPED.format("q, k, k").replace("one", "e")}
        }}
        <domain: "own", opset_import: ["": 21, "com.microsoft": 1]>
        {name} <columns> (x, codes, scale) => (y) {{ y = {codes} (x, codes, scale) }}"""
    assert inputs(onnx.parser.parse_model(text))["key"].axis_sizes == {-1: 6}


def test_nothing_is_padded_where_caches_are_not_defined_behind_a_rows_end() -> None:
    attention = GROUPED.format("h, h, h").replace("one, one", "last, one")
    text = f"""g (float[b, s, 8] h, int64[b, total] attention_mask, float[b, 2, past, 2] key, float[b, 2, past, 2] val)
        => (float[A] y) {{ last = ReduceSum(attention_mask) {attention} }}"""
    for group in candidate_plans(model(text, one=(1,)), seed=0):
        assert all(np.all(plan.feed()["attention_mask"] == 1) for plan in group)


def test_an_input_with_an_initializer_is_not_fed() -> None:
    assert inputs(model("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=(2,))).keys() == {"x"}


DECODER = """g (int64[batch, seq] ids, int64[batch, total] attention_mask, float[batch, 2, past, 4] past_key)
    => (float[A] y) { y = Gather(t, ids) }"""


def renamed(text: str, **names: str) -> onnx.ModelProto:
    """Parse a decoder and rename its axes, also to names that the text format does not hold."""
    proto = model(text, t=(50, 4))
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)
    return proto


@pytest.mark.parametrize(
    "names",
    [
        {"past": "past_sequence_length", "total": "past_sequence_length + seq"},
        {"past": "past_len", "total": "total_sequence_length", "seq": "sequence_length"},
        {"past": "s2", "total": "s1 + s2", "seq": "s1", "batch": "s0"},
        {"past": "D2", "total": "D3", "seq": "D1", "batch": "D0"},
        {"past": "", "total": "", "seq": "", "batch": ""},
    ],
)
def test_mask_is_as_long_as_cache_and_tokens(names: dict[str, str]) -> None:
    for feed in first_group(renamed(DECODER, **names)):
        size = shapes(feed)
        assert size["attention_mask"][1] == size["past_key"][2] + size["ids"][1]
        assert size["attention_mask"][0] == size["past_key"][0] == size["ids"][0]


def test_plans_vary_batch_tokens_and_cache() -> None:
    sizes = [shapes(feed) for feed in first_group(renamed(DECODER))]
    assert len({size["ids"] for size in sizes}) == 4
    assert {size["past_key"][2] for size in sizes} >= {0, 16}
    assert 1 in {size["ids"][1] for size in sizes}


def test_fixed_offset_of_an_axis() -> None:
    proto = renamed(DECODER.replace("batch, seq", "batch, 1"), total="past + 1")
    assert [shapes(feed)["attention_mask"][1] for feed in first_group(proto)] == [17, 1, 25, 1]


def test_masks_hold_padding_at_the_end_of_some_rows() -> None:
    feeds = first_group(renamed(DECODER))
    for feed in feeds:
        mask = np.asarray(feed["attention_mask"])
        assert (np.diff(mask, axis=1) <= 0).all()
        assert mask[:, 0].all()
    assert np.asarray(feeds[0]["attention_mask"]).sum(axis=1).tolist() == [28, 21, 28, 21]


def test_positions_count_on_from_the_cache() -> None:
    text = DECODER.replace("ids,", "ids, int64[batch, seq] position_ids,", 1)
    feed = first_group(renamed(text))[0]
    np.testing.assert_array_equal(feed["position_ids"], np.broadcast_to(np.arange(16, 28), (4, 12)))


def test_a_merged_decoder_reads_its_cache_one_token_at_a_time() -> None:
    text = DECODER.replace("ids,", "ids, bool[1] use_cache_branch,", 1)
    for feed in first_group(renamed(text)):
        cached = bool(np.asarray(feed["use_cache_branch"])[0])
        assert shapes(feed)["past_key"][2] >= 1
        assert not cached or shapes(feed)["ids"][1] == 1
    flags = {bool(np.asarray(feed["use_cache_branch"])[0]) for feed in first_group(renamed(text))}
    assert flags == {True, False}


def test_weights_tell_the_size_of_unknown_axes() -> None:
    proto = model(
        """g (float[b, c, n] sound, float[b, s, f] hidden) => (float[A] y) {
            u = Conv(sound, kernel) v = MatMul(hidden, w)
        }""",
        kernel=(16, 80, 3),
        w=(24, 8),
    )
    feed = first_group(proto)[0]
    assert shapes(feed)["sound"][1] == 80
    assert shapes(feed)["hidden"][2] == 24


def test_picture_side_follows_from_the_position_table() -> None:
    proto = model(
        """g (float[batch, channels, height, width] x) => (float[A] y) {
            u = Conv<strides = [16, 16]>(x, kernel) y = Add(u, positions)
        }""",
        kernel=(32, 3, 16, 16),
        positions=(1, 26, 32),
    )
    groups = candidate_plans(proto, 0)
    sides = [shapes(plan.feed())["x"] for group in (next(groups), next(groups), next(groups)) for plan in group]
    assert (4, 3, 224, 224) in sides
    assert (4, 3, 80, 80) in sides  # 26 positions: 5 x 5 patches of 16, and the class token


def test_control_inputs_steer_generation() -> None:
    proto = model(
        """g (int32[batch, seq] input_ids, int32[1] max_length, int32[1] num_beams,
              float[1] repetition_penalty) => (float[A] y) { y = Gather(t, input_ids) }""",
        t=(50, 4),
    )
    feed = first_group(proto)[0]
    assert np.asarray(feed["max_length"]).tolist() == [12 + 8]
    assert np.asarray(feed["num_beams"]).tolist() == [2]
    assert np.asarray(feed["repetition_penalty"]).tolist() == [1.0]


def test_scalars_are_arrays() -> None:
    proto = model("g (int32 total_sequence_length, float x, bool go) => (float y) { y = Neg(x) }")
    for feed in first_group(proto):
        assert all(isinstance(value, np.ndarray) and value.shape == () for value in feed.values())


def test_same_seed_same_feeds() -> None:
    proto = model("g (float[2, 3] x) => (float[A] y) { y = Neg(x) }")
    one, same, other = (first_group(proto, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0]["x"], other[0]["x"])
    assert not np.array_equal(one[0]["x"], one[1]["x"])


def test_nothing_is_tried_twice() -> None:
    proto = model("g (float[2, 3] x) => (float[A] y) { y = Neg(x) }")
    later = list(candidate_plans(proto, 0))
    assert sum(len(list(group)) for group in later) == 4 + 4  # once more without padding


def test_sequence_inputs_are_lists() -> None:
    feed = first_group(model("g (seq(float[2, 3]) x) => (float[A] y) { y = ConcatFromSequence<axis=0>(x) }"))[0]
    assert [np.shape(part) for part in feed["x"]] == [(2, 3), (2, 3)]


def test_a_type_that_cannot_be_fed_is_an_error() -> None:
    proto = model("g (float[2] quarter) => (float[A] y) { y = Identity(quarter) }")
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT8E4M3FN
    with pytest.raises(BctError, match="input 'quarter' has element type float8e4m3fn"):
        first_group(proto)


PAIR = "g (int64[b, s] ids, float[b, s] x.0) => (float[A] y) { y = Neg(w) }".replace("x.0", "x")


def pair() -> onnx.ModelProto:
    proto = model(PAIR, w=(2,))
    proto.graph.input[1].name = "past.0"
    return proto


def test_load_one_feed(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", ids=np.ones((1, 2), np.int64), **{"past.0": np.ones((1, 2), np.float32)})
    (feed,) = load_feeds(tmp_path / "f.npz", pair())
    assert shapes(feed) == {"ids": (1, 2), "past.0": (1, 2)}


def test_load_several_feeds_with_a_shared_array(tmp_path: Path) -> None:
    arrays = {f"ids.{i}": np.full((1, 2), i, np.int64) for i in (10, 2)}
    np.savez(tmp_path / "f.npz", **arrays, **{"past.0": np.ones((1, 2), np.float32)})
    feeds = load_feeds(tmp_path / "f.npz", pair())
    assert [int(np.max(feed["ids"])) for feed in feeds] == [2, 10]
    assert all("past.0" in feed for feed in feeds)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"idz": np.ones((1, 2), np.int64)}, "'idz' is not an input of the model; it has ids, past.0"),
        ({"ids": np.ones((1, 2), np.int32)}, "'ids' is int32, the model's input 'ids' is int64"),
        (
            {"ids.1": np.ones(2, np.int64)},
            r"'ids.1' has shape \[2\], the model's input 'ids' is \['b', 's'\]",
        ),
        ({"ids.4": np.ones((1, 2), np.int64)}, "feed 4 has no array for input 'past.0'"),
    ],
)
def test_load_errors(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(BctError, match=message) as caught:
        load_feeds(tmp_path / "f.npz", pair())
    assert str(caught.value).startswith(str(tmp_path / "f.npz"))
    assert "\n" not in str(caught.value)


def test_load_what_is_no_npz(tmp_path: Path) -> None:
    with pytest.raises(BctError, match="file not found"):
        load_feeds(tmp_path / "absent.npz", pair())
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(BctError, match=r"not a readable \.npz"):
        load_feeds(tmp_path / "text.npz", pair())
    np.save(tmp_path / "single.npy", np.ones(2))
    with pytest.raises(BctError, match="a single array"):
        load_feeds(tmp_path / "single.npy", pair())


def test_a_second_text_stands_behind_the_first() -> None:
    entry = ModelInput("token_type_ids", onnx.TensorProto.INT64, ("b", "s"), "tensor", Role.TYPES, table_rows=2)
    types = np.asarray(make_value(entry, (6, 9), {}, np.random.default_rng(1), plain=False))
    assert types.dtype == np.int64
    assert (np.diff(types, axis=1) >= 0).all()
    assert (types[0::2] == 0).all()
    assert 0 < types[1::2].sum() < types[1::2].size
    assert (np.asarray(make_value(entry, (6, 9), {}, np.random.default_rng(1), plain=True)) == 0).all()
