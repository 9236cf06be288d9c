"""Ends of a model: they answer like the whole of it, and stand for less of its work."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import files
from bct_onnx.arrays import Array
from bct_onnx.search.ends import Ends, Place, end_of, find_places, first_readers, make_late
from bct_onnx.search.switchable import SwitchableModel
from bct_onnx.sessions import MemoryUse, Session
from passes import Options
from tests.helpers import model, random, run

K, LAYERS = 32, 16


def layers(between: str = "", outputs: str = "float[m, 32] y") -> onnx.ModelProto:
    """Return a model of products one behind the other, each added to what it reads and to a tensor of the feed."""
    lines = ["h0 = Identity(x)", "bias = Neg(given)", "two = Add(one, one)"]
    for number in range(LAYERS):
        lines.append(f"p{number} = MatMul(h{number}, w{number}) q{number} = Mul(p{number}, two)")
        lines.append(f"s{number} = Add(h{number}, q{number}) h{number + 1} = Add(s{number}, bias)")
    text = f"g (float[m, 32] x, float[32] given) => ({outputs}) {{ {' '.join(lines)} {between} y = Neg(h{LAYERS}) }}"
    weights: dict[str, Array] = {f"w{number}": random(K, K, seed=number) / 8 for number in range(LAYERS)}
    return model(text, opset=21, one=np.array(0.25, np.float32), **weights)


def feeds_of(*rows: int) -> list[dict[str, Array]]:
    return [{"x": random(each, K, seed=each), "given": random(K, seed=50)} for each in rows]


def test_places_part_the_products_evenly_where_little_crosses() -> None:
    proto = layers()
    places = find_places(proto)
    before = [sum(node.op_type == "MatMul" for node in proto.graph.node[: place.before]) for place in places]
    assert before == pytest.approx([LAYERS / 3, 2 * LAYERS / 3], abs=1)
    for place in places:
        # One hidden state; what is made of constants alone crosses nothing.
        (hidden,) = set(place.crossing) - {"bias"}
        assert hidden[0] in "hs"
    few = model("g (float[m, 32] x) => (float[m, 32] y) { y = MatMul(x, w) }", opset=21, w=random(K, K))
    assert find_places(few) == []


@pytest.mark.parametrize("use", [MemoryUse.FULL, MemoryUse.MAPPED])
@pytest.mark.parametrize("outputs", ["float[m, 32] y", "float[m, 32] y, float[m, 32] h2"])
def test_ends_answer_like_the_whole_model(tmp_path: Path, use: MemoryUse, outputs: str) -> None:
    """Outputs that are made before a place, too."""
    onnx.save(layers(outputs=outputs), tmp_path / "in.onnx")
    switchable = SwitchableModel(files.read(tmp_path / "in.onnx"), Options(), tmp_path / "s.onnx", use)
    feeds = feeds_of(3, 7)
    expected = [switchable.run(feed) for feed in feeds]
    ends = switchable.ends
    ends.look(lambda: switchable.session, feeds, expected, workers=2)
    assert len(switchable.switches) == LAYERS
    numbers = [ends.of(switch.tensor) for switch in switchable.switches]
    assert sorted(set(numbers)) == [0, 1, 2]
    assert numbers == sorted(numbers)
    for switch, at in zip(switchable.switches, numbers, strict=True):
        end = ends.load(at, 1) if at else None
        instead = {switch.tensor: switch.laid_out(np.asarray(-switch.matrix))}
        for number, feed in enumerate(feeds if end else []):
            assert end is not None
            answer, whole = {**expected[number], **end.run(number, instead)}, switchable.run(feed, instead)
            assert answer.keys() == whole.keys()
            assert not np.allclose(whole["y"], expected[number]["y"])
            for name in whole:
                np.testing.assert_allclose(answer[name], whole[name], rtol=1e-4, atol=1e-4)
        switchable.unload()


def test_an_end_holds_the_weights_behind_its_place_alone() -> None:
    proto = layers()
    place = find_places(proto)[1]
    end = end_of(proto, place, {name: np.zeros((1, 1), np.float32) for name in place.crossing})
    held = {tensor.name for tensor in end.graph.initializer if tensor.name.startswith("w")}
    assert held == {name for name, first in first_readers(proto).items() if name[0] == "w" and first >= place.before}
    assert 0 < len(held) < LAYERS / 2
    assert {value.name for value in end.graph.input} == set(place.crossing)


def test_what_is_made_of_weights_alone_stands_before_what_reads_it() -> None:
    """Joined weights do not cross the places before it."""
    text = " ".join(
        f"p{i} = MatMul(h{i}, j{i}) b{i}, c{i} = Split <axis = -1, num_outputs = 2> (p{i}) h{i + 1} = Add(b{i}, c{i})"
        for i in range(LAYERS)
    )
    joined = " ".join(
        f"t{i} = Transpose <perm = [1, 0]> (v{i}) j{i} = Concat <axis = 1> (w{i}, t{i})" for i in range(LAYERS)
    )
    body = """c = Constant <value = bool {1}> () last = If(c) <
        then_branch = a () => (float t) { t = ReduceSum <keepdims = 0> (j3) },
        else_branch = b () => (float e) { e = ReduceSum <keepdims = 0> (h0) }>"""
    names = [f"{kind}{i}" for i in range(LAYERS) for kind in "vw"]
    inputs = ", ".join(f"float[{K}, {K}] {name}" for name in names)
    outputs = "float[m, 32] y, float last"
    proto = model(
        f"g (float[m, 32] h0, {inputs}) => ({outputs}) {{ {joined} {text} {body} y = Neg(h{LAYERS}) }}",
        **{name: random(K, K, seed=number) for number, name in enumerate(names)},
    )
    feeds = feeds_of(3)
    before = run(proto, h0=feeds[0]["x"])
    assert max(len(place.crossing) for place in find_places(proto)) > 1
    make_late(proto, set(names))
    onnx.checker.check_model(proto, full_check=True)
    for one, other in zip(run(proto, h0=feeds[0]["x"]), before, strict=True):
        np.testing.assert_array_equal(one, other)
    # What the body reads stays.
    assert [len(set(place.crossing) - {"h0", "j3"}) for place in find_places(proto)] == [1, 1]
    first = first_readers(proto)
    made = {name: number for number, node in enumerate(proto.graph.node) for name in node.output}
    for i in range(LAYERS):
        assert made[f"j{i}"] == first[f"j{i}"] - 1
        assert made[f"t{i}"] == made[f"j{i}"] - 1


def test_what_a_body_reads_crosses_a_place() -> None:
    body = """z = If(c) <then_branch = a () => (float[m, 32] t) { t = MatMul(h1, w0) },
        else_branch = b () => (float[m, 32] e) { e = Identity(h1) }>"""
    proto = layers(f"c = Constant <value = bool {{1}}> () {body}", "float[m, 32] y, float[m, 32] z")
    for place in find_places(proto):
        assert "h1" in place.crossing
    assert first_readers(proto)["w0"] < find_places(proto)[0].before


def test_ends_that_do_not_answer_like_the_model_are_left_out(tmp_path: Path) -> None:
    """One draws its numbers anew."""
    noise = "n = RandomNormalLike(h0)"
    proto = layers(noise)
    proto.graph.node[-1].CopyFrom(onnx.helper.make_node("Add", ["n", f"h{LAYERS}"], ["y"]))
    onnx.save(proto, tmp_path / "in.onnx")
    feeds, ends = feeds_of(3), Ends(proto, tmp_path / "end.onnx", MemoryUse.FULL)
    ends.places = [Place(len(proto.graph.node) - 2, (f"h{LAYERS}", "h0"))]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ends.crossing)
    onnx.save(proto, tmp_path / "told.onnx")
    whole = Session(tmp_path / "told.onnx")
    ends.look(lambda: whole, feeds, [whole.run(feed, ["y"]) for feed in feeds], workers=1)
    assert ends.load(1, 1) is None
