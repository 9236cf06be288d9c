"""Stop compression at random moments in every way and see that the old output is intact each time.

    python -m benchmarks.interrupt MODEL.onnx --times 10

The output exists before; afterwards it is the old one byte for byte, or the new one where the stop came too late.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
OLD, NEW, BROKEN = "old", "new", "BROKEN"


@dataclass(frozen=True)
class Stop:
    """One interrupted run: signal, seconds until it, exit code, the output's state, files left, last line said."""

    signal: str
    seconds: float
    exit_code: int
    output: str
    left: tuple[str, ...]
    said: str


def contents(target: Path) -> dict[str, str]:
    """Return SHA-256 by name of a model and its external data."""
    files = sorted(target.parent.glob(f"{target.name}*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def compress(source: Path, target: Path, options: Sequence[str]) -> subprocess.Popen[str]:
    """Start the command line."""
    command = [sys.executable, "-m", "bct_onnx", str(source), str(target), "--quiet", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> int:
    """Wait for the end and return the exit code."""
    process.communicate()
    return process.returncode


def stop(
    source: Path, target: Path, after: float, with_signal: signal.Signals, new: dict[str, str], options: Sequence[str]
) -> Stop:
    """Send a signal `after` seconds; `new` are the contents of a finished run with these options."""
    old = contents(target)
    process = compress(source, target, options)
    time.sleep(after)
    process.send_signal(with_signal)
    said = process.communicate()[1]
    found = contents(target)
    state = OLD if found == old else NEW if found == new else BROKEN
    left = tuple(path.name for path in target.parent.iterdir() if path.name not in {source.name, *old, *new})
    return Stop(with_signal.name, after, process.returncode, state, left, said.strip().rpartition("\n")[2])


def campaign(source: Path, folder: Path, times: int, seed: int, options: Sequence[str]) -> list[Stop]:
    """Stop compression so many times, at random moments of its whole duration, the signals in turn."""
    fresh, target = folder / "fresh" / "out.onnx", folder / "out.onnx"
    fresh.parent.mkdir()
    start = time.monotonic()
    if finish(compress(source, fresh, options)):
        raise click.ClickException(f"{source} cannot be compressed with {list(options)}")
    duration, new = time.monotonic() - start, contents(fresh)
    finish(compress(source, target, ["--preset", "fast", "--no-verify"]))
    saved = {path: path.read_bytes() for path in folder.glob("out.onnx*")}
    chance, stops = random.Random(seed), []
    for number in range(times):
        stops.append(stop(source, target, chance.uniform(0, duration), SIGNALS[number % len(SIGNALS)], new, options))
        for path in folder.glob("out.onnx*"):
            path.unlink()
        for path, content in saved.items():
            path.write_bytes(content)
    return stops


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--times", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--external-data", default="always", type=click.Choice(["auto", "always", "never"]), show_default=True)
def main(source: Path, times: int, seed: int, external_data: str) -> None:
    """Print what `--times` interrupts left of an older output; exit code 1 if it was ever broken."""
    with tempfile.TemporaryDirectory() as folder:
        stops = campaign(source.resolve(), Path(folder), times, seed, ["--external-data", external_data])
    table = Table(title=f"{times} interrupts of compressing {source.name}")
    for column in ("signal", "after", "exit code", "output", "left until the next run", "said"):
        table.add_column(column)
    for s in stops:
        left = ", ".join(name for name in s.left if name != "fresh")
        table.add_row(s.signal, f"{s.seconds:.2f} s", str(s.exit_code), s.output, left, s.said)
    Console().print(table)
    raise SystemExit(any(s.output == BROKEN for s in stops))


if __name__ == "__main__":
    main()
