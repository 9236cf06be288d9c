"""Bits chosen by measurement: the runs behind the curve, and files that meet their goal."""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import BctError, compress, files, search
from bct_onnx.fidelity.outputs import OutputError, output_error
from bct_onnx.presets import PRESETS
from bct_onnx.search import (
    DEFAULT_DROP,
    Grams,
    compensating_coder,
    measure_sensitivity,
    memoized,
    plot,
)
from bct_onnx.search.grams import _together, product_inputs
from bct_onnx.search.sensitivity import _by_kind
from bct_onnx.search.switchable import SwitchableModel, _lift, formats, stored_bytes
from bct_onnx.search.work import (
    NODE_SECONDS,
    RATE,
    SHARE,
    Affordable,
    affordable,
    nominal_seconds,
    products_of,
    with_sizes,
)
from bct_onnx.sessions import MemoryUse, Session
from passes import Options
from passes.context import plain_codes
from passes.formats.block import BlockFormat, decode
from passes.formats.compensated import compensate
from passes.formats.encode import encode
from tests.helpers import model, random, run

# The second product sees a thousandth of the first one's output: its codes hardly matter.
UNEVEN = """g (float[m, 64] x) => (float[m, 64] y) {
  a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Mul(c, small) y = Add(a, d) }"""
K, WIDE = 64, 256
FIXTURES = Path(__file__).parents[3] / "models" / "fixtures"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    weights = {"w": random(K, K, seed=1), "v": random(K, K, seed=2), "small": np.array(1e-3, np.float32)}
    onnx.save(model(UNEVEN, opset=21, **weights), path)
    return path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Save the same with weights that outweigh the bodies of functions."""
    path = tmp_path / "wide.onnx"
    weights = {"w": random(WIDE, WIDE, seed=1), "v": random(WIDE, WIDE, seed=2), "small": np.array(1e-3, np.float32)}
    onnx.save(model(UNEVEN.replace("64", str(WIDE)), opset=21, **weights), path)
    return path


def test_small_is_the_least_error_in_the_bytes_of_four_bits_everywhere(wide, tmp_path) -> None:
    plain = compress(wide, tmp_path / "plain.onnx", preset="small", bits=4)
    report = compress(wide, tmp_path / "small.onnx", preset="small")
    assert plain.search is None
    assert report.search is not None
    assert report.search.goal.plain_bytes
    assert report.output.bytes <= plain.output.bytes
    bits = report.search.choice.bits
    assert bits["v"] < 4 < bits["w"]
    x = random(100, WIDE, seed=6)
    exact, best, same = (run(path, x=x)[0] for path in (wide, tmp_path / "small.onnx", tmp_path / "plain.onnx"))
    assert np.linalg.norm(best - exact) < np.linalg.norm(same - exact)


def test_where_no_bits_do_better_small_has_the_same_everywhere(tmp_path) -> None:
    path = tmp_path / "one.onnx"
    text = f"g (float[m, {WIDE}] x) => (float[m, {WIDE}] y) {{ y = MatMul(x, w) }}"
    onnx.save(model(text, opset=21, w=random(WIDE, WIDE, seed=1)), path)
    report = compress(path, tmp_path / "small.onnx", preset="small")
    assert report.search is not None
    assert report.search.choice.bits == {"w": 4}


@pytest.mark.parametrize("met", [True, False])
def test_a_choice_that_errs_more_than_four_bits_everywhere_gives_way_to_them(wide, tmp_path, monkeypatch, met) -> None:
    monkeypatch.setattr(search, "within_bytes", lambda curve, *_: (curve.point(len(curve.bytes) - 1), met))
    report = compress(wide, tmp_path / "small.onnx", preset="small")
    assert report.search is not None
    assert report.search.met
    assert report.search.choice.bits == {"w": 4, "v": 4}


def test_the_switchable_model_answers_like_the_input_and_with_the_codes_like_the_output(source, tmp_path) -> None:
    x = random(5, K, seed=3)
    (exact,) = run(source, x=x)
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx")
    assert [switch.name for switch in switchable.switches] == ["w", "v"]
    assert [switch.activation for switch in switchable.switches] == ["x", "b"]
    np.testing.assert_array_equal(switchable.run({"x": x}, {})["y"], exact)
    w = random(K, K, seed=1)
    coarse = decode(encode(w, BlockFormat.shifted(2, 8)))
    instead = {switchable.switches[0].tensor: switchable.switches[0].laid_out(coarse)}
    changed = switchable.run({"x": x}, instead)["y"]
    hidden = x @ coarse
    np.testing.assert_allclose(changed, hidden + 1e-3 * np.maximum(hidden, 0) @ random(K, K, seed=2), atol=1e-4)


def test_the_switchable_model_keeps_its_weights_in_a_file_to_be_mapped(source, tmp_path) -> None:
    x, path = random(5, K, seed=3), tmp_path / "s.onnx"
    switchable = SwitchableModel(files.read(source), Options(), path)
    (data,) = tmp_path.glob("s.onnx.*.data")
    assert data.stat().st_size >= 2 * 4 * K * K > path.stat().st_size
    before = switchable.run({"x": x})["y"]
    (answer,), (cost,) = switchable.answers_and_costs([{"x": x}])
    assert cost > 0
    np.testing.assert_array_equal(answer["y"], before)
    assert list(answer) == list(switchable.run({"x": x})) == ["y"]


def test_weights_are_seen_in_the_file_as_they_are_encoded(source, tmp_path) -> None:
    """Products that read them the other way round, and constants of more axes, too."""
    text = "g (float[m, 64] x) => (float[m, 64] y, float[2, 64, 64] z) { y = Gemm<transB = 1>(x, w) z = Mul(s, t) }"
    w, s = random(K, K, seed=1), random(2, K, K, seed=2)
    onnx.save(model(text, opset=21, w=w, s=s, t=np.array(2, np.float32)), source)
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx")
    found = {switch.name: switch for switch in switchable.switches}
    np.testing.assert_array_equal(found["w"].matrix, w.T)
    for switch in found.values():
        assert not switch.matrix.flags.writeable
        assert not switch.matrix.flags.owndata
        same = {switch.tensor: switch.laid_out(np.array(switch.matrix))}
        x = random(5, K, seed=3)
        for name, array in switchable.run({"x": x}).items():
            np.testing.assert_array_equal(switchable.run({"x": x}, same)[name], array)


def test_tables_are_seen_by_their_rows(source, tmp_path) -> None:
    """A row that is looked up is a column of what is encoded."""
    table = random(2 * K, K, seed=1)
    onnx.save(model("g (int64[m] i) => (float[m, 64] y) { y = Gather <axis = 0> (t, i) }", opset=21, t=table), source)
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx")
    (switch,) = switchable.switches
    assert switch.by_rows
    np.testing.assert_array_equal(switch.matrix, table.T)
    i = np.arange(3)
    changed = switchable.run({"i": i}, {switch.tensor: switch.laid_out(2 * switch.matrix)})["y"]
    np.testing.assert_array_equal(changed, 2 * table[i])


def test_what_will_be_one_weight_is_switched_as_one(source, tmp_path) -> None:
    text = "g (float[m, 64] x) => (float[m, 128] y) { a = MatMul(x, w) b = MatMul(x, v) y = Concat<axis = 1>(a, b) }"
    w, v = random(K, K, seed=1), random(K, K, seed=2)
    onnx.save(model(text, opset=21, w=w, v=v), source)
    x = random(5, K, seed=3)
    for lowering, names in (("packed", ["w + v"]), ("dense", ["w", "v"])):
        switchable = SwitchableModel(files.read(source), Options(lowering=lowering), tmp_path / f"{lowering}.onnx")
        assert [switch.name for switch in switchable.switches] == names
        np.testing.assert_array_equal(switchable.run({"x": x})["y"], run(source, x=x)[0])
        zeros = {each.tensor: each.laid_out(np.zeros_like(each.matrix)) for each in switchable.switches}
        assert not switchable.run({"x": x}, zeros)["y"].any()


def test_a_model_that_decodes_token_by_token_gets_the_widths_that_its_kernels_have(tmp_path) -> None:
    report = compress(FIXTURES / "gpt2_optimum.onnx", tmp_path / "out.onnx")
    found = report.search
    assert found is not None
    assert found.met
    assert found.error <= DEFAULT_DROP
    assert found.measured == len(found.curve.weights) > 3
    assert set(found.choice.bits.values()) <= {2, 4, 8}
    taken = {each.name: each.bits for entry in report.passes for each in entry.tensors if each.lowering == "packed"}
    assert {name: taken[name] for name in found.choice.bits} == found.choice.bits
    assert not any("6-bit" in note for note in report.notes)


@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
def test_bytes_are_those_of_the_report(source, tmp_path, lowering) -> None:
    options = Options(lowering=lowering, block_size=16)
    switch = SwitchableModel(files.read(source), options, tmp_path / "s.onnx").switches[0]
    for bits, fmt in formats(switch, options).items():
        report = compress(
            source, tmp_path / f"{bits}.onnx", bits=bits, block_size=16, lowering=lowering, max_rel_error=10
        )
        taken = next(t for entry in report.passes for t in entry.tensors if t.name == "w").bytes_after
        assert stored_bytes(fmt, (K, K)) == taken


def test_what_matters_less_gets_fewer_bits(source, tmp_path) -> None:
    feeds = [{"x": random(40, K, seed=4)}]
    found = measure_sensitivity(files.read(source), Options(block_size=8), feeds, tmp_path / "s.onnx", seconds=60)
    assert found.measured == 2
    errors = {entry.name: entry.error for entry in found.curve.weights}
    assert errors["v"][4] < 1e-4 * errors["w"][4]
    bits = found.curve.within_error(0.05**2).bits
    assert bits["v"] == 2
    assert bits["w"] >= 5


def test_draws_of_one_kind_are_judged_together() -> None:
    """Four feeds of two kinds: the worst draw is not the error, the worse kind is."""
    error = OutputError("values", error=0.5, worst=1, by_feed=(0.3, 0.5, 0.3, 0.1))
    assert _by_kind(error, 2).error == pytest.approx(math.sqrt((0.5**2 + 0.1**2) / 2))
    assert _by_kind(error, 4).error == 0.5
    assert _by_kind(OutputError("exact", same=1.0), 2).error is None


def test_without_time_weights_are_taken_to_be_like_the_first(source, tmp_path, monkeypatch) -> None:
    # A clock that stands still stops nothing: what is run was counted beforehand.
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    feeds = [{"x": random(40, K, seed=4)}]
    found = measure_sensitivity(files.read(source), Options(block_size=8), feeds, tmp_path / "s.onnx", seconds=0)
    assert [entry.measured for entry in found.curve.weights] == [True, False]
    first, second = found.curve.weights
    assert second.error[4] == pytest.approx(first.error[4], rel=0.2)


def test_compress_meets_its_goals(source, tmp_path) -> None:
    feeds = tmp_path / "feeds.npz"
    np.savez(feeds, x=random(200, K, seed=5))
    x = random(100, K, seed=6)
    (exact,) = run(source, x=x)
    report = compress(source, tmp_path / "drop.onnx", max_drop=0.05)
    assert report.search is not None
    assert report.search.met
    assert report.search.error <= 0.05
    (answer,) = run(tmp_path / "drop.onnx", x=x)
    assert output_error("y", [exact], [answer], [{}]).error < 0.06
    tensors = {t.name: t.bits for entry in report.passes for t in entry.tensors if t.bits}
    assert tensors == dict(report.search.choice.bits)
    size = compress(source, tmp_path / "size.onnx", target_bytes=report.output.bytes - 300, feeds=feeds)
    assert size.output.bytes <= report.output.bytes - 300
    assert size.search is not None
    assert size.search.to_dict()["weights"][0].keys() >= {"name", "bits", "bytes", "errors"}
    picture = tmp_path / "curve.png"
    plot(size.search, picture)
    assert picture.stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.onnx", "drop.onnx", "size.onnx", "feeds.npz", "curve.png"
    }  # fmt: skip


def test_goals_that_cannot_be_met_are_said(source, tmp_path) -> None:
    report = compress(source, tmp_path / "out.onnx", target_ratio=1000)
    assert report.search is not None
    assert not report.search.met
    assert any("more than the goal" in note for note in report.notes)


@pytest.mark.parametrize("options", [{"bits": 4}, {"verify": False}, {"target_ratio": 4.0}])
def test_goals_that_go_with_nothing_else_are_refused(source, tmp_path, options) -> None:
    with pytest.raises(BctError):
        compress(source, tmp_path / "out.onnx", max_drop=0.1, **options)


def test_grams_are_of_the_activations_and_codes_rely_on_them(source) -> None:
    proto = files.read(source)
    names = product_inputs(proto.graph())
    assert names == {"x": K, "b": K}
    rows = [random(150, K, seed=7), random(150, K, seed=8)]
    grams = Grams(source, names, [{"x": part} for part in rows])
    x = np.concatenate(rows)
    hidden = np.maximum(x @ random(K, K, seed=1), 0)
    for name, activation in (("x", x), ("b", hidden)):
        seen = grams.get(name)
        assert seen is not None
        gram = seen.everything
        assert gram.samples == 300
        rows_of_one = activation / np.sqrt(np.square(activation).mean(axis=1, keepdims=True))
        np.testing.assert_allclose(gram.matrix, rows_of_one.T @ rows_of_one / 300, rtol=1e-3, atol=1e-5)
    assert grams.get("nothing") is None
    fmt, v = BlockFormat.shifted(4, 8), random(K, K, seed=2)
    coder = compensating_coder(grams)
    expected = compensate(v, grams.get("b").everything, fmt)
    np.testing.assert_array_equal(decode(coder(v, fmt, "b", 1)), decode(expected))
    np.testing.assert_array_equal(decode(coder(v, fmt, None, 1)), decode(encode(v, fmt)))


@pytest.mark.parametrize("value", [1e4, 1e30])
def test_a_row_that_is_larger_than_others_counts_as_much_as_they_do(source: Path, value: float) -> None:
    rows = random(400, K, seed=7)
    large = rows.copy()
    large[5] *= np.float32(value)
    large[6] = 0
    one, other = (Grams(source, {"x": K}, [{"x": each}]).get("x") for each in (rows, large))
    assert one is not None and other is not None
    left = one.everything.matrix - np.outer(rows[6], rows[6]) / (400 * np.square(rows[6]).mean())
    np.testing.assert_allclose(other.everything.matrix, left, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_say_nothing(source: Path, value: float) -> None:
    rows, v, fmt = random(400, K, seed=7), random(K, K, seed=2), BlockFormat.shifted(4, 8)
    rows[5, 3] = value
    grams = Grams(source, {"x": K}, [{"x": rows}])
    assert grams.get("x") is None
    np.testing.assert_array_equal(decode(compensating_coder(grams)(v, fmt, "x", 1)), decode(encode(v, fmt)))


def test_codes_in_a_trellis_give_way_where_fitted_ones_err_less(source: Path) -> None:
    """Channels that are one channel are easy to make up for; independent ones are not."""
    v, fmt = random(K, K, seed=2), BlockFormat.best(4, 8)
    alike = np.repeat(random(400, 4, seed=7), K // 4, axis=1)
    for rows, fitted in ((alike, True), (random(400, K, seed=8), False)):
        coder = compensating_coder(Grams(source, {"x": K}, [{"x": rows}]))
        assert coder(v, fmt, "x", 1).format.trellis is not fitted


def test_wide_activations_are_captured_one_by_one() -> None:
    wide = 1 << 13
    assert list(_together({"a": 8, "b": 16, "c": wide, "d": wide, "e": 8})) == [["a", "b"], ["c"], ["d"], ["e"]]


@pytest.fixture
def wild_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make seconds of any length, forwards all the same."""
    rng, now = np.random.default_rng(9), [0.0]

    def clock() -> float:
        now[0] += float(rng.exponential(3.0))
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)


@pytest.mark.parametrize("goal", [{}, {"max_drop": 0.05}, {"target_ratio": 4.0}])
def test_neither_clock_nor_workers_change_the_file(
    source: Path, tmp_path: Path, goal: dict[str, float], request: pytest.FixtureRequest
) -> None:
    first = compress(source, tmp_path / "a.onnx", **goal)
    request.getfixturevalue("wild_clock")
    for name, preset in PRESETS.items():
        request.getfixturevalue("monkeypatch").setitem(PRESETS, name, replace(preset, workers=1))
    second = compress(source, tmp_path / "b.onnx", **goal)
    assert first.search is not None
    assert first.search.measured == 2
    assert first.output.sha256 == second.output.sha256


@pytest.mark.usefixtures("wild_clock")
def test_a_search_that_takes_much_too_long_is_stopped_and_says_so(source, tmp_path) -> None:
    report = compress(source, tmp_path / "out.onnx", search_seconds=0.01, target_ratio=4.0)
    assert report.search is not None
    assert report.search.measured == 1
    assert any("another run may give another file" in note for note in report.notes)


def test_a_run_costs_its_multiplications(source, tmp_path) -> None:
    proto = onnx.load(source)
    onnx.save(with_sizes(proto), tmp_path / "sized.onnx")
    run_sized = Session(tmp_path / "sized.onnx").run
    products, nodes = products_of(proto), len(proto.graph.node)
    answers = [run_sized({"x": random(rows, K, seed=1)}) for rows in (10, 1000)]
    costs = [nominal_seconds(products, nodes, answer) for answer in answers]
    fixed = NODE_SECONDS * nodes
    assert costs == pytest.approx([fixed + 2 * rows * K * K / RATE for rows in (10, 1000)])


def test_without_memory_every_weight_is_multiplied_with_every_row(source, tmp_path) -> None:
    switchable = SwitchableModel(files.read(source), Options(), tmp_path / "s.onnx", MemoryUse.MAPPED)
    few, many = ({"x": random(rows, K, seed=1)} for rows in (10, 1000))
    (answer, _), (cheap, dear) = switchable.answers_and_costs([few, many])
    np.testing.assert_allclose(answer["y"], run(source, **few)[0], rtol=1e-5, atol=1e-5)
    assert dear - cheap == pytest.approx(2 * 990 * K * K / RATE)


def test_a_convolution_costs_its_window_for_every_result(tmp_path: Path) -> None:
    text = "g (float[n, 3, 16, 16] x) => (float[n, 8, 4, 4] y) { y = Conv <strides = [4, 4]> (x, w) }"
    proto = model(text, opset=21, w=random(8, 3 * 16, seed=1).reshape(8, 3, 4, 4))
    feed = {"x": random(2, 3 * 256, seed=2).reshape(2, 3, 16, 16)}
    onnx.save(with_sizes(proto), tmp_path / "sized.onnx")
    cost = nominal_seconds(products_of(proto), 1, Session(tmp_path / "sized.onnx").run(feed))
    assert cost == pytest.approx(NODE_SECONDS + 2 * 8 * 16 * 48 / RATE)


def test_what_fits_is_counted() -> None:
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=10 / SHARE) == Affordable(1, 10)
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=20 / SHARE) == Affordable(2, 10)
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=4.5) == Affordable(1, 4)
    assert affordable([1.0, 1.0, 1.0], weights=10, seconds=0.0) == Affordable(1, 1)


def test_codes_are_made_once() -> None:
    made: list[int] = []

    def coder(values, fmt, activation, workers):
        made.append(fmt.bits)
        return plain_codes(values, fmt, activation, workers)

    code, w, v = memoized(coder), random(K, K, seed=1), random(K, K, seed=2)
    for matrix, bits in ((w, 4), (w.copy(), 4), (v, 4), (w, 5), (v, 4)):
        tensor = code(matrix, BlockFormat.shifted(bits, 8), "x", 1)
        np.testing.assert_array_equal(tensor.codes, encode(matrix, BlockFormat.shifted(bits, 8)).codes)
    assert made == [4, 4, 5]


def test_the_default_is_searched_and_gives_way(wide, tmp_path) -> None:
    report = compress(wide, tmp_path / "default.onnx")
    assert report.search is not None
    assert not report.search.goal.asked
    assert report.search.error <= DEFAULT_DROP
    six = compress(wide, tmp_path / "six.onnx", bits=6)
    assert six.search is None
    assert report.output.bytes < six.output.bytes
    for number, options in enumerate(
        ({"preset": "fast"}, {"preset": "small", "bits": 4}, {"lowering": "packed"}, {"verify": False})
    ):
        assert compress(wide, tmp_path / f"{number}.onnx", **options).search is None


LOOP = """g (float[m, 64] x) => (float[m, 64] y) {
  n = Constant <value_int = 3> () go = Constant <value = bool {1}> () a = MatMul(x, w)
  y = Loop(n, go, a) <body = b (int64 i, bool c, float[m, 64] s) => (bool c2, float[m, 64] s2) {
    c2 = Identity(c) t = MatMul(s, v) s2 = Relu(t) }> }"""


def test_weights_of_bodies_are_measured_like_others(tmp_path: Path) -> None:
    """Those that the main graph has, and those that only the body has."""
    path = tmp_path / "in.onnx"
    proto = model(LOOP, opset=21, w=random(K, K, seed=1), v=random(K, K, seed=2))
    own = proto.graph.initializer.pop()
    assert own.name == "v"
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    next(each for each in loop.attribute if each.name == "body").g.initializer.append(own)
    onnx.save(proto, path)
    switchable = SwitchableModel(files.read(path), Options(), tmp_path / "s.onnx")
    found = {switch.name: switch for switch in switchable.switches}
    assert found.keys() == {"w", "v"}
    x = random(5, K, seed=3)
    zeros = found["v"].laid_out(np.zeros((K, K), np.float32))
    assert not switchable.run({"x": x}, {found["v"].tensor: zeros})["y"].any()
    (answer,), (cost,) = switchable.answers_and_costs([{"x": x}])
    np.testing.assert_array_equal(answer["y"], run(path, x=x)[0])
    assert cost >= 2 * 5 * K * K / RATE
    report = compress(path, tmp_path / "out.onnx")
    assert report.search is not None
    assert report.search.measured == 2
    assert report.search.error <= DEFAULT_DROP


BRANCHES = """g (float[m, 64] x) => (float[m, 64] y) {
  s = ReduceMean <keepdims = 0> (x) z = Constant <value = float {0}> () c = Less(s, z)
  y = If(c) <then_branch = t () => (float[m, 64] p) { p = MatMul(x, w) },
    else_branch = e () => (float[m, 64] q) { q = MatMul(x, v) }> }"""


def test_a_weight_of_a_branch_is_run_on_the_feed_that_takes_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    path = tmp_path / "in.onnx"
    onnx.save(model(BRANCHES, opset=21, w=random(K, K, seed=1), v=random(K, K, seed=2)), path)
    x = random(40, K, seed=4)
    feeds = [{"x": x - 1}, {"x": x + 1}]
    # Time for one feed a weight.
    found = measure_sensitivity(files.read(path), Options(block_size=8), feeds, tmp_path / "s.onnx", seconds=1e-3)
    assert found.measured == 2
    errors = [entry.error[4] for entry in found.curve.weights]
    assert min(errors) > 0.5 * max(errors) > 0


def test_only_names_of_one_body_move_to_the_main_graph() -> None:
    proto = model(BRANCHES, opset=21)
    (branch,) = (node for node in proto.graph.node if node.op_type == "If")
    for names, each in zip((("w", "both"), ("both",)), branch.attribute, strict=True):
        each.g.initializer.extend(onnx.numpy_helper.from_array(random(K, K), name) for name in names)
    assert _lift(proto, {"w", "both"}) == {"w"}
    graphs = [proto.graph, *(each.g for each in branch.attribute)]
    assert [[tensor.name for tensor in graph.initializer] for graph in graphs] == [["w"], ["both"], ["both"]]
