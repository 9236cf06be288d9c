"""What making a session of a model takes, before and after: in processes of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bct_onnx.bench.measure import load_in_fresh_process


@dataclass(frozen=True)
class Memory:
    """The peak memory in bytes, Python's and the runtime's own included, and the seconds of making a session."""

    peak_bytes_before: int
    peak_bytes: int
    seconds_before: float
    seconds: float


def measure_memory(source: Path, target: Path) -> Memory:
    """Load the input model and the compressed one, each in a new process; raises BctError where one does not load."""
    threads = os.cpu_count() or 1
    before, after = (load_in_fresh_process(path, threads) for path in (source, target))
    return Memory(before.peak_bytes, after.peak_bytes, round(before.seconds, 3), round(after.seconds, 3))
