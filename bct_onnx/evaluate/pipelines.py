"""Folders at their task: the pipelines of transformers over optimum's models, which share their code with packages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bct_onnx.errors import BctError, first_line
from bct_onnx.package.contents import CONFIG
from bct_onnx.package.export import INSTALL, exporter_is_installed, silence
from bct_onnx.package.tasks import load_pipeline
from bct_onnx.sessions import NO_SPINNING, Options

from .folders import check_models

Said = TypeVar("Said")


def check_folders(models: Any) -> list[Path]:
    """Return the paths; raises BctError where one is no folder of ONNX files, or what runs pipelines is not installed.

    A file is one model of its folder: it runs with the configuration and the tokenizer beside it.
    """
    paths = check_models(models)
    for path in paths:
        home = path if path.is_dir() else path.parent
        if not (home / CONFIG).is_file():
            raise BctError(f"{home}: holds no {CONFIG}, which says what its models are; name a folder that does")
    if not exporter_is_installed():
        raise BctError(f"optimum is not installed, which runs the task's pipeline: {INSTALL}")
    return paths


def run_pipeline(task: str, path: Path, threads: int, use: Callable[[Any], Said]) -> Said:
    """Return what `use` makes of a task's pipeline over a folder's models, in sessions of so many threads.

    Raises BctError where it does not load or run.
    """
    folder, file = (path, {}) if path.is_dir() else (path.parent, {"file_name": path.name})
    try:
        with silence():
            return use(load_pipeline(task, folder, session_options=Options(threads, entries=NO_SPINNING), **file))
    except (BctError, MemoryError):
        raise
    except Exception as error:  # whatever transformers, torch and ONNX Runtime raise
        raise BctError(f"{path}: the pipeline for {task} does not run: {first_line(error)}") from error
