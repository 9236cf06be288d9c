"""From a checkpoint, or a folder of ONNX files, to a folder that is ready to deploy."""

from .check import Check, verify_folder
from .make import compress_folder
from .manifest import Package
from .plan import LAYOUTS, Plan, is_folder, make_plan, plan_of_file

__all__ = [
    "LAYOUTS",
    "Check",
    "Package",
    "Plan",
    "compress_folder",
    "is_folder",
    "make_plan",
    "plan_of_file",
    "verify_folder",
]
