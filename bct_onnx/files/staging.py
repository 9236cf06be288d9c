"""A model appears under its name whole or not at all: made in a hidden folder beside it, moved at the end."""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError

from .reader import read

try:
    import fcntl
except ImportError:  # not a POSIX system: what a killed process leaves has to be removed by hand
    fcntl = None  # type: ignore[assignment]

_HASH_DIGITS = 16
_PREFIX = ".bct-"
# A folder that is younger may not have been locked yet by the process that made it, in seconds.
_YOUNG = 60


def data_name(model: str, digest: str) -> str:
    """Return the name of a model's external data: the hash keeps it apart from that of an older model."""
    return f"{model}.{digest[:_HASH_DIGITS]}.data"


def _is_data_of(name: str, model: str) -> bool:
    return re.fullmatch(re.escape(model) + rf"\.[0-9a-f]{{{_HASH_DIGITS}}}\.data", name) is not None


@dataclass(frozen=True)
class Stage:
    """A file in the making: write to `path`, check it there, then `commit` moves it and its external data."""

    target: Path
    path: Path

    def public(self, text: str) -> str:
        """Return a text with the names of the stage's files as the user knows them."""
        for folder in (self.path.parent.absolute(), self.path.parent):
            text = text.replace(f"{folder}{os.sep}", f"{self.target.parent}{os.sep}".removeprefix(f".{os.sep}"))
        return text

    def commit(self) -> None:
        """Put the written file in place of `target`; raises BctError and keeps the old one if that fails.

        External data goes first, under a name of its own; the switch is one rename of the model file; then
        the data that `write` gave the old model is removed. Stopped anywhere, old or new are complete.
        """
        folder, moved = self.target.parent, list[Path]()
        old = _data_of(self.target)
        data = [path for path in self.path.parent.iterdir() if _is_data_of(path.name, self.target.name)]
        try:
            for path in data:
                place = folder / path.name
                if not place.exists():
                    moved.append(place)
                path.replace(place)
            _sync_folder(folder)
            self.path.replace(self.target)
        except BaseException as error:
            # An interrupt may come right after the rename, when the new model is in place already.
            if self.path.exists():
                for place in moved:
                    place.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise BctError(f"{self.target}: cannot be put in place: {error.strerror}") from error
            raise
        _sync_folder(folder)
        for name in old - {path.name for path in data}:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def staged(target: Path) -> Iterator[Stage]:
    """Give a Stage for `target`; leaving the block without `commit`, by whatever way, leaves no trace.

    Errors name `target`, not the stage. Where the process is killed, the next stage in the same folder removes what it
    left. Raises BctError if the folder cannot be written to.
    """
    target = Path(target)
    _remove_abandoned(target.parent)
    try:
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise BctError(f"{target}: its folder cannot be written to: {error.strerror}") from error
    with folder as name, _locked(Path(name)):
        stage = Stage(target, Path(name) / target.name)
        try:
            yield stage
        except BctError as error:
            error.args = (stage.public(str(error)),)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, which the system drops with the process; gives False if another process holds it."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(handle)


def _remove_abandoned(parent: Path) -> None:
    """Remove the stages of processes that were killed."""
    with suppress(OSError):
        for folder in parent.glob(f"{_PREFIX}*"):
            if time.time() - folder.stat().st_mtime > _YOUNG:
                with _locked(folder) as held:
                    if held:
                        shutil.rmtree(folder, ignore_errors=True)


def check_text(path: Path, *models: Path) -> None:
    """Check before long work that a report can be written to `path` and overwrites no model, else raise BctError."""
    if not path.resolve().parent.is_dir():
        raise BctError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise BctError(f"{path}: is a folder; name the file to write the report to")
    if path.resolve() in [model.resolve() for model in models]:
        raise BctError(f"{path}: is the place of a model; name another file for the report")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; raises BctError, and keeps what was there, where that fails."""
    try:
        # A pipe or a terminal is written to, a link is followed: neither is replaced.
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with staged(path.resolve()) as stage:
            stage.path.write_text(text, encoding="utf-8")
            stage.path.replace(stage.target)
    except OSError as error:
        raise BctError(f"{path}: cannot be written: {error.strerror}") from error


def write_json(path: Path, data: Any) -> None:
    """Write data as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def check_target(source: Path, target: Path) -> None:
    """Check before long work that `target` can be written and is no part of `source`, else raise BctError."""
    source, target = Path(source), Path(target)
    try:
        if target.is_dir() or not target.name:
            raise BctError(f"{target}: is a folder; name the .onnx file to write")
        if target.exists() and not target.is_file():
            raise BctError(f"{target}: is not a regular file; name another file to write")
        if not target.parent.is_dir():
            raise BctError(f"{target}: the folder {target.parent} does not exist; make it first")
        if source.exists() and target.exists():
            if source.samefile(target):
                raise BctError(f"{target}: is the input file; name another file to write")
            _check_external(source, target)
        with staged(target) as stage:
            stage.path.touch()
    except OSError as error:
        raise BctError(f"{target}: cannot be written: {error.strerror}") from error


def _check_external(source: Path, target: Path) -> None:
    """Refuse a target whose writing would replace or remove the external data of the source."""
    for path in read(source).files.values():
        if path.samefile(target) or any(path.samefile(target.parent / name) for name in _data_of(target)):
            raise BctError(f"{target}: shares the external data {path} with the input; name another file to write")


def _data_of(model: Path) -> set[str]:
    """Return the names of the external data that `write` made for an existing model of this very name."""
    try:
        return {name for name in read(model).files if _is_data_of(name, model.name)} if model.exists() else set()
    except BctError:
        return set()


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
