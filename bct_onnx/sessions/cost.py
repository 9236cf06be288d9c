"""What making a session of a model takes: time and peak memory, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from bct_onnx.errors import BctError
from bct_onnx.sessions import load


@dataclass(frozen=True)
class Cost:
    """What one run of a process took: wall time in seconds, highest resident memory in bytes."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class LoadCosts:
    """The peak memory in bytes, Python's and the runtime's own included, and the seconds of making a session."""

    peak_bytes_before: int
    peak_bytes: int
    seconds_before: float
    seconds: float


def load_in_fresh_process(path: Path | str, threads: int, library: str = "") -> Cost:
    """Make a session of the model (`-`: of none) in a new process, with the operators of a library if one is given.

    Raises BctError when it does not load.
    """
    # -P: this folder must not come before the libraries on the import path.
    command = [sys.executable, "-P", load.__file__, str(path), str(threads), *([library] if library else [])]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip().rpartition("\n")[2][:200] or f"killed by signal {-run.returncode}"
        raise BctError(f"{path}: does not load in ONNX Runtime {ort.__version__}: {reason}")
    return Cost(**json.loads(run.stdout))


def load_costs(source: Path, target: Path) -> LoadCosts:
    """Load the input model and the compressed one, each in a new process; raises BctError where one does not load."""
    threads = os.cpu_count() or 1
    before, after = (load_in_fresh_process(path, threads) for path in (source, target))
    return LoadCosts(before.peak_bytes, after.peak_bytes, round(before.seconds, 3), round(after.seconds, 3))
