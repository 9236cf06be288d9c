"""What a search found, for the report: weights with their bits, and the curve of size against error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError
from bct_onnx.extras import extra
from bct_onnx.search.choice import Choice, Curve
from bct_onnx.search.goal import Goal

# Points of the curve that are reported; one for every step would be thousands.
POINTS = 64


@dataclass(frozen=True)
class SearchRecord:
    """A finished search.

    Attributes:
        goal: what it was for.
        curve: size against error, expected from one run a weight.
        choice: the point taken.
        error: error of the file that was written, as measured.
        met: whether the goal was reached.
        measured: weights that were run, of all on the curve.
        seconds: time that took.
    """

    goal: Goal
    curve: Curve
    choice: Choice
    error: float
    met: bool
    measured: int
    seconds: float

    def points(self) -> list[tuple[int, float]]:
        """Return (bytes of all weights, expected relative error) from the most bits down."""
        count = len(self.curve.bytes)
        chosen = sorted({round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)})
        return [(int(self.curve.bytes[i]), float(self.curve.errors[i])) for i in chosen]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        return {
            "goal": {key: value for key, value in vars(self.goal).items() if value is not None},
            "met": self.met,
            "expected_error": self.choice.error,
            "measured_error": self.error,
            "weight_bytes": self.choice.bytes,
            "weights_measured": self.measured,
            "weights": [
                {
                    "name": weight.name,
                    "bits": self.choice.bits[weight.name],
                    "bytes": weight.bytes[self.choice.bits[weight.name]],
                    "errors": {str(bits): error**0.5 for bits, error in weight.error.items()},
                    "measured": weight.measured,
                }
                for weight in self.curve.weights
            ],
            "curve": [{"bytes": size, "error": error} for size, error in self.points()],
            "seconds": round(self.seconds, 1),
        }


def plot(record: SearchRecord, path: Path) -> None:
    """Draw the curve into a picture file; raises BctError where matplotlib is missing or the file cannot be."""
    figure_class = extra("matplotlib.figure", "eval", "which draws").Figure
    sizes, errors = zip(*record.points(), strict=True)
    figure = figure_class(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([size / 1e6 for size in sizes], errors, label="expected from one run a weight")
    axes.plot(record.choice.bytes / 1e6, record.choice.error, "o", label="chosen")
    axes.plot(record.choice.bytes / 1e6, record.error, "x", label="measured")
    axes.set(xlabel="weights (MB)", ylabel="relative error of the outputs", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise BctError(f"{path}: cannot be written: {error}") from error
