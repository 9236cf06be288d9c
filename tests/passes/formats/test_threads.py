"""Ranges cover an axis once, in order, for any number of threads."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.formats.threads import VECTOR, even_width, in_order, over_ranges


@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 4))
def test_every_index_is_worked_on_once_and_in_order(length, width, workers):
    parts = over_ranges(lambda part: list(range(length))[part], length, width, workers)
    assert [index for part in parts for index in part] == list(range(length))
    assert all(0 < len(part) <= width for part in parts)


@given(st.integers(0, 5000), st.integers(1, 500))
def test_ranges_are_whole_vectors_and_no_wider_than_wanted(length, most):
    width = even_width(length, most)
    assert 0 < width <= most
    assert width % VECTOR == 0 or width == most


@pytest.mark.parametrize(("length", "width"), [(384, 192), (512, 256), (768, 384), (1152, 288), (3072, 384), (40, 64)])
def test_two_threads_share_the_usual_weights_evenly(length, width):
    assert even_width(length, 384) == width


@pytest.mark.parametrize("workers", [1, 2])
def test_what_goes_wrong_in_a_range_goes_wrong(workers):
    with pytest.raises(ZeroDivisionError):
        over_ranges(lambda part: 1 // (part.start - 2), 4, 1, workers)


@given(st.lists(st.integers()), st.integers(1, 4))
def test_what_is_found_of_items_comes_in_their_order(items, workers):
    assert list(in_order(lambda item: item + 1, items, workers)) == [item + 1 for item in items]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_waits_for_a_thread_when_somebody_leaves_is_not_begun(workers):
    begun: list[int] = []
    go_on = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            go_on.wait(5)
        return item

    found = in_order(work, range(100), workers)
    assert next(found) == 0
    go_on.set() if workers == 1 else threading.Timer(0.1, go_on.set).start()
    found.close()
    assert len(begun) < 10
