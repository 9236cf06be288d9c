"""What a model is fed: batch and token counts, and arrays that its inputs accept."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bct_onnx.arrays import Value
from bct_onnx.errors import BctError
from bct_onnx.files import read
from bct_onnx.inputs import InputPlan, ModelInput, Role
from bct_onnx.inputs.flow import flatten
from bct_onnx.inputs.roles import find_inputs

Feeds = dict[str, Value]

# Fed as if nothing were padded: what padding saves differs from model to model.
UNPADDED = frozenset({Role.MASK, Role.ADDITIVE_MASK, Role.LENGTHS})


@dataclass(frozen=True)
class Workload:
    """One call: `batch` sequences of `tokens`, after `past` tokens in the cache."""

    batch: int
    tokens: int = 1
    past: int = 0

    @property
    def label(self) -> str:
        """Return the form `parse` reads, or `batch N` where no tokens are counted."""
        if self.tokens == 1 and not self.past:
            return f"batch {self.batch}"
        return f"{self.batch}x{self.tokens}" + (f"+{self.past}" if self.past else "")


ENCODER = (Workload(1, 16), Workload(1, 128), Workload(8, 128))
DECODER = (Workload(1, 128), Workload(1, 1, 128))
PICTURE = (Workload(1), Workload(8))


@dataclass(frozen=True)
class Signature:
    """The inputs of a model."""

    inputs: tuple[ModelInput, ...]

    @classmethod
    def read(cls, path: Path) -> "Signature":
        """Read the inputs of a model file; raise BctError when it is not one."""
        model = read(path).proto
        return cls(find_inputs(model, flatten(model)))

    @property
    def has_cache(self) -> bool:
        """Tell whether keys and values of earlier tokens are among the inputs."""
        return any(entry.role is Role.CACHE for entry in self.inputs)

    @property
    def has_pictures(self) -> bool:
        """Tell whether an input is [batch, channels, height, width]."""
        return any(entry.role is Role.NUMBERS and len(entry.shape) == 4 for entry in self.inputs)

    def default_workloads(self) -> list[Workload]:
        """Return the calls a model is measured with when none are asked for; fixed dimensions are kept."""
        chosen = DECODER if self.has_cache else PICTURE if self.has_pictures else ENCODER
        fixed: dict[str, int] = {}
        for entry in self.inputs:
            names = {Role.IDS: ("batch", "tokens"), Role.NUMBERS: ("batch",)}.get(entry.role, ())
            pairs = zip(names, entry.shape, strict=False)
            fixed |= {name: size for name, size in pairs if isinstance(size, int)}
        return list(dict.fromkeys(replace(workload, **fixed) for workload in chosen))

    def feeds(self, workload: Workload, seed: int = 0) -> Feeds:
        """Make one array per input: ids within the vocabulary, masks of ones, positions after the cache."""
        counts = {"batch": workload.batch, "sequence": workload.tokens, "past": workload.past, "feed": 0}
        counts["encoder"] = max(workload.tokens, workload.past)
        return dict(InputPlan(self.inputs, counts, (seed,), UNPADDED).feed())


def parse(text: str) -> list[Workload]:
    """Read `BATCHxTOKENS[+PAST]` (pictures: `BATCH`) separated by commas; raise BctError otherwise."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?(?:\+(\d+))?", part.strip())
        if not match:
            raise BctError(f"--shapes {text}: write BATCHxTOKENS or BATCHxTOKENS+PAST, separated by commas")
        batch, tokens, past = match.groups()
        found.append(Workload(int(batch), int(tokens or 1), int(past or 0)))
    return found
