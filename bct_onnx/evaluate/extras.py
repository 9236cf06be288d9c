"""Packages of the extras, imported when they are first needed."""

import importlib
from types import ModuleType

from bct_onnx.errors import BctError


def extra(module: str, name: str = "eval") -> ModuleType:
    """Return the imported module of an extra; raises BctError with the command to install it where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise BctError(f"{package} is not installed: pip install 'bct-onnx[{name}]'") from error
