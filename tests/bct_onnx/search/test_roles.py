"""Some weights of a role tell what the others do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bct_onnx.search.floats import Switch
from bct_onnx.search.roles import filled, roles_of, spread_order, told_by_others


def switch(name: str, k: int = 2) -> Switch:
    return Switch(name, name, np.zeros((k, 2), np.float32), False, (k, 2))


def layers(count: int) -> list[Switch]:
    return [switch(f"layer.{number}.{part}", k) for number in range(count) for part, k in (("a", 2), ("b", 4))]


def exported(count: int) -> list[Switch]:
    """Return a table, then layers of four weights of one shape and two of another, named after their numbers."""
    shapes = [4, *([2, 2, 2, 2, 6, 8] * count), 3]
    return [switch(f"onnx::MatMul_{700 + number}", k) for number, k in enumerate(shapes)]


def test_a_role_is_a_name_but_for_numbers_and_a_shape() -> None:
    one, two = roles_of([switch("layer.1.a"), switch("layer.22.a")])
    assert one == two
    one, two = roles_of([switch("layer.1.a"), switch("layer.1.b")])
    assert one != two
    one, two = roles_of([switch("onnx::MatMul_1", 2), switch("onnx::MatMul_1", 4)])
    assert one != two
    assert roles_of([]) == []


def test_a_role_is_a_place_in_a_layer_where_names_do_not_tell() -> None:
    roles = roles_of(exported(6))
    layers = [roles[1 + 6 * number : 7 + 6 * number] for number in range(6)]
    assert len(set(layers[0])) == 6
    assert all(layer == layers[0] for layer in layers)
    assert roles[0] not in layers[0] and roles[-1] not in layers[0]


@pytest.mark.parametrize("count", range(1, 13))
def test_every_second_layer_is_told_by_those_beside_it(count: int) -> None:
    for switches, each, first in ((exported(count), 6, 1), (layers(count), 2, 0)):
        measured = set(range(len(switches))) - told_by_others(switches)
        for part in range(first, first + each):
            numbers = [number for number in range(count) if part + each * number in measured]
            every = range(count) if count < 4 else sorted({*range(0, count, 2), count - 1})
            assert numbers == list(every)
        assert {0, len(switches) - 1} <= measured


def test_weights_that_are_no_layers_are_all_measured() -> None:
    """Four of one shape, and what lies between them does not repeat."""
    shapes = [2, 3, 2, 4, 5, 2, 2, 6, 7]
    assert told_by_others([switch(f"w{number}", k) for number, k in enumerate(shapes)]) == set()


@given(st.integers(1, 40), st.integers(1, 80))
def test_however_soon_it_ends_every_role_is_spread_over_the_layers(count: int, measured: int) -> None:
    switches = layers(count)
    order = spread_order(switches)
    assert sorted(order) == list(range(len(switches)))
    first = order[:measured]
    for part in (0, 1):
        places = sorted(place // 2 for place in first if place % 2 == part)
        assert abs(len(places) - min(measured, 2 * count) / 2) <= 0.5
        gaps = np.diff([-1, *places, count])
        assert gaps.max(initial=1) <= 4 * count / (len(places) + 1) + 1


def test_what_is_not_known_lies_between_what_is() -> None:
    switches = layers(5)
    figures = filled(switches, {0: 1.0, 8: 16.0, 1: 5.0})
    assert figures[:9:2] == pytest.approx([1, 2, 4, 8, 16])
    assert figures[1::2] == pytest.approx([5] * 5)


def test_without_any_of_its_role_a_weight_is_like_all() -> None:
    assert filled([switch("a"), switch("b"), switch("c"), switch("d")], {0: 1.0, 1: 9.0, 2: 4.0}) == [1, 9, 4, 4]
    assert filled([switch("a")], {}) == [1.0]


def test_a_weight_that_does_nothing_stays_so_and_tells_nothing() -> None:
    figures = filled(layers(2), {0: 0.0, 1: 2.0})
    assert figures[:2] == [0.0, 2.0]
    assert all(figure == 2.0 and math.isfinite(figure) for figure in figures[2:])
