"""Error of each operator alone against float64, on wide random inputs and edge values, beside its stated bound.

python -m benchmarks.operators [--json FILE]
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import passes
from bct_onnx import files
from bct_onnx.sessions import Session
from passes.activation_matmul.function import bound as product_bound
from passes.functions.quantize_blocks import CODE_TYPES, SMALLEST_PEAK
from passes.gelu.function import CURVES
from passes.gelu.function import table as function_table
from passes.layer_normalization.form import normalized
from passes.layer_normalization.function import Rows
from passes.layer_normalization.function import bound as normalization_bound
from passes.relu_squared import bound as relu_squared_bound
from passes.softmax.function import ENTRY_BOUND, GRID_BOUND

Array = NDArray[Any]
Feeds = Mapping[str, Array]
INF = np.inf
# What float32 itself rounds, beside a bound.
ROUNDING = 2e-6
BLOCK = 32


@dataclass(frozen=True)
class Operator:
    """An operator that one pass rewrites.

    Attributes:
        name: what the table calls it.
        options: request that rewrites it.
        text: a graph of it alone, in ONNX's text form, with output y.
        reference: what it computes, in float64.
        bound: largest error it states, an array that broadcasts against the output.
        feeds: feeds by what they are.
    """

    name: str
    options: passes.Options
    text: str
    reference: Callable[..., Array]
    bound: Callable[..., Array]
    feeds: Callable[[], Iterator[tuple[str, Feeds]]]


@dataclass(frozen=True)
class Result:
    """The largest error of one operator on one feed, the bound there, and the largest error over its own bound."""

    operator: str
    feed: str
    error: float
    bound: float
    used: float


def normal(*shape: int, seed: int = 0, spread: float = 0.0) -> Array:
    """Return normal numbers, rows of sizes that differ by exp(spread)."""
    rng = np.random.default_rng(seed)
    rows = np.exp(spread * rng.standard_normal((*shape[:-1], 1)))
    return np.asarray(rng.standard_normal(shape) * rows, np.float32)


def rows() -> Iterator[tuple[str, Array]]:
    """Yield inputs that any operator along the last axis has to stand."""
    yield "normal", normal(64, 768)
    yield "rows of very different sizes", normal(64, 768, spread=4)
    yield "width 8192", normal(8, 8192)
    yield "width 33", normal(64, 33)
    yield "one element a row", normal(64, 1)
    yield "zeros", np.zeros((4, 64), np.float32)
    yield "all equal", np.full((4, 64), 3.7, np.float32)
    yield "denormals", normal(4, 64) * np.float32(1e-41)
    yield "1e30", normal(4, 64) * np.float32(1e29)


def softmax(x: Array) -> Array:
    """Return the softmax along the last axis."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(x - x.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True))


def softmax_feeds() -> Iterator[tuple[str, Feeds]]:
    """Yield scores, masked ones too."""
    for name, x in rows():
        yield name, {"x": x}
        if name == "normal":
            yield "scores to 30", {"x": x * 10}
            masked = np.where(np.arange(768) % 3 > 0, x, -INF).astype(np.float32)
            masked[0] = -INF
            yield "masked, one row wholly", {"x": masked}


ACTIVATIONS = {
    "gelu": "y = Gelu (x)",
    "gelu_tanh": 'y = Gelu <approximate = "tanh"> (x)',
    "quick_gelu": "k = Constant <value = float {1.702}> () a = Mul (x, k) s = Sigmoid (a) y = Mul (x, s)",
    "silu": "s = Sigmoid (x) y = Mul (x, s)",
}


def activation(kind: str, x: Array) -> Array:
    """Return a function of Gelu's kind, its limit 0 at minus infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(np.isneginf(x), 0, CURVES[kind](x))


def activation_feeds() -> Iterator[tuple[str, Feeds]]:
    """Yield numbers from all of the real line."""
    yield from ((name, {"x": x}) for name, x in rows() if name in ("normal", "zeros", "denormals", "1e30"))
    yield "-20 to 20", {"x": np.linspace(-20, 20, 200001, dtype=np.float32)[None]}
    yield "infinities", {"x": np.array([[INF, -INF, 3.4e38, -3.4e38]], np.float32)}


# The scale is 1, whose 8-bit codes err by at most half a step of 127.
SCALE_BOUND = 1 / 254


def normalization(op: str, epsilon: float, width: int) -> Operator:
    """Return a normalization of rows of one width."""
    parameters = Rows(width, BLOCK, epsilon, centered=op == "LayerNormalization")

    def bound(x: Array) -> Array:
        z = np.abs(normalized(x, epsilon, parameters.centered))
        return np.asarray(normalization_bound(x, parameters) + z * (SCALE_BOUND + ROUNDING) + 10 * ROUNDING)

    ones = ", ".join(["1"] * width)
    return Operator(
        f"{op.removesuffix('Normalization')} {width} {epsilon:g}",
        only("layer_normalization"),
        f"g (float[m, {width}] x) => (float[m, {width}] y) <float[{width}] scale = {{{ones}}}>"
        f" {{ y = {op} <epsilon = {epsilon:.13f}> (x, scale) }}",
        lambda x: normalized(x, epsilon, parameters.centered),
        bound,
        lambda: normalization_feeds(width),
    )


def normalization_feeds(width: int) -> Iterator[tuple[str, Feeds]]:
    """Yield rows of one width; their squares fit float32, beyond that the float operator overflows, too."""
    x = normal(64, width)
    yield "normal", {"x": x}
    yield "rows of very different sizes", {"x": normal(64, width, spread=4)}
    yield "an outlier of 100", {"x": x * np.where(np.arange(width) == width // 2, 100, 1).astype(np.float32)}
    yield "10 away from zero", {"x": x + np.float32(10)}
    yield "zeros", {"x": x * 0}
    yield "all equal", {"x": x * 0 + np.float32(3.7)}
    yield "denormals", {"x": x * np.float32(1e-41)}


def product_feeds() -> Iterator[tuple[str, Feeds]]:
    """Yield pairs of matrices of the same inner length."""
    for name, x in rows():
        if name != "1e30":
            yield name, {"a": x[None, None], "b": normal(1, 1, x.shape[1], 48, seed=1)}
    yield "heads", {"a": normal(2, 12, 128, 64), "b": normal(2, 12, 64, 128, seed=1)}


def product_limit(a: Array, b: Array) -> Array:
    """Return the bound of each element of a product."""
    peaks = np.abs(a).max(-1, keepdims=True) * np.abs(b).max(-2, keepdims=True)
    return np.asarray((product_bound(a.shape[-1]) + ROUNDING) * peaks + 1e-37)


def block_peaks(x: Array) -> Array:
    """Return the largest magnitude of each value's block."""
    k = x.shape[-1]
    padded = np.pad(np.abs(x), [(0, 0)] * (x.ndim - 1) + [(0, -k % BLOCK)])
    peaks = padded.reshape(*x.shape[:-1], -1, BLOCK).max(-1)
    return np.asarray(np.repeat(peaks, BLOCK, -1)[..., :k])


def only(*names: str, **options: Any) -> passes.Options:
    """Return the request that runs some passes and no others."""
    return passes.Options(operators=frozenset(names), block_size=BLOCK, **options)


def operators() -> Iterator[Operator]:
    """Yield the operators in the order of the table."""
    yield Operator(
        "softmax",
        only("softmax"),
        "g (float[m, n] x) => (float[m, n] y) { y = Softmax <axis = -1> (x) }",
        softmax,
        lambda x: np.asarray(GRID_BOUND + x.shape[-1] * ENTRY_BOUND + ROUNDING),
        softmax_feeds,
    )
    for kind, text in ACTIVATIONS.items():
        yield Operator(
            kind,
            only("gelu"),
            f"g (float[m, n] x) => (float[m, n] y) {{ {text} }}",
            lambda x, kind=kind: activation(kind, x),
            lambda x, kind=kind: np.full_like(x, function_table(kind).bound + ROUNDING),
            activation_feeds,
        )
    yield Operator(
        "relu squared",
        only("relu_squared"),
        "g (float[m, n] x) => (float[m, n] y) { r = Relu (x) y = Mul (r, r) }",
        lambda x: np.square(np.maximum(x, 0)),
        lambda x: np.asarray(relu_squared_bound(x, BLOCK) * (1 + ROUNDING) + SMALLEST_PEAK),
        lambda: ((name, {"x": x}) for name, x in rows() if name != "1e30"),
    )
    for op in ("LayerNormalization", "SimplifiedLayerNormalization"):
        for width in (1, 33, 768, 8192):
            yield normalization(op, 1e-5, width)
        yield normalization(op, 1e-12, 768)
    for lowering in ("dense", "qdq"):
        yield Operator(
            f"product of activations ({lowering})",
            only("activation_matmul", lowering=lowering),
            "g (float[b, h, m, k] a, float[b, h, k, n] b) => (float[b, h, m, n] y) { y = MatMul (a, b) }",
            lambda a, b: np.asarray(a @ b),
            product_limit,
            product_feeds,
        )
    for name, code in CODE_TYPES.items():
        yield Operator(
            f"intermediate result ({name})",
            only("intermediates", activations=name),
            "g (float[m, n] x) => (float[m, n] y) { d = Identity (x) y = Neg (d) }",
            lambda x: -x,
            lambda x, bound=code.bound: np.asarray((bound + ROUNDING) * block_peaks(x) + SMALLEST_PEAK),
            lambda: ((name, {"x": x}) for name, x in rows()),
        )


def measure(operator: Operator) -> Iterator[Result]:
    """Rewrite the operator and yield its error on every feed."""
    with TemporaryDirectory() as folder:
        session = _rewritten(operator, Path(folder))
    for name, feeds in operator.feeds():
        (y,) = session.run(feeds).values()
        wide = {key: array.astype(np.float64) for key, array in feeds.items()}
        expected = operator.reference(**wide)
        if not np.array_equal(np.isnan(y), np.isnan(expected)):
            yield Result(operator.name, name, INF, 0, INF)
            continue
        with np.errstate(invalid="ignore"):  # infinity less infinity, where both are right
            error = np.nan_to_num(np.abs(y - expected))
        bound = np.broadcast_to(operator.bound(**wide), error.shape)
        yield Result(operator.name, name, float(error.max()), float(bound.max()), float((error / bound).max()))


def _rewritten(operator: Operator, folder: Path) -> Session:
    source, target = folder / "source.onnx", folder / "rewritten.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {operator.text}'), source)
    model = files.read(source)
    graph = model.graph()
    reports = passes.run(graph, operator.options)
    if not any(report.replaced for report in reports):
        raise SystemExit(f"{operator.name}: nothing was rewritten")
    files.write(graph, model, target)
    return Session(target)


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result as data too.")
def main(json_file: Path | None) -> None:
    """Print the largest error of every operator beside its bound; exit 1 where one is broken."""
    results = [result for operator in operators() for result in measure(operator)]
    table = Table("operator", "input", "largest error", "bound there", "of its own bound")
    for result in results:
        table.add_row(result.operator, result.feed, f"{result.error:.3g}", f"{result.bound:.3g}", f"{result.used:.0%}")
    Console(width=120).print(table)
    if json_file is not None:
        files.write_json(json_file, [asdict(result) for result in results])
    raise SystemExit(any(result.used > 1 for result in results))


if __name__ == "__main__":
    main()
