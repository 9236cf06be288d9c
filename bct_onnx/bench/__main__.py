"""The command line of the benchmark: `python -m bct_onnx.bench [--generate] FLOAT.onnx [CANDIDATE.onnx ...]`."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bct_onnx import files, kernels
from bct_onnx.bench.generation import GenerationBenchmark, with_genai
from bct_onnx.bench.generation_report import generation_data, generation_table
from bct_onnx.bench.peers import DECODER_PEERS, ENCODER_PEERS, Recipe, make_all, ours
from bct_onnx.bench.records import Candidate, Skipped
from bct_onnx.bench.report import as_data, plot, table
from bct_onnx.bench.runners import CLOCKS
from bct_onnx.bench.turns import Benchmark, Timing
from bct_onnx.bench.workloads import Signature, parse
from bct_onnx.errors import BctError

MODEL = click.Path(exists=True, path_type=Path)
WIDE = 180  # columns of a table that goes to a file or a pipe
FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.argument("source", metavar="FLOAT.onnx", type=MODEL)
@click.argument("given", metavar="[CANDIDATE.onnx]...", nargs=-1, type=MODEL)
@click.option("--peers", is_flag=True, help="Make and measure what ONNX Runtime's own tools and others make of it.")
@click.option("--presets", default="", help="Make and measure ours, e.g. fast,small.")
@click.option("--native", is_flag=True, help="Measure ours and the given ones with the native kernels, too.")
@click.option("--shapes", help="BATCHxTOKENS[+PAST],... (pictures: BATCH,...); default: by the kind of model.")
@click.option("--generate", is_flag=True, help="Measure how decoders generate; FLOAT.onnx may be a folder then.")
@click.option("--prompts", default="16,128,512", show_default=True, help="Their tokens, with --generate.")
@click.option(
    "--new-tokens", default=64, show_default=True, type=click.IntRange(min=2), help="Behind each, with --generate."
)
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
    generate: bool,
    prompts: str,
    new_tokens: int,
    threads: int,
    rounds: int,
    seconds: float,
    clock: str,
    json_path: Path | None,
    plot_path: Path | None,
    keep_dir: Path | None,
) -> None:
    """Compare FLOAT.onnx with compressed models: file, loading, memory, latency in turns, answers.

    With --generate, decoders (a file, or a folder of one): time to the first token, tokens a second, memory, text.
    """
    console = Console(stderr=True)
    timing = Timing(threads, rounds, seconds, clock)
    try:
        _check(source, given, generate, plot_path)
        library = kernels.library() if native else ""
        lengths = _lengths(prompts)
        workloads = [] if generate else parse(shapes) if shapes else Signature.read(source).default_workloads()
        others = DECODER_PEERS if generate else ENCODER_PEERS
        recipes = (*(others if peers else ()), *ours(presets))
        with ExitStack() as stack, console.status("start") as status:
            folder = keep_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            candidates, skipped = _candidates(source, given, recipes, folder, status.update)
            candidates = [twin for candidate in candidates for twin in _twins(candidate, library)]
            if generate:
                candidates = [twin for candidate in candidates for twin in with_genai(candidate)]
                generation = GenerationBenchmark(candidates, timing, status.update).compare(lengths, new_tokens)
                shown, data, missing = generation_table(generation), generation_data(generation), generation.skipped
            else:
                comparison = Benchmark(candidates, timing, status.update).compare(workloads)
                shown, data, missing = table(comparison), as_data(comparison), comparison.skipped
        data["skipped"] = [asdict(one) for one in (*skipped, *missing)]
        _show(shown, [*skipped, *missing])
        if json_path:
            files.write_json(json_path, data)
        if plot_path:
            plot(comparison, plot_path)
    except BctError as error:
        console.print(f"error: {error}", highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None


def _check(source: Path, given: Sequence[Path], generate: bool, plot_path: Path | None) -> None:
    """Raise BctError for a request that cannot be met."""
    folder = next((path for path in (source, *given) if path.is_dir()), None)
    if folder is not None and not generate:
        raise BctError(f"{folder}: is a folder: name a model, or add --generate for a decoder's folder")
    if generate and plot_path is not None:
        raise BctError("--plot draws no generation: take --json")


def _lengths(text: str) -> list[int]:
    """Return the lengths of prompts; BctError for what is no list of them."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise BctError(f"--prompts {text}: write numbers of tokens, separated by commas")
    return list(dict.fromkeys(map(int, parts)))


def _candidates(
    source: Path, given: Sequence[Path], recipes: Sequence[Recipe], folder: Path, status: Callable[[str], None]
) -> tuple[list[Candidate], list[Skipped]]:
    """Return the float model, what recipes make of it, and the given ones, named apart; and what was not made."""
    candidates, skipped = [Candidate("float", source, "float", "given")], list[Skipped]()
    for made in make_all(source, recipes, folder, status):
        if isinstance(made, Skipped):
            skipped.append(made)
        else:
            candidates.append(made)
    taken = [candidate.name for candidate in candidates] + [path.stem for path in given]
    names = {path: path.stem if taken.count(path.stem) == 1 else str(path) for path in given}
    return [*candidates, *(Candidate(names[path], path, "given", "given") for path in given)], skipped


def _twins(candidate: Candidate, library: str) -> list[Candidate]:
    """Return a candidate and, where there is a library and it may hold functions, the same one with it."""
    if not library or candidate.kind not in ("ours", "given"):
        return [candidate]
    return [candidate, replace(candidate, name=f"{candidate.name}, native", library=library)]


def _show(view: Table, skipped: Sequence[Skipped]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(view)
    for one in skipped:
        console.print(f"skipped: {one.name}: {one.reason}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
