"""`compress`: a file in, a checked file out, and a report; or an exception that says why not, and no trace."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from bct_onnx import BctError, VerificationError, __version__, compress
from tests.helpers import MLP, K, entries, model, nodes, operators, plain, random, relative_error, run

FIXTURES = sorted((Path(__file__).parents[2] / "models" / "fixtures").glob("*.onnx"))
# One of each architecture for the presets that the others do not differ much from.
FEW = [path for path in FIXTURES if path.stem.endswith("_torchscript") or path.stem == "t5_decoder_merged_optimum"]
CASES = [(path, preset) for preset in ("fast", "balanced") for path in FIXTURES]
CASES += [(path, preset) for preset in ("small", "portable") for path in FEW]

X = random(5, K, seed=3)


@pytest.mark.parametrize(("path", "preset"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_fixtures(tmp_path, path, preset):
    """What exporters write is compressed at every preset, and verified; of these tiny models some weights stay."""
    report = compress(path, tmp_path / "out.onnx", preset=preset)
    assert report.verification is not None
    assert report.verification.mismatches == {}
    assert sum(entry.replaced for entry in report.passes if entry.name in ("matmul", "gather")) > 0
    assert report.ratio > 1
    assert {name for name in entries(tmp_path) if not name.endswith(".data")} == {"out.onnx"}


@pytest.mark.parametrize(
    ("preset", "least", "largest_error"), [("fast", 3.2, 0.03), ("balanced", 4.5, 0.1), ("small", 5, 0.25)]
)
def test_presets_trade_size_for_error(source, tmp_path, preset, least, largest_error):
    # In so small a file the body of a function takes what a search would have to give away.
    bits = 4 if preset == "small" else None
    report = compress(source, tmp_path / "out.onnx", preset=preset, bits=bits)
    assert report.preset == preset
    assert report.input.bytes / report.output.bytes > least / 2  # the bodies of functions weigh on two small weights
    matmul = next(entry for entry in report.passes if entry.name == "matmul")
    assert matmul.bytes_before / matmul.bytes_after > least
    (exact,), (answer,) = run(source, x=X), run(tmp_path / "out.onnx", x=X)
    assert relative_error(answer, exact) < largest_error


def test_the_report_is_of_the_files(source, tmp_path):
    target = tmp_path / "out.onnx"
    report = compress(source, target)
    written = onnx.load(target)
    assert report.input.bytes == source.stat().st_size
    assert report.input.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert report.output.bytes == target.stat().st_size
    assert report.output.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert report.output.opset == written.opset_import[0].version
    assert report.output.ir_version == written.ir_version
    assert report.ratio == report.input.bytes / report.output.bytes
    assert {entry.key: entry.value for entry in written.metadata_props} == {"bct_onnx": __version__}


def test_the_input_is_not_touched(source, tmp_path):
    before = source.read_bytes()
    compress(source, tmp_path / "out.onnx")
    assert source.read_bytes() == before


def test_the_same_bytes_twice(source, tmp_path):
    hashes = {compress(source, tmp_path / f"out{i}.onnx").output.sha256 for i in range(2)}
    assert len(hashes) == 1


def test_an_older_output_is_replaced(source, tmp_path):
    target = tmp_path / "out.onnx"
    target.write_bytes(b"older")
    compress(source, target)
    onnx.checker.check_model(target)


def test_what_did_not_pass_leaves_the_older_output_and_no_trace(source, tmp_path):
    target = tmp_path / "out.onnx"
    target.write_bytes(b"older")
    with pytest.raises(
        VerificationError, match=r"^output 'y': errs by .* of its spread, above 1e-09 .*mend it: --keep"
    ):
        compress(source, target, max_rel_error=1e-9)
    assert target.read_bytes() == b"older"
    assert entries(tmp_path) == {"in.onnx", "out.onnx"}


def test_what_did_not_pass_leaves_nothing_where_nothing_was(source, tmp_path):
    with pytest.raises(VerificationError):
        compress(source, tmp_path / "out.onnx", max_rel_error=1e-9)
    assert entries(tmp_path) == {"in.onnx"}


def test_without_verification_the_result_is_loaded_only(source, tmp_path):
    report = compress(source, tmp_path / "out.onnx", verify=False, max_rel_error=1e-9)
    assert report.verification is None
    assert (tmp_path / "out.onnx").exists()


def test_feeds_of_a_file(source, tmp_path):
    np.savez(tmp_path / "feeds.npz", x=X)
    report = compress(source, tmp_path / "out.onnx", feeds=tmp_path / "feeds.npz")
    assert report.verification is not None
    assert report.verification.feeds == (f"feed 0 of {tmp_path / 'feeds.npz'}",)
    assert report.verification.timed_shapes == {"x": (5, K)}


@pytest.mark.parametrize("external_data", ["always", "never", "auto"])
def test_external_data_where_asked_for(source, tmp_path, external_data):
    target = tmp_path / "out.onnx"
    report = compress(source, target, external_data=external_data)
    beside = entries(tmp_path) - {"in.onnx", "out.onnx"}
    assert len(beside) == (external_data == "always")
    assert report.output.bytes == sum((tmp_path / name).stat().st_size for name in (*beside, "out.onnx"))
    run(target, x=X)


def test_compressing_twice_has_to_be_asked_for(source, tmp_path):
    compress(source, tmp_path / "once.onnx", preset="fast")
    with pytest.raises(BctError, match=r"once\.onnx: is compressed already; use the original, or --again to go on"):
        compress(tmp_path / "once.onnx", tmp_path / "twice.onnx")
    compress(tmp_path / "once.onnx", tmp_path / "twice.onnx", again=True)
    assert (tmp_path / "twice.onnx").exists()


@pytest.mark.parametrize("again_with", ["fast", "balanced", "portable"])
@pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])
def test_a_compressed_model_bears_another_round(source, tmp_path, lowering, again_with):
    compress(source, tmp_path / "once.onnx", lowering=lowering)
    if again_with == "portable" and lowering != "qdq":
        # What is there of the runtime's own operators stays, and would break the promise.
        with pytest.raises(BctError, match=r"com\.microsoft"):
            compress(tmp_path / "once.onnx", tmp_path / "twice.onnx", preset=again_with, again=True)
        return
    compress(tmp_path / "once.onnx", tmp_path / "twice.onnx", preset=again_with, again=True)


@pytest.mark.parametrize(
    ("options", "used", "notes"),
    [
        ({"bits": 4}, (4, 8, "dense"), ()),
        ({"preset": "small", "block_size": 64}, (4, 64, "dense"), ()),
        ({"lowering": "packed"}, (6, 32, "packed"), ()),
        ({"lowering": "packed", "bits": 3}, (4, 32, "packed"), ("packed has no 3-bit codes: 4 bits are used",)),
        ({"lowering": "qdq", "bits": 3}, (4, 32, "qdq"), ("qdq has no 3-bit codes: 4 bits are used",)),
    ],
)
def test_options_and_what_became_of_them(source, tmp_path, options, used, notes):
    report = compress(source, tmp_path / "out.onnx", **options)
    assert (report.options.bits, report.options.block_size, report.options.lowering) == used
    assert report.notes == notes


@pytest.mark.parametrize(
    ("options", "lowering", "note"),
    [
        ({"preset": "fast"}, "packed", "its weights are packed, whose answers are the nearest; dense ones take"),
        ({"preset": "fast", "bits": 5}, "packed", "its weights are packed"),
        ({"preset": "fast", "bits": 3}, "both", "both has no 3-bit codes: 4 bits are used"),
        ({"preset": "small"}, "both", "its weights are both, int8 for prompts and packed for tokens"),
        ({"preset": "small", "lowering": "packed"}, "packed", ""),
    ],
)
def test_models_that_decode_token_by_token_have_forms_for_that(tmp_path, options, lowering, note):
    text = """g (float[m, 64] x, float[b, 2, p, 4] past_key) => (float[m, 64] y, float[b, 2, p, 4] present) {
        y = MatMul(x, w) present = Identity(past_key)
    }"""
    onnx.save(model(text, w=random(K, K)), tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", **options)
    assert report.options.lowering == lowering
    assert any(note in each for each in report.notes) or not note
    found = set(operators(plain(onnx.load(tmp_path / "out.onnx"))))
    assert "MatMulNBits" in found
    assert ("MatMulIntegerToFloat" in found) == (lowering != "packed")


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, 23])
@pytest.mark.parametrize("preset", ["fast", "balanced", "portable"])
def test_opsets(tmp_path, opset, preset):
    """The output has the opset that its codes need, the model's own where that is higher."""
    source = model(MLP, opset=opset, ir_version=4 if opset < 11 else 10, w=random(K, K, seed=1), v=random(K, K, seed=2))
    onnx.save(source, tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset=preset)
    assert report.output.opset >= opset
    if preset != "fast":
        assert report.output.opset == max(opset, 21)
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)


def test_portable_has_standard_operators_only(source, tmp_path):
    compress(source, tmp_path / "out.onnx", preset="portable")
    written = onnx.load(tmp_path / "out.onnx")
    assert {node.domain for node in nodes(written.graph)} <= {"", "ai.onnx"}


def test_keep(source, tmp_path):
    report = compress(source, tmp_path / "out.onnx", keep=["^v$"])
    (skipped,) = next(entry for entry in report.passes if entry.name == "matmul").skipped
    assert skipped.reason == "kept by the pattern '^v$'"


def test_progress(source, tmp_path):
    calls: list[tuple[str, int, int]] = []
    compress(source, tmp_path / "out.onnx", bits=6, progress=lambda *call: calls.append(call))
    assert [call for call in calls if call[0] == "matmul"] == [("matmul", 0, 2), ("matmul", 1, 2)]


def test_paths_may_be_strings(source, tmp_path):
    assert compress(str(source), str(tmp_path / "out.onnx")).output.path == tmp_path / "out.onnx"


def test_weights_of_nan_are_kept_and_the_rest_is_compressed(tmp_path):
    weight = random(K, K, seed=1)
    weight[0, 0] = np.nan
    text = "g (float[m, 64] x) => (float[m, 64] y, float[m, 64] z) { y = MatMul(x, w) z = MatMul(x, v) }"
    onnx.save(model(text, w=weight, v=random(K, K, seed=2)), tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", keep=["^w$"])
    assert next(entry for entry in report.passes if entry.name == "matmul").replaced == 1


def test_a_model_of_nothing_but_a_table(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[n, s] ids) => (float[n, s, 64] y) { y = Gather(table, ids) }'
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random(256, 64, seed=1), "table"))
    onnx.save(proto, tmp_path / "in.onnx")
    report = compress(tmp_path / "in.onnx", tmp_path / "out.onnx", preset="fast")
    assert sum(entry.replaced for entry in report.passes) == 1
