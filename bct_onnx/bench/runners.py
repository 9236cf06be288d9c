"""Runs of models: the loaded ones of ONNX Runtime, their bytes on disk, and the clocks that time them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bct_onnx.arrays import Array
from bct_onnx.bench.decoder import DecoderFiles
from bct_onnx.files import bytes_on_disk
from bct_onnx.sessions import Options, OrtSession, open_session

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(run: Callable[[], object], seconds: float, clock: str) -> list[float]:
    """Return the seconds of runs, at least one, for so long; the clock is one of `CLOCKS`."""
    found: list[float] = []
    tell, end = CLOCKS[clock], time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = tell()
        run()
        found.append(tell() - start)
    return found


def bytes_of(path: Path) -> int:
    """Return the bytes of a model, of all of a folder's decoder, or of what OpenVINO or CTranslate2 has."""
    if path.suffix == ".xml":
        return path.stat().st_size + path.with_suffix(".bin").stat().st_size
    if path.is_dir() and any(path.glob("*.xml")):
        return sum(map(bytes_of, path.glob("*.xml")))
    if (path / "model.bin").exists():
        return sum(file.stat().st_size for file in path.iterdir())
    return bytes_on_disk(*DecoderFiles.find(path).all())


@dataclass
class OrtRunner:
    """A session of ONNX Runtime whose outputs stay where they are, to be inputs of the next run."""

    path: Path
    threads: int
    library: str = ""
    _session: OrtSession = field(init=False)

    def __post_init__(self) -> None:
        """Load the model; raises what ONNX Runtime raises."""
        self._session = open_session(self.path, Options(self.threads), self.library)

    def __call__(self, feed: Mapping[str, Any], in_place: Mapping[str, str]) -> dict[str, Any]:
        """Return the outputs by name; those of `in_place` are written into the memory of their inputs."""
        binding = self._session.io_binding()
        values = {name: _value(value) for name, value in feed.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        owners = {output: name for name, output in in_place.items()}
        names = [output.name for output in self._session.get_outputs()]
        for name in names:
            if name in owners:
                binding.bind_ortvalue_output(name, values[owners[name]])
            else:
                binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        # What was bound owns its memory; what the binding returns in its place does not, once the binding is gone.
        own = {output: values[name] for name, output in in_place.items()}
        return dict(zip(names, binding.get_outputs(), strict=True)) | own

    def array(self, value: Any) -> Array:
        """Return an output as an array."""
        found: Array = value.numpy()
        return found


def _value(value: Any) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
