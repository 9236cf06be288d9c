"""Compressed files in the hosts of JavaScript: the answers that ONNX Runtime gives in Python.

`make test-hosts` installs the npm packages of package.json and runs this.
"""

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bct_onnx import compress
from bct_onnx.sessions import Options, open_session
from bct_onnx.verify import run_reference
from benchmarks.javascript import find_browser, run_in_browser, run_in_node
from passes.graph import turns
from passes.lowerings import packed_rows
from tests.helpers import nodes, relative_error

HERE = Path(__file__).parent
FIXTURES = HERE.parents[1] / "models" / "fixtures"
ENCODER, DECODER, MERGED = "bert_optimum", "llama_torchscript", "t5_decoder_merged_optimum"
PRESETS = {ENCODER: ("fast", "balanced", "small", "portable", "paper"), DECODER: ("fast", "small"), MERGED: ("small",)}
PACKAGES = ("onnxruntime-node", "onnxruntime-web")
SECONDS = 300
# WebAssembly adds in another order.
NEAR = 1e-5
# So an activation is rounded to the next of its 256 codes now and then; what a decoder says of later words hangs on it.
FAR = 1e-2
DEFAULTS: dict[str, str] = {}
# Of products that the runtime makes of blockwise DequantizeLinear.
FLOAT_ACTIVATIONS = {"session.qdq_matmulnbits_accuracy_level": "0"}

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Hosted:
    """A folder that all hosts load from, and by file its outputs for every feed, in Python.

    Products of packed weights (MatMulNBits) may round activations to int8: native kernels do, WebAssembly never does.
    """

    folder: Path
    native: dict[str, list[Outputs]] = field(default_factory=dict)
    wasm: dict[str, list[Outputs]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def hosted(node_modules, tmp_path_factory) -> Hosted:
    """Compress the models and write what the hosts load."""
    if missing := [name for name in PACKAGES if not (node_modules / name).is_dir()]:
        pytest.skip(f"no {' and '.join(missing)} in {node_modules} (make test-hosts, or npm install)")
    made = Hosted(tmp_path_factory.mktemp("hosts"))
    feeds, web = {}, {}
    for fixture, presets in PRESETS.items():
        source = FIXTURES / f"{fixture}.onnx"
        # Several lengths of text and cache; both branches of an If.
        made_feeds = run_reference(source, onnx.load(source)).feeds
        inputs = [{name: np.asarray(value) for name, value in feed.items()} for feed in made_feeds]
        packed = [{name: pack(value) for name, value in feed.items()} for feed in inputs]
        wishes = {preset: {"preset": preset} for preset in presets}
        for form, wish in (wishes | {"web": {"preset": "small", "target_runtime": "web"}}).items():
            file = f"{fixture}.{form}.onnx"
            with pytest.MonkeyPatch.context() as patch:
                # As in large models, weights take turns to be decoded, and tables stay packed.
                patch.setattr(turns, "SMALLEST_BYTES", 0)
                patch.setattr(packed_rows, "SMALLEST_CODES", 0)
                compress(source, made.folder / file, verify=False, **wish)
            proto = onnx.load(made.folder / file)
            made.native[file] = answers(proto, inputs)
            made.wasm[file] = answers(without_int8(proto), inputs, FLOAT_ACTIVATIONS)
            feeds[file] = packed
        web[file] = packed
    (made.folder / "feeds.json").write_text(json.dumps(feeds), encoding="utf-8")
    (made.folder / "feeds_web.json").write_text(json.dumps(web), encoding="utf-8")
    (made.folder / "node_modules").symlink_to(node_modules.resolve())
    for name in ("answer.mjs", "node.mjs", "wasm.mjs", "page.html"):
        shutil.copy(HERE / name, made.folder)
    return made


def pack(array: np.ndarray) -> dict[str, Any]:
    return {"type": array.dtype.name, "dims": array.shape, "data": base64.b64encode(array.tobytes()).decode()}


def unpack(tensor: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(tensor["data"]), tensor["type"]).reshape(tensor["dims"])


def answers(proto: onnx.ModelProto, feeds: list[Outputs], settings: Mapping[str, str] = DEFAULTS) -> list[Outputs]:
    """Return a model's outputs for every feed, with default options but for the settings."""
    session = open_session(proto.SerializeToString(), Options(entries=settings))
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, feed), strict=True)) for feed in feeds]


def without_int8(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with MatMulNBits that takes activations as they are, in bodies and functions, too."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for attribute in attributes(copy):
        if attribute.name == "accuracy_level" and not attribute.ref_attr_name:
            attribute.i = 0
    return copy


def attributes(proto: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    for graph in (proto.graph, *proto.functions):
        for node in nodes(graph):
            yield from node.attribute
    for function in proto.functions:
        yield from function.attribute_proto


def check(found: dict[str, Any], wanted: dict[str, list[Outputs]], files: set[str]) -> None:
    """Hold a host's answers to those in Python: near for most feeds, and not far away for any."""
    assert found.keys() == files
    for file, answered in found.items():
        assert isinstance(answered, list), f"{file}: {answered}"
        assert [outputs.keys() for outputs in answered] == [outputs.keys() for outputs in wanted[file]]
        for name in wanted[file][0]:
            pairs = zip(answered, wanted[file], strict=True)
            errors = [apart(unpack(outputs[name]), expected[name]) for outputs, expected in pairs]
            print(f"{file:36} {name:26}", *(f"{error:.1e}" for error in errors))
            assert np.quantile(errors, 0.5, method="lower") <= NEAR, (file, name)
            assert max(errors) <= FAR, (file, name)


def apart(answer: np.ndarray, expected: np.ndarray) -> float:
    """Return by how much an output differs, as a share of it; a cache that starts empty has no values."""
    assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)
    return relative_error(answer, expected) if expected.size else 0.0


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser() or pytest.skip("no browser (apt-get install chromium)")


def test_onnxruntime_node(hosted):
    check(run_in_node(hosted.folder, "node.mjs", SECONDS), hosted.native, set(hosted.native))


def test_onnxruntime_web_in_node(hosted):
    check(run_in_node(hosted.folder, "wasm.mjs", SECONDS), hosted.wasm, set(hosted.wasm))


@pytest.mark.parametrize(
    ("bundle", "feeds", "files"),
    [
        ("ort.wasm.bundle.min.mjs", "feeds.json", ""),
        # Has no int4; Transformers.js loads it, and `--target web` is made for it.
        ("ort.webgpu.bundle.min.mjs", "feeds_web.json", ".web."),
    ],
)
def test_onnxruntime_web_in_chromium(browser, hosted, bundle, feeds, files):
    found = run_in_browser(hosted.folder, f"page.html?bundle={bundle}&feeds={feeds}", browser, SECONDS)
    check(found, hosted.wasm, {file for file in hosted.wasm if files in file})
