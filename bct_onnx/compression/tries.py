"""Files of a search: quick ones that tell what a choice of bits would err by and weigh, and the one that is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bct_onnx import files, search
from bct_onnx.arrays import Outputs, Run
from bct_onnx.compression.workspace import Result, Workspace
from bct_onnx.search import Choice, Goal, Sensitivity
from bct_onnx.sessions import Session, give_back
from passes import Coder, Options

# Files of a search's own codes that are measured, at most, on the way to a bounded error.
MOST_MEASURED = 6

Key = tuple[tuple[str, int], ...]
# The error of a file, and a digest of its answers to the feeds of verification.
Measured = tuple[float, bytes]


class Tries:
    """Files of one search: as large or as wrong as the one to be written, quickly made, and that itself."""

    def __init__(
        self,
        workspace: Workspace,
        model: files.ModelFile,
        options: Options,
        coder: Coder,
        measured: Sensitivity,
        quick: Coder | None,
    ) -> None:
        """Take what files are made of; codes that rely on data have no stand-ins.

        `quick` makes codes that answer like those of `coder` and are loaded at once, where there are such.
        """
        self._workspace, self._model, self.options = workspace, model, options
        self._coder, self._quick, self.measured = coder, quick, measured
        self._trial: Coder = coder if workspace.real else search.NoisyCodes()
        self._errors: dict[Key, float] = {}
        self._exact: dict[Key, Measured] = {}
        self._written: tuple[Key, Result, float] | None = None

    @property
    def input_bytes(self) -> int:
        """The bytes of the input model."""
        return self._model.bytes

    def bytes(self, bits: Mapping[str, int]) -> int:
        """Return the bytes of the file with these bits."""
        return self._encode(bits, search.codes_of_size).bytes

    def error(self, bits: Mapping[str, int]) -> float:
        """Return the error of the file with these bits, as a try tells it."""
        key = _key(bits)
        if key not in self._errors:
            self._errors[key] = self._measure(self._encode(bits, self._trial).path)[0]
        return self._errors[key]

    def exact(self, bits: Mapping[str, int]) -> float:
        """Return the error of the file with these bits, by the codes that it will have."""
        if self._quick is None:
            return self.found(self.write(bits, []))
        key = _key(bits)
        if key not in self._exact:
            self._exact[key] = self._measure(self._encode(bits, self._quick).path)
        return self._exact[key][0]

    def write(self, bits: Mapping[str, int], notes: list[str]) -> Result:
        """Write, and verify, the file with these bits, unless it is the one that was written last.

        Where it answers to the bit as its quick codes did, its error is known.
        """
        key, errors = _key(bits), list[float]()

        def measure(run: Run, answered: Sequence[Outputs]) -> None:
            error, answers = self._exact.get(key, (0.0, b""))
            errors.append(error if answers == _digest(answered) else self.measured.error(run, answered))

        if self._written is None or self._written[0] != key:
            options = replace(self.options, bits_for=bits)
            result = self._workspace.write(self._model, options, [], self._coder, measure)
            self._written = key, result, errors[0]
        result = self._written[1]
        return replace(result, notes=(*notes, *result.notes))

    def found(self, result: Result) -> float:
        """Return the error of the file that was written last."""
        assert self._written is not None and self._written[1].written is result.written
        return self._written[2]

    def _encode(self, bits: Mapping[str, int], coder: Coder) -> files.WrittenFile:
        options = replace(self.options, bits_for=bits)
        written = self._workspace.encode(self._model, options, coder, [], lasting=False)[0]
        self._written = None
        self._model.let_go()
        give_back()
        return written

    def _measure(self, path: Path) -> Measured:
        run = Session(path, self._workspace.memory.compressed).run
        answered = [run(feed) for feed in self.measured.feeds[: self.measured.verified]]
        return self.measured.error(run, answered), _digest(answered)


def _key(bits: Mapping[str, int]) -> Key:
    return tuple(sorted(bits.items()))


def _digest(answered: Sequence[Outputs]) -> bytes:
    """Return what tells answers apart that differ in any bit."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in (each for outputs in answered for each in sorted(outputs.items())):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return digest.digest()


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

    A stand-in tells what the most bits err by, the search's own codes what all others do: what is encoded for one is at
    hand for the next, and only weights whose bits change are encoded anew.
    """
    curve = tries.measured.curve
    most = curve.point(0).bits

    def error_of(bits: Mapping[str, int]) -> float:
        return tries.error(bits) if bits == most else tries.exact(bits)

    choice, _ = search.within_error(curve, limit, error_of, MOST_MEASURED)
    result = tries.write(choice.bits, notes)
    return result, choice, tries.found(result) <= limit
