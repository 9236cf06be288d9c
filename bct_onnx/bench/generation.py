"""Generation measured: candidates in processes of their own, in turns; times, memory, and how their texts part."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bct_onnx.bench.decoder import Decoder, DecoderFiles, Generation, Step
from bct_onnx.bench.genai_runner import CONFIGURATION, PACKAGE, GenaiDecoder
from bct_onnx.bench.openvino_peer import OpenVinoLoader
from bct_onnx.bench.records import Candidate, Skipped, Spread
from bct_onnx.bench.runners import OrtRunner, bytes_of
from bct_onnx.bench.turns import MEMORY_SHARE, REST, Status, Timing, environment
from bct_onnx.bench.workers import Worker
from bct_onnx.errors import BctError

# A prompt of an encoder-decoder that has none: the token that begins every text, where nothing says which.
BEGIN = 1


@dataclass(frozen=True)
class Text:
    """What a candidate made of one prompt.

    Attributes:
        first: seconds to the first token; of an encoder, too.
        later: seconds of all tokens after it.
        whole: seconds of both, the time of a clip where that is what an encoder hears.
        tokens: the tokens.
        same: how many are the float model's before the first other one.
        equal: part of all that are the float model's, place by place.
    """

    first: Spread
    later: Spread
    whole: Spread
    tokens: list[int]
    same: int
    equal: float

    @property
    def speeds(self) -> tuple[float, float]:
        """Return the best and the median number of tokens a second after the first one."""
        count = len(self.tokens) - 1
        return count / self.later.minimum, count / self.later.median


@dataclass(frozen=True)
class GenerationRow:
    """One candidate: bytes of its files, making it, memory beyond the process's own, and texts by length of prompt."""

    candidate: Candidate
    file_bytes: int
    load_seconds: float
    peak_bytes: int
    held_bytes: int = 0
    texts: dict[int, Text] = field(default_factory=dict)


@dataclass(frozen=True)
class GenerationComparison:
    """A whole benchmark: the float model's row first."""

    environment: dict[str, str | int]
    prompts: list[int]
    new_tokens: int
    rows: list[GenerationRow]
    skipped: list[Skipped]


class GenerationBenchmark:
    """Measures candidates, the float model first, and collects in `skipped` what did not load or run."""

    def __init__(self, candidates: Sequence[Candidate], timing: Timing, status: Status = lambda _: None) -> None:
        """Prepare to compare candidates of different names; `status` is told what is under way."""
        self._candidates, self._timing, self._status = candidates, timing, status
        self._float = candidates[0]
        self._workers: dict[str, Worker] = {}
        self.skipped: list[Skipped] = []

    def compare(self, lengths: Sequence[int], count: int) -> GenerationComparison:
        """Measure `count` new tokens behind prompts; BctError when the float model does not load or generate."""
        prompts = make_prompts(self._float.path, lengths)
        with ExitStack() as stack:
            stack.callback(self._close_all)
            rows = self._load_all()
            for length, prompt in prompts.items():
                rows = self._measure(rows, length, prompt, count)
        if not rows[0].texts:
            raise BctError(f"{self._float.path}: {self.skipped[-1].reason}")
        measured = list(rows[0].texts)
        return GenerationComparison(environment(self._timing), measured, count, rows, self.skipped)

    def _load_all(self) -> list[GenerationRow]:
        rows, needed = [], 0
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for candidate in self._candidates:
            self._status(f"load: {candidate.name}")
            try:
                worker = Worker(partial(load_decoder, candidate, self._float.path, self._timing.threads))
            except BctError as error:
                self._skip(candidate, error)
                continue
            made = worker.made
            needed += made.peak_bytes
            if needed < MEMORY_SHARE * memory:
                self._workers[candidate.name] = worker
            else:
                worker.close()
            rows.append(GenerationRow(candidate, bytes_of(candidate.path), made.seconds, made.peak_bytes))
        return rows

    def _measure(self, rows: list[GenerationRow], length: int, prompt: list[int], count: int) -> list[GenerationRow]:
        """Generate behind one prompt once for the answer, then in turns, A B C A B C ..., for the time."""
        found: dict[str, list[Generation]] = {}
        held: dict[str, int] = {}
        failed: set[str] = set()
        for turn in range(self._timing.rounds + 1):
            for row in rows:
                name = row.candidate.name
                if name in failed:
                    continue
                self._status(f"prompt of {length}, round {turn} of {self._timing.rounds}: {name}")
                try:
                    with self._worker(row.candidate) as worker:
                        time.sleep(REST)
                        generation = worker.call("generate", prompt, count)
                        held[name] = worker.held_bytes()
                except BctError as error:
                    failed.add(name)
                    self.skipped.append(Skipped(name, f"behind {length} tokens: {error}"))
                    if row.candidate is self._float:  # longer than the model's places, most likely
                        return rows
                else:
                    found.setdefault(name, []).append(generation)
        reference = found[self._float.name][0].tokens
        return [
            replace(
                row,
                held_bytes=max(row.held_bytes, held[row.candidate.name]),
                texts={**row.texts, length: summary(found[row.candidate.name], reference)},
            )
            if row.candidate.name not in failed
            else row
            for row in rows
        ]

    @contextmanager
    def _worker(self, candidate: Candidate) -> Iterator[Worker]:
        """Yield the candidate's process; one that memory does not allow to stay is made anew, and warmed up."""
        if candidate.name in self._workers:
            yield self._workers[candidate.name]
            return
        with Worker(partial(load_decoder, candidate, self._float.path, self._timing.threads)) as worker:
            worker.call("generate", [BEGIN], 1)
            yield worker

    def _close_all(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def _skip(self, candidate: Candidate, error: BctError) -> None:
        if candidate is self._float:
            raise BctError(f"{candidate.path}: {error}")
        self.skipped.append(Skipped(candidate.name, str(error)))


def load_decoder(candidate: Candidate, source: Path, threads: int) -> Decoder | GenaiDecoder:
    """Return what generates, loaded; `source` is the float model, whose inputs OpenVINO's models have."""
    if candidate.runtime == "onnxruntime-genai":
        return GenaiDecoder(candidate.path, threads)
    if candidate.runtime == "openvino":
        models = DecoderFiles.find(source)
        of_file = {models.first: candidate.path}
        of_folder = {path: candidate.path / f"{path.stem}.xml" for path in models.all()}
        return Decoder(models, OpenVinoLoader(of_folder if source.is_dir() else of_file, threads))
    load = partial(OrtRunner, threads=threads, library=candidate.library)
    return Decoder(DecoderFiles.find(candidate.path), load, DecoderFiles.find(source))


def with_genai(candidate: Candidate) -> list[Candidate]:
    """Return a candidate and, where onnxruntime-genai is installed and its folder is one of that, the same in it."""
    found = candidate.runtime == "onnxruntime" and (candidate.path / CONFIGURATION).exists() and not candidate.library
    if not found or importlib.util.find_spec(PACKAGE) is None:
        return [candidate]
    name = f"{candidate.name}, onnxruntime-genai"
    return [candidate, replace(candidate, name=name, runtime="onnxruntime-genai")]


def make_prompts(path: Path, lengths: Sequence[int]) -> dict[int, list[int]]:
    """Return token numbers by their count: sentences where a tokenizer lies beside the model, else repeated numbers."""
    models = DecoderFiles.find(path)
    step = Step.read(models.first, models.first.parent)
    if not step.caches() and models.first == models.later:
        raise BctError(f"{path}: no cache of earlier tokens among the inputs: nothing to generate with")
    if models.encoder is not None:
        return {1: [_start(models.encoder.parent)]}
    entry = step.tokens()
    rows = entry.table_rows or BEGIN + 1
    rng = np.random.default_rng(0)
    return {
        length: [int(token) for token in (entry.draw((1, length), rng) if entry.draw else _words(rows, length, rng))[0]]
        for length in lengths
    }


def _start(folder: Path) -> int:
    """Return the token that begins every text of an encoder-decoder, by the configuration in its folder."""
    path = folder / "config.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("decoder_start_token_id") if path.exists() else None
    return found if isinstance(found, int) else BEGIN


def _words(rows: int, length: int, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return numbers [1, length] of a table's rows, of which a few come again and again."""
    return rng.choice(rng.integers(0, rows, max(1, length // 2)), (1, length))


def summary(found: Sequence[Generation], reference: Sequence[int]) -> Text:
    """Return what generations of the same prompt come to; the first one's times do not count."""
    tokens = found[0].tokens
    timed = found[1:] or found
    equal = np.asarray(tokens) == np.asarray(reference)
    same = len(equal) if equal.all() else int(equal.argmin())
    first, later = (Spread.of([getattr(g, name) for g in timed]) for name in ("first_seconds", "later_seconds"))
    whole = Spread.of([generation.first_seconds + generation.later_seconds for generation in timed])
    return Text(first, later, whole, tokens, same, float(equal.mean()))
