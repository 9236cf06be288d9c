"""What the documents list is what there is: functions, names of --ops, keys of the report, links."""

import dataclasses
import re
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

import passes
from bct_onnx import compress
from bct_onnx.cli import commands
from bct_onnx.compression.coverage import Coverage, OperatorCoverage
from bct_onnx.fidelity import OutputError
from bct_onnx.presets import PRESETS
from bct_onnx.search import Goal
from bct_onnx.sessions.cost import LoadCosts
from passes.functions import block_matmul
from passes.functions.function import FUNCTIONS
from passes.functions.joined_matmul import joined
from passes.report import EdgeReport, NodeReport, SkippedNode
from tests.helpers import model, random

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# Objects whose keys the model decides.
MAPS = ("options.bits_for", "verification.outputs", "verification.latency.shapes", "coverage.shapes")
MAP_IN_LIST = "search.weights[].errors"


def page(name):
    return (ROOT / "docs" / name).read_text()


def rows(text):
    """Yield the cells of the rows of all tables."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_function_is_in_the_format():
    table = {cells[0]: " ".join(cells[1:4]) for cells in rows(page("format.md")) if len(cells) == 5}
    patterns = {pattern: said for names, said in table.items() for pattern in re.findall(r"`([^`]+)`", names)}
    joined(block_matmul.INT8, ("2Trellis", "8"))
    for name, function in FUNCTIONS.items():
        (pattern,) = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
        said = set(re.findall(r"`(\w+)`", patterns[pattern]))
        # Those of parts have numbers; planes and their turn are called codes.
        number = r"\d+$" if name.startswith("BlockMatMulJoined") else "$"
        named = [re.sub(number, "", each) for each in function.inputs.split(", ")]
        inputs = {each for each in named if not re.fullmatch(r"(codes|rows)\d*", each)}
        planes = len(inputs) < len(named)
        assert said >= inputs - {"codes"} - ({"turn"} if planes else set())
        assert said >= {re.sub(number, "", each) for each in function.attributes}
    for pattern in patterns:
        assert any(fnmatchcase(name, pattern) for name in FUNCTIONS), pattern


def test_every_name_of_ops_is_explained():
    table = {cells[0].strip("`"): cells[1:] for cells in rows(page("operators.md")) if len(cells) == 4}
    assert list(table) == [passes.pass_name(each) for each in passes.CHAIN]
    for each in passes.CHAIN:
        said, where, _ = table[passes.pass_name(each)]
        assert said == passes.describe(each)
        assert (where == "`paper`") == (passes.pass_name(each) not in PRESETS["fast"].operators)


def test_help_lists_every_name_of_ops():
    said = CliRunner().invoke(commands, ["compress", "--help"]).output
    for each in passes.CHAIN:
        assert re.search(rf"^ +{passes.pass_name(each)} +{re.escape(passes.describe(each))}$", said, re.MULTILINE)


def keys(value, path=""):
    """Yield the keys of JSON data: entries of lists are [], keys that the model decides {}."""
    if isinstance(value, dict):
        for key, inner in value.items():
            named = "{}" if path in (*MAPS, MAP_IN_LIST) else key
            yield from keys(inner, f"{path}.{named}" if path else named)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from keys(inner, f"{path}[]")
    else:
        yield path


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report that has everything."""
    folder = tmp_path_factory.mktemp("report")
    weights = {"w": random(64, 64), "v": random(64, 64, seed=1), "b": random(8)}
    text = "g (float[m, 64] x) => (float[m, 64] y) { h = MatMul(x, w) t = Tanh(h) y = MatMul(t, v) }"
    onnx.save(model(text, w=weights["w"], v=weights["v"]), folder / "in.onnx")
    found = compress(folder / "in.onnx", folder / "out.onnx", max_drop=0.5)
    assert found.search is not None
    assert found.verification is not None
    error = OutputError(
        **dict.fromkeys((each.name for each in dataclasses.fields(OutputError)), 1.0)
        | {"kind": "values", "by_feed": (1.0,)}
    )
    row = OperatorCoverage("MatMul", 1, 1, 0, 0, 0, 1.0, 1.0)
    coverage = Coverage(
        1, 1, 0, 1, {"x": (1,)}, (row,), (NodeReport("n", "Add", "left"),), (EdgeReport("t", "Add", "left"),)
    )
    goals = [Goal(max_drop=1), Goal(target_ratio=1), Goal(target_bytes=1), Goal(plain_bytes=True)]
    skipped = passes.PassReport("matmul", skipped=[SkippedNode("n", "why", ("w",))])
    return [
        dataclasses.replace(
            found,
            options=dataclasses.replace(
                found.options, keep=("w",), bits_for={"w": 4}, lacks=frozenset([next(iter(passes.Feature))])
            ),
            notes=("a note",),
            passes=(*found.passes, skipped),
            left=(passes.LeftInFloat("b", 1, "Add", "n", "why"),),
            memory=LoadCosts(1, 1, 1.0, 1.0),
            coverage=coverage,
            search=dataclasses.replace(found.search, goal=goal),
            verification=dataclasses.replace(
                found.verification, outputs={"y": error}, mismatches={"y": "differs"}, random=("z",)
            ),
        )
        for goal in goals
    ]


def test_every_key_of_the_report_is_documented(report):
    documented = {key for cells in rows(page("json.md")) for key in re.findall(r"`([^`]+)`", cells[0])}
    assert {key for each in report for key in keys(each.to_dict())} == documented


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(#[^)\s]+)?\)", path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_modules_that_commands_name_exist(path):
    for name in set(re.findall(r"python -m ((?:bct_onnx|benchmarks|models)(?:\.\w+)*)", path.read_text())):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_pages_name_exist(path):
    for name in re.findall(r"`((?:bct_onnx|passes|benchmarks|tests|docs)/[\w/.]*)`", path.read_text()):
        assert (ROOT / name).exists(), name
