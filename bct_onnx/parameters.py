"""What the command line of `compress` can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from passes import CHAIN, LOWERINGS, describe, pass_name
from passes.options import ACTIVATIONS

from .package import LAYOUTS
from .package.command import PresetFor
from .presets import DEFAULT_PRESET, PRESETS
from .progress import LEVELS
from .search import DEFAULT_SECONDS
from .targets import DEFAULT_TARGET, TARGETS

# Options that only folders have, with what they are where they are not given.
OF_A_FOLDER = {"task": None, "examples": None, "layout": LAYOUTS[0], "preset_for": ()}
# What `--ops` names, for the end of the help.
OPERATORS = "\b\nNames for --ops:\n" + "\n".join(f"  {pass_name(each):<19} {describe(each)}" for each in CHAIN)
# In the order in which help lists them.
PARAMETERS = (
    click.argument("source", metavar="IN", type=click.Path(path_type=Path)),
    click.argument("target", metavar="OUT", type=click.Path(path_type=Path)),
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        default=DEFAULT_PRESET,
        show_default=True,
        help="fast: 8 bits. balanced: --max-drop 0.09, or 6 bits where that cannot be measured. small: the"
        " least error in the bytes of 4 bits everywhere. portable: 8 bits, standard operators only."
        " paper: every operator and intermediate result in blocks, slowly.",
    ),
    click.option(
        "--preset-for",
        metavar="PATTERN=PRESET",
        type=PresetFor(),
        multiple=True,
        help="Of a folder: another preset for models whose name fits: 'decoder*=small'; may be repeated, the first"
        " counts.",
    ),
    click.option("--task", help="Of a folder: what the models are for, in optimum's words; else config.json says it."),
    click.option(
        "--examples",
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="Of a folder: what the task is tried with, instead of --data or made examples: a text file, or a folder of"
        " pictures or sounds.",
    ),
    click.option(
        "--layout",
        type=click.Choice(LAYOUTS),
        default=LAYOUTS[0],
        show_default=True,
        help="Of a folder: where models go. optimum: beside config.json. transformers.js: onnx/*_quantized.onnx.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("--bits", type=click.IntRange(2, 8), help="Width of a weight's codes, instead of the preset's."),
    click.option(
        "--block-size",
        type=click.IntRange(min=0),
        help="Neighbours that share a scale: a multiple of 8, or 0 for a whole column.",
    ),
    click.option(
        "--lowering",
        type=click.Choice(["auto", *LOWERINGS]),
        default="auto",
        show_default=True,
        help="dense: int8 in memory, int8 products; for encoders and prefill. dense7: the same with weights of 7 bits"
        " at most, for x86 processors without VNNI, whose products of 8 bits overflow. packed: codes stay packed in"
        " memory; for decoding token by token. both: the same codes in both forms; the number of rows chooses."
        " qdq: DequantizeLinear, for any ONNX runtime. shifts: packed, all scales powers of two. auto: both for models"
        " with past key/value inputs and codes of up to 4 bits, else what the preset says.",
    ),
    click.option(
        "--keep",
        metavar="REGEX",
        multiple=True,
        help="Leave alone nodes and weights whose name matches; may be repeated.",
    ),
    click.option(
        "--ops",
        "operators",
        metavar="[-]NAME,...",
        callback=lambda _context, _option, text: text and [name.strip() for name in text.split(",")],
        help="Operators to compress besides weights, instead of the preset's; or, each with a minus, passes to leave"
        " out: -attention,-biases. Names are listed below.",
    ),
    click.option(
        "--activations",
        type=click.Choice(ACTIVATIONS),
        help="Code type of intermediate results, where they are compressed.",
    ),
    click.option(
        "--runtime",
        metavar="RELEASE",
        help="The oldest ONNX Runtime that must run OUT, from 1.17.3 on, such as 1.20 or 1.20.1: opset and forms"
        " follow, and notes say what that costs.",
    ),
    click.option(
        "--target",
        "target_runtime",
        type=click.Choice(list(TARGETS)),
        help="Where OUT runs: the preset's bits in the forms that are fast there. web: onnxruntime-web and"
        " Transformers.js. openvino: standard operators only."
        f"  [default: {DEFAULT_TARGET}; web with --layout transformers.js]",
    ),
    click.option(
        "--inline",
        is_flag=True,
        help="Write what compressed operators do in place of calls of ONNX functions, for tools that know none.",
    ),
    click.option(
        "--feeds", type=click.Path(path_type=Path), metavar="FILE.npz", help="Inputs to verify on, and to fit codes to."
    ),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The same from real samples: a .txt (one a line), .jsonl, or a folder of texts, pictures or sounds;"
        " through the tokenizer or processor in the model's folder. Needs pip install 'bct-onnx[data]'.",
    ),
    click.option(
        "--processor",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Another folder for that tokenizer or processor.",
    ),
    click.option(
        "--max-rel-error", type=click.FloatRange(min=0), help="Largest error of an output, in --max-drop's measure."
    ),
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0, min_open=True),
        help="Choose every weight's bits by measurement: the smallest file whose outputs err by this part at most. The"
        " error is the distance between both models' outputs over their spread from input to input (0.1: a classifier"
        " changes about 3 in 100 decisions, mostly near ties), or for a language model what perplexity loses (0.1: 2"
        " %).",
    ),
    click.option(
        "--target-ratio",
        type=click.FloatRange(min=0, min_open=True),
        help="Or the best file this many times smaller than the input.",
    ),
    click.option("--target-bytes", type=click.IntRange(min=1), help="Or the best file of at most so many bytes."),
    click.option(
        "--search-seconds",
        type=click.FloatRange(min=0),
        default=DEFAULT_SECONDS,
        show_default=True,
        help="Work for the measurements that --max-drop and its kin ask for, at a nominal speed; never by the clock.",
    ),
    click.option(
        "--plot", "plot_path", metavar="FILE", type=click.Path(path_type=Path), help="Draw size against error."
    ),
    click.option("--no-verify", is_flag=True, help="Load the result but do not compare it with the input model."),
    click.option("--external-data", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True),
    click.option("--again", is_flag=True, help="Go on if IN is compressed already."),
    click.option(
        "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the report there."
    ),
    click.option(
        "--report",
        "page_path",
        metavar="FILE.html",
        type=click.Path(path_type=Path),
        help="Write it as a page to look at, in one file, with memory measured. Needs pip install 'bct-onnx[report]'.",
    ),
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        default=LEVELS[0],
        show_default=True,
        help="info: a line on stderr as each stage begins, with the time. debug: and for every step, and tracebacks.",
    ),
)


def with_parameters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all parameters to a command."""
    for parameter in reversed(PARAMETERS):
        command = parameter(command)
    return command
