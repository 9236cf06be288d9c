"""False alarms and misses of verification: the error on made inputs beside the error on real ones, by preset.

    python -m benchmarks.alarms MODEL.onnx=DATA[=PROCESSOR] ... --presets fast,balanced,small

DATA is what `--data` takes, or an .npz of the model's inputs, as `--feeds` takes it and `benchmarks.feeds` makes it. An
alarm is false where a file was refused whose error on real inputs keeps the bound; a miss is a file that was written
though it does not.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bct_onnx import BctError, VerificationError, compress, files
from bct_onnx.fidelity import overall_error
from bct_onnx.inputs import file_inputs
from bct_onnx.samples import sample_inputs
from bct_onnx.search import DEFAULT_DROP
from bct_onnx.verify import Reference, Verification, compare, default_bound, run_reference

# The narrowest codes of the presets but balanced, whose bound is another.
BITS = {"fast": 8, "small": 4, "portable": 8, "paper": 8}
# Bound of a second run, which writes what the first one refused.
ANYTHING = 1e9


@dataclass(frozen=True)
class Row:
    """One model under one preset: errors of the worst output on its worst feed, and the bound for both."""

    model: str
    preset: str
    exit_code: int
    ratio: float
    bound: float
    made: float
    real: float
    verdict: str
    said: str


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--presets", default="fast,balanced,small", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all rows there.")
def main(models: tuple[str, ...], presets: str, json_path: Path | None) -> None:
    """Compare both errors for MODEL.onnx=DATA[=PROCESSOR] ..."""
    rows: list[Row] = []
    for text in models:
        for row in measured(*map(Path, text.split("=")), presets=presets.split(",")):
            rows.append(row)
            if json_path is not None:
                # At once: a model may take an hour.
                files.write_json(json_path, [asdict(each) for each in rows])
    table = Table("model", "preset", "exit", "smaller", "bound", "made", "real", "verdict")
    for row in rows:
        figures = (f"{row.ratio:.2f}x", *(f"{number:.3g}" for number in (row.bound, row.made, row.real)))
        table.add_row(row.model, row.preset, str(row.exit_code), *figures, row.verdict)
    Console(width=None if Console().is_terminal else 110).print(table)


def measured(model: Path, data: Path, processor: Path | None = None, *, presets: list[str]) -> Iterator[Row]:
    """Yield a row for every preset; raises BctError where model and data do not fit."""
    proto = files.read(model).proto
    samples = partial(sample_inputs, data=data, processor=processor)
    real = run_reference(model, proto, partial(file_inputs, file=data) if data.suffix == ".npz" else samples)
    made = run_reference(model, proto)
    for preset in presets:
        yield _row(model, preset, made, real)


def verdict(exit_code: int, bound: float, real: float) -> str:
    """Return what is to be thought of an exit code, given the error on real inputs."""
    keeps = real <= bound
    if exit_code:
        return "false alarm" if keeps else "right"
    return "right" if keeps else "miss"


def _row(model: Path, preset: str, made: Reference, real: Reference) -> Row:
    name = f"{model.parent.name}/{model.stem}"
    bound = DEFAULT_DROP if preset == "balanced" else default_bound(BITS[preset]).max_error or math.inf
    with tempfile.TemporaryDirectory() as folder:
        out, code, said = Path(folder) / "out.onnx", 0, ""
        try:
            compress(model, out, preset=preset)
        except VerificationError as error:
            code, said = 1, str(error)
            try:
                compress(model, out, preset=preset, max_rel_error=ANYTHING)
            except VerificationError as worse:
                return Row(name, preset, code, 0, bound, math.inf, math.inf, "right", str(worse))
        except BctError as error:
            return Row(name, preset, 2, 0, bound, math.nan, math.nan, "not compressed", str(error))
        errors = [_largest(compare(reference, out)) for reference in (made, real)]
        ratio = files.read(model).bytes / files.read(out).bytes
        return Row(name, preset, code, ratio, bound, *errors, verdict(code, bound, errors[1]), said)


def _largest(verification: Verification) -> float:
    return overall_error(verification.outputs, verification.mismatches, worst=True)


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks.alarms")
    except BctError as error:
        raise SystemExit(f"error: {error}") from None
