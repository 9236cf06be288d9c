"""How much the answer for one sample depends on what else is in its batch: `python -m benchmarks.batch MODEL.onnx`."""

import tempfile
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bct_onnx import compress
from bct_onnx.bench.peers import quantize_dynamic
from bct_onnx.sessions import Session

from .common import quiet

# The other samples of the batch are this much brighter: a scale shared by the batch would follow them.
BRIGHTER = 4.0
BATCH = 8


@click.command()
@click.argument("source", metavar="MODEL.onnx", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--presets", default="fast,balanced,small", show_default=True)
def main(source: Path, presets: str) -> None:
    """Compare one picture alone with the same picture in a batch of 8, for float, peers and presets."""
    table = Table(title="One sample alone against the same in a batch of 8")
    table.add_column("model")
    table.add_column("relative difference", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        candidates = {"float": source, "quantize_dynamic": Path(folder) / "peer.onnx"}
        with quiet():
            quantize_dynamic(source, candidates["quantize_dynamic"])
        for preset in presets.split(","):
            candidates[preset] = Path(folder) / f"{preset}.onnx"
            compress(source, candidates[preset], preset=preset, verify=False)
        for name, path in candidates.items():
            table.add_row(name, f"{_difference(path):.2g}")
    Console().print(table)


def _difference(path: Path) -> float:
    """Return the norm of the difference of the first sample's outputs over their norm."""
    session = Session(path)
    entry = session.inputs[0]
    shape = [BATCH, *(size if isinstance(size, int) else 1 for size in entry.shape[1:])]
    pictures = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    pictures[1:] *= BRIGHTER

    def run(feed: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run({entry.name: feed})[session.outputs[0]][0])

    alone, together = run(pictures[:1]), run(pictures)
    return float(np.linalg.norm(together - alone) / np.linalg.norm(alone))


if __name__ == "__main__":
    main()
