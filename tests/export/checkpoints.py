"""Small checkpoints with random weights, as transformers saves them: configuration, weights, tokenizer, processor."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bct_onnx.package.tasks import LABELS, QUESTIONS, TEXTS

WIDTH, LAYERS, HEADS, HIDDEN = 64, 2, 4, 128
# A picture's side; patches of 8 cut it in 16.
SIDE, PATCH = 32, 8
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
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


def _vit(folder: Path) -> None:
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN,
    }
    config = transformers.ViTConfig(image_size=SIDE, patch_size=PATCH, num_labels=len(LABELS), **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def _clip(folder: Path) -> None:
    words = tokenizer()
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": len(words), "max_position_embeddings": 64, **ids, **sizes},
        vision_config={"image_size": SIDE, "patch_size": PATCH, **sizes},
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
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        num_labels=3,
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
    "vit": _vit,
    "clip": _clip,
}


def save(name: str, folder: Path) -> Path:
    """Write a checkpoint into a new folder, the same weights every time."""
    folder.mkdir()
    transformers.set_seed(0)
    CHECKPOINTS[name](folder)
    return folder
