"""What sub-commands have in common: options, and how an evaluation is shown."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bct_onnx import files

from .records import Evaluation, Settings
from .table import table

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
MODELS = click.argument("models", nargs=-1, required=True, type=PATH)
DATA = click.argument("data", type=PATH)
SAMPLES = click.option("--samples", type=COUNT, help="Take the first samples only.")
TOKENIZER = click.option(
    "--tokenizer",
    type=PATH,
    help="tokenizer.json, vocab.txt, a sentencepiece .model, a llama2.c .bin, or a folder with one of them; without, "
    "that beside the model, or beside the first one.",
)
_SETTINGS = (
    click.option("--threads", default=2, show_default=True, type=COUNT, help="Session threads."),
    click.option("--resamples", default=1000, show_default=True, type=COUNT, help="Of the bootstrap."),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the bootstrap."),
)
_JSON = click.option("--json", "json_file", type=PATH, help="Write the result as data too.")


class Numbers(click.ParamType[tuple[float, ...]]):
    """Three numbers, for red, green and blue, with commas between; one number stands for all three."""

    name = "number[,number,number]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the three numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not one number or three with commas between", param, ctx)
        return numbers * (3 // len(numbers))


def add_command(
    group: click.Group,
    name: str,
    evaluate: Callable[..., Evaluation],
    about: str,
    *parameters: Callable[[Any], Any],
    batch: int | None = None,
) -> None:
    """Add a sub-command that calls `evaluate` with its parameters, by their names, and settings, and shows the result.

    `about` is its help, of which the group's shows what stands before the first comma, colon or semicolon. `batch` is
    the default size of a batch, None where samples are fed one by one.
    """

    def run(threads: int, resamples: int, seed: int, json_file: Path | None, batch: int = 1, **asked: Any) -> None:
        settings = Settings(threads=threads, batch=batch, resamples=resamples, seed=seed)
        _show(evaluate(**asked, settings=settings), json_file)

    sizes = [click.option("--batch", default=batch, show_default=True, type=COUNT, help="Batch size.")] if batch else []
    command: Any = run
    for parameter in reversed((*parameters, *sizes, *_SETTINGS, _JSON)):
        command = parameter(command)
    group.command(name, help=about, short_help=re.split("[,:;]", about)[0])(command)


def _show(evaluation: Evaluation, json_file: Path | None) -> None:
    Console(width=None if sys.stdout.isatty() else 120).print(table(evaluation))
    if json_file is not None:
        files.write_json(json_file, evaluation.to_dict())
