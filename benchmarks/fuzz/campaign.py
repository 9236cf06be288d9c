"""Run cases, each in a process of its own with a limit on time and memory, and count how they end."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx import cli
from bct_onnx.inputs import made
from bct_onnx.sessions import session

from . import generate, mutate

# How a case may end; what else there is, is a finding.
GOOD = ("verified", "exit 1", "exit 2")
# Limits of a case: seconds in all (verification takes 60, and more where the first text of a slow model is not whole by
# then), of one run of a model and of the texts that it is fitted to, bytes of its own memory.
SECONDS, RUN_SECONDS, BYTES = 150, 5.0, 3 << 30
# Exit code of a child that did not end as the command line does.
CRASHED = 99
# Of a case's search for bits: enough for every weight of these small models.
SEARCH_SECONDS = 5
PRESETS = ("fast", "balanced", "small", "portable")


@dataclass(frozen=True)
class Case:
    """One model to compress: `make` writes it to a path, `options` go to the command line."""

    name: str
    kind: str
    make: Callable[[Path], None]
    options: dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a case ended: one of GOOD or a finding, what was said, seconds and peak megabytes."""

    case: str
    kind: str
    outcome: str
    said: str
    seconds: float
    megabytes: float

    @property
    def good(self) -> bool:
        """Tell whether it ended as it should."""
        return self.outcome in GOOD


def generated(seed: int) -> Case:
    """Return the case of a random graph."""
    rng = np.random.default_rng([seed, 1])
    options: dict[str, Any] = {"preset": str(rng.choice(PRESETS)), "search_seconds": SEARCH_SECONDS}
    if rng.random() < 0.5:
        options["bits"] = int(rng.integers(2, 9))
    if rng.random() < 0.3:
        options["block_size"] = int(rng.choice([0, 16, 32, 64, 128]))
    if rng.random() < 0.3:
        options["lowering"] = str(rng.choice(["dense", "packed", "qdq"]))
    options["external_data"] = str(rng.choice(["auto", "always"]))
    return Case(
        f"generated {seed}",
        "generated",
        lambda path: path.write_bytes(generate.model(seed).SerializeToString()) and None,
        options,
    )


def mutated(source: Path, seed: int) -> Case:
    """Return the case of a damaged file; files beside it stay beside it."""
    rng = np.random.default_rng([seed, 2])
    options = {"preset": str(rng.choice(PRESETS)), "search_seconds": SEARCH_SECONDS}

    def make(path: Path) -> None:
        for data_file in source.parent.glob("*.data"):
            if not (path.parent / data_file.name).exists():
                (path.parent / data_file.name).symlink_to(data_file.resolve())
        path.write_bytes(mutate.mutate(source, seed))

    return Case(f"{source.name} {seed}", mutate.kind_of(seed), make, options)


def run(case: Case) -> Ending:
    """Run a case in a child process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "out").mkdir()
        case.make(folder / "in.onnx")
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(case, folder)
        status, usage = _wait(child, start + SECONDS)
        outcome, said = _outcome(status, folder)
        return Ending(case.name, case.kind, outcome, said, time.monotonic() - start, usage.ru_maxrss / 1000)


def campaign(cases: Iterator[Case], until: float, workers: int = 2) -> Iterator[Ending]:
    """Run cases until the clock (time.monotonic) says `until`, some at a time; yields how each ended."""

    def one(case: Case) -> Ending | None:
        return run(case) if time.monotonic() < until else None

    with ThreadPoolExecutor(workers) as pool:
        yield from (ending for ending in pool.map(one, cases) if ending is not None)


def _child(case: Case, folder: Path) -> None:
    """Be the command line, all that it says in a file, and leave."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)
    session.MOST_SECONDS, made.OWN_SECONDS = RUN_SECONDS, RUN_SECONDS
    options = [f"--{name.replace('_', '-')}={value}" for name, value in case.options.items()]
    sys.argv = ["bct-onnx", str(folder / "in.onnx"), str(folder / "out" / "out.onnx"), "--quiet", *options]
    code: Any = CRASHED
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else CRASHED)


def _wait(child: int, until: float) -> tuple[int | None, Any]:
    """Wait for a child; returns its exit code, negative for a signal, None when it took too long."""
    late = False
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return (None if late else os.waitstatus_to_exitcode(status)), usage
        if not late and time.monotonic() > until:
            late = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _outcome(status: int | None, folder: Path) -> tuple[str, str]:
    said = (folder / "said").read_text(encoding="utf-8", errors="replace").strip()
    left = sorted(path.name for path in (folder / "out").iterdir())
    if status is None:
        return "too long", f"more than {SECONDS} s; {said}"
    if status < 0:
        return f"died of {signal.Signals(-status).name}", said
    if status not in (0, 1, 2) or "a defect of bct_onnx" in said:
        return "defect", said
    if status == 0:
        return ("verified" if "out.onnx" in left and not said else "verified?"), said
    if left or len(said.splitlines()) != 1:
        return "not one line", f"{left} {said}"
    return f"exit {status}", said
