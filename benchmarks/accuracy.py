"""Accuracy of every preset on the real models of the data folder, beside what other tools make of them."""

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bct_onnx import BctError, Report, compress, files
from bct_onnx.bench.peers import quantize_dynamic, quantize_nbits
from bct_onnx.command import command
from bct_onnx.compression import Coverage
from bct_onnx.errors import first_line
from bct_onnx.evaluate import Evaluation
from bct_onnx.evaluate.table import change, value

from .cases import CASES
from .common import DATA, quiet

PRESETS = ("fast", "balanced", "small", "portable")
Step = Callable[[Path, Path], object]
"""Makes the model at the second path of the one at the first."""


PEERS: dict[str, Step] = {
    "quantize_dynamic": quantize_dynamic,
    "MatMulNBits 4 bits block 32": partial(quantize_nbits, block=32),
}


def ours(variant: str) -> Step:
    """Return what compresses at a preset, with the options of the command that follow its name.

    A number instead is how many times smaller the file is to be.
    """
    first, *rest = shlex.split(variant)
    asked = ["--target-ratio" if re.fullmatch(r"[\d.]+", first) else "--preset", first, *rest]
    parsed = command.make_context(variant, ["IN", "OUT", *asked]).params
    options = {name: parsed[name] for name in signature(compress).parameters if name in parsed}
    return lambda source, target: compress(**options | {"source": source, "target": target})


def make(
    source: Path, steps: dict[str, Step], folder: Path
) -> tuple[dict[str, Path], dict[str, Coverage], dict[str, str]]:
    """Return by name the models made in `folder`, what of them is codes, and why others could not be made."""
    made, covered, failed = {}, {}, {}
    for name, step in steps.items():
        target = folder / f"{re.sub('[ /]', '_', name)}.onnx"
        try:
            with quiet():
                report = step(source, target)
        except Exception as error:  # whatever a tool raises is its result here
            failed[name] = first_line(error)
        else:
            made[name] = target
            if isinstance(report, Report) and report.coverage:
                covered[name] = report.coverage
    return made, covered, failed


def rows(name: str, labels: Sequence[str], evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield one line of the result for each model: its first metric by name, all of them as cells."""
    for label, model in zip(labels, evaluation.models, strict=True):
        first = model.scores[0]
        yield {
            "model": name,
            "preset": label,
            "bytes": model.bytes,
            "ratio": model.ratio,
            "metric": first.metric,
            "score": first.value,
            "change": first.difference,
            "same_decisions": model.same_decisions,
            "scores": [asdict(score) for score in model.scores],
            "cells": [(score.metric, value(score), change(score)) for score in model.scores],
        }


def shares(coverage: Coverage | None) -> dict[str, float]:
    """Return which parts of a model's weights and of its intermediate results are codes, in bytes."""
    if coverage is None:
        return {}
    return {
        "weights": coverage.weight_codes / coverage.weight_bytes,
        "results": coverage.result_codes / coverage.result_bytes,
        "nodes_left": len(coverage.left),
    }


def run(name: str, steps: dict[str, Step], candidates: Path | None, folder: Path) -> list[dict[str, Any]]:
    """Return the lines of one case: made models, given candidates, and failures."""
    case = CASES[name]
    folder.mkdir()
    made, covered, failed = make(case.model, steps, folder)
    if candidates is not None:
        made |= {path.stem: path for path in sorted((candidates / name.replace(" ", "_")).glob("*.onnx"))}
    evaluation, broken = case.score_running(made)
    failed |= broken
    labels = ["float", *(label for label in made if label not in broken)]
    lines = [line | shares(covered.get(line["preset"])) for line in rows(name, labels, evaluation)]
    return lines + [{"model": name, "preset": label, "failed": reason} for label, reason in failed.items()]


def table(lines: Sequence[dict[str, Any]]) -> Table:
    """Return the lines as a table."""
    result = Table(box=SIMPLE_HEAD)
    result.add_column("model")
    result.add_column("preset", overflow="fold")
    for heading in ("bytes", "ratio", "score", "change (95 % interval)", "same decisions"):
        result.add_column(heading, justify="right", no_wrap=heading != "change (95 % interval)")
    coverage = any("weights" in line for line in lines)
    if coverage:
        result.add_column("weights, results as codes", justify="right")
    before = None
    for line in lines:
        head = [line["model"] if line["model"] != before else "", line["preset"]]
        before = line["model"]
        if "failed" in line:
            result.add_row(*head, "", "", "", f"failed: {line['failed']}", "")
            continue
        (metric, shown, difference), *others = line["cells"]
        changed = line["preset"] != "float"
        result.add_row(
            *head,
            f"{line['bytes']:,}",
            f"{line['ratio']:.2f}",
            f"{shown} {metric}",
            difference if changed else "",
            f"{100 * line['same_decisions']:.1f} %" if changed else "",
            *([f"{line['weights']:.1%}, {line['results']:.1%}" if "weights" in line else ""] if coverage else []),
        )
        for metric, shown, difference in others:
            result.add_row("", "", "", "", f"{shown} {metric}", difference if changed else "")
    return result


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="This model only; may be repeated.")
@click.option(
    "--preset",
    "presets",
    multiple=True,
    default=PRESETS,
    show_default=True,
    help="A preset and other options of the command, or how many times smaller; may be repeated.",
)
@click.option("--peers", is_flag=True, help="Score what onnxruntime's own quantizers make, too.")
@click.option(
    "--candidates",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Score FOLDER/MODEL/*.onnx, too; MODEL with _ for spaces.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the lines as data, too.")
def main(
    *, only: Sequence[str], presets: Sequence[str], peers: bool, candidates: Path | None, json_file: Path | None
) -> None:
    """Compress the real models of BCT_DATA (or ../shared/data) at each preset and score them."""
    if not DATA.is_dir():
        raise click.ClickException(f"no data at {DATA}: set BCT_DATA")
    steps: dict[str, Step] = {name: ours(name) for name in presets}
    steps |= PEERS if peers else {}
    console = Console(width=None if os.isatty(1) else 140)
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        for name in only or [name for name, case in CASES.items() if case.model.exists()]:
            status.update(name)
            try:
                lines += run(name, steps, candidates, Path(folder, name.replace(" ", "_")))
            except BctError as error:
                raise click.ClickException(first_line(error)) from error
    console.print(table(lines))
    if json_file is not None:
        plain = [{key: entry for key, entry in line.items() if key != "cells"} for line in lines]
        files.write_json(json_file, plain)


if __name__ == "__main__":
    main()
