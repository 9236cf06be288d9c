"""Sessions as the rest uses them: names for arrays, errors of one line, runs that end."""

import ctypes
import enum
import re
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bct_onnx.arrays import Array, Feed
from bct_onnx.sessions.load import NO_SPINNING, Options, open_session

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
# A run that takes longer is stopped, in seconds: some models never end.
MOST_SECONDS = 300.0
_BOILERPLATE = (
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ",
    r"Load model from .*? failed: ?",
    r"Exception during initialization: ",
    r"Fatal error: ",
    r"Non-zero status code returned while running ",
    r"Status Message: ",
    r"\S*/onnxruntime/\S*:\d+ ",
    r"\S+\.(?:cc|h):\d+ ",
    r"(?:virtual |static )?(?:[\w:<>,*&~]+ )?(?:\w+::)+[~\w]+(?:<.*?>)?\([^()]*\)(?: const)? ?",
)


class OrtError(Exception):
    """ONNX Runtime refused a model or a feed; the message is one line."""


class TooLongError(OrtError):
    """A run was stopped after MOST_SECONDS."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run: median and minimum of several."""

    median_ms: float
    min_ms: float


class MemoryUse(enum.Enum):
    """What a session does without to spare memory, at the price of speed."""

    FULL = "loaded as by any user"
    UNFOLDED = "no constants folded: decoded parts are made when they are needed"
    MAPPED = "nor weights rearranged: those in external data stay in their file"


def _options(use: MemoryUse, threads: int) -> Options:
    """Return the options of a session; one of few threads lets them sleep while it is idle."""
    entries = NO_SPINNING if threads else {}
    if use is MemoryUse.FULL:
        return Options(threads, entries=entries)
    no_copies = {"session.disable_prepacking": "1"} if use is MemoryUse.MAPPED else {}
    options = Options(threads, optimize="none", entries=entries | no_copies)
    options.enable_cpu_mem_arena = False
    return options


class Session:
    """A model loaded on the CPU."""

    def __init__(self, model: str | Path | bytes, use: MemoryUse = MemoryUse.FULL, threads: int = 0) -> None:
        """Load a file, or a model as its bytes, with so many threads (0: default); OrtError where it does not load."""
        try:
            self._session = open_session(model, _options(use, threads))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise OrtError(essential_words(error)) from error
        self.inputs = self._session.get_inputs()
        outputs = self._session.get_outputs()
        self.outputs = [value.name for value in outputs]
        self._types = {value.name: value.type for value in self.inputs}
        self._has_bfloat16 = "tensor(bfloat16)" in {*self._types.values(), *(value.type for value in outputs)}

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the outputs, or those named, by name (`name[i]` of a sequence, bfloat16 as float32).

        OrtError on failure; TooLongError after MOST_SECONDS, at the end of the operator that is at work then.
        """
        options = ort.RunOptions()
        watch = threading.Timer(MOST_SECONDS, setattr, (options, "terminate", True))
        watch.daemon = True
        watch.start()
        try:
            found = self._run(feed, outputs or self.outputs, options)
            # An array that lies in the session's memory would keep all of that.
            return {name: array if array.flags.owndata else array.copy() for name, array in found.items()}
        except OrtError as error:
            if options.terminate:
                raise TooLongError(f"a run took more than {MOST_SECONDS:g} s and was stopped") from error
            raise
        finally:
            watch.cancel()

    def _run(self, feed: Feed, names: Sequence[str], options: ort.RunOptions | None = None) -> dict[str, Array]:
        try:
            if self._has_bfloat16:
                values = self._session.run_with_ort_values(names, self._ort_values(feed), options)
                results = [_to_numpy(value) for value in values]
            else:
                results = self._session.run(names, dict(feed), options)
        except Exception as error:
            raise OrtError(essential_words(error)) from error
        outputs: dict[str, Array] = {}
        for name, result in zip(names, results, strict=True):
            parts = {name: result}
            if isinstance(result, list):
                parts = {f"{name}[{i}]": part for i, part in enumerate(result)}
            outputs.update({key: part for key, part in parts.items() if isinstance(part, np.ndarray)})
        return outputs

    def latency(self, feed: Feed, seconds: float = 0.6, most_runs: int = 20) -> Latency:
        """Time runs on a feed that ran before: at least one, then as many as fit."""
        times: list[float] = []
        while not times or (sum(times) < seconds and len(times) < most_runs):
            start = time.perf_counter()
            self._run(feed, self.outputs)
            times.append(time.perf_counter() - start)
        return Latency(round(1e3 * statistics.median(times), 3), round(1e3 * min(times), 3))

    def _ort_values(self, feed: Feed) -> Mapping[str, Any]:
        values = {}
        for name, value in feed.items():
            if self._types[name] == "tensor(bfloat16)":
                bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
                rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
                values[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(rounded, _BFLOAT16)
            else:
                values[name] = ort.OrtValue.ortvalue_from_numpy(value)
        return values


def essential_words(error: Exception) -> str:
    """Return what an ONNX Runtime error says, on one line, without status codes and source places."""
    text = " ".join(str(error).split())
    for pattern in _BOILERPLATE:
        text = re.sub(pattern, "", text)
    return text[:400].strip() or type(error).__name__


def _to_numpy(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    count = int(np.prod(value.shape()))
    halves = np.frombuffer(ctypes.string_at(value.data_ptr(), 2 * count), np.uint16)
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(value.shape())
