"""A package from a folder of ONNX files: what is in it, that it appears whole, and that damage to it is seen."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import BctError, VerificationError
from bct_onnx.package import compress_folder, make, verify_folder
from bct_onnx.package.tasks import EndToEnd
from bct_onnx.sessions import Options, open_session
from tests.helpers import MLP, K, entries, model, random, run

FIXTURES = Path(__file__).parents[3] / "models" / "fixtures"


@pytest.fixture
def package(write, tmp_path):
    """Return a package of two models, and what was said of it."""
    source = write("encoder_model.onnx", "decoder_model_merged.onnx", "decoder_model.onnx")
    (source / "README.md").write_text("# A model\n")
    made = compress_folder(source, tmp_path / "out", preset="fast", preset_for=[("decoder*", "small")])
    return tmp_path / "out", made


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_what_is_in_a_package(package, tmp_path):
    folder, made = package
    assert entries(folder) == {
        "README.md", "config.json", "decoder_model_merged.onnx", "encoder_model.onnx", "manifest.json", "probes",
        "required_operators.config", "tokenizer.json",
    }  # fmt: skip
    assert entries(tmp_path) == {"in", "out"}
    for name in ("config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    assert made.models["encoder_model.onnx"].report.output.path == folder / "encoder_model.onnx"
    assert made.models["encoder_model.onnx"].report.input.path == tmp_path / "in" / "encoder_model.onnx"


def test_the_models_answer_as_before(package, tmp_path):
    folder, _ = package
    x = random(5, K, seed=3)
    before, after = (run(place / "encoder_model.onnx", x=x)[0] for place in (tmp_path / "in", folder))
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_the_manifest(package, tmp_path):
    folder, made = package
    manifest = manifest_of(folder)
    probes = {f"probes/{name}" for name in ("decoder_model_merged.npz", "encoder_model.npz")}
    assert {entry["path"] for entry in manifest["files"]} == entries(folder) - {"manifest.json", "probes"} | probes
    models = manifest["models"]
    assert {name: entry["preset"] for name, entry in models.items()} == {
        "decoder_model_merged.onnx": "small",
        "encoder_model.onnx": "fast",
    }
    for name, entry in models.items():
        assert entry["bytes"] == (folder / name).stat().st_size
        assert entry["bytes_before"] == (tmp_path / "in" / name).stat().st_size
        assert entry["verification"]["outputs"]["y"]["error"] < 0.25
        assert entry["memory"]["peak_bytes"] > 0
    assert manifest["bytes"] == made.bytes == sum(entry["bytes"] for entry in models.values())
    assert manifest["min_onnxruntime"] == max(entry["min_onnxruntime"] for entry in models.values())
    assert manifest["left_out"] == {"decoder_model.onnx": "decoder_model_merged.onnx holds it too"}
    assert {"float", "int8"} <= set(manifest["types"])


def test_the_operators_are_those_of_the_sessions(package, tmp_path):
    folder, made = package
    listed = {
        (domain, name)
        for domain, versions in made.operators.by_domain.items()
        for names in versions.values()
        for name in names
    }
    for name in made.models:
        for level in ("none", "extended"):
            open_session(folder / name, Options(optimize=level, optimized=tmp_path / "loaded.onnx"))
            used = {(node.domain or "ai.onnx", node.op_type) for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
            assert used <= listed
    text = (folder / "required_operators.config").read_text().splitlines()
    assert text[0].startswith("# Operators of decoder_model_merged.onnx, encoder_model.onnx")
    assert all(re.match(r"(ai\.onnx|com\.microsoft);\d+;\w+", line) for line in text[1:])


def test_the_card_is_added_once(package, tmp_path):
    folder, _ = package
    first = (folder / "README.md").read_text()
    assert first.startswith("# A model\n\n<!-- bct_onnx: begin -->\n## Compressed with bct_onnx\n")
    assert "| `encoder_model.onnx` | fast | " in first
    (tmp_path / "in" / "README.md").write_text(first)
    compress_folder(tmp_path / "in", folder, preset="fast", verify=False)
    assert (folder / "README.md").read_text().count("bct_onnx: begin") == 1


def test_transformers_js(write, tmp_path):
    source = write("onnx/model.onnx", "onnx/model_quantized.onnx", hidden_size=64)
    compress_folder(source, tmp_path / "out", preset="fast", layout="transformers.js", verify=False)
    assert entries(tmp_path / "out" / "onnx") == {"model_quantized.onnx"}
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {
        "model_type": "made",
        "hidden_size": 64,
        "transformers.js_config": {"dtype": "q8"},
    }


@pytest.mark.parametrize(
    ("preset", "target", "options", "said"),
    [
        ("small", "onnxruntime", {"lowering": "dense7"}, 1),
        ("small", "web", {}, 0),
        ("small", None, {}, 0),
        ("fast", "onnxruntime", {}, 0),
    ],
)
def test_what_a_browser_does_not_load_is_said(write, tmp_path, preset, target, options, said):
    made = compress_folder(
        write("model.onnx"), tmp_path / "out", preset=preset, target_runtime=target, layout="transformers.js", **options
    )
    assert sum("--target web" in note for note in made.notes) == said
    assert {record.report.target for record in made.models.values()} == {target or "web"}


def test_a_release_and_a_target_go_for_every_model(write, tmp_path):
    source = write("encoder_model.onnx", "decoder_model.onnx")
    made = compress_folder(
        source, tmp_path / "out", preset="small", runtime="1.20", target_runtime="openvino", layout="keep"
    )
    manifest = manifest_of(tmp_path / "out")
    said = {(entry["runtime"], entry["target"], entry["options"]["lowering"]) for entry in manifest["models"].values()}
    assert said == {("1.20.1", "openvino", "qdq")}
    assert manifest["min_onnxruntime"] == made.min_onnxruntime <= "1.20.1"
    for wrong, message in (
        ({"runtime": "1.2"}, "older than 1.17.3"),
        ({"preset": "paper", "target_runtime": "web"}, "'paper' has no form for target 'web'"),
    ):
        with pytest.raises(BctError, match=message):
            compress_folder(source, tmp_path / "refused", **wrong)
    assert not (tmp_path / "refused").exists()


def test_external_data_comes_along(write, tmp_path):
    folder = write("encoder_model.onnx")
    compress_folder(folder, tmp_path / "out", preset="fast", external_data="always", verify=False)
    assert len(list((tmp_path / "out").glob("encoder_model.onnx.*.data"))) == 1
    assert verify_folder(tmp_path / "out").strange == ()


def test_an_exported_transformer(write, tmp_path):
    source = write()
    shutil.copy(FIXTURES / "bert_optimum.onnx", source / "model.onnx")
    made = compress_folder(source, tmp_path / "out", preset="fast")
    check = verify_folder(tmp_path / "out")
    assert check.files == 6
    assert check.compared == ("model.onnx",)
    assert check.models["model.onnx"].min_ms > 0
    assert made.notes[0].startswith("not tried at its task: ")


def test_an_older_package_is_replaced(package, tmp_path):
    folder, _ = package
    (tmp_path / "in" / "decoder_model_merged.onnx").unlink()
    compress_folder(tmp_path / "in", folder, preset="fast", verify=False)
    assert {"encoder_model.onnx", "decoder_model.onnx"} == {n for n in entries(folder) if n.endswith(".onnx")}
    assert entries(tmp_path) == {"in", "out"}


def test_a_model_that_fails_leaves_the_older_package(package, tmp_path):
    folder, _ = package
    before = manifest_of(folder)
    with pytest.raises(VerificationError, match=r"^decoder_model_merged\.onnx: output 'y': errs by "):
        compress_folder(tmp_path / "in", folder, preset="fast", max_rel_error=0.0)
    assert manifest_of(folder) == before
    assert entries(tmp_path) == {"in", "out"}


def test_a_damaged_model_is_named(write, tmp_path):
    source = write("encoder_model.onnx")
    (source / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BctError, match=r"model\.onnx: is not an ONNX model"):
        compress_folder(source, tmp_path / "out")
    assert entries(tmp_path) == {"in"}


def test_options_that_do_not_go_together_are_refused_first(write, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "compress", None)
    source = write("encoder_model.onnx", "decoder_model_merged.onnx")
    with pytest.raises(BctError, match="block"):
        compress_folder(source, tmp_path / "out", preset="fast", block_size=7)
    with pytest.raises(BctError, match=r"--feeds is for one model, .* has 2"):
        compress_folder(source, tmp_path / "out", feeds="feeds.npz")


def test_the_task_is_compared_where_it_can_be(write, tmp_path, monkeypatch):
    asked = []

    def compare(task, source, target, given):
        asked.append((task, source, sorted(entries(target)), given))
        return EndToEnd("fill-mask", 6, {"same label": 1.0}), ""

    monkeypatch.setattr(make, "compare_tasks", compare)
    source = write("model.onnx")
    made = compress_folder(source, tmp_path / "out", preset="fast", task="fill-mask")
    assert asked == [("fill-mask", source, ["config.json", "model.onnx", "probes", "tokenizer.json"], None)]
    assert made.end_to_end.figures == {"same label": 1.0}
    assert manifest_of(tmp_path / "out")["end_to_end"]["figures"] == {"same label": 1.0}
    assert (
        "At its task, fill-mask, float against compressed on 6 examples: same label 1."
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_verification_sees_what_changed(package):
    folder, _ = package
    check = verify_folder(folder)
    assert (check.files, set(check.models), check.strange) == (
        8,
        {"encoder_model.onnx", "decoder_model_merged.onnx"},
        (),
    )
    (folder / "note.txt").touch()
    assert verify_folder(folder).strange == ("note.txt",)
    tokens = folder / "tokenizer.json"
    tokens.write_bytes(tokens.read_bytes().replace(b"word", b"wort"))
    with pytest.raises(VerificationError, match=r"tokenizer\.json: is not the file that was packaged"):
        verify_folder(folder)
    tokens.unlink()
    with pytest.raises(VerificationError, match=r"tokenizer\.json: is missing"):
        verify_folder(folder)


def replace_model(folder, name, **weights):
    """Put another model in place, and its hash into the manifest."""
    path = folder / name
    onnx.save(model(MLP, **weights), path)
    content = manifest_of(folder)
    entry = next(entry for entry in content["files"] if entry["path"] == name)
    entry |= {"bytes": path.stat().st_size, "sha256": make.files.read(path).sha256}
    (folder / "manifest.json").write_text(json.dumps(content))


def test_verification_compares_answers(package):
    """A model that computes otherwise, as on a processor with other kernels, is seen; roundings are not."""
    folder, made = package
    assert verify_folder(folder).compared == tuple(made.models)
    w, v = random(K, K, seed=0), random(K, K, seed=9)  # what was compressed
    replace_model(folder, "encoder_model.onnx", w=w, v=v)
    verify_folder(folder)
    replace_model(folder, "encoder_model.onnx", w=w, v=1.5 * v)
    with pytest.raises(VerificationError, match=r"encoder_model\.onnx: output 'y' differs by 0\.\d+ from what it was"):
        verify_folder(folder)
    replace_model(folder, "encoder_model.onnx", w=w, v=np.full((K, K), np.nan, np.float32))
    with pytest.raises(VerificationError, match=r"encoder_model\.onnx: output 'y' differs"):
        verify_folder(folder)


def test_a_model_without_a_probe_must_answer_with_numbers(write, tmp_path):
    compress_folder(write("model.onnx"), tmp_path / "out", preset="fast", verify=False)
    assert verify_folder(tmp_path / "out").compared == ()
    replace_model(tmp_path / "out", "model.onnx", w=np.full((K, K), np.nan, np.float32), v=random(K, K))
    with pytest.raises(VerificationError, match=r"model\.onnx: no feed made for the model runs"):
        verify_folder(tmp_path / "out")


@pytest.mark.parametrize("name", ["../in/config.json", "/etc/hostname"])
def test_a_manifest_that_names_files_elsewhere_is_refused(package, name):
    folder, _ = package
    content = manifest_of(folder)
    content["files"][0]["path"] = name
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BctError, match="outside of the folder"):
        verify_folder(folder)


def test_what_is_no_package(write):
    folder = write("model.onnx")
    with pytest.raises(BctError, match=r"has no manifest\.json, so it is no package"):
        verify_folder(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(BctError, match="is not the manifest of a package"):
        verify_folder(folder)
    (folder / "manifest.json").write_text('{"bct_onnx": "9", "format": 9}')
    with pytest.raises(BctError, match="has form 9, this version knows 1"):
        verify_folder(folder)


@pytest.mark.parametrize(
    ("examples", "data", "tried"),
    [
        (None, None, None),
        ("a.txt", "b.txt", "a.txt"),
        (None, "b.txt", "b.txt"),
        (None, "b", "b"),
        (None, "b.jsonl", None),
    ],
)
def test_the_task_is_tried_with_the_data_of_the_models(examples, data, tried):
    assert make._examples(examples, data) == (tried and Path(tried))
