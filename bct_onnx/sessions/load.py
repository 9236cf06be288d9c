"""How every session of ONNX Runtime is made. Run by its path, in a process of its own, it says what loading costs.

It imports nothing large but onnxruntime: what that process takes is the model's. Arguments: a model, or `-` for none,
the number of threads and, where there is one, a library of operators; it prints JSON.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import onnxruntime as ort

OrtSession: TypeAlias = ort.InferenceSession
_FATAL = 4
_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class Options(ort.SessionOptions):  # type: ignore[misc]  # onnxruntime has no types
    """ONNX Runtime's default options but for what is asked; nothing is logged, since what goes wrong is raised."""

    def __init__(
        self,
        threads: int = 0,
        *,
        optimize: str = "all",
        optimized: Path | None = None,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        """Set options.

        Args:
            threads: of one operator; 0 for one a core.
            optimize: none, basic, extended or all of the graph optimizations.
            optimized: file to write the optimized model to.
            entries: ONNX Runtime's configuration entries by name.
        """
        super().__init__()
        self.log_severity_level = _FATAL
        self.intra_op_num_threads = threads
        self.graph_optimization_level = _LEVELS[optimize]
        if optimized is not None:
            self.optimized_model_filepath = str(optimized)
        for name, value in (entries or {}).items():
            self.add_session_config_entry(name, value)

    def __deepcopy__(self, _: object) -> "Options":
        """Return the options themselves: transformers copies what it hands on, which ONNX Runtime's cannot be."""
        return self


# Threads sleep while their session is idle: others are at work meanwhile.
NO_SPINNING = {"session.intra_op.allow_spinning": "0"}


# The entry that tells the native kernels which file a session is for: they register what its functions call. Longer
# values than this are an error of ONNX Runtime.
_MODEL_ENTRY, _LONGEST_ENTRY = "bct_onnx.model", 2048


def open_session(model: str | Path | bytes, options: Options | None = None, library: str = "") -> OrtSession:
    """Load a file, or a model as its bytes, on the CPU.

    Args:
        model: the file or bytes.
        options: ONNX Runtime's; with a library they are for this session alone.
        library: path of a library of operators, or none.

    Raises ONNX Runtime's exceptions, which have no common base.
    """
    source, options = model if isinstance(model, bytes) else str(model), options or Options()
    if library:
        if isinstance(source, str) and len(os.fsencode(source)) < _LONGEST_ENTRY:
            options.add_session_config_entry(_MODEL_ENTRY, source)
        options.register_custom_ops_library(library)
    # Without its fallback ONNX Runtime neither prints nor loads a second time.
    return OrtSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def peak_bytes() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts at what the parent occupied when it forked
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """Return the memory of this process that is resident, in bytes; where the system does not tell, its peak."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) * 1024 if status.exists() else peak_bytes()


def main() -> None:
    """Load the model of the first argument with as many threads as the second says, or nothing for `-`."""
    path, threads, library = sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:])
    start = time.perf_counter()
    loaded = None if path == "-" else open_session(path, Options(threads), library)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))  # noqa: T201
    del loaded


if __name__ == "__main__":
    main()
