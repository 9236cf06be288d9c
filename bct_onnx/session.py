"""ONNX Runtime sessions that are silent, with errors of one line."""

import ctypes
import enum
import re
import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bct_onnx.arrays import Array, Feed

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_FATAL = 4
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


class Thrift(enum.Enum):
    """What a session does without to spare memory, at the price of speed."""

    NONE = "loaded as by any user"
    UNFOLDED = "no constants folded: decoded parts are made when they are needed"
    MAPPED = "nor weights rearranged: those in external data stay in their file"


class Session:
    """A model loaded on the CPU with default threads."""

    def __init__(self, model: str | Path | bytes, thrift: Thrift = Thrift.NONE) -> None:
        """Load a file, or a model as its bytes; OrtError when ONNX Runtime does not."""
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        if thrift is not Thrift.NONE:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_cpu_mem_arena = False
        if thrift is Thrift.MAPPED:
            options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            # Without its fallback ONNX Runtime neither prints nor loads a second time.
            given = model if isinstance(model, bytes) else str(model)
            self._session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise OrtError(essential_words(error)) from error
        self._types = {value.name: value.type for value in self._session.get_inputs()}
        self._names = [value.name for value in self._session.get_outputs()]
        types = {*self._types.values(), *(value.type for value in self._session.get_outputs())}
        self._has_bfloat16 = "tensor(bfloat16)" in types

    def run(self, feed: Feed) -> dict[str, Array]:
        """Return the outputs by name (`name[i]` of a sequence, bfloat16 as float32).

        OrtError on failure; TooLongError after MOST_SECONDS, at the end of the operator that is at work then.
        """
        options = ort.RunOptions()
        watch = threading.Timer(MOST_SECONDS, setattr, (options, "terminate", True))
        watch.daemon = True
        watch.start()
        try:
            return self._run(feed, options)
        except OrtError as error:
            if options.terminate:
                raise TooLongError(f"a run took more than {MOST_SECONDS:g} s and was stopped") from error
            raise
        finally:
            watch.cancel()

    def _run(self, feed: Feed, options: ort.RunOptions | None = None) -> dict[str, Array]:
        try:
            if self._has_bfloat16:
                values = self._session.run_with_ort_values(None, self._ort_values(feed), options)
                results = [_to_numpy(value) for value in values]
            else:
                results = self._session.run(None, dict(feed), options)
        except Exception as error:
            raise OrtError(essential_words(error)) from error
        outputs: dict[str, Array] = {}
        for name, result in zip(self._names, results, strict=True):
            parts = {name: result}
            if isinstance(result, list):
                parts = {f"{name}[{i}]": part for i, part in enumerate(result)}
            outputs.update({key: part for key, part in parts.items() if isinstance(part, np.ndarray)})
        return outputs

    def latency(self, feed: Feed, seconds: float = 1.5, most_runs: int = 20) -> Latency:
        """Time runs on a feed that ran before: at least one, then as many as fit."""
        times: list[float] = []
        while not times or (sum(times) < seconds and len(times) < most_runs):
            start = time.perf_counter()
            self._run(feed)
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
