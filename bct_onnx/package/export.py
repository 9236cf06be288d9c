"""From a checkpoint of transformers to a folder of ONNX files, by optimum's own exporter (extra `export`)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError, first_line
from bct_onnx.extras import extra

INSTALL = "pip install 'bct-onnx[export]'"
PAST = "-with-past"
# What nearly every model can do besides the task it was trained for.
_GENERAL = ("feature-extraction", "fill-mask")
# What a checkpoint on the hub often holds besides, large and of no use here.
_NOT_FETCHED = ("*.onnx*", "*.h5", "*.msgpack", "*.gguf", "*.tflite", "*.ot", "openvino/*", "coreml/*")


def exporter_is_installed() -> bool:
    """Tell whether what exports and runs pipelines is there."""
    try:
        return all(map(importlib.util.find_spec, ("torch", "transformers", "optimum.exporters.onnx")))
    except ModuleNotFoundError:  # the package that the module would be in
        return False


def library(module: str) -> Any:
    """Return a module of the extra `export`; raises BctError where it is absent."""
    return extra(module, "export", "which exports checkpoints")


def download(name: str) -> Path:
    """Return the folder of a checkpoint of the hub, fetched where it is not in the cache; raises BctError."""
    if not exporter_is_installed():
        raise BctError(f"{name}: is no file or folder here; to fetch a checkpoint of the hub: {INSTALL}")
    try:
        with silence():
            return Path(library("huggingface_hub").snapshot_download(name, ignore_patterns=list(_NOT_FETCHED)))
    except Exception as error:  # whatever the hub's client and its transport raise
        raise BctError(
            f"{name}: is no file or folder here, and the hub does not give it: {first_line(error)}"
        ) from error


def export(checkpoint: Path, folder: Path, task: str) -> None:
    """Export a local checkpoint or one of the hub into a new folder, its tokenizer and processor too.

    Raises BctError where the exporter cannot.
    """
    exporter = library("optimum.exporters.onnx")
    tasks = library("optimum.exporters.tasks").TasksManager
    try:
        with silence():
            kind = tasks.infer_library_from_model(str(checkpoint))
            # As sentence-transformers itself exports: it pools outside of the model.
            kind = "transformers" if kind == "sentence_transformers" else kind
            # The exporter's own comparison is left out: the end-to-end check compares with what it made.
            exporter.main_export(
                str(checkpoint), output=folder, task=task, library_name=kind, device="cpu", do_validation=False
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever transformers, torch and optimum raise
        raise BctError(f"{checkpoint}: cannot be exported for {task}: {first_line(error)}") from error


def find_task(checkpoint: str, config: Mapping[str, Any]) -> str:
    """Return the task, in optimum's words, of the architecture that a config.json names.

    With past keys and values where the exporter can. Raises BctError where no task or more than one fits.
    """
    library("optimum.exporters.onnx.model_configs")  # tells the manager what it can export
    tasks = library("optimum.exporters.tasks").TasksManager
    kind, names = config.get("model_type", ""), config.get("architectures") or []
    try:
        known = tasks.get_supported_tasks_for_model_type(kind, "onnx", library_name="transformers")
    except (KeyError, ValueError) as error:
        raise BctError(
            f"{checkpoint}: the exporter does not know models of type {kind!r}; export it by other means"
        ) from error
    classes = tasks._TRANSFORMERS_TASKS_TO_MODEL_MAPPINGS
    fitting = [task for task in known if task in classes and classes[task].get(kind) in names]
    special = [task for task in fitting if task not in _GENERAL] or fitting
    if not special:
        raise BctError(f"{checkpoint}: no task fits {', '.join(names) or kind}; choose --task of {', '.join(known)}")
    task = str(special[0])
    return task + PAST if task + PAST in known else task


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what transformers, torch and optimum print and log meanwhile from the user: what matters is an exception."""
    before = logging.root.manager.disable
    bars = library("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    logging.disable(logging.ERROR)
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if shown:
            bars.enable_progress_bar()
