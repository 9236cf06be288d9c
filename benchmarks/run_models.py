"""Run ONNX models as one release does; run by its path, needs onnxruntime and numpy only.

run_models.py FOLDER ANSWERS NAME...: FOLDER/NAME.onnx on FOLDER/NAME.npz, outputs to ANSWERS/NAME.npz; one line of JSON
a model, [name, what went wrong or ""].
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def run(path: Path, answers: Path) -> None:
    """Run a model with default optimizations on its feeds and keep its outputs in their order."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, dict(np.load(path.with_suffix(".npz"))))
    np.savez(answers / f"{path.stem}.npz", *outputs)


def main() -> None:
    """Run the named models one after the other."""
    folder, answers = Path(sys.argv[1]), Path(sys.argv[2])
    ort.set_default_logger_severity(4)
    for name in sys.argv[3:]:
        trouble = ""
        try:
            run(folder / f"{name}.onnx", answers)
        except Exception as error:  # whatever a release raises is a result
            trouble = (str(error).splitlines() or [type(error).__name__])[0]
        print(json.dumps([name, trouble]), flush=True)


if __name__ == "__main__":
    main()
