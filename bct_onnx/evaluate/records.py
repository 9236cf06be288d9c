"""What an evaluation is asked and what it answers: frozen records, ready for JSON."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """How to run: threads of a session, samples of a batch, bootstrap resamples and their seed."""

    threads: int = 2
    batch: int = 32
    resamples: int = 1000
    seed: int = 0


DEFAULTS = Settings()


@dataclass(frozen=True)
class Score:
    """One metric of one model, its difference to the reference, and that difference's 95 % interval.

    `value`, `difference`, `low` and `high` share one unit: "%" (0 to 100), "nats" or "" (a plain number).
    """

    metric: str
    unit: str
    value: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelResult:
    """One model: bytes on disk (external data included), how many times smaller than the reference, scores.

    `same_decisions` is the share of samples, 0 to 1, on which the model decides like the reference.
    """

    path: str
    bytes: int
    ratio: float
    same_decisions: float
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Evaluation:
    """Every model on one labelled data set; `models[0]` is the reference.

    `notes` say what figures depend on besides: a normalizer of texts, a signature of a metric.
    """

    task: str
    data: str
    samples: int
    settings: Settings
    models: tuple[ModelResult, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain dictionaries, lists, strings and numbers."""
        return asdict(self)
