"""Dimensions are read the same by any number of threads."""

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bct_onnx.inputs.sizes import _evaluate

KINDS, SIZES = {"past": "past", "new": "sequence"}, {"past": 16, "sequence": 5}


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns wherever something is allocated."""

    def pause(phase: str, info: dict[str, int]) -> None:
        del phase, info
        time.sleep(0)

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    gc.callbacks.append(pause)
    yield
    gc.callbacks.remove(pause)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_threads_that_parse_at_once_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: _evaluate("past + 1 * (new + 3) - 2", KINDS, SIZES), range(1500)))
    assert set(found) == {22}
