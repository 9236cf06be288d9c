"""Compress transformers in ONNX: several times smaller, several times faster, the same answers."""

from .api import compress
from .errors import BctError, VerificationError
from .package import compress_folder, export_folder, verify_folder
from .report import Report
from .sessions.with_kernels import session
from .version import __version__

__all__ = [
    "BctError",
    "Report",
    "VerificationError",
    "__version__",
    "compress",
    "compress_folder",
    "export_folder",
    "session",
    "verify_folder",
]
