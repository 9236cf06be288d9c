"""Generation in onnxruntime-genai, where it is installed."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bct_onnx.bench.decoder import Generation

PACKAGE = "onnxruntime_genai"
CONFIGURATION = "genai_config.json"


@dataclass
class GenaiDecoder:
    """A folder with genai_config.json, loaded."""

    folder: Path
    threads: int
    _genai: Any = field(init=False)
    _model: Any = field(init=False)

    def __post_init__(self) -> None:
        """Load the model; raises what onnxruntime-genai raises."""
        self._genai = importlib.import_module(PACKAGE)
        configuration = self._genai.Config(str(self.folder))
        options = {"intra_op_num_threads": self.threads}
        configuration.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = self._genai.Model(configuration)

    def generate(self, prompt: list[int], count: int) -> Generation:
        """Return the `count` likeliest tokens behind a prompt, whatever they are, with their times."""
        parameters = self._genai.GeneratorParams(self._model)
        length = len(prompt) + count
        # No token ends the text before it is as long as those of others.
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = self._genai.Generator(self._model, parameters)
        start = perf_counter()
        generator.append_tokens(np.asarray(prompt, np.int32))
        generator.generate_next_token()
        first = perf_counter()
        for _ in range(count - 1):
            generator.generate_next_token()
        end = perf_counter()
        tokens = [int(token) for token in generator.get_sequence(0)[len(prompt) :]]
        return Generation(tokens, first - start, end - first)
