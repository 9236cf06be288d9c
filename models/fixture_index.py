"""What INDEX.json and README.md say about the exporter fixtures."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bct_onnx import files
from bct_onnx.sessions import open_session
from models.fixture_architectures import ARCHITECTURES, Fixture
from models.fixture_feeds import DTYPES, EXPORT_SIZES, VOCABULARY, make_feeds

README = Path(__file__).parent / "README.md"
README_MARKS = ("<!-- fixtures: begin -->\n", "<!-- fixtures: end -->\n")


def count_weight_nodes(graph: onnx.GraphProto, outer: Mapping[str, int]) -> int:
    """Count MatMul and Gemm with a constant matrix, subgraphs too; outer maps outer constants to ranks."""
    ranks = dict(outer) | {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    count = 0
    for node in graph.node:
        values = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in values:
            ranks[node.output[0]] = len(values["value"].t.dims)
        elif node.op_type in {"Transpose", "Cast", "Identity"} and node.input[0] in ranks:
            ranks[node.output[0]] = ranks[node.input[0]]
        elif node.op_type in {"MatMul", "Gemm"}:
            count += any(ranks.get(name) == 2 for name in node.input[:2])
        count += sum(count_weight_nodes(value.g, ranks) for value in values.values() if value.HasField("g"))
    return count


def has_transposed_copy(graph: onnx.GraphProto) -> bool:
    """Tell whether the file holds the table of tokens a second time, transposed."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if VOCABULARY in tensor.dims]
    tables = [array for array in arrays if array.ndim == 2]
    return any(np.array_equal(a, b.T) for a, b in itertools.combinations(tables, 2))


def describe(fixture: Fixture, path: Path) -> dict[str, Any]:
    """Return the entry of INDEX.json: facts read from the file, and what the architecture says."""
    model = onnx.load(path)
    session = open_session(path)
    entries = [(entry.name, DTYPES[entry.type], tuple(entry.shape)) for entry in session.get_inputs()]
    example = make_feeds(entries, EXPORT_SIZES)
    return {
        "name": fixture.name,
        "file": path.name,
        "architecture": fixture.architecture,
        "part": fixture.part,
        "exporter": fixture.exporter,
        "attention": fixture.attention,
        "layers": fixture.layers,
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "inputs": [
            {"name": name, "dtype": np.dtype(dtype).name, "shape": dims, "example": example[name].shape}
            for name, dtype, dims in entries
        ],
        "outputs": [entry.name for entry in session.get_outputs()],
        "weight_nodes": count_weight_nodes(model.graph, {}),
        "has_past": any(name.startswith("past") for name, *_ in entries),
        "tied": ARCHITECTURES[fixture.architecture].tied and fixture.part != "encoder",
        "tied_table_copied": has_transposed_copy(model.graph),
        "external_data": [file.name for file in sorted(path.parent.glob(f"{path.name}.*"))],
        "bytes": files.bytes_on_disk(path),
    }


def write_readme(index: list[dict[str, Any]]) -> None:
    """Replace the table of README.md between its two marks."""
    rows = ["| file | architecture | exporter | opset | inputs | bytes |", "|---|---|---|---|---|---|"]
    for entry in index:
        inputs = [item for item in entry["inputs"] if not item["name"].startswith("past")]
        text = ", ".join(f"{item['name']} {list(item['shape'])}".replace("'", "") for item in inputs)
        past = len(entry["inputs"]) - len(inputs)
        text += f", {past} past keys and values" if past else ""
        architecture = f"{entry['architecture']} {entry['part'].replace('_', ' ')}".strip()
        cells = (entry["file"], architecture, entry["exporter"], entry["opset"], text, f"{entry['bytes']:,}")
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    before, rest = README.read_text(encoding="utf-8").split(README_MARKS[0])
    after = rest.split(README_MARKS[1])[1]
    table = "\n".join(rows) + "\n"
    README.write_text(README_MARKS[0].join((before, table)) + README_MARKS[1] + after, encoding="utf-8")


def write_index(folder: Path, index: list[dict[str, Any]]) -> None:
    """Write INDEX.json, a line for each file, and the table of README.md."""
    lines = ",\n".join(json.dumps(entry) for entry in index)
    (folder / "INDEX.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    write_readme(index)
