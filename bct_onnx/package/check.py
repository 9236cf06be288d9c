"""Check a package where it arrived: hashes of its files, and whether every model runs and answers as before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bct_onnx import files
from bct_onnx.api import ignore_progress
from bct_onnx.errors import BctError, VerificationError
from bct_onnx.sessions import Latency
from bct_onnx.verify import run_reference
from passes import Progress

from .contents import MANIFEST
from .manifest import file_sha256, read_manifest
from .probe import check_probe, probe_path


@dataclass(frozen=True)
class Check:
    """A package that is as it was made.

    Attributes:
        files: number of files with the hashes that the manifest has.
        models: latency of one run by path of the model.
        compared: models whose answers were compared with those where the package was made.
        strange: files that the manifest does not have.
    """

    files: int
    models: dict[str, Latency | None]
    compared: tuple[str, ...]
    strange: tuple[str, ...]


def verify_folder(folder: str | Path, progress: Progress | None = None) -> Check:
    """Compare every file of a package with its manifest, load every model and run it.

    A model with a probe must answer it as where the package was made; another one is run on made inputs. Raises
    BctError for a folder that is no package, VerificationError for a file that is missing or has changed and for a
    model that does not load or run, or answers otherwise or nothing that is a number.
    """
    folder, progress = Path(folder), progress or ignore_progress
    listed, models = check_hashes(folder, progress), {}
    for name in read_manifest(folder)["models"]:
        progress(f"running {name}", 0, 0)
        models[name] = _run(folder / name, folder / probe_path(name) if probe_path(name) in listed else None)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    compared = tuple(name for name in models if probe_path(name) in listed)
    return Check(len(listed), models, compared, tuple(sorted(found - {*listed, MANIFEST})))


def check_hashes(folder: Path, progress: Progress = ignore_progress) -> set[str]:
    """Compare every file of a package with its manifest; return their paths below it. Raises as `verify_folder`."""
    listed = read_manifest(folder)["files"]
    for number, entry in enumerate(listed):
        progress("checking hashes", number, len(listed))
        _check_file(folder, entry["path"], entry["bytes"], entry["sha256"])
    return {entry["path"] for entry in listed}


def _run(model: Path, probe: Path | None) -> Latency | None:
    if probe is not None:
        return check_probe(model, probe)
    try:
        return run_reference(model, files.read(model).proto).latency
    except BctError as error:
        raise VerificationError(str(error)) from error


def _check_file(folder: Path, name: str, size: int, digest: str) -> None:
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BctError(f"{folder / MANIFEST}: names {name!r}, which is outside of the folder; get the package again")
    if not path.is_file():
        raise VerificationError(f"{path}: is missing; get the package again")
    if path.stat().st_size != size or file_sha256(path) != digest:
        raise VerificationError(f"{path}: is not the file that was packaged: its hash differs; get the package again")
