"""Feeds from samples: through a tokenizer or a processor of transformers, to inputs of any model."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import BctError, compress
from bct_onnx.samples import data_feeds
from bct_onnx.samples.feeds import BATCH, DECODER_BATCH, WIDTH
from bct_onnx.sessions import OrtError, Session

pytest.importorskip("transformers")
VOCABULARY = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", *"abcdefgh")
LINES = ["a b", "c d e f", "g", *["b a h"] * 8]

ENCODER = """g (int64[n, s] input_ids, int64[n, s] attention_mask, int64[n, s] token_type_ids) => (float[n, s, 4] y) {
    rows = Gather(table, input_ids)
    kinds = Gather(two, token_type_ids)
    sum = Add(rows, kinds)
    mask = Cast<to = 1>(attention_mask)
    column = Unsqueeze(mask, last)
    y = Mul(sum, column)
}"""
# The cache holds what was read; logits depend on all of it.
DECODER = """g (int64[n, s] input_ids, int64[n, t] attention_mask, float[n, 1, p, 4] past_key)
    => (float[n, s, 12] logits, float[n, 1, q, 4] present_key) {
    rows = Gather(table, input_ids)
    one_head = Unsqueeze(rows, heads)
    present_key = Concat<axis = 2>(past_key, one_head)
    mean = ReduceMean<axes = [1, 2], keepdims = 0>(present_key)
    column = Unsqueeze(mean, heads)
    mixed = Add(rows, column)
    logits = MatMul(mixed, head)
}"""
PICTURE = """g (float[n, 3, 8, 8] pixel_values) => (float[n, 3] y) {
    y = ReduceMean<axes = [2, 3], keepdims = 0>(pixel_values)
}"""


def write(folder: Path, text: str) -> tuple[Path, onnx.ModelProto]:
    """Write the graph, with the initializers that it reads, and a tokenizer of letters beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.standard_normal((12, 4)).astype(np.float32),
        "two": rng.standard_normal((2, 4)).astype(np.float32),
        "head": rng.standard_normal((4, 12)).astype(np.float32),
        "last": np.array([-1]),
        "heads": np.array([1]),
    }
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used)
    onnx.save(proto, folder / "model.onnx")
    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    return folder / "model.onnx", proto


def feeds_of(path: Path, proto: onnx.ModelProto, data: Path) -> list[Mapping[str, np.ndarray]]:
    return [dict(feed) for feed, _ in data_feeds(Session(path).run, path, proto, data)]


def test_texts_in_batches_of_similar_length(tmp_path):
    path, proto = write(tmp_path, ENCODER)
    (tmp_path / "data.txt").write_text("\n".join(LINES))
    first, second = feeds_of(path, proto, tmp_path / "data.txt")
    assert first["input_ids"].shape == (BATCH, 5)
    assert second["input_ids"].shape == (len(LINES) - BATCH, 6)
    np.testing.assert_array_equal(first["input_ids"][0], [2, 10, 3, 1, 1])
    np.testing.assert_array_equal(first["attention_mask"][0], [1, 1, 1, 0, 0])
    assert not first["token_type_ids"].any()


def test_pairs_of_sentences(tmp_path):
    path, proto = write(tmp_path, ENCODER)
    (tmp_path / "data.jsonl").write_text(json.dumps({"sentence1": "a b", "sentence2": "c"}))
    (feed,) = feeds_of(path, proto, tmp_path / "data.jsonl")
    np.testing.assert_array_equal(feed["input_ids"], [[2, 4, 5, 3, 6, 3]])
    np.testing.assert_array_equal(feed["attention_mask"], np.ones((1, 6)))


def test_a_decoder_goes_on_behind_its_own_cache(tmp_path):
    path, proto = write(tmp_path, DECODER)
    (tmp_path / "data.txt").write_text("a b c d e f g h\n" * 2 * DECODER_BATCH * WIDTH)
    prefill, step = feeds_of(path, proto, tmp_path / "data.txt")[:2]
    assert prefill["input_ids"].shape == (DECODER_BATCH, WIDTH)
    assert prefill["past_key"].shape == (DECODER_BATCH, 1, 0, 4)
    assert step["input_ids"].shape == (DECODER_BATCH, WIDTH // 2)
    assert step["attention_mask"].shape == (DECODER_BATCH, WIDTH)
    table = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    # Text goes on where the rows of the first batch ended: the cache holds the first half of the next ones.
    stream = np.resize([2, *range(4, 12), 3], 2 * DECODER_BATCH * WIDTH).reshape(2, DECODER_BATCH, WIDTH)
    np.testing.assert_array_equal(prefill["input_ids"], stream[0])
    np.testing.assert_array_equal(step["input_ids"], stream[1, :, WIDTH // 2 :])
    np.testing.assert_array_equal(step["past_key"][:, 0], table[stream[1, :, : WIDTH // 2]])


def test_a_decoder_that_takes_one_token_at_a_time_behind_a_cache(tmp_path):
    path, proto = write(tmp_path, DECODER)
    (tmp_path / "data.txt").write_text("a b c d e f g h\n" * WIDTH)
    session = Session(path)

    def run(feed):
        if np.shape(feed["past_key"])[2] and np.shape(feed["input_ids"])[1] > 1:
            raise OrtError("batch_size must be 1 when sequence_length > 1 and past context is given")
        return session.run(feed)

    _, (step, kind), *_ = data_feeds(run, path, proto, tmp_path / "data.txt")
    assert np.shape(step["input_ids"]) == (DECODER_BATCH, 1)
    assert np.shape(step["past_key"]) == (DECODER_BATCH, 1, WIDTH - 1, 4)
    assert kind.endswith(f"4 x 1 tokens, a cache of its own of {WIDTH - 1}")


def test_pictures_by_the_folders_own_processor(tmp_path):
    from PIL import Image

    path, proto = write(tmp_path, PICTURE)
    config = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    config |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    (tmp_path / "data").mkdir()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "data" / "red.png")
    (feed,) = feeds_of(path, proto, tmp_path / "data")
    np.testing.assert_allclose(feed["pixel_values"][0], np.array([1, -1, -1])[:, None, None] * np.ones((8, 8)))


def test_what_the_model_takes_is_not_there(tmp_path):
    path, proto = write(tmp_path, ENCODER)
    (tmp_path / "data").mkdir()
    with pytest.raises(BctError, match=r"data: holds no texts \(\.txt, \.jsonl\)"):
        feeds_of(path, proto, tmp_path / "data")


def test_a_folder_without_tokenizer(tmp_path):
    path, proto = write(tmp_path, ENCODER)
    (tmp_path / "x").mkdir()
    (tmp_path / "data.txt").write_text("a")
    with pytest.raises(BctError, match=r"x: no Tokenizer of transformers there; .*--processor"):
        list(data_feeds(Session(path).run, path, proto, tmp_path / "data.txt", tmp_path / "x"))


def test_a_model_is_verified_on_data(tmp_path):
    path, _ = write(tmp_path, ENCODER)
    (tmp_path / "data.txt").write_text("\n".join(LINES))
    report = compress(path, tmp_path / "out.onnx", preset="fast", data=tmp_path / "data.txt")
    assert report.verification is not None
    place = tmp_path / "data.txt"
    assert report.verification.feeds == (f"samples 0 to 7 of {place}", f"samples 8 to 10 of {place}")
