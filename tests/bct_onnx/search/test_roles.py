"""Some weights of a role tell what the others do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bct_onnx.search.floats import Switch
from bct_onnx.search.roles import filled, role_of, spread_order


def switch(name: str, k: int = 2) -> Switch:
    return Switch(name, name, np.zeros((k, 2), np.float32), False, (k, 2))


def layers(count: int) -> list[Switch]:
    return [switch(f"layer.{number}.{part}", k) for number in range(count) for part, k in (("a", 2), ("b", 4))]


def test_a_role_is_a_name_but_for_numbers_and_a_shape() -> None:
    assert role_of(switch("layer.1.a")) == role_of(switch("layer.22.a"))
    assert role_of(switch("layer.1.a")) != role_of(switch("layer.1.b"))
    assert role_of(switch("onnx::MatMul_1", 2)) != role_of(switch("onnx::MatMul_1", 4))


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
