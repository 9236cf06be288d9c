"""CTranslate2 as a peer, for encoders of text: it converts checkpoints of transformers. Needs ctranslate2 and torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.bench.runners import timed
from bct_onnx.bench.workloads import Feeds
from bct_onnx.errors import BctError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def convert(source: Path, target: Path, *, kind: str) -> None:
    """Convert the checkpoint that lies beside an ONNX model, to float32 or int8; BctError where there is none."""
    if not any((source.parent / name).exists() for name in WEIGHTS):
        raise BctError(f"it converts checkpoints: neither {' nor '.join(WEIGHTS)} beside {source.name}")
    converter = importlib.import_module("ctranslate2.converters").TransformersConverter(str(source.parent))
    converter.convert(str(target), quantization=kind)


@dataclass
class CTranslate2Runner:
    """An encoder in CTranslate2 on the CPU."""

    path: Path
    threads: int
    _package: Any = field(init=False)
    _encoder: Any = field(init=False)

    def __post_init__(self) -> None:
        """Load the model; raises what CTranslate2 raises."""
        self._package = importlib.import_module("ctranslate2")
        self._encoder = self._package.Encoder(str(self.path), device="cpu", inter_threads=1, intra_threads=self.threads)

    def answer(self, feed: Feeds) -> Array:
        """Return the last hidden state, [batch, tokens, width]."""
        return np.array(self._run(*self._inputs(feed)).last_hidden_state)

    def turn(self, feed: Feeds, seconds: float, clock: str) -> list[float]:
        """Return the seconds of runs, at least one, for so long, by one of `CLOCKS`."""
        inputs = self._inputs(feed)
        return timed(lambda: self._run(*inputs), seconds, clock)

    def _inputs(self, feed: Feeds) -> tuple[Any, Any, list[list[int]] | None]:
        """Return token numbers, how many of each row there are (all), and which of two texts each is of."""
        ids = np.ascontiguousarray(feed["input_ids"], np.int32)
        lengths = np.full(len(ids), ids.shape[1], np.int32)
        view = self._package.StorageView.from_array
        types = feed.get("token_type_ids")
        return view(ids), view(lengths), None if types is None else np.asarray(types).tolist()

    def _run(self, ids: Any, lengths: Any, types: list[list[int]] | None) -> Any:
        return self._encoder.forward_batch(ids, lengths, types)
