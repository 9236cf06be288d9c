"""What a folder holds: models, their variants, files that go along."""

from pathlib import PurePosixPath

import onnx
import pytest

from bct_onnx import BctError
from bct_onnx.package.contents import read_contents, variant_of
from tests.helpers import K, model, random


def names(paths):
    return {str(path) for path in paths}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model_quantized.onnx", "model.onnx"),
        ("onnx/model_q4f16.onnx", "onnx/model.onnx"),
        ("decoder_model_merged_int8.onnx", "decoder_model_merged.onnx"),
        ("model_O4.onnx", "model.onnx"),
        ("model_qint8_avx512_vnni.onnx", "model.onnx"),
        ("model_quint8_avx2.onnx", "model.onnx"),
        ("model_bnb4.onnx", "model.onnx"),
        ("model.onnx", None),
        ("decoder_with_past_model.onnx", None),
        ("decoder_model_merged.onnx", None),
        ("text_model.onnx", None),
    ],
)
def test_variants_are_told_by_their_names(name, plain):
    found = variant_of(PurePosixPath(name))
    assert found == (None if plain is None else PurePosixPath(plain))


def test_what_goes_along_and_what_does_not(write):
    folder = write("onnx/model.onnx", "onnx/model_q4.onnx", "onnx/model_int8.onnx")
    for name in ("model.safetensors", "pytorch_model.bin", "vocab.txt", "1_Pooling/config.json", ".gitattributes"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "openvino").mkdir()
    (folder / "openvino" / "openvino_model.xml").touch()
    found = read_contents(folder)
    assert names(found.models) == {"onnx/model.onnx"}
    assert names(found.rest) == {"config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"}
    assert {str(path): why for path, why in found.left_out.items()} == {
        "onnx/model_q4.onnx": "a variant of onnx/model.onnx in other numbers",
        "onnx/model_int8.onnx": "a variant of onnx/model.onnx in other numbers",
        "model.safetensors": "weights in another format",
        "pytorch_model.bin": "weights in another format",
        "openvino/openvino_model.xml": "for another runtime",
    }
    assert found.config == {"model_type": "made"}


def test_the_parts_of_a_merged_decoder_are_left_out(write):
    folder = write(
        "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx"
    )
    found = read_contents(folder)
    assert names(found.models) == {"encoder_model.onnx", "decoder_model_merged.onnx"}
    assert set(found.left_out.values()) == {"decoder_model_merged.onnx holds it too"}


def test_without_a_merged_decoder_its_parts_stay(write):
    found = read_contents(write("decoder_model.onnx", "decoder_with_past_model.onnx"))
    assert names(found.models) == {"decoder_model.onnx", "decoder_with_past_model.onnx"}


def test_external_data_belongs_to_its_model(write):
    folder = write()
    proto = model("g (float[m, 64] x) => (float[m, 64] y) { y = MatMul(x, w) }", w=random(K, K))
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data")
    (folder / "model_fp16.onnx_data").touch()
    found = read_contents(folder)
    assert "model.onnx_data" not in names(found.rest)
    assert {str(path): why for path, why in found.left_out.items()} == {
        "model_fp16.onnx_data": "weights of no model that is compressed"
    }


def test_a_damaged_configuration_is_named(write):
    folder = write("model.onnx")
    (folder / "config.json").write_text("{")
    with pytest.raises(BctError, match=r"config\.json: cannot be read as JSON"):
        _ = read_contents(folder).config
