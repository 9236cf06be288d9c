"""Fuzz the compressor: `python -m benchmarks.fuzz --seconds 900`; exit code 1 if anything ended badly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bct_onnx.files import write_json
from benchmarks.common import DATA, FIXTURES

from .campaign import GOOD, Case, Ending, campaign, generated, mutated


def sources() -> list[Path]:
    """Return the real models that are damaged: the fixtures, and the zoo where it is at hand."""
    found = sorted(FIXTURES.glob("*.onnx")) + sorted((DATA / "zoo").glob("*.onnx"))
    return [path for path in found if path.stat().st_size < 1 << 22 and not _is_pointer(path)]


def _is_pointer(path: Path) -> bool:
    return path.stat().st_size < 64


def cases(graphs: int, files: int, seed: int, models: Sequence[Path]) -> Iterator[Case]:
    """Yield so many random graphs and so many damaged files, in turn."""
    chance = np.random.default_rng(seed)
    total = graphs + files
    kinds = chance.permutation(np.arange(total) < graphs)
    for number, is_graph in enumerate(kinds):
        own = seed * 1_000_000 + number
        yield generated(own) if is_graph else mutated(models[int(chance.integers(len(models)))], own)


@click.command()
@click.option("--graphs", default=500, show_default=True, help="Random graphs.")
@click.option("--files", default=2000, show_default=True, help="Damaged files.")
@click.option("--seconds", default=3600, show_default=True, help="No case is begun later.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all endings there.")
def main(graphs: int, files: int, seconds: float, seed: int, workers: int, json_path: Path | None) -> None:
    """Compress random graphs and damaged files and count how it ends."""
    start = time.monotonic()
    endings = list(campaign(cases(graphs, files, seed, sources()), start + seconds, workers))
    _show(endings, time.monotonic() - start)
    if json_path:
        write_json(json_path, [asdict(ending) for ending in endings])
    raise SystemExit(not all(ending.good for ending in endings))


def _show(endings: list[Ending], seconds: float) -> None:
    bad = sorted({ending.outcome for ending in endings if not ending.good})
    table = Table(title=f"{len(endings)} cases in {seconds:.0f} s")
    for column in ("kind", "cases", *GOOD, *bad, "longest", "most memory"):
        table.add_column(column, justify="right" if column != "kind" else "left")
    for kind in [*sorted({ending.kind for ending in endings}), "all"]:
        own = [ending for ending in endings if kind in (ending.kind, "all")]
        counts = Counter(ending.outcome for ending in own)
        figures = [str(counts[outcome]) for outcome in (*GOOD, *bad)]
        longest, most = max(e.seconds for e in own), max(e.megabytes for e in own)
        table.add_row(kind, str(len(own)), *figures, f"{longest:.1f} s", f"{most:.0f} MB")
    console = Console()
    console.print(table)
    for ending in endings:
        if not ending.good:
            console.print(f"{ending.case} ({ending.kind}): {ending.outcome}: {ending.said}", markup=False)


if __name__ == "__main__":
    main()
