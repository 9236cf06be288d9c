"""What compressing a model, a folder or a checkpoint will do, decided before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from bct_onnx import files
from bct_onnx.api import goal_for
from bct_onnx.errors import BctError
from bct_onnx.presets import DEFAULT_PRESET, PRESETS, Request
from bct_onnx.search import DEFAULT_SECONDS, Goal
from bct_onnx.targets import DEFAULT_TARGET, TARGETS

from .contents import CONFIG, GENAI_CONFIG, MANIFEST, Contents, read_contents, read_json
from .export import find_task

LAYOUTS = ("keep", "optimum", "transformers.js")
# The folder that Transformers.js reads models from, and the end of the name of its dtype "q8".
JS_FOLDER, JS_DTYPE, JS_ENDING = "onnx", "q8", "_quantized"
# Options of `compress` that decide on codes, as Request has them.
_OF_REQUEST = ("bits", "block_size", "lowering", "keep", "operators", "activations", "runtime")
# And those that let bits be chosen by measurement.
_GOALS = ("max_drop", "target_ratio", "target_bytes")
# A name of the hub: who, and what.
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Step:
    """One model to compress: path below the input folder, path below the output folder, preset, bytes."""

    source: PurePosixPath
    target: PurePosixPath
    preset: str
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What is done with a folder.

    Attributes:
        source: the folder, or the hub's name of a checkpoint.
        target: the folder to write.
        task: in optimum's words, or None where it is not known.
        exported: whether the models are yet to be made from a checkpoint.
        layout: one of LAYOUTS.
        steps: models to compress.
        copies: files that go along, by path below the output folder.
        left_out: files that do not, with the reason.
    """

    source: str
    target: Path
    task: str | None
    exported: bool
    layout: str
    steps: tuple[Step, ...]
    copies: Mapping[PurePosixPath, Path]
    left_out: Mapping[str, str]


def is_folder(source: Path) -> bool:
    """Tell whether an input is a folder or a name of the hub, not a file."""
    return source.is_dir() or (not source.exists() and is_hub_name(source))


def is_hub_name(source: Path) -> bool:
    """Tell whether an input, which is not there as a file, reads as a checkpoint's name on the hub."""
    return (
        source.suffix != ".onnx" and not source.parent.exists() and _HUB_NAME.fullmatch(source.as_posix()) is not None
    )


def make_plan(
    source: Path,
    target: Path,
    *,
    task: str | None = None,
    layout: str = "keep",
    preset: str = DEFAULT_PRESET,
    preset_for: Sequence[tuple[str, str]] = (),
) -> Plan:
    """Return what is to be done with a folder or a checkpoint; raises BctError for what cannot be.

    `preset_for` are pairs of a pattern, as shells have them, of a model's name without .onnx, and its preset; the first
    that fits decides. The models of a checkpoint are known once it is exported: see `with_models`; of one on the hub,
    nothing is known.
    """
    if layout not in LAYOUTS:
        raise BctError(f"layout {layout!r} does not exist; choose one of {', '.join(LAYOUTS)}")
    for name in (preset, *(name for _, name in preset_for)):
        if name not in PRESETS:
            raise BctError(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    check_folders(source, target)
    if not source.is_dir():
        return Plan(source.as_posix(), target, task, True, layout, (), {}, {})
    found = read_contents(source)
    checkpoint = not found.models
    done = [path.name for path in found.left_out if path.suffix == ".onnx"]
    if checkpoint and done:
        raise BctError(f"{source}: holds only {', '.join(done)}, quantized or optimized already; get the float model")
    if checkpoint and not (source / CONFIG).exists():
        raise BctError(f"{source}: holds neither ONNX files nor the config.json of a checkpoint; name another folder")
    if checkpoint and task is None:
        task = find_task(str(source), found.config)
    empty = Plan(str(source), target, task, checkpoint, layout, (), {}, {})
    return with_files(empty, found) if checkpoint else with_models(empty, found, preset, preset_for)


def request_for(preset: str, options: Mapping[str, Any]) -> tuple[Request, Goal | None]:
    """Return what options of `compress` make of a preset; raises BctError where they do not go together."""
    asked: dict[str, Any] = {name: options[name] for name in _OF_REQUEST if options.get(name) is not None}
    lists = {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}
    request = Request(preset, **{**asked, **lists}, target=options.get("target_runtime") or DEFAULT_TARGET)
    goals = [options.get(name) for name in _GOALS]
    return request, goal_for(
        request, options.get("verify", True), goals, options.get("search_seconds", DEFAULT_SECONDS)
    )


def options_for_layout(layout: str, preset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the target that a layout asks for, unless they name one, or other forms than it has.

    The WebAssembly that Transformers.js loads in a browser knows no types of 4 bits, and is slow at packed weights.
    """
    free = options.get("lowering", "auto") == "auto" and preset in TARGETS["web"].presets
    asked = options.get("target_runtime") or ("web" if layout == "transformers.js" and free else DEFAULT_TARGET)
    return {**options, "target_runtime": asked}


def plan_of_file(source: Path, target: Path, preset: str) -> Plan:
    """Return the plan of compressing one file; raises BctError where that cannot be begun."""
    size = files.read(source).bytes
    files.check_target(source, target)
    step = Step(PurePosixPath(source.name), PurePosixPath(target.name), preset, size)
    return Plan(str(source.parent), target.parent, None, False, LAYOUTS[0], (step,), {}, {})


def with_models(plan: Plan, found: Contents, preset: str, preset_for: Sequence[tuple[str, str]]) -> Plan:
    """Return the plan with the models and files of a folder of ONNX files added."""
    names = {path: path.name.removesuffix(".onnx") for path in found.models}
    for pattern, _ in preset_for:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            raise BctError(f"--preset-for {pattern}: no model is called so; there are {', '.join(names.values())}")
    if plan.layout != "keep" and (found.folder / GENAI_CONFIG).exists():
        raise BctError(f"{found.folder}: its {GENAI_CONFIG} names the files as they are; leave out --layout")
    steps = tuple(
        Step(
            path,
            _place(path, plan.layout),
            next((name for pattern, name in preset_for if fnmatchcase(names[path], pattern)), preset),
            files.read(found.folder / path).bytes,
        )
        for path in found.models
    )
    targets = [step.target for step in steps]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise BctError(f"{found.folder}: two models would be called {twice}; leave out --layout")
    return with_files(replace(plan, steps=steps), found)


def with_files(plan: Plan, found: Contents) -> Plan:
    """Return the plan with a folder's other files added; they come before those of the same names that it has."""
    copies = {**plan.copies, **{path: found.folder / path for path in found.rest}}
    left_out = {**plan.left_out, **{str(path): why for path, why in found.left_out.items()}}
    return replace(plan, copies=copies, left_out=left_out)


def check_folders(source: Path, target: Path) -> None:
    """Check before long work that the output folder can be made, else raise BctError."""
    written, read = target.resolve(), source.resolve()
    if read in (written, *written.parents) or written in read.parents:
        raise BctError(f"{target}: is the input folder, in it or around it; name another folder to write")
    if not written.parent.is_dir():
        raise BctError(f"{target}: the folder {written.parent} does not exist; make it first")
    if written.exists():
        if not written.is_dir():
            raise BctError(f"{target}: is a file; for a folder of models, name a folder to write")
        if any(written.iterdir()) and not _is_package(written):
            raise BctError(f"{target}: holds other files; name a new folder to write")


def _is_package(folder: Path) -> bool:
    """Tell whether a folder was made here, so that it may be replaced."""
    path = folder / MANIFEST
    return path.exists() and "bct_onnx" in read_json(path)


def _place(path: PurePosixPath, layout: str) -> PurePosixPath:
    if layout == "keep":
        return path
    # `onnx` is the folder of a model, not a part of one, as `unet` is.
    below = PurePosixPath(*(part for part in path.parts if part != JS_FOLDER))
    if layout == "optimum":
        return below
    return JS_FOLDER / below.with_name(below.name.replace(".onnx", f"{JS_ENDING}.onnx"))
