"""False alarms and misses of verification: the error on made inputs beside the error on real ones, by preset.

    python -m benchmarks.alarms MODEL.onnx=DATA[=PROCESSOR] ... --presets fast,balanced,small

DATA is what `--data` takes. An alarm is false where a file was refused whose error on real inputs keeps the bound; a
miss is a file that was written though it does not.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bct_onnx import BctError, VerificationError, compress, files
from bct_onnx.measure import figure
from bct_onnx.samples import data_feeds
from bct_onnx.verify import Reference, Verification, compare, default_bound, run_reference

# What balanced promises, and the narrowest codes of the other presets.
BALANCED, BITS = 0.09, {"fast": 8, "small": 4, "portable": 8, "paper": 8}


@dataclass(frozen=True)
class Row:
    """One model under one preset: errors of the worst output on its worst feed."""

    model: str
    preset: str
    exit_code: int
    ratio: float
    made: float
    real: float
    verdict: str
    said: str


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--presets", default="fast,balanced,small", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(models: tuple[str, ...], presets: str, json_path: Path | None) -> None:
    """Compare both errors for MODEL.onnx=DATA[=PROCESSOR] ..."""
    rows = [row for text in models for row in _rows(*map(Path, text.split("=")), presets=presets.split(","))]
    table = Table("model", "preset", "exit", "smaller", "made", "real", "verdict")
    for row in rows:
        figures = (f"{row.ratio:.2f}x", f"{row.made:.3f}", f"{row.real:.3f}")
        table.add_row(row.model, row.preset, str(row.exit_code), *figures, row.verdict)
    Console(width=None if Console().is_terminal else 110).print(table)
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def _rows(model: Path, data: Path, processor: Path | None = None, *, presets: list[str]) -> list[Row]:
    proto = files.read(model).proto
    samples = partial(data_feeds, path=model, model=proto, data=data, processor=processor)
    real, made = run_reference(model, proto, samples=samples), run_reference(model, proto)
    return [_row(model, preset, made, real) for preset in presets]


def _row(model: Path, preset: str, made: Reference, real: Reference) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        out, code, said = Path(folder) / "out.onnx", 0, ""
        try:
            compress(model, out, preset=preset)
        except VerificationError as error:
            code, said = 1, str(error)
            compress(model, out, preset=preset, verify=False)
        except BctError as error:
            return Row(model.parent.name, preset, 2, 0, 0, 0, "refused", str(error))
        errors = [_largest(compare(reference, out)) for reference in (made, real)]
        bound = BALANCED if preset == "balanced" else default_bound(BITS[preset]).max_error or 0.0
        verdict = {(0, False): "ok", (1, True): "ok", (0, True): "miss", (1, False): "false alarm"}[
            code, errors[1] > bound
        ]
        ratio = files.read(model).bytes / files.read(out).bytes
        return Row(f"{model.parent.name}/{model.stem}", preset, code, ratio, *errors, verdict, said)


def _largest(verification: Verification) -> float:
    return figure(verification.outputs, verification.mismatches, worst=True)


if __name__ == "__main__":
    main()
