"""Element types that no graph declares."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest

from passes.graph.follow import find_shapes
from passes.graph.types import element_type, float_types
from passes.graph.walk import walk
from tests.helpers import model

TEXT = """g (float16[n, k] x, uint8[n] codes, int64[m] i, bool[1] c) => (float16[n, k] y) {
  doubled = Add (x, x)
  chosen = Where (c, doubled, x)
  size = Shape (doubled)
  wide = Cast <to = 11> (doubled)
  steps = QuantizeLinear (doubled, x, codes)
  floats = DequantizeLinear (codes, x)
  looked_up = Gather (doubled, i)
  is_nan = IsNaN (doubled)
  filled = ConstantOfShape (size)
  runtime_steps = com.microsoft.QuantizeLinear (doubled, x, codes)
  added = com.microsoft.QLinearAdd (codes, x, codes, codes, x, codes, x, codes)
  bare_gemm = com.microsoft.QGemm (codes, x, codes, codes, x, codes)
  fused = com.microsoft.Unknown (codes, doubled)
  branch = If <then_branch = b () => (float16[n, k] t) { t = Neg (doubled) }, else_branch = b () => (float16[n, k] e)
    { e = Neg (x) }> (c)
  y = Identity (doubled)
}"""
TYPES = {
    "doubled": "float16",
    "chosen": "float16",
    "size": "int64",
    "wide": "float64",
    "steps": "uint8",
    "floats": "float16",
    "looked_up": "float16",
    "is_nan": "bool",
    "filled": "float32",
    "runtime_steps": "uint8",
    "added": "uint8",
    "bare_gemm": "float32",
    "fused": "float16",
    "branch": "float16",
    "t": "float16",
}


@pytest.fixture
def graph() -> gs.Graph:
    graph = gs.import_onnx(model(TEXT))
    find_shapes(graph)
    return graph


def test_types_are_followed_from_what_the_graph_declares(graph: gs.Graph) -> None:
    found = {t.name: element_type(t) for _, node in walk(graph) for t in node.outputs}
    assert {name: found[name] for name in TYPES} == TYPES


def test_float_types_are_the_floats_among_them(graph: gs.Graph) -> None:
    floats = {name: dtype for name, dtype in TYPES.items() if dtype.startswith("float")}
    found = float_types(graph)
    assert {name: found.get(name) for name in TYPES} == {name: floats.get(name) for name in TYPES}


def test_nothing_is_said_of_what_comes_from_nowhere() -> None:
    node = gs.Node("Add", inputs=[gs.Variable("a"), gs.Variable("b")], outputs=[gs.Variable("c")])
    find_shapes(gs.Graph([node]))
    assert element_type(node.outputs[0]) is None
