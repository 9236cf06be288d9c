"""Show how decoders generate: a table, JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from bct_onnx.bench.generation import GenerationComparison, GenerationRow
from bct_onnx.bench.report import MEGABYTE, spread


def generation_table(comparison: GenerationComparison) -> Table:
    """Return one line per candidate; below each time how many times as fast as float it is."""
    title = ", ".join(f"{key} {value}" for key, value in comparison.environment.items())
    view = Table(show_lines=True, title=title)
    view.add_column("model")
    view.add_column("file MB\nx float", justify="right")
    for length in comparison.prompts:
        view.add_column(f"{length}: first token ms\ntokens/s\nwhole ms\nx float", justify="right", no_wrap=True)
    for heading in ("load s", "peak MB", "held MB", "tokens as\nfloat's", "equal"):
        view.add_column(heading, justify="right")
    for row in comparison.rows:
        view.add_row(*_cells(comparison, row))
    view.caption = (
        f"{comparison.new_tokens} new tokens, greedy, behind prompts of so many; first token: minimum (median); "
        "tokens/s: best (median); x float: of the three; memory beyond the process's own: peak while loading, "
        "held after generating; tokens as float's before the first other one, by prompt; "
        "equal: part of all, place by place"
    )
    return view


def _cells(comparison: GenerationComparison, row: GenerationRow) -> list[str]:
    base = comparison.rows[0]
    cells = [row.candidate.name, f"{row.file_bytes / MEGABYTE:.1f}\n{base.file_bytes / row.file_bytes:.2f}"]
    texts = [row.texts.get(length) for length in comparison.prompts]
    for length, text in zip(comparison.prompts, texts, strict=True):
        if text is None:
            cells.append("failed")
            continue
        reference = base.texts[length]
        pairs = ((reference.first, text.first), (reference.later, text.later), (reference.whole, text.whole))
        ratios = [before.minimum / after.minimum for before, after in pairs]
        best, median = text.speeds
        times = f"{spread(text.first, 1e3)}\n{best:.1f} ({median:.1f})\n{spread(text.whole, 1e3)}"
        cells.append(f"{times}\n{' | '.join(f'{ratio:.2f}' for ratio in ratios)}")
    known = [text for text in texts if text is not None]
    same = ", ".join("-" if text is None else str(text.same) for text in texts)
    equal = sum(text.equal for text in known) / len(known) if known else 0.0
    memory = (f"{size / MEGABYTE:.0f}" for size in (row.peak_bytes, row.held_bytes))
    return [*cells, f"{row.load_seconds:.2f}", *memory, same, f"{equal:.0%}"]


def generation_data(comparison: GenerationComparison) -> dict[str, Any]:
    """Return the comparison as JSON takes it: seconds, bytes, tokens, and ratios (above 1 is better)."""
    base, rows = comparison.rows[0], []
    for row in comparison.rows:
        data = asdict(row)
        candidate = data.pop("candidate")
        candidate["path"] = Path(candidate["path"]).name
        for length, text in row.texts.items():
            reference = base.texts[length]
            data["texts"][length] |= {
                "tokens_per_second": text.speeds[0],
                "first_faster_than_float": reference.first.minimum / text.first.minimum,
                "later_faster_than_float": reference.later.minimum / text.later.minimum,
                "whole_faster_than_float": reference.whole.minimum / text.whole.minimum,
            }
        rows.append({**candidate, **data, "smaller_than_float": base.file_bytes / row.file_bytes})
    return {
        "environment": comparison.environment,
        "prompts": comparison.prompts,
        "new_tokens": comparison.new_tokens,
        "rows": rows,
        "skipped": [asdict(skipped) for skipped in comparison.skipped],
    }
