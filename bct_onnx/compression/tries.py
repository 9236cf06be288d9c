"""Files of a search: quick ones that tell what a choice of bits would err by and weigh, and the one that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bct_onnx import files, search
from bct_onnx.arrays import Outputs, Run
from bct_onnx.compression.workspace import Result, Workspace
from bct_onnx.search import Choice, Goal, Sensitivity
from bct_onnx.sessions import Session, give_back
from passes import Coder, Options

# Files of a search's own codes that are written, at most, on the way to a bounded error.
MOST_WRITTEN = 5


class Tries:
    """Files of one search: as large or as wrong as the one to be written, quickly made, and that itself."""

    def __init__(
        self, workspace: Workspace, model: files.ModelFile, options: Options, coder: Coder, measured: Sensitivity
    ) -> None:
        """Take what files are made of; codes that rely on data have no stand-ins."""
        self._workspace, self._model, self.options = workspace, model, options
        self._coder, self.measured = coder, measured
        self._trial: Coder = coder if workspace.real else search.NoisyCodes()
        self._errors: dict[tuple[tuple[str, int], ...], float] = {}

    @property
    def input_bytes(self) -> int:
        """The bytes of the input model."""
        return self._model.bytes

    def bytes(self, bits: Mapping[str, int]) -> int:
        """Return the bytes of the file with these bits."""
        return self._encode(bits, search.codes_of_size).bytes

    def error(self, bits: Mapping[str, int]) -> float:
        """Return the error of the file with these bits, as a try tells it."""
        key = tuple(sorted(bits.items()))
        if key not in self._errors:
            self._errors[key] = self._measure(self._encode(bits, self._trial).path)
        return self._errors[key]

    def write(self, bits: Mapping[str, int], notes: list[str]) -> Result:
        """Write, and verify, the file with these bits."""
        errors: list[float] = []

        def measure(run: Run, answered: Sequence[Outputs]) -> None:
            errors.append(self.measured.error(run, answered))

        options = replace(self.options, bits_for=bits)
        result = self._workspace.write(self._model, options, [*notes], self._coder, measure)
        self._known = result, errors[0]
        return result

    def found(self, result: Result) -> float:
        """Return the error of the file that was written last."""
        known, error = self._known
        assert known is result
        return error

    def _encode(self, bits: Mapping[str, int], coder: Coder) -> files.WrittenFile:
        written = self._workspace.encode(self._model, replace(self.options, bits_for=bits), coder, [])[0]
        self._model.let_go()
        give_back()
        return written

    def _measure(self, path: Path) -> float:
        return self.measured.error(Session(path, self._workspace.memory.compressed).run)


def choose(tries: Tries, goal: Goal, notes: list[str]) -> tuple[Result, Choice, bool]:
    """Return what is written for a goal, its bits, and whether it meets the goal."""
    curve, options = tries.measured.curve, tries.options
    if goal.max_drop is not None:
        return _within_error(tries, goal.max_drop, notes)
    plain_bytes = tries.bytes({}) if goal.plain_bytes else 0
    limit = goal.limit_bytes(tries.input_bytes, plain_bytes)
    assert limit is not None
    choice, met = search.within_bytes(curve, limit, tries.bytes)
    if goal.plain_bytes:
        plain = curve.everywhere(options.bits)
        better = met and tries.error(choice.bits) < tries.error(plain.bits)
        choice, met = choice if better else plain, True
    result = tries.write(choice.bits, notes)
    if met and not goal.plain_bytes and result.written.bytes > limit:
        # Some weights' codes are of another size than those like them.
        choice, met = search.within_bytes(curve, 2 * limit - result.written.bytes, tries.bytes)
        result = tries.write(choice.bits, notes)
        met = met and result.written.bytes <= limit
    return result, choice, met


def _within_error(tries: Tries, limit: float, notes: list[str]) -> tuple[Result, Choice, bool]:
    """Return the smallest file found that errs by at most `limit`, or that of the most bits.

    A stand-in tells what the most bits err by. All others are the search's own codes: what is encoded for one is at
    hand for the next, and only weights whose bits change are encoded anew.
    """
    curve = tries.measured.curve
    most = curve.point(0).bits
    last: tuple[Result, Mapping[str, int]] | None = None

    def error_of(bits: Mapping[str, int]) -> float:
        nonlocal last
        if bits == most:
            return tries.error(bits)
        last = tries.write(bits, notes), bits
        return tries.found(last[0])

    choice, _ = search.within_error(curve, limit, error_of, MOST_WRITTEN)
    result = last[0] if last and last[1] == choice.bits else tries.write(choice.bits, notes)
    return result, choice, tries.found(result) <= limit
