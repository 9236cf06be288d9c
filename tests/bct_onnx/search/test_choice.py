"""The curve of size against error, and how tries lead from it to what a goal asks for."""

import itertools
import math

import pytest

from bct_onnx import BctError
from bct_onnx.search import Goal, within_bytes, within_error
from bct_onnx.search.choice import Choice, Curve, Weight


def weight(name: str, scale: float, widths: range = range(2, 9)) -> Weight:
    return Weight(name, {b: 1000 * b for b in widths}, {b: scale * 4.0**-b for b in widths})


def brute_force(weights: list[Weight], limit: float) -> float:
    """Return the least bytes of any choice whose error is within the limit."""
    choices = itertools.product(*([(w.bytes[b], w.error[b]) for b in w.bytes] for w in weights))
    return min(sum(size for size, _ in c) for c in choices if math.sqrt(sum(e for _, e in c)) <= limit)


def smallest(curve: Curve, limit: float) -> Choice:
    """Return the last point of a curve whose error is within the limit."""
    points = [curve.point(count) for count in range(len(curve.bytes))]
    return [point for point in points if point.error <= limit][-1]


@pytest.mark.parametrize("limit", [0.006, 0.01, 0.03, 0.1, 0.3])
def test_points_of_the_curve_are_the_best_but_for_one_step(limit: float) -> None:
    weights = [weight("a", 1.0), weight("b", 0.01), weight("c", 0.05, range(2, 8)), weight("d", 0.2)]
    choice = smallest(Curve(weights), limit)
    assert choice.error <= limit
    assert choice.bytes == sum(w.bytes[choice.bits[w.name]] for w in weights)
    assert choice.error == pytest.approx(math.sqrt(sum(w.error[choice.bits[w.name]] for w in weights)))
    assert choice.bytes <= brute_force(weights, limit) + 1000


def test_bytes_are_kept_to_and_the_ends_of_the_curve_are_reached() -> None:
    curve = Curve([weight("a", 1.0), weight("b", 0.01)])
    for limit in range(4000, 17000, 500):
        assert curve.within_bytes(limit).bytes <= limit
    assert curve.within_bytes(0).bits == {"a": 2, "b": 2}
    assert curve.within_bytes(1e9).bits == {"a": 8, "b": 8}


def test_widths_above_the_hull_are_not_taken() -> None:
    odd = Weight("a", {8: 800, 7: 790, 6: 600}, {8: 0.0, 7: 0.9, 6: 1.0})
    curve = Curve([odd])
    assert {curve.point(count).bits["a"] for count in range(len(curve.bytes))} == {8, 6}
    assert curve.within_bytes(795).bits == {"a": 7}


@pytest.mark.parametrize("limit", range(20_000, 60_000, 1700))
def test_a_file_whose_widths_take_bytes_of_their_own_keeps_to_the_limit(limit: int) -> None:
    """As functions do, one for each width: what fits is found, and not by giving all of the room away."""
    curve = Curve([weight(f"w{number}", 0.1 + number) for number in range(7)])

    def size_of(bits: dict[str, int]) -> int:
        return 700 + 1000 * sum(bits.values()) + 1500 * len(set(bits.values()))

    choice, met = within_bytes(curve, limit, size_of)
    assert met
    assert limit - 6500 < size_of(choice.bits) <= limit or set(choice.bits.values()) == {8}


@pytest.mark.parametrize("limit", range(4000, 170_000, 2500))
def test_what_a_large_weight_leaves_goes_to_others(limit: int) -> None:
    """No error above that of the curve's own point, and no bits more for any weight that would still fit."""
    large = Weight("large", {b: 10_000 * b for b in range(2, 9)}, {b: 4.0**-b for b in range(2, 9)})
    weights = [large, *(weight(f"w{number}", 0.1 * number) for number in range(8))]
    curve = Curve(weights)
    choice = curve.within_bytes(limit)
    plain = min(
        (curve.point(n) for n in range(len(curve.bytes)) if curve.bytes[n] <= limit),
        key=lambda p: p.error,
        default=None,
    )
    if plain is None:
        assert choice.bits == curve.point(len(curve.bytes) - 1).bits
        return
    assert choice.error <= plain.error + 1e-12
    assert choice.bytes == sum(w.bytes[choice.bits[w.name]] for w in weights) <= limit
    assert choice.error == pytest.approx(math.sqrt(sum(w.error[choice.bits[w.name]] for w in weights)))
    for each in weights:
        higher = [b for b in each.bytes if each.error[b] < each.error[choice.bits[each.name]]]
        assert all(choice.bytes + each.bytes[b] - each.bytes[choice.bits[each.name]] > limit for b in higher)


@pytest.mark.parametrize("limit", [0.0, 1e-5, 3e-4, 2e-3, 0.01, 0.03, 0.2, 2.0])
def test_what_is_too_much_for_a_large_weight_is_left_to_others(limit: float) -> None:
    """No more bytes than at the curve's own point, and no bits fewer for any weight that the limit would bear."""
    large = Weight("large", {b: 10_000 * b for b in range(2, 9)}, {b: 4.0**-b for b in range(2, 9)})
    weights = [large, *(weight(f"w{number}", 0.1 * number) for number in range(8))]
    curve = Curve(weights)
    choice, most = curve.within_error(limit), curve.point(0)
    if most.error**2 > limit:
        assert choice == most
        return
    assert choice.error**2 <= limit + 1e-12
    assert choice.bytes == sum(w.bytes[choice.bits[w.name]] for w in weights)
    assert choice.bytes <= min(
        curve.point(n).bytes for n in range(len(curve.bytes)) if curve.point(n).error ** 2 <= limit
    )
    for each in weights:
        at = choice.bits[each.name]
        lower = [b for b in each.bytes if each.bytes[b] < each.bytes[at]]
        assert all(choice.error**2 + each.error[b] - each.error[at] > limit - 1e-12 for b in lower)


def test_goals_are_one_and_positive() -> None:
    for goal in ({}, {"max_drop": 0.1, "target_ratio": 5.0}, {"target_bytes": 0}, {"max_drop": -1.0}):
        with pytest.raises(BctError):
            Goal(**goal)
    assert Goal(target_ratio=4.0).limit_bytes(1000, 300) == 250
    assert Goal(target_bytes=400).limit_bytes(1000, 300) == 400
    assert Goal(plain_bytes=True).limit_bytes(1000, 300) == 300
    assert Goal(max_drop=0.1).limit_bytes(1000, 300) is None


def measured_error(bits: dict[str, int], floor: float = 0.0) -> float:
    """Return an error half as large again as expected, beside what the activations err by."""
    return math.sqrt(floor**2 + 2.25 * sum(4.0**-b for b in bits.values()))


@pytest.mark.parametrize("floor", [0.0, 0.03, 0.08])
@pytest.mark.parametrize("limit", [0.06, 0.1, 0.3])
def test_tries_are_corrected_by_what_is_measured(limit: float, floor: float) -> None:
    curve = Curve([weight(f"w{number}", 1.0) for number in range(40)])
    tried: list[float] = []

    def error_of(bits: dict[str, int]) -> float:
        tried.append(measured_error(bits, floor))
        return tried[-1]

    choice, met = within_error(curve, limit, error_of)
    assert met == (measured_error({f"w{number}": 8 for number in range(40)}, floor) <= limit)
    assert len(tried) <= 7
    if met:
        best = max(range(len(curve.bytes)), key=lambda at: (measured_error(curve.point(at).bits, floor) <= limit, at))
        assert measured_error(choice.bits, floor) <= limit
        assert choice.bytes <= 1.02 * curve.bytes[best]


def test_errors_that_jump_and_files_that_do_not_answer_in_kind_are_stepped_back_from() -> None:
    curve = Curve([weight(f"w{number}", 1.0) for number in range(40)])

    def error_of(bits: dict[str, int]) -> float:
        return 0.01 if sum(bits.values()) >= 200 else math.inf

    choice, met = within_error(curve, 0.1, error_of)
    assert met
    assert 200 <= sum(choice.bits.values()) <= 210


def test_bytes_besides_the_weights_are_counted() -> None:
    curve = Curve([weight(name, 1.0) for name in "abcdefgh"])
    choice, met = within_bytes(curve, 40_000, lambda bits: 700 + 1000 * sum(bits.values()))
    assert met
    assert choice.bytes == 39_000
    assert not within_bytes(curve, 10_000, lambda bits: 700 + 1000 * sum(bits.values()))[1]
