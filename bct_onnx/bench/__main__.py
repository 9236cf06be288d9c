"""The command line of the benchmark: `python -m bct_onnx.bench FLOAT.onnx [CANDIDATE.onnx ...]`."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from bct_onnx import files, kernels
from bct_onnx.bench.peers import PEERS, make_all, ours
from bct_onnx.bench.records import Candidate, Comparison, Skipped
from bct_onnx.bench.report import as_data, plot, table
from bct_onnx.bench.turns import CLOCKS, Benchmark, Timing
from bct_onnx.bench.workloads import Signature, parse
from bct_onnx.errors import BctError

MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
WIDE = 180  # columns of a table that goes to a file or a pipe
FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.argument("source", metavar="FLOAT.onnx", type=MODEL)
@click.argument("given", metavar="[CANDIDATE.onnx]...", nargs=-1, type=MODEL)
@click.option("--peers", is_flag=True, help="Make and measure what ONNX Runtime's own tools make of FLOAT.onnx.")
@click.option("--presets", default="", help="Make and measure ours, e.g. fast,small.")
@click.option("--native", is_flag=True, help="Measure ours and the given ones with the native kernels, too.")
@click.option("--shapes", help="BATCHxTOKENS[+PAST],... (pictures: BATCH,...); default: by the kind of model.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Turns per model.")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(min=0), help="Per turn.")
@click.option(
    "--clock",
    default="wall",
    show_default=True,
    type=click.Choice(list(CLOCKS)),
    help="Of latency; cpu: all threads, for a busy machine.",
)
@click.option("--json", "json_path", type=FILE, help="Write the figures there.")
@click.option("--plot", "plot_path", type=FILE, help="Draw the figures there (.png, .svg, .pdf; extra `eval`).")
@click.option("--keep-dir", type=click.Path(file_okay=False, path_type=Path), help="Keep the models made here.")
def main(
    *,
    source: Path,
    given: tuple[Path, ...],
    peers: bool,
    presets: str,
    native: bool,
    shapes: str | None,
    threads: int,
    rounds: int,
    seconds: float,
    clock: str,
    json_path: Path | None,
    plot_path: Path | None,
    keep_dir: Path | None,
) -> None:
    """Compare FLOAT.onnx with compressed models: file, loading, memory, latency in turns, answers."""
    console = Console(stderr=True)
    try:
        signature = Signature.read(source)
        library = kernels.library() if native else ""
        workloads = parse(shapes) if shapes else signature.default_workloads()
        recipes = (*(PEERS if peers else ()), *ours(presets))
        with ExitStack() as stack, console.status("start") as status:
            folder = keep_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            candidates, skipped = [Candidate("float", source, "float", "given")], list[Skipped]()
            for made in make_all(source, recipes, folder, status.update):
                if isinstance(made, Skipped):
                    skipped.append(made)
                else:
                    candidates.append(made)
            taken = [candidate.name for candidate in candidates] + [path.stem for path in given]
            candidates += [
                Candidate(path.stem if taken.count(path.stem) == 1 else str(path), path, "given", "given")
                for path in given
            ]
            candidates = [twin for candidate in candidates for twin in _twins(candidate, library)]
            comparison = Benchmark(candidates, Timing(threads, rounds, seconds, clock), status.update).compare(
                workloads
            )
        comparison.skipped[:0] = skipped
        _show(comparison, json_path, plot_path)
    except BctError as error:
        console.print(f"error: {error}", highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None


def _twins(candidate: Candidate, library: str) -> list[Candidate]:
    """Return a candidate and, where there is a library and it may hold functions, the same one with it."""
    if not library or candidate.kind not in ("ours", "given"):
        return [candidate]
    return [candidate, replace(candidate, name=f"{candidate.name}, native", library=library)]


def _show(comparison: Comparison, json_path: Path | None, plot_path: Path | None) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table(comparison))
    for skipped in comparison.skipped:
        console.print(f"skipped: {skipped.name}: {skipped.reason}", highlight=False, markup=False)
    if json_path:
        files.write_json(json_path, as_data(comparison))
    if plot_path:
        plot(comparison, plot_path)


if __name__ == "__main__":
    main()
