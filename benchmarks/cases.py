"""Real models, each with the data it is scored on and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bct_onnx import BctError
from bct_onnx.errors import first_line
from bct_onnx.evaluate import (
    Evaluation,
    Preprocess,
    evaluate_embeddings,
    evaluate_glue,
    evaluate_images,
    evaluate_perplexity,
)
from bct_onnx.sessions import open_session

from .common import DATA, MODELS


@dataclass(frozen=True)
class Case:
    """A model, in the folder of data or that of pretrained models, and the data it is scored on.

    A tokenizer is in the folder of data; without one it is that beside the model.
    """

    model: Path
    evaluate: Callable[..., Evaluation]
    data: str
    tokenizer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def score(self, models: Sequence[Path]) -> Evaluation:
        """Return the evaluation of models; the first is the reference."""
        options = self.options | ({"tokenizer": DATA / self.tokenizer} if self.tokenizer else {})
        return self.evaluate(DATA / self.data, models, **options)

    def score_running(self, models: dict[str, Path]) -> tuple[Evaluation, dict[str, str]]:
        """Return the evaluation of the float model and of every named one that runs, and why others do not."""
        running, failed = dict(models), dict[str, str]()
        for name, path in models.items():  # before the long work
            try:
                open_session(path)
            except Exception as error:  # ONNX Runtime's have no common base
                failed[name] = first_line(error)
                del running[name]
        while True:
            try:
                return self.score([self.model, *running.values()]), failed
            except BctError as error:
                broken = next((name for name, path in running.items() if str(error).startswith(str(path))), None)
                if broken is None:
                    raise
                failed[broken] = first_line(error)
                del running[broken]


CIFAR = Preprocess((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
STORIES = "text/tinystories_valid_head.txt"
# Perplexity: each line is a story; its first 128 tokens are predicted.
HEADS = {"lines": True, "window": 128, "limit": 128}

CASES = {
    "vit_tiny": Case(
        DATA / "vit_tiny/model.onnx",
        evaluate_images,
        "imagenet_sample",
        options={"preprocess": Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))},
    ),
    "cct_cifar10": Case(
        DATA / "cct_cifar10/model.onnx", evaluate_images, "cct_cifar10/test_images.npz", options={"preprocess": CIFAR}
    ),
    "bert_mini sst2": Case(
        DATA / "bert_mini/sst2/model.onnx",
        partial(evaluate_glue, "SST-2"),
        "glue/SST-2/dev.jsonl",
        "bert_mini/sst2",
        {"limit": 64},
    ),
    "bert_mini imdb": Case(
        DATA / "bert_mini/imdb/model.onnx",
        partial(evaluate_glue, "classification"),
        "bert_mini/imdb/test.jsonl",
        "bert_mini/imdb",
        {"limit": 192},
    ),
    "stories260k": Case(DATA / "stories260k/model.onnx", evaluate_perplexity, STORIES, "stories260k/tok512.bin", HEADS),
    "babyllama105": Case(
        DATA / "babyllama105/model.onnx", evaluate_perplexity, STORIES, "babyllama105/tokenizer.model", HEADS
    ),
    "minilm sts-b": Case(MODELS / "minilm/model.onnx", evaluate_embeddings, "glue/STS-B/dev.jsonl"),
    "minilm sst-2": Case(MODELS / "glue/SST-2/model.onnx", partial(evaluate_glue, "SST-2"), "glue/SST-2/dev.jsonl"),
    "minilm mrpc": Case(MODELS / "glue/MRPC/model.onnx", partial(evaluate_glue, "MRPC"), "glue/MRPC/dev.jsonl"),
    "smollm2": Case(
        MODELS / "smollm2/model.onnx", evaluate_perplexity, "text/wikitext2_test.txt", options={"limit": 4096}
    ),
}
"""Those of the folder of models are skipped where it is not there."""
