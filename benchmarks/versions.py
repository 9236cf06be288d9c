"""Run compressed models on several releases of ONNX Runtime: `python -m benchmarks.versions`.

Each release gets an environment of its own in build/venvs, filled from the package index. A release must run every
model that `min_onnxruntime` says it runs, and answer like the newest release: on each output the two differ (L2) by
at most TOLERANCE times what the compressed model differs from its original. Not less, because the last bit
of a float decides which way an activation is rounded to int8, and releases differ in last bits: their rounding errors
are as good as independent, so the difference of two equally good answers is about as large as the error of one.
Some forms are made for a release by name (`--runtime`): what is refused for it is said.
"""

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bct_onnx import compress
from bct_onnx.errors import BctError
from bct_onnx.runtimes import min_onnxruntime
from bct_onnx.verify import run_reference
from passes.graph import turns
from passes.lowerings import packed_rows

from .common import FIXTURES, ROOT

RUNNER = Path(__file__).with_name("run_models.py")
NEWEST = "newest"
RELEASES = ("1.17.3", "1.20.1", "1.22.1", "1.24.4", NEWEST)
# Encoders and decoders; caches, an If, float16, opset 23, pictures.
NAMES = (
    "bert_torchscript_eager",
    "bert_torchscript_float16",
    "bert_dynamo_opset23",
    "gpt2_optimum",
    "llama_torchscript",
    "t5_decoder_merged_optimum",
    "vit_dynamo",
)
FORMS: dict[str, dict[str, Any]] = {
    "fast": {"preset": "fast"},
    "balanced": {"preset": "balanced", "lowering": "dense"},
    "small": {"preset": "small", "lowering": "dense"},
    "dense, 2 bits": {"lowering": "dense", "bits": 2},
    "packed, 2 bits": {"lowering": "packed", "bits": 2},
    "packed, 4 bits": {"lowering": "packed", "bits": 4},
    "packed, 8 bits": {"lowering": "packed", "bits": 8},
    "both, 2 bits": {"lowering": "both", "bits": 2},
    "both, 4 bits": {"lowering": "both", "bits": 4},
    "both, 8 bits": {"lowering": "both", "bits": 8},
    "qdq, 4 bits": {"lowering": "qdq", "bits": 4},
    "portable": {"preset": "portable"},
}
# Releases that forms are made for by name.
MADE_FOR = ("1.17.3", "1.20.1", "1.22.1")
FORMS |= {
    f"{form} for {release}": {**FORMS[form], "runtime": release}
    for form in ("fast", "small", "packed, 4 bits", "both, 4 bits", "qdq, 4 bits", "portable")
    for release in MADE_FOR
}
TOLERANCE = 1.5
# What stands for the error of a model that has next to none, as a share of its output.
SMALLEST_ERROR = 1e-3
# Keeps an output of zeros from being divided by.
SMALLEST_NORM = 1e-30

Outputs = list[NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A compressed model NAME.onnx with NAME.npz beside it, what it came from and the answers of that."""

    name: str
    source: str
    form: str
    asks_for: str
    exact: Outputs


@dataclass(frozen=True)
class Release:
    """What a release made of the cases: its version, outputs by name, and trouble by name."""

    version: str
    outputs: dict[str, Outputs]
    trouble: dict[str, str]


def make_cases(
    sources: Iterable[Path], folder: Path, forms: Mapping[str, Mapping[str, Any]], tell: Callable[[str], None]
) -> Iterator[Case]:
    """Compress each source in each form into the folder, with feeds beside it; tell what is refused for a release."""
    for source in sources:
        reference = run_reference(source, onnx.load(source, load_external_data=False))
        feed: dict[str, Any] = {name: np.asarray(value) for name, value in reference.feeds[reference.timed].items()}
        exact = [np.asarray(output) for output in reference.outputs[reference.timed].values()]
        for form, wishes in forms.items():
            name = f"{source.stem}.{form.replace(', ', '_').replace(' ', '_')}".replace(".", "-")
            try:
                compress(source, folder / f"{name}.onnx", verify=False, **wishes)
            except BctError as error:
                # Standard operators alone are not to be had of a model that has others.
                if "runtime" not in wishes and wishes.get("preset") != "portable":
                    raise
                tell(f"{source.stem}, {form}: refused: {error}")
                continue
            np.savez(folder / f"{name}.npz", **feed)
            proto = onnx.load(folder / f"{name}.onnx", load_external_data=False)
            yield Case(name, source.stem, form, min_onnxruntime(proto), exact)


def environment(release: str, folder: Path) -> Path:
    """Return the Python of an environment with the release, made or brought up to date; raises CalledProcessError."""
    home = folder / f"onnxruntime-{release}"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True, clear=True)
    wanted = ["onnxruntime", "numpy"] if release == NEWEST else [f"onnxruntime=={release}", "numpy"]
    if release != NEWEST and parts(release) < (1, 19):
        wanted[1] = "numpy<2"
    subprocess.run([python, "-m", "pip", "install", "-qq", "--upgrade", *wanted], check=True)
    return python


def run_release(python: Path, folder: Path, names: Sequence[str]) -> Release:
    """Run the models on a release; a model that ends the process is one that crashed."""
    asked = subprocess.run(
        [python, "-c", "import onnxruntime; print(onnxruntime.__version__)"], check=True, capture_output=True, text=True
    )
    trouble: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as answers:
        while left := [name for name in names if name not in trouble]:
            done = subprocess.run([python, RUNNER, folder, answers, *left], check=False, capture_output=True, text=True)
            trouble |= dict(json.loads(line) for line in done.stdout.splitlines())
            unfinished = next((name for name in names if name not in trouble), None)
            if done.returncode and unfinished:
                trouble[unfinished] = f"crashed: {done.stderr[-200:]}"
        outputs = {path.stem: _read(path) for path in Path(answers).glob("*.npz")}
    return Release(asked.stdout.strip(), outputs, {name: text for name, text in trouble.items() if text})


def _read(path: Path) -> Outputs:
    with np.load(path) as archive:
        return list(archive.values())


def difference(answer: Outputs, newest: Outputs, exact: Outputs) -> float:
    """Return by how much two releases differ, in errors of the compressed model, on the output where it is most."""

    def norm(array: NDArray[Any]) -> float:
        return float(np.linalg.norm(np.nan_to_num(array.astype(np.float64)).reshape(-1)))

    def share(a: NDArray[Any], n: NDArray[Any], e: NDArray[Any]) -> float:
        if a.shape != n.shape or not np.array_equal(np.isfinite(a), np.isfinite(n)):
            return float("inf")
        return norm(a - n) / max(norm(n - e), SMALLEST_ERROR * norm(n), SMALLEST_NORM)

    return max(share(a, n, e) for a, n, e in zip(answer, newest, exact, strict=True))


def parts(release: str) -> tuple[int, ...]:
    """Return a release's numbers, to compare."""
    return tuple(int(part) for part in release.split(".")[:3])


def judge(case: Case, release: Release, newest: Release) -> tuple[str, bool]:
    """Return what to show of a case on a release, and whether it is as it must be."""
    promised = parts(release.version) >= parts(case.asks_for)
    if case.name in release.trouble:
        return ("[red]does not run[/red]", False) if promised else ("-", True)
    if case.name not in newest.outputs:
        return "[red]newest does not run it[/red]", False
    found = difference(release.outputs[case.name], newest.outputs[case.name], case.exact)
    shown = f"{found:.2f}" + ("" if promised else " (unasked)")
    return (shown, True) if found <= TOLERANCE else (f"[red]{shown}[/red]", False)


def report(cases: Sequence[Case], releases: Sequence[Release], console: Console) -> tuple[int, list[str]]:
    """Print the table; return how many cells are not as they must be, and why."""
    table = Table("model", "form", "asks for", *(release.version for release in releases))
    table.title = "Compressed models by release of ONNX Runtime"
    table.caption = (
        f"Difference from {releases[-1].version}'s answer, in errors of the compressed model (at most {TOLERANCE}); "
        "-: does not run and need not; unasked: runs below the release asked for."
    )
    wrong, reasons = 0, list[str]()
    for case in cases:
        cells = [judge(case, release, releases[-1]) for release in releases]
        table.add_row(case.source, case.form, case.asks_for, *(text for text, _ in cells))
        wrong += sum(not right for _, right in cells)
        for release, (_, right) in zip(releases, cells, strict=True):
            if not right:
                why = release.trouble.get(case.name, "answers differently")
                reasons.append(f"{case.name} on {release.version}: {why}")
    console.print(table)
    return wrong, reasons


@click.command()
@click.argument("sources", nargs=-1, metavar="[MODEL.onnx]...", type=click.Path(exists=True, path_type=Path))
@click.option("--release", "wanted", multiple=True, help=f"A release, or {NEWEST}; default: {', '.join(RELEASES)}.")
@click.option("--form", "part", default="", help="Only forms whose name holds this, such as 'for 1.20.1'.")
@click.option("--venvs", default=ROOT / "build" / "venvs", type=click.Path(path_type=Path), help="Environments.")
def main(sources: tuple[Path, ...], wanted: tuple[str, ...], part: str, venvs: Path) -> None:
    """Run MODEL.onnx (default: some of models/fixtures), compressed in every form, on releases of ONNX Runtime."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    # As in large models, weights take turns to be decoded, and tables stay packed.
    turns.SMALLEST_BYTES = packed_rows.SMALLEST_CODES = 0
    forms = {form: wishes for form, wishes in FORMS.items() if part in form}
    paths = sources or tuple(FIXTURES / f"{name}.onnx" for name in NAMES)
    names = [release for release in wanted or RELEASES if release != NEWEST]
    try:
        with tempfile.TemporaryDirectory() as folder, console.status("compressing") as status:
            cases = list(make_cases(paths, Path(folder), forms, lambda text: console.print(text, markup=False)))
            releases = []
            for release in (*sorted(names, key=parts), NEWEST):
                status.update(f"onnxruntime {release}")
                python = environment(release, venvs)
                releases.append(run_release(python, Path(folder), [case.name for case in cases]))
    except (BctError, subprocess.CalledProcessError) as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from error
    wrong, reasons = report(cases, releases, console)
    for reason in reasons:
        console.print(reason, markup=False)
    runs = len(cases) * len(releases)
    console.print(f"{runs - wrong} passed, {wrong} failed")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
