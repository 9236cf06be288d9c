"""From a checkpoint, or a folder of ONNX files, to a folder that is ready to deploy."""

from .check import Check, check_hashes, verify_folder
from .make import compress_folder, export_folder
from .manifest import Package, file_sha256
from .plan import LAYOUTS, Plan, is_folder, is_hub_name, make_plan, plan_of_file

__all__ = [
    "LAYOUTS",
    "Check",
    "Package",
    "Plan",
    "check_hashes",
    "compress_folder",
    "export_folder",
    "file_sha256",
    "is_folder",
    "is_hub_name",
    "make_plan",
    "plan_of_file",
    "verify_folder",
]
