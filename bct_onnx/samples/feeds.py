"""Feeds of a model from samples: what a processor makes goes to the inputs of that name or role."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from bct_onnx.arrays import Array, Feed, Run
from bct_onnx.errors import BctError
from bct_onnx.inputs import AnsweredInputs, InputPlan, Role, answer_all, candidate_plans
from bct_onnx.inputs.text import LOGITS, pair_caches
from bct_onnx.inputs.values import PICTURE_RANK, numpy_type
from bct_onnx.samples.processors import Samples
from bct_onnx.sessions import OrtError, Session

BATCH = 8
# Rows and tokens of a model with caches: logits of every token are in memory, and most vocabularies are large.
ROWS, DECODER_BATCH, WIDTH = 16, 4, 64
# Tokens that a decoder writes about what its encoder read.
WRITTEN = 24
ENCODER, HIDDEN = "encoder_model.onnx", "encoder_hidden_states"
_NAMES = {Role.IDS: "input_ids", Role.MASK: "attention_mask", Role.TYPES: "token_type_ids"}
_SOUND = ("input_features", "input_values")
_START = ("decoder_start_token_id", "bos_token_id")


def sample_inputs(
    run: Run, path: Path, model: ModelProto, *, data: str | Path, processor: str | Path | None = None
) -> AnsweredInputs:
    """Return the feeds of `data_feeds` with the model's answers; BctError as there, and where one does not run."""
    return answer_all(run, list(data_feeds(run, path, model, data, processor)))


def data_feeds(
    run: Run, path: str | Path, model: ModelProto, data: str | Path, processor: str | Path | None = None
) -> Iterator[tuple[Feed, str]]:
    """Yield feeds of a model from texts, pictures or sounds, and in words what each is; the same ones every time.

    At most 64 samples are taken. A model with caches reads text in rows of 64 tokens, from the first token or behind
    the caches that it filled with the half before; a decoder behind an encoder writes about what encoder_model.onnx,
    in the same folder, makes of the samples.

    Args:
        run: runs the model.
        path, model: its file, and the model without its tensors' data.
        data: a .txt (one sample a line), .jsonl, .wav or picture, or a folder of such files.
        processor: folder of tokenizer or processor, instead of the model's folder and the one above.

    Raises:
        BctError: what cannot be read, or does not fit the model; the message says what to do.
    """
    folder = Path(path).resolve().parent
    samples = Samples(Path(data), (Path(processor),) if processor else (folder, folder.parent))
    reader = _Reader(run, Path(path), next(next(candidate_plans(model, 0))), samples)
    try:
        if any(entry.name == HIDDEN for entry in reader.plan.inputs):
            yield from reader.behind_encoder(folder / ENCODER)
        elif reader.has_caches:
            yield from reader.rows()
        else:
            yield from reader.batches()
    except OrtError as error:
        raise BctError(f"{data}: the model does not run on it: {error}") from error


@dataclass(frozen=True)
class _Reader:
    """What turns samples into feeds of one model."""

    run: Run
    path: Path
    plan: InputPlan
    samples: Samples

    @property
    def has_caches(self) -> bool:
        """Whether the model keeps keys and values of earlier tokens."""
        return any(entry.role is Role.CACHE for entry in self.plan.inputs)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size of a model that has one."""
        first = self.plan.inputs[0].shape
        return first[0] if first and isinstance(first[0], int) and first[0] > 0 else None

    def batches(self) -> Iterator[tuple[Feed, str]]:
        """Yield batches of samples for a model without caches."""
        arrays = self._numbers()
        ids = next((entry for entry in self.plan.inputs if entry.role is Role.IDS), None)
        if ids is None and not arrays:
            raise BctError(f"{self.path}: takes no tokens, pictures or sounds; give its inputs with --feeds FILE.npz")
        # Texts of similar length together: a batch then has little padding.
        texts = sorted(self.samples.texts, key=lambda text: len("".join(text))) if ids else []
        length = ids.shape[-1] if ids and isinstance(ids.shape[-1], int) else None
        count = min([len(array) for array in arrays.values()] + [len(texts)] * (ids is not None))
        size = self.fixed_batch or BATCH
        for start in range(0, count, size):
            # A fixed batch is filled up with samples that were there before.
            chosen = [i % count for i in range(start, start + size) if i < count or self.fixed_batch]
            values = {name: array[chosen] for name, array in arrays.items()}
            if ids:
                values |= self.samples.tokens([texts[i] for i in chosen], length)
            yield self._fed(values), f"samples {start} to {start + len(chosen) - 1} of {self.samples.place}"

    def rows(self) -> Iterator[tuple[Feed, str]]:
        """Yield rows of text for a model with caches: every other batch behind a cache, a single one both ways."""
        rows = self.samples.rows_of_tokens(WIDTH)[:ROWS]
        size = self.fixed_batch or DECODER_BATCH
        batches = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)] or [rows]
        alone = len(batches) == 1
        for number, tokens in enumerate(batches):
            yield from self.continued(tokens, {}, first=alone or number % 2 == 0, then=alone or number % 2 == 1)

    def continued(
        self, tokens: Array, values: Mapping[str, Array], *, first: bool, then: bool
    ) -> Iterator[tuple[Feed, str]]:
        """Yield tokens [rows, width] from the beginning, and their second half behind the caches of the first."""
        rows, width = tokens.shape
        where = f"{self.samples.place}, {rows} x"
        if first:
            yield self._fed({**values, "input_ids": tokens}), f"{where} {width} tokens"
        if then:
            # What reads a cache only where a flag says so reads one token at a time; so do batches in
            # GroupQueryAttention, which only running the model tells.
            flagged = any(entry.role is Role.CACHE_FLAG for entry in self.plan.inputs)
            past = width // 2
            step = None if flagged else self._step(tokens, values, past)
            if step is None or not self._runs(step):
                past = width - 1
                step = self._step(tokens, values, past)
            yield step, f"{where} {width - past} tokens, a cache of its own of {past}"

    def _step(self, tokens: Array, values: Mapping[str, Array], past: int) -> Feed:
        """Return the tokens behind `past` ones, and the caches that the model filled with those."""
        answer = self.run(self._fed({**values, "input_ids": tokens[:, :past]}))
        pairs = pair_caches([entry.name for entry in self.plan.inputs if entry.role is Role.CACHE], list(answer))
        if not pairs:
            raise BctError(f"{self.path}: does not fill its own caches; give its inputs with --feeds FILE.npz")
        filled = {name: answer[output] for name, output in pairs.items()}
        return {**self._fed({**values, "input_ids": tokens[:, past:]}, past=past), **filled}

    def _runs(self, feed: Feed) -> bool:
        try:
            self.run(feed)
        except OrtError:
            return False
        return True

    def behind_encoder(self, path: Path) -> Iterator[tuple[Feed, str]]:
        """Yield what the decoder itself writes about the samples that its encoder reads."""
        if not path.is_file():
            raise BctError(f"{self.path}: needs {path.name} in the same folder, whose output it reads")
        session = Session(path)
        plan = next(next(candidate_plans(onnx.load(path, load_external_data=False), 0)))
        encoder = _Reader(session.run, path, plan, self.samples)
        for number, (feed, _) in enumerate(encoder.batches()):
            hidden = next(iter(session.run(feed).values()))[:DECODER_BATCH]
            values = {HIDDEN: hidden}
            if "attention_mask" in feed:
                values["encoder_attention_mask"] = np.asarray(feed["attention_mask"])[:DECODER_BATCH]
            tokens = np.full((len(hidden), 1), _start_token(path.parent), np.int64)
            while tokens.shape[1] < WRITTEN:
                answer = self.run(self._fed({**values, "input_ids": tokens}))
                logits = next(array for name, array in answer.items() if LOGITS.search(name))
                tokens = np.concatenate([tokens, logits[:, -1:].argmax(-1)], axis=1)
            yield from self.continued(tokens, values, first=True, then=self.has_caches)
            if (number + 1) * DECODER_BATCH >= ROWS:
                return

    def _numbers(self) -> dict[str, Array]:
        """Return the arrays of pictures and sounds that the model has inputs for."""
        arrays: dict[str, Array] = {}
        for entry in self.plan.inputs:
            if entry.role is not Role.NUMBERS:
                continue
            source = (
                self.samples.sounds
                if entry.name in _SOUND or len(entry.shape) < PICTURE_RANK
                else self.samples.pictures
            )
            main = next(iter(source))
            arrays[entry.name] = source.get(entry.name, source[main])
        return arrays

    def _fed(self, values: Mapping[str, Array], past: int = 0) -> Feed:
        """Return a feed with values by name of the input, or of its role; the rest follows from sizes."""
        ids = values.get("input_ids")
        sizes = {"batch": len(next(iter(values.values()))), "past": past}
        if ids is not None:
            sizes["sequence"] = ids.shape[1]
        if HIDDEN in values:
            sizes["encoder"] = values[HIDDEN].shape[1]
        feed = dict(self.plan.feed(**sizes))
        for entry in self.plan.inputs:
            name = entry.name if entry.name in values else _NAMES.get(entry.role, "")
            if name in values and ("encoder" in entry.name) == ("encoder" in name):
                feed[entry.name] = values[name].astype(numpy_type(entry))
        return feed


def _start_token(folder: Path) -> int:
    """Return the number of the token that a decoder begins with."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            if found := [config[key] for key in _START if isinstance(config.get(key), int)]:
                return int(found[0])
    raise BctError(f"{folder}: no config.json says which token a decoder begins with (decoder_start_token_id)")
