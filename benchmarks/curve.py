"""Size against error on real data: our files at several goals, and 4-bit files of other tools, a figure a model.

Every point is made by a command in a process of its own, and kept in docs/curves.json: a run renews the points that it
makes, and docs/curves.md and its figures of all. Other tools run in the environment of --peers; without it their points
stay as they are.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console

from bct_onnx import BctError, files
from bct_onnx.evaluate import Score

from .cases import CASES
from .common import ROOT
from .curve_page import FIGURES, GOALS, PRESETS, SAME, Point, draw, page, picture

PEER = Path(__file__).with_name("run_peer.py")
RATIOS = (5.0, 6.0, 7.0, 7.6, 8.0, 8.5)
OURS = {
    GOALS: [f"--target-ratio {ratio:g}" for ratio in RATIOS],
    PRESETS: [f"--preset {name}" for name in ("fast", "balanced", "small", "portable")],
}


@dataclass(frozen=True)
class Job:
    """A file to make: the command, but for the paths of the float model and of the file."""

    tool: str
    setting: str
    command: tuple[str, ...]

    def run(self, source: Path, target: Path) -> float:
        """Make the file and return the seconds of processor time that took; raise BctError with the last line said."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*self.command, source, target], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise BctError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def jobs(peers: Path | None) -> Iterator[Job]:
    """Yield our files, then those of the tools in the environment of an interpreter."""
    for tool, settings in OURS.items():
        for setting in settings:
            yield Job(tool, setting, (sys.executable, "-m", "bct_onnx", "--quiet", *setting.split()))
    if peers is not None:
        listed = subprocess.run([peers, PEER], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            tool, setting = line.split("\t")
            yield Job(tool, setting, (str(peers), str(PEER), tool, setting))


def loss(score: Score) -> float:
    """Return what a file loses by a score, as `Point` has it."""
    if score.unit == "%":
        return -score.difference
    exact = score.value - score.difference
    return 100 * score.difference / exact if score.metric == "perplexity" else score.difference


def measure(model: str, wanted: Sequence[Job], console: Console) -> Iterator[Point]:
    """Make the files of a model and yield a point for each that comes out and runs; say why others do not."""
    case = CASES[model]
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Path] = {}
        seconds: dict[str, float] = {}
        named = {f"{job.tool}, {job.setting}": job for job in wanted}
        for number, (name, job) in enumerate(named.items()):
            target = Path(folder, f"{number}.onnx")
            try:
                seconds[name], made[name] = job.run(case.model, target), target
            except BctError as error:
                console.print(f"{model}: {name}: not made: {error}", markup=False)
            else:
                console.print(f"{model}: {name}: {seconds[name]:.1f} s", markup=False)
        evaluation, failed = case.score_running(made)
        for name, reason in failed.items():
            console.print(f"{model}: {name}: does not run: {reason}", markup=False)
        running = [name for name in made if name not in failed]
        for name, result in zip(running, evaluation.models[1:], strict=True):
            job = named[name]
            spent = round(seconds[name], 1)
            values = {SAME: 100 * result.same_decisions} | {score.metric: loss(score) for score in result.scores}
            yield Point(model, job.tool, job.setting, result.bytes, result.ratio, spent, values)


@click.command()
@click.option(
    "--only", "models", multiple=True, type=click.Choice(list(FIGURES)), help="This model only; may be repeated."
)
@click.option("--tool", "tools", multiple=True, help="Files of this tool only; may be repeated.")
@click.option("--peers", type=click.Path(path_type=Path, exists=True), help="The python of an environment with peers.")
@click.option("--draw-only", is_flag=True, help="Draw what was measured before.")
@click.option(
    "--points",
    "file",
    type=click.Path(path_type=Path),
    default=ROOT / "docs/curves.json",
    show_default=True,
    help="Where points are kept; figures lie beside it.",
)
def main(*, models: Sequence[str], tools: Sequence[str], peers: Path | None, draw_only: bool, file: Path) -> None:
    """Measure files of every size, keep them as data, and write and draw them."""
    console, order = Console(width=150), list(FIGURES)
    known = {p.key: p for p in (Point(**each) for each in json.loads(file.read_text()))} if file.exists() else {}
    wanted = [] if draw_only else [job for job in jobs(peers) if not tools or job.tool in tools]
    for model in [] if draw_only else models or FIGURES:
        known |= {point.key: point for point in measure(model, wanted, console)}
        points = sorted(known.values(), key=lambda p: order.index(p.model))
        files.write_json(file, [asdict(point) for point in points])
    file.with_suffix(".md").write_text(page(list(known.values())))
    for model in FIGURES:
        if own := [point for point in known.values() if point.model == model]:
            draw(model, own, file.with_name(picture(model)))


if __name__ == "__main__":
    main()
