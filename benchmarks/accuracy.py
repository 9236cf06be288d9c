"""Accuracy of every preset on the real models of the data folder, beside what other tools make of them."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bct_onnx import BctError, Report, compress, files
from bct_onnx.bench.peers import quantize_dynamic, quantize_nbits
from bct_onnx.compression import Coverage
from bct_onnx.errors import first_line
from bct_onnx.evaluate import Evaluation, Preprocess, evaluate_glue, evaluate_images, evaluate_perplexity
from bct_onnx.evaluate.table import change, value

from .common import DATA, quiet

PRESETS = ("fast", "balanced", "small", "portable")
CIFAR = Preprocess((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
STORIES = "text/tinystories_valid_head.txt"

Step = Callable[[Path, Path], object]
"""Makes the model at the second path of the one at the first."""


@dataclass(frozen=True)
class Case:
    """A model and the data it is scored on, both relative to the data folder."""

    model: str
    evaluate: Callable[..., Evaluation]
    data: str
    tokenizer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def score(self, models: Sequence[Path]) -> Evaluation:
        """Return the evaluation of models; the first is the reference."""
        options = self.options | ({"tokenizer": DATA / self.tokenizer} if self.tokenizer else {})
        return self.evaluate(DATA / self.data, models, **options)


# Perplexity: each line is a story; its first 128 tokens are predicted.
HEADS = {"lines": True, "window": 128, "limit": 128}
CASES = {
    "vit_tiny": Case(
        "vit_tiny/model.onnx",
        evaluate_images,
        "imagenet_sample",
        options={"preprocess": Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))},
    ),
    "cct_cifar10": Case(
        "cct_cifar10/model.onnx", evaluate_images, "cct_cifar10/test_images.npz", options={"preprocess": CIFAR}
    ),
    "bert_mini sst2": Case(
        "bert_mini/sst2/model.onnx",
        partial(evaluate_glue, "SST-2"),
        "glue/SST-2/dev.jsonl",
        "bert_mini/sst2",
        {"limit": 64},
    ),
    "bert_mini imdb": Case(
        "bert_mini/imdb/model.onnx",
        partial(evaluate_glue, "classification"),
        "bert_mini/imdb/test.jsonl",
        "bert_mini/imdb",
        {"limit": 192},
    ),
    "stories260k": Case("stories260k/model.onnx", evaluate_perplexity, STORIES, "stories260k/tok512.bin", HEADS),
    "babyllama105": Case(
        "babyllama105/model.onnx", evaluate_perplexity, STORIES, "babyllama105/tokenizer.model", HEADS
    ),
}


PEERS: dict[str, Step] = {
    "quantize_dynamic": quantize_dynamic,
    "MatMulNBits 4 bits block 32": partial(quantize_nbits, block=32),
}


def ours(variant: str) -> Step:
    """Return what compresses at a preset, with other bits and code type where `PRESET/BITS/CODES` names them."""
    preset, bits, activations = (*variant.split("/"), "", "")[:3]
    return partial(compress, preset=preset, bits=int(bits) if bits else None, activations=activations or None)


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


def score(case: Case, made: dict[str, Path]) -> tuple[Evaluation, dict[str, str]]:
    """Return the evaluation of the reference and of every model that runs, and why others do not."""
    source, running = DATA / case.model, dict(made)
    failed: dict[str, str] = {}
    while True:
        try:
            return case.score([source, *running.values()]), failed
        except BctError as error:
            broken = next((name for name, path in running.items() if str(error).startswith(str(path))), None)
            if broken is None:
                raise
            failed[broken] = first_line(error)
            del running[broken]


def rows(name: str, labels: Sequence[str], evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield one line of the result for each model, by its first metric."""
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
            "cells": (value(first), change(first)),
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
    made, covered, failed = make(DATA / case.model, steps, folder)
    if candidates is not None:
        made |= {path.stem: path for path in sorted((candidates / name.replace(" ", "_")).glob("*.onnx"))}
    evaluation, broken = score(case, made)
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
        shown, difference = line["cells"]
        changed = line["preset"] != "float"
        result.add_row(
            *head,
            f"{line['bytes']:,}",
            f"{line['ratio']:.2f}",
            f"{shown} {line['metric']}",
            difference if changed else "",
            f"{100 * line['same_decisions']:.1f} %" if changed else "",
            *([f"{line['weights']:.1%}, {line['results']:.1%}" if "weights" in line else ""] if coverage else []),
        )
    return result


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="This model only; may be repeated.")
@click.option(
    "--preset",
    "presets",
    multiple=True,
    default=PRESETS,
    show_default=True,
    help="PRESET[/BITS[/CODES]]; may be repeated.",
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
        for name in only or CASES:
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
