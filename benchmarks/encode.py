"""Weights encoded a second, format by format.

python -m benchmarks.encode [--workers 2] [--rows 768] [--columns 3072] [--rounds 5]
"""

import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from passes.formats.block import BlockFormat
from passes.formats.encode import encode

FORMATS = {
    "`small`: 4 bits, two shifts for 8": BlockFormat.shifted(4, 8),
    "4 bits, two shifts for 32": BlockFormat.shifted(4, 32),
    "`balanced` without a search: 6 bits, two shifts for 8": BlockFormat.shifted(6, 8),
    "`dense7`: 7 bits, a scale a column": BlockFormat.shifted(7, 0),
    "`fast`: 8 bits, a scale a column": BlockFormat.shifted(8, 0),
    "`packed`: 4 bits, quarter octaves for 32": BlockFormat.fine(4, 32),
    "`paper`: 8 bits, shifts for 16": BlockFormat.shifts_only(8, 16),
}


@click.command(help=__doc__)
@click.option("--workers", default=2, show_default=True)
@click.option("--rows", default=768, show_default=True)
@click.option("--columns", default=3072, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="The fastest of so many counts.")
def main(workers: int, rows: int, columns: int, rounds: int) -> None:
    """Encode a random weight in every format, in turns."""
    weight = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in range(rounds):
        for name, fmt in FORMATS.items():
            start = time.perf_counter()
            encode(weight, fmt, workers)
            seconds[name].append(time.perf_counter() - start)
    table = Table("format", "million weights a second", title=f"[{rows}, {columns}], {workers} threads")
    for name, times in seconds.items():
        table.add_row(name, f"{weight.size / min(times) / 1e6:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
