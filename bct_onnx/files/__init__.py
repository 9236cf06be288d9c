"""Models in files: `read` one, `write` a graph to a `staged` place, `commit` it when it was checked."""

from .check import is_accepted, refusal
from .disk import total_bytes
from .mapped import MappedModel, is_mapped, write_mapped, write_proto
from .order import bodies, graphs_of
from .reader import ModelFile, bytes_on_disk, read
from .scratch import Scratch, let_go
from .staging import Stage, check_target, check_text, staged, write_json, write_text
from .writer import ExternalData, WrittenFile, write

__all__ = [
    "ExternalData",
    "MappedModel",
    "ModelFile",
    "Scratch",
    "Stage",
    "WrittenFile",
    "bodies",
    "bytes_on_disk",
    "check_target",
    "check_text",
    "graphs_of",
    "is_accepted",
    "is_mapped",
    "let_go",
    "read",
    "refusal",
    "staged",
    "total_bytes",
    "write",
    "write_json",
    "write_mapped",
    "write_proto",
    "write_text",
]
