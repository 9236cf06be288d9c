"""Show a comparison: a table, JSON, a picture."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from bct_onnx.bench.records import Comparison, Row, Spread
from bct_onnx.extras import extra

MEGABYTE = 1e6
COLORS = {"float": "#7f7f7f", "peer": "#1f77b4", "ours": "#d62728", "given": "#2ca02c"}


def table(comparison: Comparison) -> Table:
    """Return one line per candidate; below each figure how much better it is than float and the best peer."""
    times = "x float | x peer" if comparison.has_peers() else "x float"
    view = Table(show_lines=True, title=", ".join(f"{k} {v}" for k, v in comparison.environment.items()))
    view.add_column("model")
    for heading in ("file MB", *(f"{w} ms" for w in comparison.workloads)):
        view.add_column(f"{heading}\n{times}", justify="right", no_wrap=True)
    for heading in ("load s", "peak MB", "error"):
        view.add_column(heading, justify="right")
    for row in comparison.rows:
        view.add_row(*_cells(comparison, row))
    view.caption = (
        f"minimum (median){', x peer: against the best of other tools' if comparison.has_peers() else ''}; "
        f"peak: whole process while loading, {comparison.baseline_bytes / MEGABYTE:.0f} MB without a model; "
        "error: first output against float, relative"
    )
    return view


def _cells(c: Comparison, row: Row) -> list[str]:
    size = f"{row.file_bytes / MEGABYTE:.1f}"
    cells = [row.candidate.name, _against(c, size, c.smaller_than_float(row), c.smaller_than_best_peer(row))]
    for workload in c.workloads:
        if workload in row.results:
            text = spread(row.results[workload].latency, 1e3)
            cells.append(_against(c, text, c.to_float(row, workload), c.to_best_peer(row, workload)))
        else:
            cells.append("failed")
    cells += [spread(row.load, 1.0), f"{row.load_peak_bytes / MEGABYTE:.0f}"]
    error = max((result.error for result in row.results.values()), default=math.nan)
    return [*cells, f"{error:.4f}"]


def spread(seconds: Spread, unit: float) -> str:
    """Return the minimum and the median, in units of which a second has so many."""
    return f"{seconds.minimum * unit:.2f} ({seconds.median * unit:.2f})"


def _against(c: Comparison, text: str, to_float: float | None, to_peer: float | None) -> str:
    ratios = [f"{ratio:.2f}" for ratio in (to_float, to_peer if c.has_peers() else None) if ratio]
    return f"{text}\n{' | '.join(ratios)}"


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON takes it: seconds, bytes, and ratios (above 1 is better)."""
    rows = []
    for row in comparison.rows:
        data = asdict(row)
        candidate = data.pop("candidate")
        candidate["path"] = Path(candidate["path"]).name
        rows.append(
            {
                **candidate,
                **data,
                "smaller_than_float": comparison.smaller_than_float(row),
                "smaller_than_best_peer": comparison.smaller_than_best_peer(row),
                "faster_than_float": {w: comparison.to_float(row, w) for w in comparison.workloads},
                "faster_than_best_peer": {w: comparison.to_best_peer(row, w) for w in comparison.workloads},
            }
        )
    return {
        "environment": comparison.environment,
        "workloads": comparison.workloads,
        "baseline_bytes": comparison.baseline_bytes,
        "rows": rows,
        "skipped": [asdict(skipped) for skipped in comparison.skipped],
    }


def plot(comparison: Comparison, path: Path) -> None:
    """Draw file size and speed over float, one panel each; raise BctError without matplotlib."""
    figure_class = extra("matplotlib.figure", "eval", "which draws").Figure

    rows = comparison.rows[::-1]
    panels = [("file, MB", [row.file_bytes / MEGABYTE for row in rows])]
    panels += [
        (f"{w}, times float speed", [comparison.to_float(row, w) or 0.0 for row in rows]) for w in comparison.workloads
    ]
    figure = figure_class(figsize=(3.2 * len(panels) + 2, 0.45 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, values) in zip(axes, panels, strict=True):
        bars = axis.barh(
            [row.candidate.name for row in rows], values, color=[COLORS[row.candidate.kind] for row in rows]
        )
        axis.bar_label(bars, fmt="%.3g", padding=2)
        axis.margins(x=0.18)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
