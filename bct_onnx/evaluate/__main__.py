"""Command line: score ONNX models side by side on labelled data."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bct_onnx.errors import BctError

from .embeddings import evaluate_embeddings
from .glue import TASKS, evaluate_glue
from .images import IMAGENET, Preprocess, evaluate_images
from .perplexity import evaluate_perplexity
from .records import Evaluation, Settings
from .table import table

_MODELS = click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
_TOKENIZER = click.option(
    "--tokenizer",
    required=True,
    type=click.Path(path_type=Path),
    help="tokenizer.json, vocab.txt, a sentencepiece .model, a llama2.c .bin, or a folder with one of them.",
)
_SAMPLES = click.option("--samples", type=click.IntRange(min=1), help="Take the first samples only.")


def _common(batch: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator that adds the options every sub-command has."""
    options = (
        click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1), help="Session threads."),
        click.option("--batch", default=batch, show_default=True, type=click.IntRange(min=1), help="Batch size."),
        click.option(
            "--resamples",
            default=1000,
            show_default=True,
            type=click.IntRange(min=1),
            help="Of the bootstrap.",
        ),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the bootstrap."),
        click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result as data too."),
    )

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class _Numbers(click.ParamType[tuple[float, ...]]):
    """Three numbers, for red, green and blue, with commas between; one number stands for all three."""

    name = "number[,number,number]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not one number or three with commas between", param, ctx)
        return numbers * (3 // len(numbers))


def _show(evaluation: Evaluation, json_file: Path | None) -> None:
    Console(width=None if sys.stdout.isatty() else 120).print(table(evaluation))
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n", "utf-8")
        except OSError as error:
            raise BctError(f"{json_file}: cannot be written: {error.strerror}") from error


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BctError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Group)
def main() -> None:
    """Score ONNX models side by side on labelled data; the first model is the reference."""


@main.command()
@click.argument("task", type=click.Choice(list(TASKS), case_sensitive=False))
@click.argument("data", type=click.Path(path_type=Path))
@_MODELS
@_TOKENIZER
@click.option("--limit", default=128, show_default=True, type=click.IntRange(min=4), help="Longest text in tokens.")
@_SAMPLES
@_common(batch=32)
def glue(
    *,
    task: str,
    data: Path,
    models: tuple[Path, ...],
    tokenizer: Path,
    limit: int,
    samples: int | None,
    json_file: Path | None,
    **settings: int,
) -> None:
    """Classify the sentences of DATA, a .jsonl or .tsv file of sentence1, (sentence2,) label."""
    evaluation = evaluate_glue(
        task, data, models, tokenizer=tokenizer, limit=limit, samples=samples, settings=Settings(**settings)
    )
    _show(evaluation, json_file)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@_MODELS
@_TOKENIZER
@click.option("--limit", default=128, show_default=True, type=click.IntRange(min=4), help="Longest text in tokens.")
@_SAMPLES
@_common(batch=32)
def embeddings(
    *,
    data: Path,
    models: tuple[Path, ...],
    tokenizer: Path,
    limit: int,
    samples: int | None,
    json_file: Path | None,
    **settings: int,
) -> None:
    """Embed the sentences of DATA, a .jsonl or .tsv file of sentence1, sentence2 and how alike they are."""
    evaluation = evaluate_embeddings(
        data, models, tokenizer=tokenizer, limit=limit, samples=samples, settings=Settings(**settings)
    )
    _show(evaluation, json_file)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@_MODELS
@click.option("--mean", type=_Numbers(), default=IMAGENET.mean, help="Of pixel / 255, per channel.")
@click.option("--std", type=_Numbers(), default=IMAGENET.std, help="Of pixel / 255, per channel.")
@click.option("--size", type=click.IntRange(min=1), help="Pictures' side, where the model takes any.")
@_SAMPLES
@_common(batch=32)
def images(
    *,
    data: Path,
    models: tuple[Path, ...],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    size: int | None,
    samples: int | None,
    json_file: Path | None,
    **settings: int,
) -> None:
    """Classify the pictures of DATA: a folder (0017.jpg or 17/cat.jpg) or an .npz file (images, labels)."""
    evaluation = evaluate_images(
        data, models, preprocess=Preprocess(mean, std, size), samples=samples, settings=Settings(**settings)
    )
    _show(evaluation, json_file)


@main.command()
@click.argument("text", type=click.Path(path_type=Path))
@_MODELS
@_TOKENIZER
@click.option("--window", default=256, show_default=True, type=click.IntRange(min=1), help="Context in tokens.")
@click.option("--stride", type=click.IntRange(min=1), help="From window to window; default: half the window.")
@click.option("--begin", type=int, help="Token before each document; default: the tokenizer's, -1: none.")
@click.option("--lines", is_flag=True, help="Each line is a document.")
@click.option("--limit", type=click.IntRange(min=1), help="Take the first tokens of each document only.")
@_common(batch=4)
def perplexity(
    *,
    text: Path,
    models: tuple[Path, ...],
    tokenizer: Path,
    window: int,
    stride: int | None,
    begin: int | None,
    lines: bool,
    limit: int | None,
    json_file: Path | None,
    **settings: int,
) -> None:
    """Predict each token of TEXT from those before it."""
    evaluation = evaluate_perplexity(
        text,
        models,
        tokenizer=tokenizer,
        window=window,
        stride=stride,
        begin=begin,
        lines=lines,
        limit=limit,
        settings=Settings(**settings),
    )
    _show(evaluation, json_file)


if __name__ == "__main__":
    main(prog_name="python -m bct_onnx.evaluate")
