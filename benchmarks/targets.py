"""Measure what runs where at which speed: `python -m benchmarks.targets MODEL.onnx`, an encoder of text.

The model is compressed for every target with every preset, and all files run in turns in each runtime that is here:
ONNX Runtime; OpenVINO, in the Python that --openvino names; WebAssembly in Node and in headless Chromium, with the
packages onnxruntime-web and puppeteer-core in the node_modules of the folder that --node names.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bct_onnx import compress, files
from bct_onnx.errors import BctError

HERE = Path(__file__).parent
PRESETS = ("fast", "balanced", "small")


def forms_of(presets: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what is made, by name: options of `compress`."""
    wishes: dict[str, dict[str, Any]] = {
        "": {},
        ", runtime 1.20": {"runtime": "1.20"},
        ", web": {"target_runtime": "web"},
        ", openvino": {"target_runtime": "openvino"},
    }
    forms = {f"{preset}{what}": {"preset": preset, **wish} for what, wish in wishes.items() for preset in presets}
    packed = {f"{preset}, packed": {"preset": preset, "lowering": "packed"} for preset in presets if preset == "small"}
    return {**forms, "portable": {"preset": "portable"}, **packed}


@dataclass(frozen=True)
class Found:
    """What a runtime did with a model: milliseconds to load and to run, relative error (L2) against the float model."""

    load: float = 0.0
    least: float = 0.0
    median: float = 0.0
    error: float = 0.0
    trouble: str = ""


def runtimes(python: Path | None, node: Path | None) -> dict[str, tuple[list[str], Path | None]]:
    """Return the command that runs models, and its folder, of each runtime that is here."""
    turns, page = str(HERE / "run_turns.py"), str(HERE / "run_turns.mjs")
    found: dict[str, tuple[list[str], Path | None]] = {"ONNX Runtime": ([sys.executable, turns, "onnxruntime"], None)}
    if python is not None:
        found["OpenVINO"] = ([str(python), turns, "openvino"], None)
    if node is not None:
        found |= {f"WASM in {name}": (["node", page, name.lower()], node) for name in ("Node", "Chromium")}
    return found


def run(command: list[str], folder: Path | None, shape: tuple[int, int, int], paths: list[Path]) -> list[Found]:
    """Return what a runtime did with each model, or why it did nothing."""
    arguments = [*command, *map(str, shape), *map(str, paths)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        return [Found(trouble=f"ends with {done.returncode}: {done.stderr.strip()[-200:]}")] * len(paths)
    found = json.loads(done.stdout.splitlines()[-1])
    return [Found(**found[str(path)]) for path in paths]


def make(source: Path, folder: Path, presets: Iterable[str]) -> dict[str, Path]:
    """Return the float model and the compressed ones by form, largest part of the work."""
    models = {"float": source.absolute()}
    for form, wishes in forms_of(presets).items():
        target = folder / f"{form.replace(', ', '-').replace(' ', '-')}.onnx"
        if not target.exists():
            compress(source, target, **wishes)
        models[form] = target
    return models


@click.command()
@click.argument("source", metavar="MODEL.onnx", type=click.Path(exists=True, path_type=Path))
@click.option("--preset", "presets", multiple=True, default=PRESETS, show_default=True)
@click.option("--rows", default=1, show_default=True)
@click.option("--tokens", default=128, show_default=True)
@click.option("--rounds", default=11, show_default=True)
@click.option("--openvino", type=click.Path(exists=True, path_type=Path), help="A Python that has OpenVINO.")
@click.option("--node", type=click.Path(exists=True, path_type=Path), help="A folder with node_modules.")
@click.option("--models", type=click.Path(path_type=Path), help="A folder that keeps the models; made where needed.")
def main(
    source: Path,
    presets: tuple[str, ...],
    rows: int,
    tokens: int,
    rounds: int,
    openvino: Path | None,
    node: Path | None,
    models: Path | None,
) -> None:
    """Run MODEL.onnx, compressed for every target, in every runtime that is here."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (models or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            made = make(source, folder, presets)
            paths = list(made.values())
            found = {
                name: run(command, where, (rows, tokens, rounds), paths)
                for name, (command, where) in runtimes(openvino, node).items()
            }
        except BctError as error:
            console.print(f"error: {error}", markup=False)
            raise SystemExit(2) from error
        sizes = [files.bytes_on_disk(path) for path in paths]
    table = Table("form", "MB", *found, title=f"{source.name}, {rows} x {tokens} tokens")
    table.caption = "Times as fast as the float model there (least of runs), its error (L2), seconds to load"
    for number, form in enumerate(made):
        cells = [_cell(entries[number], entries[0]) for entries in found.values()]
        table.add_row(form, f"{sizes[number] / 1e6:.1f}", *cells)
    console.print(table)


def _cell(found: Found, exact: Found) -> str:
    if found.trouble:
        return found.trouble
    if found is exact:
        return f"{found.least:.1f} ms, {found.load / 1e3:.2f} s"
    return f"{exact.least / found.least:.2f}x, {found.error:.3f}, {found.load / 1e3:.2f} s"


if __name__ == "__main__":
    main()
