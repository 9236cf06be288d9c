"""Draw the MLP of a small BERT's layer: in float, as calls of functions, and with what the functions do; count nodes.

python -m benchmarks.picture --plot docs/graph.png
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import onnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bct_onnx import compress
from passes.report import TOGETHER

MODEL = Path("models/fixtures/bert_optimum.onnx")
# The nodes that the drawn part begins behind and ends with.
BEGIN, END = "/bert/encoder/layer.0/attention/output/LayerNorm/Add_1", "/bert/encoder/layer.0/output/Add"
ACTIVATION, CALL, ONCE = "#ffffff", "#bfdcf5", "#e4e4e4"


def result(nodes: Sequence[onnx.NodeProto], name: str) -> str:
    """Return what a node makes, which is there by itself or together with others."""
    return next(node.output[0] for node in nodes if name in node.name.split(TOGETHER))


def part(nodes: Sequence[onnx.NodeProto], begin: str, end: str) -> list[onnx.NodeProto]:
    """Return what the tensor `end` is computed from behind `begin`, in order."""
    before = {id(node) for node in sources(nodes, begin)}
    return [node for node in sources(nodes, end) if id(node) not in before]


def sources(nodes: Sequence[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """Return all that a tensor is computed from, in order."""
    wanted = {name}
    found = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def rows(nodes: Sequence[onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
    """Return nodes in rows, each above all that read it and as low as that allows."""
    height: dict[int, int] = {}
    for node in reversed(nodes):
        readers = [each for each in nodes if set(node.output).intersection(each.input)]
        height[id(node)] = 1 + max((height[id(each)] for each in readers), default=-1)
    top = max(height.values())
    return [[node for node in nodes if height[id(node)] == top - row] for row in range(top + 1)]


def constant_only(nodes: Sequence[onnx.NodeProto], constants: set[str]) -> set[int]:
    """Return the ids of the nodes that a session computes once."""
    known, once = set(constants), set()
    for node in nodes:
        if known.issuperset(filter(None, node.input)):
            known.update(node.output)
            once.add(id(node))
    return once


def arrows(nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Yield each node with each that reads it."""
    makers = {name: node for node in nodes for name in node.output}
    yield from ((makers[name], node) for node in nodes for name in node.input if name in makers)


def draw(axes: Axes, nodes: Sequence[onnx.NodeProto], constants: set[str], deepest: int) -> None:
    """Draw nodes as boxes in rows, data flowing down; there is room for `deepest` rows."""
    once, place = constant_only(nodes, constants), {}
    for y, row in enumerate(rows(nodes)):
        row.sort(key=lambda node: id(node) in once)  # activations on the left
        place |= {id(node): (x, -y) for x, node in enumerate(row)}
    for maker, reader in arrows(nodes):
        axes.plot(*zip(place[id(maker)], place[id(reader)], strict=True), color="#888888", linewidth=0.7, zorder=1)
    for node in nodes:
        color = CALL if node.domain == "bct_onnx" else ONCE if id(node) in once else ACTIVATION
        box = {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "#444444", "linewidth": 0.6}
        axes.text(*place[id(node)], node.op_type, ha="center", va="center", fontsize=6.5, bbox=box, zorder=2)
    axes.set_ylim(0.5 - deepest, 0.5)
    axes.set_xlim(-0.8, max(x for x, _ in place.values()) + 0.8)
    axes.set_axis_off()


@click.command()
@click.option("--plot", type=click.Path(path_type=Path), help="Picture to write.")
def main(plot: Path | None) -> None:
    """Compress a fixture with small, and draw and count what became of it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        compress(MODEL, folder / "calls.onnx", preset="small")
        compress(MODEL, folder / "inlined.onnx", preset="small", inline=True)
        models = {
            "float": onnx.load(MODEL),
            "small": onnx.load(folder / "calls.onnx"),
            "small --inline": onnx.load(folder / "inlined.onnx"),
        }
    drawn = {}
    # Names of nodes are those of calls, where there are any; inlined, tensors keep theirs.
    named = {"small --inline": models["small"].graph.node}
    for form, model in models.items():
        nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        shown = part(nodes, *(result(named.get(form, nodes), name) for name in (BEGIN, END)))
        made = {name for node in nodes for name in node.output} | {value.name for value in model.graph.input}
        drawn[form] = shown, {name for node in nodes for name in node.input} - made
        print(f"{form:<15} {len(nodes):>4} nodes, {len(shown):>3} of them drawn, {model.ByteSize():>7,} bytes")
    if plot is not None:
        figure = Figure(figsize=(13, 8), layout="constrained")
        widths = [max(map(len, rows(nodes))) + 1.2 for nodes, _ in drawn.values()]
        columns = figure.subplots(1, len(drawn), width_ratios=widths)
        for axes, (form, (nodes, constants)) in zip(columns, drawn.items(), strict=True):
            draw(axes, nodes, constants, max(len(rows(each)) for each, _ in drawn.values()))
            axes.set_title(f"{form}: {len(nodes)} nodes", fontsize=9)
        figure.savefig(plot, dpi=110)


if __name__ == "__main__":
    main()
