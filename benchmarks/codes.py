"""Errors of codes at the same bytes, for the weights of a model: codes that stand for themselves, and in a trellis.

python -m benchmarks.codes MODEL.onnx [--block-size 8] [--weights 4] [--columns 96] [--workers 1]
"""

import time
from collections.abc import Iterator

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

from passes.formats.block import BlockFormat, BlockTensor
from passes.formats.encode import encode
from passes.formats.trellis import WIDTHS

SMALLEST = 1 << 14


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.option("--block-size", default=8, show_default=True)
@click.option("--weights", default=4, show_default=True, help="As many of the model's, evenly picked.")
@click.option("--columns", default=96, show_default=True, help="As many of each, evenly picked.")
@click.option("--workers", default=1, show_default=True)
def main(model: str, block_size: int, weights: int, columns: int, workers: int) -> None:
    """Print the signal to noise ratio in decibels and the speed of encoding by width."""
    table = Table("bits", "themselves, dB", "trellis, dB", "gain, dB", "million weights a second", title=model)
    found = list(_weights(onnx.load(model), weights, columns))
    for bits in WIDTHS:
        fmt = BlockFormat.best(bits, block_size)
        plain = _mean([encode(weight, fmt.uniform, workers) for weight in found])
        start = time.perf_counter()
        best = _mean([encode(weight, fmt, workers) for weight in found])
        speed = sum(weight.size for weight in found) / (time.perf_counter() - start) / 1e6
        table.add_row(str(bits), f"{plain:.2f}", f"{best:.2f}", f"{best - plain:+.2f}", f"{speed:.1f}")
    Console().print(table)


def _weights(model: onnx.ModelProto, count: int, columns: int) -> Iterator[NDArray[np.float32]]:
    """Yield some columns of weights that are multiplied, [k, columns], evenly picked of all."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants]
    matrices = []
    for node in products:
        dims = constants[node.input[1]].dims
        if len(dims) == 2 and np.prod(dims) >= SMALLEST:
            turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            matrices.append((node.input[1], turned))
    for place in np.linspace(0, len(matrices) - 1, min(count, len(matrices))).astype(int):
        name, turned = matrices[place]
        matrix = numpy_helper.to_array(constants[name]).astype(np.float32)
        matrix = matrix.T if turned else matrix
        picked = np.unique(np.linspace(0, matrix.shape[1] - 1, columns).astype(int))
        yield np.ascontiguousarray(matrix[:, picked])


def _mean(tensors: list[BlockTensor]) -> float:
    return float(np.mean([tensor.sqnr_db for tensor in tensors]))


if __name__ == "__main__":
    main()
