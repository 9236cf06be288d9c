"""Work on ranges of an axis, spread over threads: numpy lets other threads run while it computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Ranges of columns are a multiple of this many, so that only the last of them is not whole vectors, and at least twice
# as many: shorter ones are not worth a thread.
VECTOR = 32


def even_width(length: int, most: int) -> int:
    """Return the width, at most `most`, of ranges that two threads share evenly."""
    count = 2 * -(-length // (2 * most)) or 1
    each = -(-length // (count * VECTOR)) * VECTOR
    return min(most, max(each, 2 * VECTOR))


def over_ranges(work: Callable[[slice], Result], length: int, width: int, workers: int) -> list[Result]:
    """Return what `work` returns for each range of at most `width` indices below `length`, in order.

    At most `workers` ranges are worked on at a time, so what each of them takes in memory is taken `workers` times.
    """
    ranges = [slice(start, min(start + width, length)) for start in range(0, length, width)]
    if min(workers, len(ranges)) <= 1:
        return list(map(work, ranges))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(work, ranges))


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result]:
    """Yield what `work` returns for each item, in order; `workers` of them are worked on at a time.

    What waits for a thread when somebody leaves is not begun.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
