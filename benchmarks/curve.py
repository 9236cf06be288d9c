"""Size against loss on one pair of axes: our files of several sizes, and onnxruntime's own 4-bit quantizers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bct_onnx import compress, files
from bct_onnx.errors import first_line
from bct_onnx.evaluate import Preprocess
from bct_onnx.evaluate.folders import bytes_on_disk
from bct_onnx.evaluate.images import logits, read_pictures
from bct_onnx.evaluate.metrics import Array
from bct_onnx.fidelity import Answers, output_errors, overall_error

from .accuracy import Step
from .common import quiet
from .feeds import numbers

RATIOS = (4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0)
QUANTIZERS = {
    "round to nearest": ("DefaultWeightOnlyQuantConfig", {"is_symmetric": True}),
    "k-quant": ("KQuantWeightOnlyQuantConfig", {}),
    "HQQ": ("HQQWeightOnlyQuantConfig", {}),
}


@dataclass(frozen=True)
class Point:
    """A file: how many times smaller, bits of it for each weight, points lost, same decisions, error of the logits."""

    family: str
    ratio: float
    bits: float
    lost: float
    same: float
    error: float


def quantize(source: Path, target: Path, *, kind: str) -> None:
    """Quantize the multiplications to 4 bits in blocks of 32, integer arithmetic (accuracy_level 4)."""
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    name, options = QUANTIZERS[kind]
    config = getattr(nbits, name)(**options)
    for key, value in {"block_size": 32, "bits": 4, "accuracy_level": 4}.items():
        setattr(config, key, value)
    quantizer = nbits.MatMulNBitsQuantizer(str(source), block_size=32, accuracy_level=4, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def steps(ratios: Sequence[float]) -> Iterator[tuple[str, Step]]:
    """Yield a family and what makes a file of it."""
    yield from (("bct_onnx", partial(compress, target_ratio=ratio)) for ratio in ratios)
    yield from ((kind, partial(quantize, kind=kind)) for kind in QUANTIZERS)


def table(points: Sequence[Point]) -> Table:
    """Return the points as a table."""
    result = Table(box=SIMPLE_HEAD)
    result.add_column("made by")
    for heading in ("smaller", "bits a weight", "points lost", "same decisions", "error of logits"):
        result.add_column(heading, justify="right")
    for p in points:
        result.add_row(
            p.family, f"{p.ratio:.2f}", f"{p.bits:.2f}", f"{p.lost:.1f}", f"{100 * p.same:.1f} %", f"{p.error:.3f}"
        )
    return result


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw same decisions and error of the logits over the bits a weight takes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    same, errors = figure.subplots(1, 2)
    for family in dict.fromkeys(p.family for p in points):
        own = sorted((p for p in points if p.family == family), key=lambda p: p.bits)
        style = "o-" if len(own) > 1 else "s"
        same.plot([p.bits for p in own], [100 * p.same for p in own], style, label=family)
        errors.plot([p.bits for p in own], [p.error for p in own], style, label=family)
    same.set(xlabel="bits of the file for each weight", ylabel="same decisions (%)")
    errors.set(xlabel="bits of the file for each weight", ylabel="error of the logits", yscale="log")
    for axes in (same, errors):
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=80)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--mean", default="0.5", callback=numbers, help="Of pixel / 255, per channel.")
@click.option("--std", default="0.5", callback=numbers, help="Of pixel / 255, per channel.")
@click.option("--ratio", "ratios", multiple=True, type=float, default=RATIOS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the points as data, too.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Draw them, too.")
def main(
    model: Path,
    data: Path,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    ratios: Sequence[float],
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Compare files of MODEL of several sizes on the pictures of DATA."""
    pictures = read_pictures(data)
    answer = partial(logits, pictures=pictures, preprocess=Preprocess(mean, std))
    exact, size, console = answer(model), bytes_on_disk(model), Console(width=110)
    points: list[Point] = []

    def right(answers: Array) -> float:
        return 100 * float((answers.argmax(axis=1) == pictures.labels).mean())

    with tempfile.TemporaryDirectory() as folder:
        for number, (family, step) in enumerate(steps(ratios)):
            target = Path(folder, f"{number}.onnx")
            try:
                with quiet():
                    step(model, target)
            except Exception as failure:  # whatever a tool raises is its result here
                console.print(f"{family}: not made: {first_line(failure)}")
                continue
            answers, taken = answer(target), bytes_on_disk(target)
            same = float((answers.argmax(axis=1) == exact.argmax(axis=1)).mean())
            lost = right(exact) - right(answers)
            expected = Answers([{}], [{"logits": exact}])
            apart = overall_error(*output_errors(expected, [{"logits": np.asarray(answers)}]), worst=False)
            points.append(Point(family, size / taken, 32 * taken / size, lost, same, apart))
    console.print(table(points))
    if json_file is not None:
        files.write_json(json_file, [asdict(point) for point in points])
    if plot_file is not None:
        draw(points, plot_file)


if __name__ == "__main__":
    main()
