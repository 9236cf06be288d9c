"""Compress a trained model with each preset and score the results: MiniLM where it is installed, else the digits."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from bct_onnx import compress, files
from bct_onnx.errors import BctError
from bct_onnx.sessions import NO_SPINNING, Options, OrtSession, open_session
from models import minilm
from models.digits import load_split

DIGITS = Path(__file__).with_name("digits_vit.onnx")
FOLDER = Path(__file__).parents[1] / "build" / "demo"
PRESETS = ("fast", "balanced", "small")

THREADS = 2
BATCH = 100
ROUNDS = 15

Feed = Mapping[str, npt.NDArray[Any]]
Decisions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """A trained model and what it is scored on.

    Attributes:
        model: the file.
        title: what the table shows.
        timed: what one run reads when speed is measured.
        decide: a session's decisions, [n].
        right: the right ones, [n].
    """

    model: Path
    title: str
    timed: Feed
    decide: Callable[[OrtSession], Decisions]
    right: Decisions


def digits() -> Example:
    """Return the small vision transformer that is here, and pictures that it has not seen."""
    _, _, pictures, labels = load_split()

    def decide(session: OrtSession) -> Decisions:
        return np.asarray(session.run(["logits"], {"pixel_values": pictures})[0]).argmax(1)

    title = f"{len(labels)} held-out digits; speed at batch {BATCH}"
    return Example(DIGITS, title, {"pixel_values": pictures[:BATCH]}, decide, labels)


def sentences(folder: Path) -> Example:
    """Return MiniLM from the package's folder, and questions whose answers it must find."""
    path = FOLDER / "minilm.onnx"
    minilm.write(folder, path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    questions, answers = (_tokens(tokenizer, list(texts)) for texts in zip(*minilm.PAIRS, strict=True))

    def decide(session: OrtSession) -> Decisions:
        asked, given = (_embed(session, feed) for feed in (questions, answers))
        return np.asarray((asked @ given.T).argmax(1))

    title = f"answers to {len(minilm.PAIRS)} questions; speed at {' x '.join(map(str, answers['input_ids'].shape))}"
    return Example(path, f"{title} tokens", answers, decide, np.arange(len(minilm.PAIRS)))


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> Feed:
    found = tokenizer.encode_batch(texts)
    parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(one, part) for one in found], np.int64) for name, part in parts.items()}


def _embed(session: OrtSession, feed: Feed) -> npt.NDArray[np.float32]:
    """Return a unit vector a text, [n, width]: the mean over its tokens, as sentence-transformers takes it."""
    states = session.run(["last_hidden_state"], dict(feed))[0]
    mean = (states * feed["attention_mask"][..., None]).sum(axis=1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def time_interleaved(sessions: Sequence[OrtSession], feed: Feed) -> npt.NDArray[np.float64]:
    """Return seconds [ROUNDS, sessions]: each round runs every session, each from another start."""
    for session in sessions:
        session.run(None, dict(feed))
    seconds = np.empty((ROUNDS, len(sessions)))
    for turn in range(ROUNDS):
        for index in np.roll(np.arange(len(sessions)), turn).tolist():
            start = perf_counter()
            sessions[index].run(None, dict(feed))
            seconds[turn, index] = perf_counter() - start
    return seconds


def compare(paths: Mapping[str, Path], example: Example) -> Table:
    """Tabulate size, accuracy, decisions and speed of the models, the first being the reference."""
    # Threads of an idle session must not spin while another session is timed.
    sessions = [open_session(path, Options(THREADS, entries=NO_SPINNING)) for path in paths.values()]
    sizes = [files.bytes_on_disk(path) for path in paths.values()]
    decisions = [example.decide(session) for session in sessions]
    seconds = time_interleaved(sessions, example.timed)
    # The median of the ratios within a round: a disturbance of the machine hits one round, not one model.
    speeds = np.median(seconds[:, :1] / seconds, axis=0)
    table = Table(title=f"{example.model.name}: {example.title}, {THREADS} threads", title_justify="left")
    for heading in ("model", "bytes", "smaller", "right", "same decisions", "speed"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, size, decision, speed in zip(paths, sizes, decisions, speeds, strict=True):
        table.add_row(
            name,
            f"{size:,}",
            f"{sizes[0] / size:.2f}x",
            f"{np.mean(decision == example.right):.1%}",
            f"{np.mean(decision == decisions[0]):.1%}",
            f"{speed:.2f}x",
        )
    return table


def main() -> int:
    """Print the table and return the exit code: 0, or what a failed compression asks for."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = minilm.source()
    example = digits() if folder is None else sentences(folder)
    paths = {"float": example.model} | {preset: FOLDER / f"{example.model.stem}.{preset}.onnx" for preset in PRESETS}
    for preset in PRESETS:
        try:
            compress(example.model, paths[preset], preset=preset)
        except BctError as error:
            Console(stderr=True).print(f"{preset}: {error}", style="red", markup=False)
            return error.exit_code
    Console().print(compare(paths, example))
    return 0


if __name__ == "__main__":
    sys.exit(main())
