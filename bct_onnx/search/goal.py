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
        plain_bytes: True for the bytes that the same bits for every weight take.
        seconds: time for measurements at a nominal speed; what does not fit is taken from weights like it.
        asked: whether somebody asked for it; if not it gives way to what stands against it.
    """

    max_drop: float | None = None
    target_ratio: float | None = None
    target_bytes: int | None = None
    plain_bytes: bool | None = None
    seconds: float = DEFAULT_SECONDS
    asked: bool = True

    def __post_init__(self) -> None:
        """Refuse more than one goal and goals out of range, with BctError."""
        every = (self.max_drop, self.target_ratio, self.target_bytes, self.plain_bytes)
        given = [value for value in every if value is not None]
        if len(given) != 1:
            raise BctError("choose one of --max-drop, --target-ratio and --target-bytes")
        if given[0] <= 0:
            raise BctError(f"a goal of {given[0]:g} cannot be met; give a positive number")

    @property
    def bounded(self) -> bool:
        """Tell whether it bounds the error: whatever the forms of codes, there is something to save."""
        return self.max_drop is not None

    def limit_bytes(self, input_bytes: int, plain_bytes: int) -> float | None:
        """Return the bytes that the file may take, or None where the error is bounded.

        The input has `input_bytes`, the file with the same bits for every weight `plain_bytes`.
        """
        if self.target_ratio is not None:
            return input_bytes / self.target_ratio
        return plain_bytes if self.plain_bytes else self.target_bytes


# What presets choose the bits of every weight for; the others have the same bits everywhere.
PRESET_GOALS = {
    "balanced": Goal(max_drop=DEFAULT_DROP, asked=False),
    "small": Goal(plain_bytes=True, asked=False),
}
