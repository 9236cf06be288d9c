"""What a search is for."""

from __future__ import annotations

from dataclasses import dataclass

from bct_onnx.errors import BctError

DEFAULT_SECONDS = 60.0
# What the default preset allows: 1.6 % of perplexity, or about 3 decisions in 100, mostly near ties.
DEFAULT_DROP = 0.09


@dataclass(frozen=True)
class Goal:
    """The smallest file with a bounded error, or the least error in a bounded file.

    Attributes:
        max_drop: largest error of the outputs, as `fidelity.outputs` defines it.
        target_ratio: how many times smaller than the input the file is to be.
        target_bytes: bytes of the file.
        seconds: time for measurements at a nominal speed; what does not fit is taken from weights like it.
        asked: whether somebody asked for it; if not it gives way to what stands against it.
    """

    max_drop: float | None = None
    target_ratio: float | None = None
    target_bytes: int | None = None
    seconds: float = DEFAULT_SECONDS
    asked: bool = True

    def __post_init__(self) -> None:
        """Refuse more than one goal and goals out of range, with BctError."""
        given = [value for value in (self.max_drop, self.target_ratio, self.target_bytes) if value is not None]
        if len(given) != 1:
            raise BctError("choose one of --max-drop, --target-ratio and --target-bytes")
        if given[0] <= 0:
            raise BctError(f"a goal of {given[0]:g} cannot be met; give a positive number")

    def limit_bytes(self, input_bytes: int) -> float | None:
        """Return the bytes that the file may take, or None where the error is bounded."""
        if self.target_ratio is not None:
            return input_bytes / self.target_ratio
        return self.target_bytes
