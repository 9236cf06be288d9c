"""Export the small random-weight transformers in models/fixtures as torch and optimum write them.

Three exporters (torch's TorchScript and dynamo exporters, optimum-onnx) times eight architectures, built
from a configuration with a fixed seed; nothing is downloaded. Every file is run in ONNX Runtime at sizes it
was not exported with, and torch's exports are compared with the torch model there. The only change to what is
written: the metadata that the dynamo exporter attaches (stack traces, larger than the graph) is removed.
"""

import contextlib
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from optimum.exporters.onnx import onnx_export_from_model
from optimum.exporters.onnx.model_patcher import eager_mask_without_vmap, sdpa_mask_without_vmap
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from bct_onnx.sessions import open_session
from models.fixture_architectures import ARCHITECTURES, FIXTURES, Fixture
from models.fixture_feeds import DTYPES, EXPORT_SIZES, FRAMES, IMAGE, MELS, RUN_SIZES, Dims, make_feeds
from models.fixture_index import describe, write_index

FOLDER = Path(__file__).parent / "fixtures"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2}  # outputs are of order 1
OPTIMUM_FILES = {
    "": "model.onnx",
    "encoder": "encoder_model.onnx",
    "decoder_with_past": "decoder_with_past_model.onnx",
    "decoder_merged": "decoder_model_merged.onnx",
}


def torch_inputs(fixture: Fixture) -> list[tuple[str, type[np.generic], Dims]]:
    """Return (name, dtype, dims) of every input of a torch export, past keys and values last."""
    part = ARCHITECTURES[fixture.architecture].parts[fixture.part]
    real = np.float16 if fixture.dtype is torch.float16 else np.float32
    inputs: list[tuple[str, type[np.generic], Dims]] = [
        (name, np.int64 if name.endswith(("ids", "mask")) else real, dims) for name, dims in part.inputs.items()
    ]
    if part.head:
        past: Dims = ("batch", 2, "past", part.head)
        layers = range(fixture.layers)
        inputs += [(f"past.{layer}.{kind}", real, past) for layer in layers for kind in ("key", "value")]
    return inputs


def group_past(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments of the module: the inputs by name, the past ones as one list."""
    past = [value for name, value in values.items() if name.startswith("past.")]
    arguments = {name: value for name, value in values.items() if not name.startswith("past.")}
    return arguments | ({"past": past} if past else {})


def named_axes(dims: Dims) -> dict[int, str]:
    """Return the axes that vary, with their names."""
    return {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}


def build(fixture: Fixture) -> Any:
    """Return the transformers model with the random weights that it gives itself; the seed is fixed."""
    architecture = ARCHITECTURES[fixture.architecture]
    torch.manual_seed(0)
    layers = dict.fromkeys(architecture.layer_settings, fixture.layers)
    config = architecture.config(**architecture.settings, **layers, attn_implementation=fixture.attention)
    model = architecture.model(config).eval().to(fixture.dtype)
    model.requires_grad_(False)
    return model


@contextlib.contextmanager
def traceable_masks() -> Iterator[None]:
    """Make attention masks without vmap, which TorchScript cannot trace."""
    kept = {name: ALL_MASK_ATTENTION_FUNCTIONS[name] for name in ("eager", "sdpa")}
    ALL_MASK_ATTENTION_FUNCTIONS.register("eager", eager_mask_without_vmap)
    ALL_MASK_ATTENTION_FUNCTIONS.register("sdpa", sdpa_mask_without_vmap)
    try:
        yield
    finally:
        for name, function in kept.items():
            ALL_MASK_ATTENTION_FUNCTIONS.register(name, function)


def export_torch(fixture: Fixture, module: nn.Module, path: Path) -> None:
    """Write the fixture with one of torch's two exporters."""
    part = ARCHITECTURES[fixture.architecture].parts[fixture.part]
    inputs = torch_inputs(fixture)
    example = {name: torch.from_numpy(feed.copy()) for name, feed in make_feeds(inputs, EXPORT_SIZES).items()}
    axes = {name: named_axes(dims) for name, _, dims in inputs}
    present = {name.replace("past", "present"): {0: "batch", 2: "total"} for name in axes if name.startswith("past.")}
    outputs = {name: named_axes(dims) for name, dims in part.outputs.items()} | present
    if fixture.exporter == "dynamo":
        options: dict[str, Any] = {"dynamic_shapes": group_past(axes), "external_data": False}
    else:
        options = {"dynamic_axes": axes | outputs, "dynamo": False}
    options |= {"input_names": list(axes), "output_names": list(outputs), "opset_version": fixture.opset}
    options |= fixture.options
    torch.onnx.export(module, (), path, kwargs=group_past(example), verbose=False, **options)


def strip_metadata(path: Path) -> None:
    """Remove the metadata of nodes, values and graph; external data stays as it is."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
    path.write_bytes(model.SerializeToString())


def export_optimum(fixture: Fixture, model: Any, path: Path) -> None:
    """Write the fixture with optimum; of the files that it makes, keep the fixture's part."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_export_from_model(
            model,
            folder,
            task=ARCHITECTURES[fixture.architecture].task,
            opset=fixture.opset,
            feature_size=MELS,
            nb_max_frames=FRAMES,
            height=IMAGE,
            width=IMAGE,
            **fixture.options,
        )
        shutil.copyfile(Path(folder) / OPTIMUM_FILES[fixture.part], path)


def check(fixture: Fixture, module: nn.Module | None, path: Path) -> None:
    """Run the file at sizes it was not exported with; compare with the torch module where there is one."""
    session = open_session(path)
    entries = [(entry.name, DTYPES[entry.type], tuple(entry.shape)) for entry in session.get_inputs()]
    for values in RUN_SIZES:
        feeds = make_feeds(torch_inputs(fixture) if module else entries, values)
        outputs = session.run(None, {name: feeds[name] for name, *_ in entries})
        if not all(np.isfinite(output).all() for output in outputs):
            raise ValueError("an output is not finite")
        if module is None:
            continue
        result = module(**group_past({name: torch.from_numpy(feed.copy()) for name, feed in feeds.items()}))
        expected = result if isinstance(result, list) else list(result.values())
        for output, tensor in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output, tensor.numpy(), rtol=0, atol=TOLERANCE[fixture.dtype])


def export(fixture: Fixture) -> dict[str, Any]:
    """Write and check the fixture; return its entry of INDEX.json."""
    path = FOLDER / f"{fixture.name}.onnx"
    model = build(fixture)
    module = None
    if fixture.exporter == "optimum":
        export_optimum(fixture, model, path)
    else:
        # eval() on the wrapper too: the exporter puts the model back into the mode that the wrapper was in.
        module = ARCHITECTURES[fixture.architecture].parts[fixture.part].module(model).eval()
        with traceable_masks() if fixture.exporter == "torchscript" else contextlib.nullcontext():
            export_torch(fixture, module, path)
        if fixture.exporter == "dynamo":
            strip_metadata(path)
    check(fixture, module, path)
    return describe(fixture, path)


def main() -> int:
    """Export every fixture; return 1 if one was left out."""
    warnings.simplefilter("ignore")  # tracer warnings of models that are compared with torch anyway
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    index = []
    for fixture in FIXTURES:
        try:
            index.append(export(fixture))
        except Exception as error:  # one exporter's failure, of any kind, must not cost the other files
            for file in FOLDER.glob(f"{fixture.name}.onnx*"):
                file.unlink()
            print(f"left out {fixture.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            print(f"{fixture.name}: opset {index[-1]['opset']}, {index[-1]['bytes']:,} bytes")
    write_index(FOLDER, index)
    print(f"{len(index)} files, {sum(entry['bytes'] for entry in index):,} bytes")
    return int(len(index) < len(FIXTURES))


if __name__ == "__main__":
    sys.exit(main())
