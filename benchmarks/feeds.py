"""Feeds from every n-th picture, and the score on all others; feeds from text.

python -m benchmarks.feeds make|score|text DATA ...
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from bct_onnx import BctError
from bct_onnx.evaluate import Preprocess, evaluate_images
from bct_onnx.evaluate.images import pixels, read_pictures
from bct_onnx.evaluate.model import Model
from bct_onnx.evaluate.table import table
from bct_onnx.evaluate.tokenizers import read_encoder


def chosen(every: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the numbers of the pictures that become feeds."""
    return every * np.arange(count)


def numbers(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    """Return three numbers; one stands for all three."""
    parts = tuple(float(part) for part in text.split(","))
    return parts * (3 // len(parts))


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which pictures are feeds, and how pictures are fed."""
    for option in (
        click.option("--std", default="0.229,0.224,0.225", callback=numbers, help="Of pixel / 255, per channel."),
        click.option("--mean", default="0.485,0.456,0.406", callback=numbers, help="Of pixel / 255, per channel."),
        click.option("--count", default=64, show_default=True, type=click.IntRange(min=1), help="Pictures in all."),
        click.option("--every", default=7, show_default=True, type=click.IntRange(min=1), help="Take every n-th."),
    ):
        command = option(command)
    return command


@click.group()
def main() -> None:
    """Make feeds of every n-th picture, score models on the pictures that are none, or make feeds of text."""


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("target", metavar="FEEDS.npz", type=click.Path(path_type=Path))
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1), help="Pictures in a feed.")
@common
def make(data: Path, model: Path, target: Path, *, batch: int, every: int, count: int, mean: Any, std: Any) -> None:
    """Write the pictures, as MODEL takes them, for `python -m bct_onnx ... --feeds FEEDS.npz`."""
    node = Model(model, threads=2).inputs[0]
    groups = np.split(chosen(every, count), range(batch, count, batch))
    pictures, preprocess = read_pictures(data), Preprocess(mean, std)
    feeds = {f"{node.name}.{i}": pixels(pictures, group, node, preprocess) for i, group in enumerate(groups)}
    np.savez(target, **feeds)  # type: ignore[arg-type]


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
def score(data: Path, models: tuple[Path, ...], *, every: int, count: int, mean: Any, std: Any) -> None:
    """Score MODELS, the first of which is the reference, without the pictures that are feeds."""
    left_out = chosen(every, count).tolist()
    evaluation = evaluate_images(data, models, preprocess=Preprocess(mean, std), left_out=left_out)
    Console(width=120).print(table(evaluation))


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("tokenizer", type=click.Path(path_type=Path))
@click.argument("target", metavar="FEEDS.npz", type=click.Path(path_type=Path))
@click.option("--batch", default=4, show_default=True, type=click.IntRange(min=1), help="Texts in a feed.")
@click.option("--count", default=16, show_default=True, type=click.IntRange(min=1), help="Texts in all.")
@click.option("--width", default=64, show_default=True, type=click.IntRange(min=1), help="Tokens of a text.")
def text(data: Path, model: Path, tokenizer: Path, target: Path, *, batch: int, count: int, width: int) -> None:
    """Write the first tokens of the long lines of DATA, for a language MODEL that takes tokens and nothing else."""
    encoder, name = read_encoder(tokenizer), Model(model, threads=2).inputs[0].name
    begin = [] if encoder.begin is None else [encoder.begin]
    lines = [(begin + encoder.encode(line.strip()))[:width] for line in data.read_text("utf-8").splitlines()]
    rows = [line for line in lines if len(line) == width][:count]
    groups = [np.array(rows[start : start + batch], np.int64) for start in range(0, len(rows), batch)]
    np.savez(target, **{f"{name}.{i}": group for i, group in enumerate(groups)})  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks.feeds")
    except BctError as error:
        raise SystemExit(f"error: {error}") from None
