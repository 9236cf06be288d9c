"""Packages and plans as tables for people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bct_onnx import files
from bct_onnx.table import format_bytes

from .card import models_table
from .manifest import Package
from .plan import Plan, Step, options_for_layout, request_for


def show_package(package: Package) -> None:
    """Print what became of a folder."""
    summary = Table(show_header=False, box=None)
    ratio = package.bytes_before / package.bytes
    summary.add_row("input", f"{escape(package.plan.source)}  {format_bytes(package.bytes_before)} of models")
    summary.add_row(
        "output", f"{escape(str(package.plan.target))}  {format_bytes(package.bytes)}  [bold]{ratio:.2f}x smaller[/]"
    )
    summary.add_row("needs", f"ONNX Runtime {package.min_onnxruntime} or newer")
    models = Table(title="Models", title_justify="left")
    rows = models_table(package)
    for column in rows[0]:
        models.add_column(column, overflow="fold")
    for row in rows:
        models.add_row(*map(escape, row.values()))
    parts: list[Any] = [summary, models]
    if package.end_to_end:
        said = ", ".join(f"{name} {value:.4g}" for name, value in package.end_to_end.figures.items())
        parts.append(Text(f"At {package.end_to_end.task}, {package.end_to_end.examples} examples: {said}"))
    notes = [*package.notes, *(f"{name}: {note}" for name, r in package.models.items() for note in r.report.notes)]
    Console().print(Group(*parts, *_left_out(package.plan), *(Text(f"note: {note}", style="yellow") for note in notes)))


def show_plan(plan: Plan, **options: Any) -> None:
    """Print what would be done, with the codes that the options (as in `compress`) give each model.

    Raises BctError for options that do not go together.
    """
    request_for(options["preset"], options_for_layout(plan.layout, options["preset"], options))
    parts: list[Any] = [Text(f"from {plan.source} to {plan.target}; nothing is written")]
    if plan.exported:
        parts.append(Text(f"first exported for {plan.task or 'the task that the hub names'}"))
    models = Table(title="Models", title_justify="left")
    models.add_column("model", overflow="fold")
    models.add_column("becomes", overflow="fold")
    models.add_column("preset")
    models.add_column("before", justify="right")
    models.add_column("codes", overflow="fold")
    for step in plan.steps:
        what = _codes(Path(plan.source) / step.source, step, options_for_layout(plan.layout, step.preset, options))
        models.add_row(escape(str(step.source)), escape(str(step.target)), step.preset, format_bytes(step.bytes), what)
    if plan.steps:
        parts.append(models)
    if plan.copies:
        total = files.total_bytes(plan.copies.values())
        parts.append(
            Text(
                f"{len(plan.copies)} other files are copied, {format_bytes(total)}: {', '.join(map(str, plan.copies))}"
            )
        )
    Console().print(Group(*parts, *_left_out(plan)))


def _codes(path: Path, step: Step, options: dict[str, Any]) -> str:
    request, goal = request_for(step.preset, options)
    chosen, notes = request.options(files.read(path).proto)
    block = f"blocks of {chosen.block_size}" if chosen.block_size else "whole columns"
    measured = goal is not None and (goal.asked or chosen.form.decoded_at_load)
    bits = f"bits by measurement, or {chosen.bits}" if measured else f"{chosen.bits} bits"
    return "; ".join([f"{bits}, {block}, {chosen.lowering}", *notes])


def _left_out(plan: Plan) -> list[Text]:
    """Return a line for every reason, with the names of the files."""
    lines = []
    for why in Counter(plan.left_out.values()):
        names = [name for name, reason in plan.left_out.items() if reason == why]
        lines.append(Text(f"left out: {', '.join(names)} ({why})"))
    return lines
