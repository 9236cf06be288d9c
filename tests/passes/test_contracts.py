"""What every pass of the chain keeps to: match changes nothing, and the graph is a graph when it has run."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import passes
from bct_onnx import files
from bct_onnx.errors import BctError
from bct_onnx.opsets import ConversionError, raise_opset
from passes.check import BrokenContractError, check_graph
from passes.graph.new import NewConstant
from tests.helpers import MLP, K, model, random, rewrite

FIXTURES = Path(__file__).parents[2] / "models" / "fixtures"
EVERY = frozenset(map(passes.pass_name, passes.CHAIN))
# Attention as one operator gives way to the passes that compute its parts.
REQUESTS = {
    "fused": {"lowering": "dense", "operators": EVERY - passes.attention.INTEGERS},
    "apart": {"lowering": "shifts", "scales": "shift", "operators": EVERY},
}
NEWEST = 23
every_request = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)


def ranges(source: onnx.ModelProto) -> dict[str, passes.ChannelRange]:
    """Return uneven channels for all that a vector is added to."""
    sizes = {t.name: t.dims[0] for t in source.graph.initializer if len(t.dims) == 1}
    widths = {node.output[0]: sizes[name] for node in source.graph.node for name in node.input if name in sizes}
    peaks = {name: np.linspace(1, 40, width, dtype=np.float32) for name, width in widths.items()}
    rng = np.random.default_rng(0)
    rows = {name: (peak * rng.uniform(-1, 1, (64, len(peak)))).astype(np.float32) for name, peak in peaks.items()}
    return {name: passes.ChannelRange(-peak, np.zeros_like(peak), peak, rows[name]) for name, peak in peaks.items()}


def run_checked(path: Path, **options) -> list[passes.PassReport]:
    """Run passes on a model at the newest opset that it can be brought to."""
    read = files.read(path)
    with suppress(ConversionError):
        read = replace(read, proto=raise_opset(read.proto, NEWEST))
    return passes.run(read.graph(), passes.Options(workers=1, **options), ranges=ranges(read.proto), checked=True)


@every_request
@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.onnx")), ids=lambda path: path.stem)
def test_fixtures(path, request_):
    reports = run_checked(path, **request_)
    assert {report.name for report in reports} == request_["operators"]


@every_request
def test_foreign_graphs(data, request_):
    for path in sorted((data / "zoo").glob("*.onnx")):
        try:
            run_checked(path, **request_)
        except BctError:
            continue  # no model that is read


@pytest.fixture
def graph() -> gs.Graph:
    w, v = gs.Constant("w", random(K, K)), gs.Constant("v", random(K, K, seed=1))
    x, a, y = gs.Variable("x", np.float32, ("m", K)), gs.Variable("a"), gs.Variable("y", np.float32, ("m", K))
    made = [gs.Node("MatMul", inputs=[x, w], outputs=[a]), gs.Node("MatMul", inputs=[a, v], outputs=[y])]
    return gs.Graph(made, inputs=[x], outputs=[y], opset=21)


def unsorted(graph: gs.Graph) -> None:
    graph.nodes.reverse()


def made_twice(graph: gs.Graph) -> None:
    first, second = graph.nodes
    first.outputs[0].name = second.outputs[0].name


def of_no_operator(graph: gs.Graph) -> None:
    graph.nodes[0].op = "MatMull"


def without_an_input(graph: gs.Graph) -> None:
    graph.nodes[0].inputs.pop()


def one_name_for_two(graph: gs.Graph) -> None:
    graph.nodes[0].inputs[1].name = "v"


def stored_twice(graph: gs.Graph) -> None:
    for node in graph.nodes:
        node.inputs[1] = NewConstant(f"{node.outputs[0].name}.scale", np.ones(K, np.float32))


@pytest.mark.parametrize(
    "fault", [unsorted, made_twice, of_no_operator, without_an_input, one_name_for_two, stored_twice]
)
def test_a_graph_that_is_none_is_refused(graph, fault):
    check_graph(graph, "some")
    fault(graph)
    with pytest.raises(BrokenContractError, match="pass some: "):
        check_graph(graph, "some")


def test_a_name_in_two_branches_is_no_fault(tmp_path):
    text = """g (bool c, float[1] x) => (float[1] y) {
        y = If (c) <then_branch = t () => (float[1] a) { z = Neg(x) a = Abs(z) },
                    else_branch = e () => (float[1] b) { z = Abs(x) b = Neg(z) }>
    }"""
    onnx.save(model(text), tmp_path / "in.onnx")
    check_graph(files.read(tmp_path / "in.onnx").graph(), "some")


def swap(_, node, context):  # noqa: ARG001
    node.inputs.reverse()


def rename(_, node, context):  # noqa: ARG001
    node.outputs[0].name += "2"


def write(scope, node, context):
    context.editor.before(scope, node).constant(np.zeros(3, np.float32), "zeros")


def load_values(_, node, context):  # noqa: ARG001
    assert node.inputs[1].values is not None


def report(_, node, context):
    context.report.not_finite.append(node.name)


@pytest.mark.parametrize("change", [swap, rename, write, load_values, report])
def test_a_match_that_changes_something_is_found_out(tmp_path, monkeypatch, change):
    def match(scope, node, context):
        if node.op == "MatMul":
            change(scope, node, context)

    monkeypatch.setattr(passes.matmul, "match", match)
    with pytest.raises(BrokenContractError, match="pass matmul: match changes"):
        rewrite(model(MLP, w=random(K, K), v=random(K, K, seed=1)), tmp_path)
