"""What is to be compressed: a folder of models, a text file with one a line, or a fleet file with options of each."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bct_onnx.command import command as one
from bct_onnx.errors import BctError
from bct_onnx.package import is_hub_name

FLEET_SUFFIX = ".toml"
# Keys of a model in a fleet file that are no options of the command line.
PATH, OUT = "path", "out"


@dataclass(frozen=True)
class Job:
    """One model, or folder of models, to compress: `report` is the JSON file beside the output that says it is done."""

    source: Path
    target: Path
    options: tuple[str, ...]

    @property
    def report(self) -> Path:
        """Return where the report goes."""
        return self.target.with_name(f"{self.target.name}.json")


def jobs(source: Path, folder: Path, options: Sequence[str]) -> list[Job]:
    """Return the jobs that `source` names, outputs in `folder`.

    A folder: all *.onnx files in it, which keep their places. A text file: one path a line (# begins a comment). A
    fleet file (.toml): a table `options` of what all models take, and an array of tables `models`, each with a `path`,
    and where wanted `out`, a name for the output, and options of its own, by their names on the command line. Paths in
    a file are relative to it; `options`, words of the command line, go to every model before its own.

    Raises BctError for a list that cannot be read, names nothing, asks for what is no option, or names two models that
    would have one output.
    """
    if source.is_dir():
        paths = [path for path in sorted(source.rglob("*.onnx")) if not path.is_relative_to(folder)]
        found = [Job(path, folder / path.relative_to(source), tuple(options)) for path in paths]
    elif source.suffix == FLEET_SUFFIX:
        found = list(_fleet(source, folder, options))
    else:
        paths = [source.parent / line for line in _lines(source)]
        found = [Job(path, folder / path.name, tuple(options)) for path in paths]
    if not found:
        raise BctError(f"{source}: names no model; give a folder with .onnx files, a list of paths or a fleet file")
    targets = [job.target for job in found]
    twice = next((target for index, target in enumerate(targets) if target in targets[:index]), None)
    if twice is not None:
        raise BctError(f"{source}: two models are called {twice.relative_to(folder)}; give them different names")
    for job in found:
        check_options(job)
    return found


def check_options(job: Job) -> None:
    """Raise BctError for options that the command line would refuse."""
    try:
        with one.make_context("bct-onnx", ["IN.onnx", "OUT.onnx", *job.options]):
            pass
    except click.ClickException as error:
        raise BctError(f"{job.source}: options: {error.format_message()}") from error


def _lines(path: Path) -> list[str]:
    lines = _text(path).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BctError(f"{path}: cannot be read as a list of models: {error}") from error


def _fleet(path: Path, folder: Path, options: Sequence[str]) -> Iterator[Job]:
    try:
        content = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise BctError(f"{path}: is no TOML: {error}") from error
    strange = sorted(content.keys() - {"options", "models"})
    shared, models = content.get("options", {}), content.get("models", [])
    if strange or not isinstance(shared, dict) or not isinstance(models, list):
        raise BctError(f"{path}: has a table [options] and tables [[models]], and no {', '.join(strange) or 'others'}")
    for number, model in enumerate(models, 1):
        if not isinstance(model, dict) or not isinstance(model.get(PATH), str):
            raise BctError(f"{path}: model {number} has no {PATH}")
        source = path.parent / model[PATH]
        if not source.exists() and is_hub_name(Path(model[PATH])):
            source = Path(model[PATH])
        own = {name: value for name, value in model.items() if name not in (PATH, OUT)}
        words = [word for given in (shared, own) for word in _words(given, path)]
        yield Job(source, folder / str(model.get(OUT, source.name)), (*options, *words))


def _words(given: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Yield options by name as words of the command line; paths in them are relative to the file that says so."""
    known = {word: parameter for parameter in one.params for word in parameter.opts}
    for name, value in given.items():
        option = f"--{name}"
        if option not in known:
            raise BctError(f"{path}: {name!r} is no option of the command line")
        if isinstance(value, bool):
            yield from [option] if value else []
            continue
        for single in value if isinstance(value, list) else [value]:
            is_path = isinstance(known[option].type, click.Path)
            yield from (option, str((path.parent / str(single)).absolute() if is_path else single))
