"""Load one model (or none) and print what it cost as JSON; run by its path, in a process of its own."""

import json
import resource
import sys
import time
from pathlib import Path

import onnxruntime as ort


def peak_bytes() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts at what the parent occupied when it forked
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def session(path: Path | str, threads: int) -> ort.InferenceSession:
    """Load a model as every measurement does: on the CPU, default optimizations, `threads` threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Load the model of the first argument with as many threads as the second says, or nothing for `-`."""
    path, threads = sys.argv[1], int(sys.argv[2])
    start = time.perf_counter()
    loaded = None if path == "-" else session(path, threads)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))  # noqa: T201
    del loaded


if __name__ == "__main__":
    main()
