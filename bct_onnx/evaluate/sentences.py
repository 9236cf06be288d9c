"""Texts to vectors, pooled and prompted as a folder of sentence-transformers says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.package.contents import read_json

from .folders import find_beside
from .glue import class_answers, encode, padding_of
from .metrics import Array
from .model import Model
from .records import DEFAULTS, Settings
from .tokenizers import read_tokenizer, tokenizer_of

LIMIT = 128
_TOKENS_RANK = 3
_NO_LIMIT = 10**6
# Parts of a model that come before or after pooling and change nothing that a cosine sees.
_HARMLESS = ("Transformer", "Pooling", "Normalize")


def _weighted(output: Array, weights: Array) -> Array:
    return np.asarray((output * weights[..., None]).sum(axis=1) / np.maximum(weights.sum(axis=1, keepdims=True), 1))


def _largest(output: Array, mask: Array) -> Array:
    return np.asarray(np.where(mask[..., None] > 0, output, -np.inf).max(axis=1))


# By the names of sentence-transformers: [batch, tokens, width] and the mask [batch, tokens] to [batch, width]. Of the
# mean and that over the root of the length, the directions are the same.
_POOL: Mapping[str, Callable[[Array, Array], Array]] = {
    "cls": lambda output, _: output[:, 0],
    "max": _largest,
    "mean": _weighted,
    "mean_sqrt_len": lambda output, mask: _weighted(output, mask) * np.sqrt(mask.sum(axis=1, keepdims=True)),
    "weightedmean": lambda output, mask: _weighted(output, mask * np.arange(1, mask.shape[1] + 1)),
    "lasttoken": lambda output, mask: output[np.arange(len(output)), mask.sum(axis=1) - 1],
}


@dataclass(frozen=True)
class Pooling:
    """How a text becomes a vector.

    Attributes:
        modes: names in _POOL; vectors of several stand one behind the other.
        limit: longest text in tokens, None where no one says.
        prompts: what is put before a text, by the text's kind: "query", "document"; "" for any other kind.
    """

    modes: tuple[str, ...] = ("mean",)
    limit: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)

    def pool(self, output: Array, mask: Array) -> Array:
        """Return unit vectors [batch, width]; padding is no part of them. A model that pools itself is scaled only."""
        if output.ndim == _TOKENS_RANK:
            output = np.concatenate([_POOL[mode](output, mask) for mode in self.modes], axis=-1)
        return np.asarray(output / np.linalg.norm(output, axis=-1, keepdims=True))

    def prompt(self, kind: str) -> str:
        """Return what is put before texts of a kind."""
        return self.prompts.get(kind, self.prompts.get("", ""))


def read_pooling(path: Path, reference: Path) -> Pooling:
    """Return what modules.json beside a model, or else beside the reference, says; the mean where there is none.

    Raises BctError for modules that an ONNX file of the transformer lacks.
    """
    modules = find_beside("modules.json", path, reference)
    if modules is None:
        return Pooling()
    folder, pooling = modules.parent, Pooling(limit=_longest(modules.parent), prompts=_prompts(modules.parent))
    for module in read_json(modules):
        name = module["type"].rpartition(".")[2]
        if name not in _HARMLESS:
            raise BctError(f"{modules}: has a module {name}, which is not in the ONNX file; only pooling is done here")
        if name == "Pooling":
            file = folder / module["path"] / "config.json"
            config = read_json(file)
            pooling = replace(pooling, modes=_modes(file, config))
            if pooling.prompts and config.get("include_prompt") is False:
                raise BctError(f"{file}: leaves the tokens of a prompt out, which is not done here")
    return pooling


def _modes(file: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what newer configurations say under `pooling_mode`, older ones as a flag for each mode."""
    flags = [name.removeprefix("pooling_mode_") for name, on in config.items() if on is True and "mode_" in name]
    said = config.get("pooling_mode") or sorted(flags, key=_plain_order) or list(Pooling.modes)
    modes = tuple(map(_plain, [said] if isinstance(said, str) else said))
    unknown = [mode for mode in modes if mode not in _POOL]
    if unknown:
        raise BctError(f"{file}: pools by {', '.join(unknown)}; known are {', '.join(_POOL)}")
    return modes


def _plain(mode: str) -> str:
    return mode.removesuffix("_tokens").removesuffix("_token")


def _plain_order(mode: str) -> int:
    """Return the place of a mode among those that stand one behind the other."""
    return list(_POOL).index(_plain(mode)) if _plain(mode) in _POOL else len(_POOL)


def _longest(folder: Path) -> int | None:
    """Return the longest text in tokens; a tokenizer without a limit says a number beyond all texts."""
    own = _config(folder / "sentence_bert_config.json").get("max_seq_length")
    longest = own or _config(folder / "tokenizer_config.json").get("model_max_length")
    return int(longest) if longest and longest < _NO_LIMIT else None


def _config(file: Path) -> dict[str, Any]:
    return dict(read_json(file)) if file.is_file() else {}


def _prompts(folder: Path) -> Mapping[str, str]:
    config = _config(folder / "config_sentence_transformers.json")
    prompts = dict(config.get("prompts") or {})
    # What stands before a passage is called by any of these names.
    prompts["document"] = prompts.get("document") or prompts.get("passage") or prompts.get("corpus")
    prompts[""] = prompts.get(config.get("default_prompt_name"))
    return {kind: text for kind, text in prompts.items() if text}


class EmbeddingOptions(TypedDict, total=False):
    """What evaluations of embeddings may be asked: another tokenizer, the longest text in tokens, how to run."""

    tokenizer: str | Path | None
    limit: int | None
    settings: Settings


class Embedder:
    """A model, file or folder, that makes vectors of texts."""

    def __init__(
        self,
        path: Path,
        reference: Path,
        tokenizer: str | Path | None = None,
        limit: int | None = None,
        settings: Settings = DEFAULTS,
    ) -> None:
        """Open it, with the tokenizer and the pooling beside it, else beside the reference; raises BctError."""
        self.pooling = read_pooling(path, reference)
        self._tokenizer = read_tokenizer(tokenizer_of(path, reference, tokenizer))
        self._limit = limit or self.pooling.limit or LIMIT
        self._model, self._settings = Model(path, settings.threads), settings

    def vectors(self, texts: Sequence[str], kind: str = "") -> Array:
        """Return unit vectors [texts, width]; `kind` says which prompt stands before the texts."""
        prompt = self.pooling.prompt(kind)
        encodings = encode(self._tokenizer, [prompt + text for text in texts], self._limit)
        return class_answers(self._model, encodings, padding_of(self._tokenizer), self._settings, self.pooling.pool)
