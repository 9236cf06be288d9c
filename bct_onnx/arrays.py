"""What goes into a model and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
# What one input is fed with: an array, or a list of them for an input that is a sequence.
Value = Array | list[Array]
# Values by name of the input, answers by name of the output.
Feed = Mapping[str, Value]
Outputs = Mapping[str, Array]
Run = Callable[[Feed], Outputs]
