"""Small checkpoints with random weights, as transformers saves them: configuration, weights, tokenizer, processor."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bct_onnx.package.examples import LABELS, QUESTIONS, TEXTS

WIDTH, LAYERS, HEADS, HIDDEN = 64, 2, 4, 128
# A picture's side; patches of 8 cut it in 16.
SIDE, PATCH = 32, 8
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
# Sizes by the names that most configurations have for them.
_BERT = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": HIDDEN}
_WHISPER = {"layers": LAYERS, "attention_heads": HEADS, "ffn_dim": HIDDEN}
WORDS = (*TEXTS, *LABELS, *(question for question, _ in QUESTIONS), *SPECIAL)


def tokenizer(words: Iterable[str] = WORDS) -> Any:
    """Return a byte-level BPE tokenizer of the words that the tasks are tried with; every text gets <s> and </s>."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=400, special_tokens=list(SPECIAL), show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = ("pad_token", "bos_token", "eos_token", "unk_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(names, SPECIAL, strict=True)),
    )


def _text(config: str, model: str, **sizes: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        words = tokenizer()
        words.save_pretrained(folder)
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        made = getattr(transformers, config)(vocab_size=len(words), **ids, **sizes)
        getattr(transformers, model)(made).save_pretrained(folder)

    return save


def _wav2vec2(folder: Path) -> None:
    letters = {
        letter: place
        for place, letter in enumerate(("<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"))
    }
    (folder / "vocab.json").write_text(json.dumps(letters))
    words = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    hears = transformers.Wav2Vec2FeatureExtractor()
    transformers.Wav2Vec2Processor(hears, words).save_pretrained(folder)
    convolutions = {"conv_dim": (HIDDEN // 2,) * 3, "conv_kernel": (10, 8, 8), "conv_stride": (5, 8, 8)}
    config = transformers.Wav2Vec2Config(
        vocab_size=len(letters),
        pad_token_id=0,
        num_conv_pos_embedding_groups=4,
        num_conv_pos_embeddings=16,
        num_feat_extract_layers=3,
        **convolutions,
        **_BERT,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)


def _whisper(folder: Path) -> None:
    words = tokenizer()
    transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    words.save_pretrained(folder)
    sizes = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in _WHISPER.items()}
    config = transformers.WhisperConfig(
        vocab_size=len(words),
        d_model=WIDTH,
        num_mel_bins=16,
        max_target_positions=128,
        decoder_start_token_id=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **sizes,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_length=24, is_multilingual=False
    )
    model.save_pretrained(folder)


def _vit(folder: Path) -> None:
    config = transformers.ViTConfig(image_size=SIDE, patch_size=PATCH, num_labels=len(LABELS), **_BERT)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def _clip(folder: Path) -> None:
    words = tokenizer()
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": len(words), "max_position_embeddings": 64, **ids, **_BERT},
        vision_config={"image_size": SIDE, "patch_size": PATCH, **_BERT},
        projection_dim=WIDTH,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "distilbert": _text(
        "DistilBertConfig", "DistilBertForMaskedLM", dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=HIDDEN
    ),
    "roberta": _text(
        "RobertaConfig",
        "RobertaForSequenceClassification",
        num_labels=3,
        **_BERT,
    ),
    "t5": _text(
        "T5Config",
        "T5ForConditionalGeneration",
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=HIDDEN,
        num_layers=LAYERS,
        num_heads=HEADS,
        decoder_start_token_id=0,
    ),
    "gpt2": _text("GPT2Config", "GPT2LMHeadModel", n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=128),
    "deberta": _text("DebertaV2Config", "DebertaV2ForTokenClassification", num_labels=3, **_BERT),
    "mpnet": _text("MPNetConfig", "MPNetForMaskedLM", **_BERT),
    "electra": _text("ElectraConfig", "ElectraForQuestionAnswering", embedding_size=WIDTH, **_BERT),
    "bart": _text(
        "BartConfig",
        "BartForConditionalGeneration",
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=HIDDEN,
        decoder_ffn_dim=HIDDEN,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        max_position_embeddings=128,
    ),
    "qwen3": _text("Qwen3Config", "Qwen3ForCausalLM", num_key_value_heads=2, head_dim=WIDTH // HEADS, **_BERT),
    "wav2vec2": _wav2vec2,
    "whisper": _whisper,
    "vit": _vit,
    "clip": _clip,
}


def save(name: str, folder: Path) -> Path:
    """Write a checkpoint into a new folder, the same weights every time."""
    folder.mkdir()
    transformers.set_seed(0)
    CHECKPOINTS[name](folder)
    return folder
