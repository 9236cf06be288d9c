"""The command line: `python -m bct_onnx IN OUT`, also as `bct-onnx`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
import onnxruntime
from rich.console import Console

from passes import LOWERINGS
from passes.options import ACTIVATIONS

from . import files, table
from .api import compress
from .bench.memory import measure_memory
from .commands import EPILOG, PROGRAM, commands
from .errors import BctError
from .limits import limit_memory
from .package import LAYOUTS, Package, compress_folder, is_folder, make_plan, plan_of_file
from .package.command import PresetFor
from .package.table import show_package, show_plan
from .page import check_libraries, write_page
from .presets import DEFAULT_PRESET, PRESETS
from .progress import DEBUG, LEVELS, set_log_level, shown
from .report import Report
from .search import DEFAULT_SECONDS, plot
from .targets import DEFAULT_TARGET, TARGETS
from .version import __version__

INTERRUPTED, TERMINATED = 130, 143
# What ONNX Runtime says goes into the one line, not beside it.
FATAL = 4
# Options that only folders have, with what they are where they are not given.
OF_A_FOLDER = {"task": None, "examples": None, "layout": LAYOUTS[0], "preset_for": ()}

Made = TypeVar("Made", Report, Package)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default=DEFAULT_PRESET,
    show_default=True,
    help="fast: 8 bits. balanced: --max-drop 0.09, or 6 bits where that cannot be measured. small: 4 bits."
    " portable: 8 bits, standard operators only."
    " paper: every operator and intermediate result in blocks, slowly.",
)
@click.option(
    "--preset-for",
    metavar="PATTERN=PRESET",
    type=PresetFor(),
    multiple=True,
    help="Of a folder: another preset for models whose name fits: 'decoder*=small'; may be repeated, the first counts.",
)
@click.option("--task", help="Of a folder: what the models are for, in optimum's words; else config.json says it.")
@click.option(
    "--examples",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Of a folder: what the task is tried with, instead of --data or made examples: a text file, or a folder of"
    " pictures or sounds.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="Of a folder: where models go. optimum: beside config.json. transformers.js: onnx/*_quantized.onnx.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--bits", type=click.IntRange(2, 8), help="Width of a weight's codes, instead of the preset's.")
@click.option(
    "--block-size",
    type=click.IntRange(min=0),
    help="Neighbours that share a scale: a multiple of 8, or 0 for a whole column.",
)
@click.option(
    "--lowering",
    type=click.Choice(["auto", *LOWERINGS]),
    default="auto",
    show_default=True,
    help="dense: int8 in memory, int8 products; for encoders and prefill. dense7: the same with weights of 7 bits at"
    " most, for x86 processors without VNNI, whose products of 8 bits overflow. packed: codes stay packed in memory;"
    " for decoding token by token. qdq: DequantizeLinear, for any ONNX runtime. shifts: packed, all scales powers of"
    " two. auto: packed for models with past key/value inputs, else what the preset says.",
)
@click.option(
    "--keep",
    metavar="REGEX",
    multiple=True,
    help="Leave alone nodes and weights whose name matches; may be repeated.",
)
@click.option(
    "--ops",
    "operators",
    metavar="[-]NAME,...",
    callback=lambda _context, _option, text: text and [name.strip() for name in text.split(",")],
    help="Operators to compress besides weights, instead of the preset's; or, each with a minus, passes to leave out:"
    " -attention,-biases.",
)
@click.option(
    "--activations",
    type=click.Choice(ACTIVATIONS),
    help="Code type of intermediate results, where they are compressed.",
)
@click.option(
    "--runtime",
    metavar="RELEASE",
    help="The oldest ONNX Runtime that must run OUT, from 1.17.3 on, such as 1.20 or 1.20.1: opset and forms follow,"
    " and notes say what that costs.",
)
@click.option(
    "--target",
    "target_runtime",
    type=click.Choice(list(TARGETS)),
    default=DEFAULT_TARGET,
    show_default=True,
    help="Where OUT runs: the preset's bits in the forms that are fast there. web: onnxruntime-web and Transformers.js."
    " openvino: standard operators only.",
)
@click.option(
    "--feeds", type=click.Path(path_type=Path), metavar="FILE.npz", help="Inputs to verify on, and to fit codes to."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The same from real samples: a .txt (one a line), .jsonl, or a folder of texts, pictures or sounds;"
    " through the tokenizer or processor in the model's folder. Needs pip install 'bct-onnx[data]'.",
)
@click.option(
    "--processor",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Another folder for that tokenizer or processor.",
)
@click.option(
    "--max-rel-error", type=click.FloatRange(min=0), help="Largest error of an output, in --max-drop's measure."
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, min_open=True),
    help="Choose every weight's bits by measurement: the smallest file whose outputs err by this part at most. The"
    " error is the distance between both models' outputs over their spread from input to input (0.1: a classifier"
    " changes about 3 in 100 decisions, mostly near ties), or for a language model what perplexity loses (0.1: 2 %).",
)
@click.option(
    "--target-ratio",
    type=click.FloatRange(min=0, min_open=True),
    help="Or the best file this many times smaller than the input.",
)
@click.option("--target-bytes", type=click.IntRange(min=1), help="Or the best file of at most so many bytes.")
@click.option(
    "--search-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="Work for the measurements that --max-drop and its kin ask for, at a nominal speed; never by the clock.",
)
@click.option("--plot", "plot_path", metavar="FILE", type=click.Path(path_type=Path), help="Draw size against error.")
@click.option("--no-verify", is_flag=True, help="Load the result but do not compare it with the input model.")
@click.option("--external-data", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--again", is_flag=True, help="Go on if IN is compressed already.")
@click.option("--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the report there.")
@click.option(
    "--report",
    "page_path",
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    help="Write it as a page to look at, in one file, with memory measured. Needs pip install 'bct-onnx[report]'.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default=LEVELS[0],
    show_default=True,
    help="info: a line on stderr as each stage begins, with the time. debug: and for every step, and tracebacks.",
)
@click.version_option(__version__, prog_name="bct-onnx")
def command(
    json_path: Path | None,
    plot_path: Path | None,
    page_path: Path | None,
    quiet: bool,
    log_level: str,
    no_verify: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Compress a transformer in ONNX: smaller, faster, the same answers.

    IN is an ONNX file; or a folder of them beside their config.json, or a checkpoint of transformers, which is exported
    first: then OUT is a folder that is ready to deploy. OUT is compared with IN in ONNX Runtime before it appears. Exit
    code 0: done. 1: the result did not pass verification and was not written. 2: a bad request or a bad input; one line
    says what to do.
    """
    set_log_level(log_level)
    source, target = options["source"], options["target"]
    for path in filter(None, (json_path, plot_path, page_path)):
        files.check_text(path, source, target)
    if page_path is not None:
        check_libraries()
    folder = {name: options.pop(name) for name in OF_A_FOLDER}
    whole = is_folder(source)
    _check_kind(whole, folder, plot_path)
    if dry_run:
        _show_plan(whole, folder, {**options, "verify": not no_verify})
        return
    if whole:
        package = _run(compress_folder, quiet, verify=not no_verify, **folder, **options)
        _write(package.with_reports(), json_path, page_path)
        if not quiet:
            show_package(package)
        return
    report = _run(compress, quiet, verify=not no_verify, **options)
    if page_path is not None:
        report = _with_memory(report)
    _write(report.to_dict(), json_path, page_path)
    if plot_path is not None and report.search is not None:
        plot(report.search, plot_path)
    if not quiet:
        table.show(report)


def main() -> None:
    """Run the command and end the process with its exit code."""
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, _terminate)
    limit_memory()
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        commands.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except BctError as error:
        _say(console, str(error))
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        _say(console, "interrupted; nothing was written")
        raise SystemExit(INTERRUPTED) from None
    except MemoryError as error:
        _say(console, f"more memory is needed than there is: {error}")
        raise SystemExit(2) from None
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _say(
            console,
            f"a defect of bct_onnx: {type(error).__name__}: {error} (set {DEBUG}=1 for the traceback)",
        )
        raise SystemExit(2) from None


def _run(compress: Callable[..., Made], quiet: bool, **options: Any) -> Made:
    """Compress a file or a folder, and show how far it is."""
    with shown(quiet) as progress:
        return compress(progress=progress, **options)


def _with_memory(report: Report) -> Report:
    """Return a report with the memory that both models take, unless they were too large to load as any user does."""
    if report.verification is None or report.verification.latency is None:
        return report
    with suppress(BctError):
        return replace(report, memory=measure_memory(report.input.path, report.output.path))
    return report


def _check_kind(whole: bool, folder: dict[str, Any], plot_path: Path | None) -> None:
    """Refuse options of a folder with a file, and the other way round."""
    if whole and plot_path is not None:
        raise BctError("--plot draws the curve of one model; compress the models one by one for it")
    given = [name for name, default in OF_A_FOLDER.items() if folder[name] != default]
    if not whole and given:
        raise BctError(f"--{given[0].replace('_', '-')} is for folders, the input is a file; leave it out")


def _show_plan(whole: bool, folder: dict[str, Any], options: dict[str, Any]) -> None:
    source, target, preset = options["source"], options["target"], options["preset"]
    if whole:
        asked = {name: value for name, value in folder.items() if name != "examples"}
        plan = make_plan(source, target, preset=preset, **asked)
    else:
        plan = plan_of_file(source, target, preset)
    show_plan(plan, **options)


def _write(data: dict[str, Any], json_path: Path | None, page_path: Path | None) -> None:
    """Write a report as data and as a page, where they are asked for."""
    if json_path is not None:
        files.write_text(json_path, json.dumps(data, indent=2) + "\n")
    if page_path is not None:
        write_page(data, page_path)


def _terminate(*_: object) -> None:
    """End the process in the same way as an interrupt does: what was begun is removed."""
    raise SystemExit(TERMINATED)


def _say(console: Console, message: str) -> None:
    console.print(f"error: {' '.join(message.split())}", style="red", highlight=False, markup=False, soft_wrap=True)
