"""Probes: one input of every model, and what it answered where the package was made, to compare with elsewhere.

A processor whose kernels add 8-bit products in 16 bits, a damaged library, another execution provider: the model loads,
runs, and answers something else.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from bct_onnx import files
from bct_onnx.arrays import Array, Feed
from bct_onnx.errors import BctError, VerificationError
from bct_onnx.inputs import made_inputs
from bct_onnx.sessions import Latency, OrtError, Session
from bct_onnx.verify import run_reference

from .contents import PROBES

# Largest input that is kept, in bytes, and most values of an output.
_MOST_BYTES, _MOST_VALUES = 1 << 20, 4096
# Largest relative error (L2) of an output on another machine. Kernels that add in another order move int8 roundings:
# a MiniLM classifier's logits differ by 0.09 between ONNX Runtime 1.24.4 and 1.32.0, as much as compression costs.
BOUND = 0.2
_INPUT, _OUTPUT = "input ", "output "


def probe_path(model: str) -> str:
    """Return the place of a model's probe, both below the folder of the package."""
    return f"{PROBES}/{model.removesuffix('.onnx')}.npz"


def write_probe(model: Path, source: Path, probe: Path) -> None:
    """Keep the largest input made for a model that is not too large, and the answer; nothing where there is none.

    What inputs are for is read off the float model `source`.
    """
    read = files.read(source).proto
    reference = run_reference(
        model, files.read(model).proto, lambda run, *_: made_inputs(run, source, read, budget_seconds=5.0)
    )
    sizes = [_bytes(feed) for feed in reference.feeds]
    best = max((size for size in sizes if size <= _MOST_BYTES), default=None)
    if best is None:
        return
    feed, outputs = reference.feeds[sizes.index(best)], reference.outputs[sizes.index(best)]
    arrays = {_INPUT + name: np.asarray(value) for name, value in feed.items()}
    arrays |= {_OUTPUT + name: _sample(value) for name, value in outputs.items() if value.dtype.kind in "fiub"}
    probe.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(probe, **arrays)  # type: ignore[arg-type]


def _bytes(feed: Feed) -> float:
    """Return the size of an input; that of a sequence, or of objects, is infinite: no file for arrays holds them."""
    plain = all(isinstance(value, np.ndarray) and not value.dtype.hasobject for value in feed.values())
    return sum(np.asarray(value).nbytes for value in feed.values()) if plain else math.inf


def check_probe(model: Path, probe: Path) -> Latency:
    """Run a model on its probe; returns how long that takes.

    Raises VerificationError where it does not load or run, or answers otherwise than where it was packaged.
    """
    try:
        with np.load(probe) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BctError(f"{probe}: cannot be read: {error}") from error
    feed: Feed = {name.removeprefix(_INPUT): array for name, array in arrays.items() if name.startswith(_INPUT)}
    try:
        session = Session(model)
        answered = session.run(feed)
        latency = session.latency(feed)
    except OrtError as error:
        raise VerificationError(f"{model}: does not run: {error}") from error
    for name, expected in arrays.items():
        output = name.removeprefix(_OUTPUT)
        if name.startswith(_OUTPUT):
            _compare(model, output, expected, answered.get(output))
    return latency


def _sample(values: Array) -> Array:
    """Return all values of an output, or as many as are kept, from places evenly apart."""
    flat = np.asarray(values).reshape(-1)
    if flat.size <= _MOST_VALUES:
        return flat
    return np.asarray(flat[np.linspace(0, flat.size - 1, _MOST_VALUES).astype(np.int64)])


def _compare(model: Path, name: str, expected: Array, answered: Array | None) -> None:
    found = np.empty(0) if answered is None else _sample(answered)
    if found.shape != expected.shape:
        raise VerificationError(f"{model}: output {name!r} has another shape than where it was packaged")
    one, other = (np.nan_to_num(array.astype(np.float64)) for array in (expected, found))
    norm = float(np.linalg.norm(one))
    error = float(np.linalg.norm(other - one)) / norm if norm else float(np.abs(other).max(initial=0.0))
    if not error <= BOUND or (np.isnan(expected.astype(float)) != np.isnan(found.astype(float))).any():
        raise VerificationError(
            f"{model}: output {name!r} differs by {error:.2g} from what it was where the package was made, above"
            f" {BOUND:g}: this processor or ONNX Runtime computes otherwise; try --lowering dense7 or portable"
        )
