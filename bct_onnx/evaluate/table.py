"""An evaluation as a table for the terminal."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .records import Evaluation, Score


def change(score: Score) -> str:
    """Return the difference to the reference and its 95 % interval: "-0.40 (-1.10 to +0.30)"."""
    digits = 2 if score.unit == "%" else 3
    return f"{score.difference:+.{digits}f} ({score.low:+.{digits}f} to {score.high:+.{digits}f})"


def value(score: Score) -> str:
    """Return the value: percents with two digits, anything else with three."""
    return f"{score.value:.2f} %" if score.unit == "%" else f"{score.value:.3f}"


def table(evaluation: Evaluation) -> Table:
    """Return a line for each metric of each model; sizes and same decisions stand on a model's first line."""
    title = f"{evaluation.task}: {Path(evaluation.data).name}, n = {evaluation.samples:,}"
    result = Table(title=title, box=SIMPLE_HEAD, caption="\n".join(evaluation.notes) or None, caption_justify="left")
    result.add_column("model", overflow="fold")
    for name in ("bytes", "ratio", "same decisions", "metric", "value", "change (95 % interval)"):
        result.add_column(name, justify="right", no_wrap=True)
    for place, model in enumerate(evaluation.models):
        agreement = f"{100 * model.same_decisions:.1f} %" if place else ""
        head = ["/".join(Path(model.path).parts[-2:]), f"{model.bytes:,}", f"{model.ratio:.2f}", agreement]
        for score in model.scores:
            result.add_row(*head, score.metric, value(score), change(score) if place else "")
            head = [""] * len(head)
    return result
