"""Size against error on real data: our files at several goals, and 4-bit files of other tools, a figure a model.

Every point is made by a command in a process of its own, and kept in docs/curves.json: a run renews the points that it
makes, and draws all. Other tools run in the environment of --peers; without it their points stay as they are.
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
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bct_onnx import BctError, files
from bct_onnx.evaluate import ModelResult

from .cases import CASES
from .common import ROOT

PEER = Path(__file__).with_name("run_peer.py")
GOALS, PRESETS = "bct_onnx, goals", "bct_onnx, presets"
RATIOS = (5.0, 6.0, 7.0, 7.6, 8.0, 8.5)
OURS = {
    GOALS: [f"--target-ratio {ratio:g}" for ratio in RATIOS],
    PRESETS: [f"--preset {name}" for name in ("fast", "balanced", "small", "portable")],
}


@dataclass(frozen=True)
class Axis:
    """What is drawn of a score: its metric ("same decisions" is one), how it is called, whether it is logarithmic."""

    metric: str
    title: str
    scale: str = "linear"


SAME = "same decisions"
FIGURES = {
    "vit_tiny": (Axis("error", "error of the logits", "log"), Axis(SAME, "same decisions (%)")),
    "minilm sts-b": (
        Axis("distance", "distance to float's", "log"),
        Axis("Spearman", "Spearman lost (%)"),
    ),
    "smollm2": (Axis("perplexity", "perplexity gained (%)", "log"), Axis(SAME, "same next tokens (%)")),
}


@dataclass(frozen=True)
class Point:
    """One file: who made it and how, its size, and what it loses.

    Attributes:
        seconds: of processor time, for making it.
        values: by metric: percent of same decisions, the distance or error, or how much the float model's score is lost
            (points for scores in percent, else percent of the float model's).
    """

    model: str
    tool: str
    setting: str
    bytes: int
    ratio: float
    seconds: float
    values: dict[str, float]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells points apart."""
        return self.model, self.tool, self.setting


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


def values(result: ModelResult) -> dict[str, float]:
    """Return what a file loses, by metric, as `Point` has it."""
    lost = {SAME: 100 * result.same_decisions}
    for score in result.scores:
        exact = score.value - score.difference
        of_exact = score.metric == "perplexity"
        lost[score.metric] = 100 * score.difference / exact if of_exact else score.difference
        if score.unit == "%":
            lost[score.metric] = -score.difference
    return lost


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
                seconds[name] = job.run(case.model, target)
            except BctError as error:
                console.print(f"{model}: {name}: not made: {error}", markup=False)
            else:
                console.print(f"{model}: {name}: {seconds[name]:.1f} s", markup=False)
                made[name] = target
        evaluation, failed = case.score_running(made)
        for name, reason in failed.items():
            console.print(f"{model}: {name}: does not run: {reason}", markup=False)
        running = [name for name in made if name not in failed]
        for name, result in zip(running, evaluation.models[1:], strict=True):
            job = named[name]
            spent = round(seconds[name], 1)
            yield Point(model, job.tool, job.setting, result.bytes, result.ratio, spent, values(result))


def table(points: Sequence[Point]) -> Table:
    """Return the points of one model as a table."""
    metrics = list(points[0].values)
    result = Table(title=points[0].model, box=SIMPLE_HEAD)
    for heading in ("made by", "with"):
        result.add_column(heading)
    for heading in ("MB", "smaller", "processor s", *metrics):
        result.add_column(heading, justify="right")
    for p in points:
        figures = (f"{p.values[metric]:.4g}" for metric in metrics)
        result.add_row(p.tool, p.setting, f"{p.bytes / 1e6:.2f}", f"{p.ratio:.2f}", f"{p.seconds:.1f}", *figures)
    return result


def draw(model: str, points: Sequence[Point], path: Path) -> None:
    """Draw the figure of a model: each axis over how many times smaller a file is."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(f"{model}: whole files, no data")
    plots = figure.subplots(1, 2)
    tools = list(dict.fromkeys(point.tool for point in points))
    for axes, axis in zip(plots, FIGURES[model], strict=True):
        for number, tool in enumerate(tools):
            own = sorted((p for p in points if p.tool == tool), key=lambda p: p.ratio)
            style = {GOALS: "o-", PRESETS: "*"}.get(tool, "^sDvP<>X"[number % 8])
            axes.plot(
                [p.ratio for p in own],
                [p.values[axis.metric] for p in own],
                style,
                color=f"C{number % 10}",
                markersize=10 if tool == PRESETS else 6,
                label=tool,
            )
        axes.set(xlabel="times smaller than the float file", ylabel=axis.title, yscale=axis.scale)
        axes.grid(visible=True, which="both", alpha=0.25)
    plots[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(FIGURES)), help="This model only; may be repeated.")
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
def main(*, only: Sequence[str], tools: Sequence[str], peers: Path | None, draw_only: bool, file: Path) -> None:
    """Measure files of every size, keep them as data, print and draw them."""
    console = Console(width=150)
    known = {p.key: p for p in (Point(**each) for each in json.loads(file.read_text()))} if file.exists() else {}
    wanted = [] if draw_only else [job for job in jobs(peers) if not tools or job.tool in tools]
    for model in only or FIGURES:
        if wanted:
            known |= {point.key: point for point in measure(model, wanted, console)}
            order = list(FIGURES)
            files.write_json(file, [asdict(p) for p in sorted(known.values(), key=lambda p: order.index(p.model))])
        points = [point for point in known.values() if point.model == model]
        if points:
            console.print(table(points))
            draw(model, points, file.with_name(f"curve_{model.replace(' ', '_')}.png"))


if __name__ == "__main__":
    main()
