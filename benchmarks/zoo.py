"""Compress a folder of models by many exporters and print how each ends: `python -m benchmarks.zoo [FOLDER]`."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bct_onnx import files
from bct_onnx.many import Job, jobs, run

from .common import DATA

ZOO = DATA / "zoo"


@dataclass(frozen=True)
class Row:
    """One model under one preset: `error` is the largest of its outputs, `seconds` the whole run's."""

    model: str
    preset: str
    exit_code: int
    seconds: float
    ratio: float | None
    error: float | None
    message: str


def measure(job: Job, preset: str) -> Row:
    """Compress a model."""
    start = time.monotonic()
    result = run(job)
    seconds = time.monotonic() - start
    largest = None
    if not result.exit_code:
        report = json.loads(job.report.read_text(encoding="utf-8"))
        outputs = report["verification"]["outputs"].values()
        largest = max((error["error"] for error in outputs if "error" in error), default=None)
    name = job.source.name
    message = result.message.replace(str(job.source.absolute()), name)
    return Row(name, preset, result.exit_code, seconds, result.ratio, largest, message)


@click.command()
@click.argument("folder", default=ZOO, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--preset", "presets", multiple=True, default=["balanced", "small"], show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all rows there.")
def main(folder: Path, presets: list[str], workers: int, json_path: Path | None) -> None:
    """Compress every model of FOLDER (default: the zoo in BCT_DATA) under each preset."""
    console, rows = Console(width=200), []
    for preset in presets:
        with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(workers) as pool:
            work = jobs(folder, Path(out), ["--preset", preset])
            found = list(pool.map(lambda job, preset=preset: measure(job, preset), work))
        table = Table(title=f"{len(found)} models, preset {preset}", title_justify="left")
        for column in ("model", "exit code", "ratio", "seconds", "largest error", "why"):
            table.add_column(column, no_wrap=column != "why", overflow="fold")
        for row in found:
            figures = [f"{figure:.4g}" if figure is not None else "" for figure in (row.ratio, row.seconds, row.error)]
            table.add_row(row.model, str(row.exit_code), *figures, row.message)
        console.print(table)
        counts = Counter(row.exit_code for row in found)
        console.print(", ".join(f"{counts[code]} with exit code {code}" for code in sorted(counts)))
        rows += found
    if json_path:
        files.write_json(json_path, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
