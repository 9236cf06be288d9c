"""Tiny transformers with random weights, and the exports of them that models/fixtures holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import transformers as hf
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from models.fixture_feeds import FRAMES, IMAGE, MELS, VOCABULARY, Dims


def cache_of(tensors: Sequence[Tensor]) -> DynamicCache:
    """Return the cache of a flat list: key, value of the first layer, then of the next."""
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(key, value, layer)
    return cache


def flat(cache: DynamicCache) -> list[Tensor]:
    """Return the keys and values of a cache as a flat list."""
    return [tensor for pair in cache.to_legacy_cache() for tensor in pair]


class Wrapper(nn.Module):
    """A module that calls a transformers model."""

    def __init__(self, model: Any) -> None:
        """Hold the model as a submodule."""
        super().__init__()
        self.model = model


class DecoderWithPast(Wrapper):
    """A language model that takes keys and values of past tokens as a flat list."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> list[Tensor]:
        """Return the logits, then the present keys and values."""
        cache = cache_of(past)
        result = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache)
        return [result.logits, *flat(cache)]


class CrossDecoderWithPast(Wrapper):
    """A sequence-to-sequence decoder: past self-attention given, the encoder's keys and values made anew."""

    def forward(self, input_ids: Tensor, encoder_hidden_states: Tensor, past: list[Tensor]) -> list[Tensor]:
        """Return the logits, then the present keys and values of self-attention."""
        cache = cache_of(past)
        result = self.model(
            decoder_input_ids=input_ids,
            encoder_outputs=(encoder_hidden_states,),
            past_key_values=EncoderDecoderCache(cache, DynamicCache()),
        )
        return [result.logits, *flat(cache)]


@dataclass(frozen=True)
class Part:
    """What torch exports: module, dims of inputs and outputs, width of a cached head (0: no past)."""

    module: Callable[[Any], nn.Module]
    inputs: dict[str, Dims]
    outputs: dict[str, Dims]
    head: int = 0


@dataclass(frozen=True)
class Architecture:
    """A transformers model: classes, configuration, optimum's task, parts for torch, output tied to input."""

    config: type[Any]
    model: type[Any]
    settings: dict[str, Any]
    layer_settings: tuple[str, ...]
    task: str
    parts: dict[str, Part]
    tied: bool = False


def whole(model: Any) -> nn.Module:
    """Return the model itself."""
    return cast(nn.Module, model)


TOKENS: Dims = ("batch", "sequence")
LOGITS: dict[str, Dims] = {"logits": (*TOKENS, VOCABULARY)}
CLASSES: dict[str, Dims] = {"logits": ("batch", 2)}
MASKED: dict[str, Dims] = {"input_ids": TOKENS, "attention_mask": TOKENS}
CACHED: dict[str, Dims] = {"input_ids": TOKENS, "attention_mask": ("batch", "total")}
ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
TEXT = {"vocab_size": VOCABULARY, "max_position_embeddings": 26}

ARCHITECTURES = {
    "bert": Architecture(
        config=hf.BertConfig,
        model=hf.BertForSequenceClassification,
        settings=ENCODER | TEXT,
        layer_settings=("num_hidden_layers",),
        task="text-classification",
        parts={"": Part(whole, MASKED | {"token_type_ids": TOKENS}, CLASSES)},
    ),
    "distilbert": Architecture(  # 24 wide: less than one block of 32
        config=hf.DistilBertConfig,
        model=hf.DistilBertModel,
        settings=TEXT | {"dim": 24, "hidden_dim": 48, "n_heads": 2},
        layer_settings=("n_layers",),
        task="feature-extraction",
        parts={"": Part(whole, MASKED, {"last_hidden_state": (*TOKENS, 24)})},
    ),
    "roberta": Architecture(
        config=hf.RobertaConfig,
        model=hf.RobertaForMaskedLM,
        settings=ENCODER | TEXT,
        layer_settings=("num_hidden_layers",),
        task="fill-mask",
        parts={"": Part(whole, MASKED, LOGITS)},
        tied=True,
    ),
    "gpt2": Architecture(
        config=hf.GPT2Config,
        model=hf.GPT2LMHeadModel,
        settings={"vocab_size": VOCABULARY, "n_embd": 24, "n_inner": 64, "n_head": 2, "n_positions": 24}
        | {"bos_token_id": 1, "eos_token_id": 2},
        layer_settings=("n_layer",),
        task="text-generation-with-past",
        parts={"": Part(DecoderWithPast, CACHED, LOGITS, head=12)},
        tied=True,
    ),
    "llama": Architecture(  # 44 wide inside: no block of 32 divides it; two query heads share one of keys
        config=hf.LlamaConfig,
        model=hf.LlamaForCausalLM,
        settings=TEXT
        | {"hidden_size": 32, "intermediate_size": 44, "num_attention_heads": 4, "num_key_value_heads": 2},
        layer_settings=("num_hidden_layers",),
        task="text-generation-with-past",
        parts={"": Part(DecoderWithPast, CACHED, LOGITS, head=8)},
    ),
    "t5": Architecture(
        config=hf.T5Config,
        model=hf.T5ForConditionalGeneration,
        settings={"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "num_heads": 2, "d_ff": 64}
        | {"decoder_start_token_id": 0},
        layer_settings=("num_layers", "num_decoder_layers"),
        task="text2text-generation-with-past",
        parts={
            "encoder": Part(lambda model: model.encoder, MASKED, {"last_hidden_state": (*TOKENS, 32)}),
            "decoder": Part(
                CrossDecoderWithPast,
                {"input_ids": TOKENS, "encoder_hidden_states": ("batch", "encoder", 32)},
                LOGITS,
                head=8,
            ),
        },
        tied=True,
    ),
    "vit": Architecture(
        config=hf.ViTConfig,
        model=hf.ViTForImageClassification,
        settings=ENCODER | {"image_size": IMAGE, "patch_size": 4},
        layer_settings=("num_hidden_layers",),
        task="image-classification",
        parts={"": Part(whole, {"pixel_values": ("batch", 3, IMAGE, IMAGE)}, CLASSES)},
    ),
    "whisper": Architecture(
        config=hf.WhisperConfig,
        model=hf.WhisperForConditionalGeneration,
        settings={"vocab_size": VOCABULARY, "num_mel_bins": MELS, "d_model": 24}
        | {"encoder_attention_heads": 2, "encoder_ffn_dim": 48, "max_source_positions": FRAMES // 2}
        | {"decoder_attention_heads": 2, "decoder_ffn_dim": 48, "max_target_positions": 24}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        | {"suppress_tokens": None, "begin_suppress_tokens": None},
        layer_settings=("encoder_layers", "decoder_layers"),
        task="automatic-speech-recognition-with-past",
        parts={
            "encoder": Part(
                lambda model: model.model.encoder,
                {"input_features": ("batch", MELS, FRAMES)},
                {"last_hidden_state": ("batch", FRAMES // 2, 24)},
            ),
            "decoder": Part(
                CrossDecoderWithPast,
                {"input_ids": TOKENS, "encoder_hidden_states": ("batch", FRAMES // 2, 24)},
                LOGITS,
                head=12,
            ),
        },
        tied=True,
    ),
}


@dataclass(frozen=True)
class Fixture:
    """One file: architecture, part of it, exporter and options (opset None is the exporter's default)."""

    architecture: str
    exporter: str
    part: str = ""
    variant: str = ""
    opset: int | None = None
    attention: str = "sdpa"
    layers: int = 1
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return "_".join(filter(None, (self.architecture, self.part, self.exporter, self.variant)))


FIXTURES = (
    Fixture("bert", "torchscript", variant="eager", opset=14, attention="eager", layers=2),
    Fixture("bert", "torchscript", variant="sdpa", opset=17),
    Fixture("bert", "torchscript", variant="float16", opset=17, attention="eager", layers=2, dtype=torch.float16),
    Fixture("distilbert", "torchscript", opset=11, attention="eager"),
    Fixture("roberta", "torchscript", opset=18),
    # Folding the transpose of the tied table makes a second copy of it; unfolded, one copy feeds both.
    Fixture("gpt2", "torchscript", opset=13, attention="eager"),
    Fixture("gpt2", "torchscript", variant="unfolded", opset=14, options={"do_constant_folding": False}),
    Fixture("llama", "torchscript", opset=17),
    Fixture("t5", "torchscript", part="encoder", opset=13, attention="eager"),
    Fixture("t5", "torchscript", part="decoder", attention="eager"),
    Fixture("vit", "torchscript", opset=12, attention="eager"),
    Fixture("whisper", "torchscript", part="encoder", opset=14),
    Fixture("whisper", "torchscript", part="decoder", opset=16, attention="eager"),
    Fixture("bert", "dynamo", variant="eager", attention="eager"),
    Fixture("bert", "dynamo", variant="sdpa", opset=21),
    Fixture("bert", "dynamo", variant="opset23", opset=23),
    Fixture("bert", "dynamo", variant="external", opset=18, options={"external_data": True}),
    Fixture("distilbert", "dynamo", layers=2),
    Fixture("roberta", "dynamo"),
    Fixture("gpt2", "dynamo", layers=2),
    Fixture("llama", "dynamo", opset=18),
    Fixture("t5", "dynamo", part="encoder", attention="eager", layers=2),
    Fixture("t5", "dynamo", part="decoder", attention="eager"),
    Fixture("vit", "dynamo", opset=21),
    Fixture("whisper", "dynamo", part="encoder"),
    Fixture("whisper", "dynamo", part="decoder"),
    Fixture("bert", "optimum", opset=14, attention="eager"),
    Fixture("distilbert", "optimum"),
    Fixture("roberta", "optimum"),
    Fixture("gpt2", "optimum"),
    Fixture("llama", "optimum"),
    Fixture("t5", "optimum", part="encoder", attention="eager"),
    Fixture("t5", "optimum", part="decoder_merged", attention="eager"),
    Fixture("vit", "optimum"),
    Fixture("whisper", "optimum", part="encoder"),
    Fixture("whisper", "optimum", part="decoder_with_past"),
)
