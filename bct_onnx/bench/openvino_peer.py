"""OpenVINO as a peer: models made for it, and what loads and runs them. Needs openvino and nncf."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.bench.runners import timed
from bct_onnx.bench.workloads import Feeds, Signature
from bct_onnx.errors import BctError

# Of an integer model's calibration: inputs made for the model, of each of its workloads.
CALIBRATION = 8
# Columns of weights of 4 bits that have one scale.
GROUP = 128


def convert(source: Path, target: Path) -> None:
    """Write an ONNX model for OpenVINO as it is."""
    _save(_read(source), target)


def quantize_static(source: Path, target: Path) -> None:
    """Quantize weights and activations to 8 bits with NNCF, calibrated on inputs made for the model."""
    nncf = importlib.import_module("nncf")
    model = _read(source)
    feeds = list(_made(source))
    kind = nncf.ModelType.TRANSFORMER
    _save(nncf.quantize(model, nncf.Dataset(feeds), model_type=kind, subset_size=len(feeds)), target)


def compress_weights(source: Path, target: Path, *, bits: int) -> None:
    """Store weights in so many bits, 4 or 8, with NNCF."""
    nncf = importlib.import_module("nncf")
    modes = nncf.CompressWeightsMode
    options = {"mode": modes.INT8_ASYM} if bits == 8 else {"mode": modes.INT4_SYM, "group_size": GROUP, "ratio": 1.0}
    _save(nncf.compress_weights(_read(source), **options), target)


def _read(source: Path) -> Any:
    return importlib.import_module("openvino").Core().read_model(source)


def _save(model: Any, target: Path) -> None:
    importlib.import_module("openvino").save_model(model, target.with_suffix(".xml"), compress_to_fp16=False)


def _made(source: Path) -> Iterator[Feeds]:
    signature = Signature.read(source)
    for workload in signature.default_workloads():
        for seed in range(CALIBRATION):
            yield signature.feeds(workload, seed + 1)


@dataclass(frozen=True)
class OpenVinoLoader:
    """Loads the models that were made of ONNX files."""

    made: Mapping[Path, Path]
    threads: int

    def __call__(self, path: Path) -> OpenVinoRunner:
        """Return what was made of an ONNX file, loaded."""
        return OpenVinoRunner(self.made[path], self.threads)


@dataclass
class OpenVinoRunner:
    """A model in OpenVINO on the CPU, in the precision that it takes by itself: bf16 where the processor has it."""

    path: Path
    threads: int
    _model: Any = field(init=False)

    def __post_init__(self) -> None:
        """Load the model; raises what OpenVINO raises."""
        core = importlib.import_module("openvino").Core()
        options = {"INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"}
        with _one_line():
            self._model = core.compile_model(self.path, "CPU", options)
        self._request = self._model.create_infer_request()
        self._taken = {name for value in self._model.inputs for name in value.get_names()}

    def __call__(self, feed: Mapping[str, Any], in_place: Mapping[str, str]) -> dict[str, Any]:
        """Return the outputs by name."""
        if in_place:
            raise BctError("caches that are written in place are not tried in OpenVINO")
        outcome = self._infer(_contiguous({name: value for name, value in feed.items() if name in self._taken}))
        return {name: np.array(outcome[value]) for value in self._model.outputs for name in value.get_names()}

    def array(self, value: Any) -> Array:
        """Return an output as an array."""
        return np.asarray(value)

    def answer(self, feed: Feeds) -> Array:
        """Return the first output."""
        return np.array(self._infer(_contiguous(feed))[0])

    def turn(self, feed: Feeds, seconds: float, clock: str) -> list[float]:
        """Return the seconds of runs, at least one, for so long, by one of `CLOCKS`."""
        known = _contiguous(feed)
        return timed(lambda: self._infer(known), seconds, clock)

    def _infer(self, feed: Mapping[str, Any]) -> Any:
        with _one_line():
            return self._request.infer(feed, share_inputs=True)


def _contiguous(feed: Mapping[str, Any]) -> dict[str, Array]:
    """Return what OpenVINO can read where it is."""
    return {name: np.ascontiguousarray(value) for name, value in feed.items()}


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn errors of OpenVINO, which begin with places in its source, into BctError."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if not line.strip().startswith("Exception from")]
        raise BctError(next(filter(None, lines), type(error).__name__)[:300]) from error
