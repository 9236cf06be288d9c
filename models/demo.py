"""Compress the committed digits model with each preset and score the results on held-out pictures."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from bct_onnx import compress
from bct_onnx.errors import BctError
from models.digits import Labels, Pictures, load_split

MODEL = Path(__file__).with_name("digits_vit.onnx")
FOLDER = Path(__file__).parents[1] / "build" / "demo"
PRESETS = ("fast", "balanced", "small")

THREADS = 2
BATCH = 100
ROUNDS = 30

Logits = npt.NDArray[np.float32]


def open_session(path: Path) -> ort.InferenceSession:
    """Load a model in ONNX Runtime on THREADS threads of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Threads of an idle session must not spin while another session is timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, pictures: Pictures) -> Logits:
    """Map pictures [n, 1, 8, 8] to logits [n, 10]."""
    logits: Logits = session.run(["logits"], {"pixel_values": pictures})[0]
    return logits


def time_interleaved(sessions: Sequence[ort.InferenceSession], pictures: Pictures) -> npt.NDArray[np.float64]:
    """Return seconds [ROUNDS, sessions]: each round runs every session, each from another start."""
    for session in sessions:
        run(session, pictures)
    seconds = np.empty((ROUNDS, len(sessions)))
    for turn in range(ROUNDS):
        for index in np.roll(np.arange(len(sessions)), turn).tolist():
            start = perf_counter()
            run(sessions[index], pictures)
            seconds[turn, index] = perf_counter() - start
    return seconds


def compare(paths: Mapping[str, Path], pictures: Pictures, labels: Labels) -> Table:
    """Tabulate size, accuracy, decisions and speed of the models, the first being the reference."""
    sessions = [open_session(path) for path in paths.values()]
    sizes = [path.stat().st_size for path in paths.values()]
    decisions = [run(session, pictures).argmax(1) for session in sessions]
    seconds = time_interleaved(sessions, pictures[:BATCH])
    # The median of the ratios within a round: a disturbance of the machine hits one round, not one model.
    speeds = np.median(seconds[:, :1] / seconds, axis=0)
    table = Table(
        title=f"{MODEL.name}: {len(labels)} held-out digits; speed at batch {BATCH}, {THREADS} threads",
        title_justify="left",
    )
    for heading in ("model", "bytes", "smaller", "accuracy", "same decisions", "speed"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, size, decision, speed in zip(paths, sizes, decisions, speeds, strict=True):
        table.add_row(
            name,
            f"{size:,}",
            f"{sizes[0] / size:.2f}x",
            f"{np.mean(decision == labels):.1%}",
            f"{np.mean(decision == decisions[0]):.1%}",
            f"{speed:.2f}x",
        )
    return table


def main() -> int:
    """Print the table and return the exit code: 0, or what a failed compression asks for."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = {"float": MODEL} | {preset: FOLDER / f"digits_vit.{preset}.onnx" for preset in PRESETS}
    try:
        for preset in PRESETS:
            compress(MODEL, paths[preset], preset=preset)
    except BctError as error:
        Console(stderr=True).print(f"{preset}: {error}", style="red", markup=False)
        return error.exit_code
    _, _, pictures, labels = load_split()
    Console().print(compare(paths, pictures, labels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
