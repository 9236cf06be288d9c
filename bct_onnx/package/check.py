"""Check a package where it arrived: hashes of its files, and whether every model loads and runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bct_onnx import files
from bct_onnx.errors import BctError, VerificationError
from bct_onnx.session import Latency
from bct_onnx.verify import run_reference
from passes import Progress

from .contents import MANIFEST
from .manifest import file_sha256, read_manifest


@dataclass(frozen=True)
class Check:
    """A package that is as it was made.

    Attributes:
        files: number of files with the hashes that the manifest has.
        models: latency of one run on made inputs by path of the model, None where it was not timed.
        strange: files that the manifest does not have.
    """

    files: int
    models: dict[str, Latency | None]
    strange: tuple[str, ...]


def verify_folder(folder: str | Path, progress: Progress | None = None) -> Check:
    """Compare every file of a package with its manifest, load every model and run it on made inputs.

    Raises BctError for a folder that is no package, VerificationError for a file that is missing or has changed and for
    a model that does not load or run, or answers with nothing that is a number.
    """
    folder, tell = Path(folder), progress or (lambda *_: None)
    manifest = read_manifest(folder)
    listed = {entry["path"]: entry for entry in manifest["files"]}
    for number, (name, entry) in enumerate(listed.items()):
        tell("checking hashes", number, len(listed))
        _check_file(folder, name, entry["bytes"], entry["sha256"])
    models = {}
    for name in manifest["models"]:
        tell(f"running {name}", 0, 0)
        try:
            models[name] = run_reference(folder / name, files.read(folder / name).proto).latency
        except BctError as error:
            raise VerificationError(str(error)) from error
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return Check(len(listed), models, tuple(sorted(there - {*listed, MANIFEST})))


def _check_file(folder: Path, name: str, size: int, digest: str) -> None:
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BctError(f"{folder / MANIFEST}: names {name!r}, which is outside of the folder; get the package again")
    if not path.is_file():
        raise VerificationError(f"{path}: is missing; get the package again")
    if path.stat().st_size != size or file_sha256(path) != digest:
        raise VerificationError(f"{path}: is not the file that was packaged: its hash differs; get the package again")
