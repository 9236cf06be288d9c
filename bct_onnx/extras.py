"""Packages of the extras, imported when they are first needed."""

import importlib
from typing import Any

from .errors import BctError


def extra(module: str, name: str = "eval", purpose: str = "") -> Any:
    """Return a module of the extra `name`; raises BctError with the command to install it where it is absent.

    `purpose` says what the package does here: "which" and a verb.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        said = f", {purpose}" if purpose else ""
        raise BctError(f"{package} is not installed{said}: pip install 'bct-onnx[{name}]'") from error
