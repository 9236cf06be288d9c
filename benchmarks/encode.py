"""Weights encoded a second and core, format by format: by the library of kernels, where it was built, and by numpy.

python -m benchmarks.encode [--workers 2] [--rows 768] [--columns 768] [--rounds 5]

Seconds are of processor time, of all threads together: what else a machine does hardly counts.
"""

import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bct_onnx import kernels
from passes.formats.block import BlockFormat
from passes.formats.compiled import Encoder
from passes.formats.encode import encode

FORMATS = {
    **{f"{bits} bits in a trellis, two shifts for 8": BlockFormat.best(bits, 8) for bits in (2, 3, 4, 5, 6)},
    "4 bits, two shifts for 8": BlockFormat.shifted(4, 8),
    "4 bits, two shifts for 32": BlockFormat.shifted(4, 32),
    "`dense7`: 7 bits, a scale a column": BlockFormat.shifted(7, 0),
    "`fast`: 8 bits, a scale a column": BlockFormat.shifted(8, 0),
    "`packed`: 4 bits, quarter octaves for 32": BlockFormat.fine(4, 32),
    "`paper`: 8 bits, shifts for 16": BlockFormat.shifts_only(8, 16),
}


@click.command(help=__doc__)
@click.option("--workers", default=2, show_default=True)
@click.option("--rows", default=768, show_default=True)
@click.option("--columns", default=768, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="The fastest of so many counts.")
def main(workers: int, rows: int, columns: int, rounds: int) -> None:
    """Encode a random weight in every format, in turns."""
    kernels.offer_encoder()
    encoders = {"library": Encoder.offered, "numpy": None} if Encoder.offered else {"numpy": None}
    weight = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    seconds: dict[tuple[str, str], list[float]] = {(name, by): [] for name in FORMATS for by in encoders}
    for _ in range(rounds):
        for (name, by), times in seconds.items():
            Encoder.offered = encoders[by]
            start = time.process_time()
            encode(weight, FORMATS[name], workers)
            times.append(time.process_time() - start)
    table = Table("million weights a second and core", *encoders, title=f"[{rows}, {columns}], threads: {workers}")
    for name in FORMATS:
        table.add_row(name, *(f"{weight.size / min(seconds[name, by]) / 1e6:.1f}" for by in encoders))
    Console().print(table)


if __name__ == "__main__":
    main()
