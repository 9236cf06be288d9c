"""Facts about operators stand in their table alone."""

import ast
from pathlib import Path

import onnx

from passes.graph.operators import OPERATORS

ROOT = Path(__file__).parents[3]
NAMES = {schema.name for schema in onnx.defs.get_all_schemas()} | {name.rpartition(".")[2] for name in OPERATORS}
TABLE = ROOT / "passes/graph/operators/table.py"
# Modules of an operator's own folder: its name says more.
PARTS = ("form", "function", "rewrite")
# Three names together are a table. These are none of facts: each with what it is.
OTHERS = {
    "flow.BOUNDS": "a choice: what is bounded is taken for the same value",
    "flow._bind": "operators with bodies",
    "flow._results": "operators with bodies",
    "roles._ADDITIVE_USES": "what inputs are for",
    "roles._MASK_USES": "what inputs are for",
    "roles._TOKEN_USES": "what inputs are for",
    "roles._WEIGHT_USES": "what inputs are for",
    "work.PRODUCTS": "a choice: products whose work is counted",
    "activation_matmul.FLOAT_KERNELS": "a choice: what is reported, not rewritten",
    "attention.FOLLOWED": "what a runtime follows",
    "attention._unrepeated": "a form",
    "attention._has_finite": "a choice: between a mask and what makes it",
    "channels.AFTER_STATISTICS": "a form",
    "channels.BETWEEN": "a choice: what leaves channels about as large as they were",
    "channels._mixes": "a form",
    "constant.CARRIERS": "a choice: how far a small error is followed",
    "constant.PRECISE_READERS": "a choice: where float16 is tested on each value",
    "fold.DECODERS": "a choice: what is not folded",
    "products._FUNCTIONS": "attributes of a fused operator",
    "constants._FOLLOWED": "functions of views",
    "gelu._CURVES": "forms",
    "gelu._ONE_NODE": "forms",
    "layer_normalization._CENTERED": "forms",
    "layer_normalization._continues": "forms",
    "layer_normalization.match_normalization": "forms",
    "softmax.FUSED": "reasons that reports give",
    "unfuse._FORMS": "forms",
}


def tables():
    for path in sorted([*(ROOT / "passes").rglob("*.py"), *(ROOT / "bct_onnx").rglob("*.py")]):
        for statement in ast.parse(path.read_text()).body:
            named = [statement, *getattr(statement, "targets", [])]
            name = next((getattr(each, key) for each in named for key in ("id", "name") if hasattr(each, key)), None)
            name = name or getattr(getattr(statement, "target", None), "id", "")
            if path != TABLE and any(map(is_table, ast.walk(statement))):
                yield f"{path.parent.name if path.stem in PARTS else path.stem}.{name}"


def is_table(node):
    return isinstance(node, ast.Set | ast.Tuple | ast.List | ast.Dict) and len(set(operators_in(node))) >= 3


def operators_in(node):
    """Yield the operators that a display lists, with others in tuples or one by one."""
    for each in node.keys if isinstance(node, ast.Dict) else node.elts:
        inner = each.value if isinstance(each, ast.Starred) else each
        if isinstance(inner, ast.Tuple):
            yield from operators_in(inner)
        elif isinstance(inner, ast.Constant) and str(inner.value).rpartition(".")[2] in NAMES:
            yield inner.value


def test_no_other_table_has_facts_about_operators():
    assert set(tables()) == OTHERS.keys()
