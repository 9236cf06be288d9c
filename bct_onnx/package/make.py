"""Make a package: export, compress every model, copy the rest, try it at its task, put it in place whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bct_onnx import files
from bct_onnx.api import compress, ignore_progress
from bct_onnx.errors import BctError
from bct_onnx.presets import DEFAULT_PRESET
from bct_onnx.sessions import load_costs
from passes import Progress

from .card import CARD, add_section
from .contents import CONFIG, OPERATORS_CONFIG, read_contents, read_json
from .export import download, export, exporter_is_installed, find_task
from .manifest import ModelRecord, Package, write_manifest
from .operators import element_types, find_operators
from .plan import JS_DTYPE, Plan, Step, check_folders, make_plan, options_for_layout, request_for, with_models
from .probe import probe_path, write_probe
from .tasks import EndToEnd, compare_tasks

# Options that are of one model, by their names on the command line.
_OF_ONE_MODEL = {"feeds": "--feeds", "target_bytes": "--target-bytes"}


def compress_folder(
    source: str | Path,
    target: str | Path,
    *,
    task: str | None = None,
    layout: str = "keep",
    examples: str | Path | None = None,
    preset: str = DEFAULT_PRESET,
    preset_for: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Package:
    """Compress every model of a folder, or of a checkpoint after its export, into the new folder `target`.

    Args:
        source: a folder of ONNX files with their configuration, a checkpoint of transformers, or a name of the hub.
        target: the folder to write; it appears whole, checked, or not at all. An older package there is replaced.
        task: what the models are for, in optimum's words, instead of what the configuration says.
        layout: where models go: keep (as they are; optimum's for a checkpoint), optimum, or transformers.js.
        examples: what the task is tried with instead of made examples: a text file with one a line, or a folder of
            pictures (.jpg, .png, ...) or sounds (.wav, .flac); `data`, where that is given and not this.
        preset: as in `compress`, for every model that `preset_for` says nothing of.
        preset_for: pairs of a pattern of models' names without .onnx, and a preset.
        progress: told of every stage, as in `compress`.
        options: as in `compress`.

    Raises:
        BctError: a bad request or a bad input; the message says what to do.
        VerificationError: a compressed model does not answer like its input, or not at its task.
    """
    progress = progress or ignore_progress
    for name in (preset, *(name for _, name in preset_for)):
        request_for(name, options_for_layout(layout, name, options))
    folder, given = Path(source), _examples(examples, options.get("data"))
    if given is not None and not given.exists():
        raise BctError(f"{given}: is not there; name a text file or a folder of pictures or sounds as examples")
    check_folders(folder, Path(target))
    if not folder.is_dir():
        progress("fetching the checkpoint", 0, 0)
        folder = download(str(source))
    plan = make_plan(folder, Path(target), task=task, layout=layout, preset=preset, preset_for=preset_for)
    plan = replace(plan, source=str(source))
    with files.staged(plan.target) as stage:
        stage.path.mkdir()
        if plan.exported:
            progress("exporting", 0, 0)
            checkpoint, folder = folder, stage.path.with_name("float")
            assert plan.task is not None
            export(checkpoint, folder, plan.task)
            # What the exporter writes goes before the checkpoint's file of the same name.
            plan = with_models(plan, read_contents(folder), preset, preset_for)
        models = _compress_all(plan, folder, stage.path, options, progress)
        _copy(plan, stage.path)
        plan, end_to_end, notes = _try_task(plan, folder, stage.path, given, progress, options.get("verify", True))
        notes += _not_for_the_web(plan, models)
        progress("listing operators", 0, 0)
        operators = find_operators([stage.path / name for name in models], stage.path.parent)
        if operators is None:
            notes.append(f"no {OPERATORS_CONFIG}: ONNX Runtime's tool does not take the models")
        else:
            (stage.path / OPERATORS_CONFIG).write_text(operators.config, encoding="utf-8")
        package = Package(plan, models, end_to_end, operators, tuple(notes))
        add_section(package, stage.path / CARD)
        write_manifest(package, stage.path)
        _put_in_place(stage)
    return package


def _not_for_the_web(plan: Plan, models: Mapping[str, ModelRecord]) -> list[str]:
    """Return what to do where a browser will not load models: Transformers.js's WebAssembly has no types of 4 bits."""
    if plan.layout != "transformers.js" or not any(record.types & {"int4", "uint4"} for record in models.values()):
        return []
    return ["the models have codes of type int4, which Transformers.js does not load in a browser: --target web"]


def _examples(given: str | Path | None, data: str | Path | None) -> Path | None:
    """Return what the task is tried with: given examples, or the data of the models where it has their form."""
    if given is None and data is not None and Path(data).suffix != ".jsonl":
        given = data
    return None if given is None else Path(given)


def export_folder(
    source: str | Path, target: str | Path, *, task: str | None = None, progress: Progress | None = None
) -> str:
    """Export a checkpoint into the new folder `target`, float, its tokenizer and configuration beside it.

    That is how `compress_folder` begins. Returns the task; arguments and errors are the same.
    """
    progress = progress or ignore_progress
    folder = Path(source)
    check_folders(folder, Path(target))
    if not folder.is_dir():
        progress("fetching the checkpoint", 0, 0)
        folder = download(str(source))
    plan = make_plan(folder, Path(target), task=task)
    if not plan.exported or plan.task is None:
        raise BctError(f"{source}: holds ONNX files already; compress it as it is")
    with files.staged(plan.target) as stage:
        progress("exporting", 0, 0)
        export(folder, stage.path, plan.task)
        missing = {place: file for place, file in plan.copies.items() if not (stage.path / place).exists()}
        _copy(replace(plan, copies=missing), stage.path)
        _put_in_place(stage)
    return plan.task


def _compress_all(
    plan: Plan, source: Path, target: Path, options: Mapping[str, Any], progress: Progress
) -> dict[str, ModelRecord]:
    """Compress the models of the folder `source` into the folder `target`; records by path below it."""
    for name, option in _OF_ONE_MODEL.items():
        if len(plan.steps) > 1 and options.get(name) is not None:
            raise BctError(f"{option} is for one model, {plan.source} has {len(plan.steps)}; compress them one by one")
    options = dict(options)
    if plan.layout == "transformers.js" and options.get("external_data", "auto") == "auto":
        # It finds external data by names of its own, and a browser takes no file as large as needs them.
        options["external_data"] = "never"
    return {
        str(step.target): _compress(plan, step, source / step.source, target, options, progress) for step in plan.steps
    }


def _compress(
    plan: Plan, step: Step, source: Path, folder: Path, options: Mapping[str, Any], report_progress: Progress
) -> ModelRecord:
    """Compress the model `source` into the folder in the making; what goes wrong is told with its name."""

    def progress(what: str, done: int, total: int) -> None:
        report_progress(f"{step.source.name}: {what}", done, total)

    target = folder / step.target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        asked = options_for_layout(plan.layout, step.preset, options)
        report = compress(source, target, preset=step.preset, progress=progress, **asked)
    except BctError as error:
        raise type(error)(f"{step.source}: {error}") from error
    progress("measuring memory", 0, 0)
    memory = load_costs(source, target) if report.verification else None
    if report.verification:
        progress("keeping a probe", 0, 0)
        write_probe(target, source, folder / probe_path(str(step.target)))
    types = frozenset(element_types(files.read(target).proto))
    # Both paths end with this run: those that stay are told.
    before = replace(report.input, path=Path(plan.source) / step.source)
    after = replace(report.output, path=plan.target / step.target)
    return ModelRecord(replace(report, input=before, output=after, memory=memory), types)


def _copy(plan: Plan, folder: Path) -> None:
    """Copy what goes along; tell Transformers.js which of its dtypes the models are."""
    for place, source in plan.copies.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise BctError(f"{source}: cannot be copied: {error.strerror}") from error
    config = folder / CONFIG
    if plan.layout == "transformers.js" and config.exists():
        content = read_json(config)
        content.setdefault("transformers.js_config", {})["dtype"] = JS_DTYPE
        config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _try_task(
    plan: Plan, source: Path, target: Path, examples: Path | None, progress: Progress, wanted: bool
) -> tuple[Plan, EndToEnd | None, list[str]]:
    """Compare both folders at their task; returns the plan with the task, and a sentence where it was not done."""
    config = read_contents(source).config
    if plan.task is None and config and exporter_is_installed():
        with suppress(BctError):
            plan = replace(plan, task=find_task(plan.source, config))
    if not wanted:
        return plan, None, []
    if plan.task is None:
        return plan, None, ["not tried at its task: which one is not known; name it with --task"]
    progress("comparing at the task", 0, 0)
    end_to_end, why = compare_tasks(plan.task, source, target, examples)
    return plan, end_to_end, [why] if why else []


def _put_in_place(stage: files.Stage) -> None:
    """Let the finished folder appear by one rename; an older package goes aside first, and comes back if that fails."""
    aside = stage.path.with_name("before")
    try:
        if stage.target.exists():
            stage.target.rename(aside)
        stage.path.rename(stage.target)
    except OSError as error:
        if aside.exists() and not stage.target.exists():
            aside.rename(stage.target)
        raise BctError(f"{stage.target}: cannot be put in place: {error.strerror}") from error
