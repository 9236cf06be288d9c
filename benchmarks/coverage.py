"""What the preset paper covers on every exporter fixture and real model: weights, nodes, intermediate results.

python -m benchmarks.coverage [MODEL.onnx ...] [--json FILE]
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bct_onnx import BctError, compress, files
from bct_onnx.compression import Coverage

from .common import DATA, FIXTURES, ROOT

NAMES = ("vit_tiny", "cct_cifar10", "stories260k", "babyllama105", "bert_mini/sst2", "bert_mini/imdb")


def models() -> Iterator[Path]:
    """Yield the models of the project and those of the data folder that are there."""
    yield from sorted((ROOT / "models").glob("*.onnx"))
    yield from sorted(FIXTURES.glob("*.onnx"))
    yield from (path for name in NAMES if (path := DATA / name / "model.onnx").is_file())


def line(path: Path, coverage: Coverage) -> dict[str, Any]:
    """Return what a model's coverage is."""
    nodes: Counter[str] = Counter()
    for row in coverage.operators:
        nodes += Counter(replaced=row.replaced, between=row.between, moves=row.moves, left=row.left)
    reasons = Counter(f"{node.op}: {node.reason}" for node in coverage.left)
    reasons += Counter(f"{edge.op}'s result: {edge.reason}" for edge in coverage.results_left)
    return {
        "model": path.stem if path.stem != "model" else "/".join(path.parts[-3:-1]).removeprefix(f"{DATA.name}/"),
        **{how: nodes[how] for how in ("replaced", "between", "moves", "left")},
        "codes": coverage.weight_codes / coverage.weight_bytes,
        "half": coverage.weight_half / coverage.weight_bytes,
        "results": coverage.result_codes / coverage.result_bytes if coverage.result_bytes else None,
        "reasons": dict(reasons),
    }


def table(lines: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each model."""
    result = Table(box=SIMPLE_HEAD)
    result.add_column("model", no_wrap=True)
    for heading in ("from codes", "between", "move", "left", "weights as codes", "float16", "results as codes"):
        result.add_column(heading, justify="right")
    result.add_column("why left", overflow="fold")
    for each in lines:
        if "failed" in each:
            result.add_row(each["model"], *[""] * 7, f"failed: {each['failed']}")
            continue
        counts = [str(each[how]) for how in ("replaced", "between", "moves", "left")]
        shares = ["" if each[part] is None else f"{each[part]:.1%}" for part in ("codes", "half", "results")]
        why = "; ".join(f"{count} x {reason}" for reason, count in each["reasons"].items())
        result.add_row(each["model"], *counts, *shares, why)
    return result


@click.command()
@click.argument("paths", metavar="[MODEL.onnx]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the lines as data, too.")
def main(*, paths: Sequence[Path], json_file: Path | None) -> None:
    """Compress models with the preset paper and print what of them became codes."""
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        for path in paths or models():
            status.update(path.stem)
            try:
                report = compress(path, Path(folder, "out.onnx"), preset="paper")
            except BctError as error:
                lines.append({"model": path.stem, "failed": str(error)})
                continue
            assert report.coverage is not None, "the preset paper counts"
            lines.append(line(path, report.coverage))
    console = Console(width=None if os.isatty(1) else 160)
    console.print(table(lines))
    done = [each for each in lines if "failed" not in each]
    nodes = sum(each[how] for each in done for how in ("replaced", "between", "moves", "left"))
    left = sum(each["left"] for each in done)
    console.print(f"{len(done)} of {len(lines)} models; {nodes:,} nodes, {left} left, each with its reason")
    if json_file is not None:
        files.write_json(json_file, lines)


if __name__ == "__main__":
    main()
