"""The manifest of a package: its files with their hashes, how they were made and what was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bct_onnx import files
from bct_onnx.errors import BctError
from bct_onnx.report import Report
from bct_onnx.runtimes import RELEASES
from bct_onnx.version import __version__

from .contents import MANIFEST, read_json
from .operators import Operators
from .plan import Plan
from .tasks import EndToEnd

FORMAT = 1


@dataclass(frozen=True)
class ModelRecord:
    """What became of one model: its report, element types in it."""

    report: Report
    types: frozenset[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON data, without the parts of the report that are longer than a page."""
        data = self.report.to_dict()
        keys = ("ratio", "preset", "runtime", "target", "options", "notes", "sizes", "verification", "memory")
        search = self.report.search
        return {
            "bytes_before": data["input"]["bytes"],
            "sha256_before": data["input"]["sha256"],
            **{key: data["output"][key] for key in ("bytes", "sha256", "opset", "ir_version", "min_onnxruntime")},
            **{key: data[key] for key in keys},
            "bits_chosen": dict(sorted(search.choice.bits.items())) if search else None,
            "error": search.error if search else None,
            "passes": {p.name: {"replaced": p.replaced, "left": len(p.skipped)} for p in self.report.passes},
            "left_in_float": [asdict(weight) for weight in self.report.large_floats],
        }


@dataclass(frozen=True)
class Package:
    """A finished package.

    Attributes:
        plan: what was asked for.
        models: what became of each model, by its path below the folder.
        end_to_end: the task's answers, float against compressed, or None where it was not tried.
        operators: what the models need of ONNX Runtime, or None where its tool did not say.
        notes: sentences on the whole.
    """

    plan: Plan
    models: Mapping[str, ModelRecord]
    end_to_end: EndToEnd | None
    operators: Operators | None
    notes: tuple[str, ...]

    @property
    def bytes_before(self) -> int:
        """The bytes of all models before."""
        return sum(record.report.input.bytes for record in self.models.values())

    @property
    def bytes(self) -> int:
        """The bytes of all models after."""
        return sum(record.report.output.bytes for record in self.models.values())

    @property
    def min_onnxruntime(self) -> str:
        """The oldest ONNX Runtime that runs all models."""
        return max((record.report.output.min_onnxruntime for record in self.models.values()), key=RELEASES.index)

    def to_dict(self) -> dict[str, Any]:
        """Return the package as JSON data, all but its list of files."""
        types = frozenset[str]().union(*(record.types for record in self.models.values()))
        return {
            "format": FORMAT,
            "bct_onnx": __version__,
            "source": Path(self.plan.source).name,
            "exported": self.plan.exported,
            "task": self.plan.task,
            "layout": self.plan.layout,
            "bytes_before": self.bytes_before,
            "bytes": self.bytes,
            "ratio": self.bytes_before / self.bytes,
            "min_onnxruntime": self.min_onnxruntime,
            "models": {name: record.to_dict() for name, record in self.models.items()},
            "end_to_end": asdict(self.end_to_end) if self.end_to_end else None,
            "operators": self.operators.by_domain if self.operators else None,
            "types": sorted(types),
            "left_out": dict(self.plan.left_out),
            "notes": list(self.notes),
        }

    def with_reports(self) -> dict[str, Any]:
        """Return the package as JSON data, with the whole report of every model."""
        return {**self.to_dict(), "reports": {name: record.report.to_dict() for name, record in self.models.items()}}


def write_manifest(package: Package, folder: Path) -> None:
    """Write a package's manifest, which lists all other files of the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [
        {"path": path.relative_to(folder).as_posix(), "bytes": files.total_bytes([path]), "sha256": file_sha256(path)}
        for path in paths
    ]
    content = {**package.to_dict(), "files": listed}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """Return a package's manifest; raises BctError where there is none, or one of a later form."""
    path = folder / MANIFEST
    if not path.exists():
        raise BctError(
            f"{folder}: has no {MANIFEST}, so it is no package; make one with `bct-onnx IN_FOLDER OUT_FOLDER`"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "bct_onnx" not in manifest:
        raise BctError(f"{path}: is not the manifest of a package")
    if manifest.get("format") != FORMAT:
        raise BctError(f"{path}: has form {manifest.get('format')}, this version knows {FORMAT}; use a newer bct-onnx")
    return manifest


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
