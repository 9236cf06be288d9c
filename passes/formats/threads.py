"""Work on ranges of an axis, spread over threads: numpy lets other threads run while it computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def over_ranges(work: Callable[[slice], Result], length: int, width: int, workers: int) -> list[Result]:
    """Return what `work` returns for each range of at most `width` indices below `length`, in order.

    At most `workers` ranges are worked on at a time, so what each of them takes in memory is taken `workers` times.
    """
    ranges = [slice(start, min(start + width, length)) for start in range(0, length, width)]
    if min(workers, len(ranges)) <= 1:
        return list(map(work, ranges))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(work, ranges))
