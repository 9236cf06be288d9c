"""Run models of text in turns in one runtime; run by its path, needs numpy and that runtime only.

run_turns.py onnxruntime|openvino ROWS TOKENS ROUNDS MODEL.onnx...: one line of JSON, what `benchmarks.targets.Found`
holds of each model. The first model's answers are what the others' differ from.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

THREADS = 2
Run = Callable[[dict[str, Any]], Any]


def with_onnxruntime(path: str) -> tuple[list[str], Run]:
    """Return the names of a model's inputs and what runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [value.name for value in session.get_inputs()], lambda feed: session.run(None, feed)[0]


def with_openvino(path: str) -> tuple[list[str], Run]:
    """Return the names of a model's inputs and what runs it, computing in float32 where it computes in floats."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return [value.get_any_name() for value in compiled.inputs], lambda feed: compiled(feed)[0].copy()


def main() -> None:
    """Run the models."""
    runtime, rows, tokens, rounds, *paths = sys.argv[1:]
    size = int(rows) * int(tokens)
    ids = (1000 + np.arange(size) * 7919 % 20000).reshape(int(rows), int(tokens)).astype(np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    found: dict[str, dict[str, Any]] = {}
    runs: dict[str, Callable[[], Any]] = {}
    times: dict[str, list[float]] = {}
    answers: dict[str, Any] = {}
    for path in paths:
        begin = time.perf_counter()
        try:
            names, run = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}[runtime](path)
            load = 1e3 * (time.perf_counter() - begin)
            answers[path] = run({name: feeds[name] for name in names})
        except Exception as error:  # whatever a runtime raises is a result
            found[path] = {"trouble": str(error).splitlines()[0]}
            continue
        found[path] = {"load": load}
        runs[path] = lambda run=run, names=names: run({name: feeds[name] for name in names})  # type: ignore[misc]
        times[path] = []
    for _ in range(int(rounds)):
        for path, run in runs.items():
            begin = time.perf_counter()
            run()
            times[path].append(1e3 * (time.perf_counter() - begin))
    for path, answer in answers.items():
        error = float(np.linalg.norm(answer - answers[paths[0]]) / np.linalg.norm(answers[paths[0]]))
        found[path] |= {"least": min(times[path]), "median": statistics.median(times[path]), "error": error}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
