"""A compressed model must answer like its input."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from bct_onnx import verify
from bct_onnx.errors import BctError, InaccurateError, VerificationError
from bct_onnx.fidelity import OutputError
from bct_onnx.inputs import file_inputs, made_inputs
from bct_onnx.sessions import OrtError, Session, essential_words

HEAD = '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>'
WEIGHT = np.random.default_rng(0).standard_normal((8, 32)).astype(np.float32)
PRODUCT = "g (float[batch, seq, 8] x) => (float[batch, seq, 32] y) { y = MatMul(x, w) }"


def save(path: Path, text: str, **arrays: np.ndarray) -> tuple[Path, onnx.ModelProto]:
    proto = parse_model(HEAD + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in arrays.items())
    onnx.save(proto, path)
    return path, proto


def verification(folder: Path, text: str, changed: str, **arrays: np.ndarray) -> verify.Verification:
    """Compare a graph with another; arrays are the weights of both, `new_NAME` those of the other."""
    old = {name: a for name, a in arrays.items() if not name.startswith("new_")}
    new = {name.removeprefix("new_"): a for name, a in arrays.items() if name.startswith("new_")}
    path, proto = save(folder / "in.onnx", text, **old)
    reference = verify.run_reference(path, proto)
    return verify.compare(reference, save(folder / "out.onnx", changed, **{**old, **new})[0])


def test_a_model_equals_itself(tmp_path: Path) -> None:
    result = verification(tmp_path, PRODUCT, PRODUCT, w=WEIGHT)
    assert len(result.feeds) == 4
    expected = OutputError("values", error=0, worst=0, mean=0, by_feed=(0, 0, 0, 0), max_abs=0, relative=0)
    assert result.outputs["y"] == expected
    result.check(verify.Bound(0.0))


def test_latency_is_of_the_largest_feed(tmp_path: Path) -> None:
    result = verification(tmp_path, PRODUCT, PRODUCT, w=WEIGHT)
    assert result.timed_shapes == {"x": (1, 128, 8)}
    assert 0 < result.latency.min_ms <= result.latency.median_ms
    assert 0 < result.reference_latency.min_ms <= result.reference_latency.median_ms


def test_known_error(tmp_path: Path) -> None:
    result = verification(tmp_path, PRODUCT, PRODUCT, w=WEIGHT, new_w=WEIGHT * np.float32(1.25))
    assert result.outputs["y"].relative == pytest.approx(0.25, rel=1e-5)
    assert result.outputs["y"].error == pytest.approx(0.25, rel=0.2)
    with pytest.raises(
        InaccurateError, match=r"^output 'y': errs by 0\.2\d+ of its spread, above 0\.2 \(on x \[\d, \d+, 8\]\)$"
    ) as caught:
        result.check(verify.Bound(0.2))
    assert caught.value.exit_code == 1


def test_other_weights_do_not_pass(tmp_path: Path) -> None:
    result = verification(tmp_path, PRODUCT, PRODUCT, w=WEIGHT, new_w=np.roll(WEIGHT, 1, axis=1))
    assert not result.meets(verify.default_bound(2))
    result.check(verify.Bound(None))


def test_an_error_in_one_small_feed_is_seen(tmp_path: Path) -> None:
    wrong_at_batch_6 = """g (float[batch, seq, 8] x) => (float[batch, seq, 32] y) {
        good = MatMul(x, w) size = Shape<start = 0, end = 1>(x) six = Constant<value = int64[1] {6}>()
        bad = Neg(good) is_six = Equal(size, six) y = Where(is_six, bad, good)
    }"""
    result = verification(tmp_path, PRODUCT, wrong_at_batch_6, w=WEIGHT)
    error = result.outputs["y"]
    assert error.error == pytest.approx(2.0, rel=0.2)
    assert result.feeds[error.worst].startswith("x [6, ")


def test_a_cache_has_a_bound_of_its_own(tmp_path: Path) -> None:
    text = """g (float[batch, seq, 8] x) => (float[batch, seq, 32] y, float[batch, seq, 32] present) {
        y = MatMul(x, w) present = MatMul(x, w)
    }"""
    outputs = verification(tmp_path, text, text, w=WEIGHT).to_dict(verify.Bound(0.25))["outputs"]
    assert {name: output["bound"] for name, output in outputs.items()} == {"y": 0.25, "present": 1.0}


def test_record_is_json(tmp_path: Path) -> None:
    text = """g (float[batch, 8] x) => (float[batch, 32] y, int64[batch, 1] best) {
        y = MatMul(x, w) best = ArgMax<axis=1>(y)
    }"""
    result = verification(tmp_path, text, text, w=WEIGHT)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert len(record["feeds"]) == 5
    keys = {"kind", "error", "worst", "mean", "by_feed", "max_abs", "relative", "spread"}
    assert record["outputs"]["y"].keys() == keys
    assert result.to_dict(verify.Bound(0.5))["outputs"]["y"].keys() == keys | {"bound"}
    assert record["outputs"]["best"] == {"kind": "exact", "same": 1.0, "spread": True}
    assert record["latency"].keys() == {"shapes", "reference", "compressed"}
    assert record["latency"]["reference"].keys() == {"median_ms", "min_ms"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("half = MatMul(x, w) y = Cast<to = 10>(half)", "output 'y' .* has type float16, .* float32"),
        (
            "full = MatMul(x, w) y = Transpose<perm = [0, 2, 1]>(full)",
            r"output 'y' .* has shape \[4, 32, 12\], .*",
        ),
        ("full = MatMul(x, w) y = Log(full)", "output 'y' .* has NaN or infinity in other places"),
        ("z = MatMul(x, w)", "output 'y' of the compressed model is missing"),
    ],
)
def test_other_kind_of_output(changed: str, message: str, tmp_path: Path) -> None:
    name = "z" if changed.startswith("z") else "y"
    kind = "float16" if "10" in changed else "float"
    graph = f"g (float[batch, seq, 8] x) => ({kind}[a, b, c] {name}) {{ {changed} }}"
    result = verification(tmp_path, PRODUCT, graph, w=WEIGHT)
    with pytest.raises(VerificationError, match=message):
        result.check(verify.Bound(None))


def test_integer_outputs_bind_only_alone(tmp_path: Path) -> None:
    def graph(outputs: str, sign: str) -> str:
        return f"""g (float[batch, 8] x) => ({outputs}) {{
            y = MatMul(x, w) s = {sign}(y) best = ArgMax<axis=1>(s)
        }}"""

    alone, both = "int64[batch, 1] best", "float[batch, 32] y, int64[batch, 1] best"
    result = verification(tmp_path, graph(both, "Identity"), graph(both, "Neg"), w=WEIGHT)
    assert result.outputs["best"].same == 0
    result.check(verify.default_bound(8))
    result = verification(tmp_path, graph(alone, "Identity"), graph(alone, "Neg"), w=WEIGHT)
    with pytest.raises(VerificationError, match=r"^output 'best': 0\.0% of its values are equal, below 50\.0%"):
        result.check(verify.default_bound(8))


@pytest.mark.parametrize(("bits", "error"), [(8, 0.25), (6, 0.25), (5, 0.7), (4, 0.7), (3, 1.0), (2, 1.0)])
def test_default_bounds(bits: int, error: float) -> None:
    assert verify.default_bound(bits).max_error == error


def test_a_compressed_model_that_does_not_load(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", PRODUCT, w=WEIGHT)
    reference = verify.run_reference(path, proto)
    (tmp_path / "out.onnx").write_bytes(b"nothing")
    with pytest.raises(VerificationError, match=r"^ONNX Runtime does not run the compressed model: "):
        verify.compare(reference, tmp_path / "out.onnx")


def test_a_custom_operator(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", "g (float[2] x) => (float[2] y) { y = mine.Magic(x) }")
    proto.opset_import.add(domain="mine", version=1)
    onnx.save(proto, path)
    with pytest.raises(BctError, match=r"in\.onnx: ONNX Runtime does not load the model: .*mine.*Magic") as caught:
        verify.run_reference(path, proto)
    assert caught.value.exit_code == 2
    assert "ONNXRuntimeError" not in str(caught.value)


def test_no_feed_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, proto = save(
        tmp_path / "in.onnx",
        "g (float[n, 5] x) => (float[7, 7, 7] y) { y = Reshape(x, s) }",
        s=np.array([7, 7, 7]),
    )
    with pytest.raises(BctError, match=r"no feed made for the model runs; give one with --feeds .*Reshape"):
        verify.run_reference(path, proto)
    assert capfd.readouterr() == ("", "")


def test_answers_without_a_finite_number_verify_nothing(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", "g (float[2] x) => (float[2] y) { m = Abs(x) n = Neg(m) y = Log(n) }")
    with pytest.raises(BctError, match="every output is empty, NaN or infinite"):
        verify.run_reference(path, proto)


def test_sizes_are_sought(tmp_path: Path) -> None:
    path, proto = save(
        tmp_path / "in.onnx",
        "g (float[batch, len, 4] x) => (float[a, b, c] y) { y = Add(x, w) }",
        w=np.ones((1, 256, 4), np.float32),
    )
    reference = verify.run_reference(path, proto)
    assert {np.shape(feed["x"])[1] for feed in reference.feeds} <= {1, 256}


def test_given_feeds(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", PRODUCT, w=WEIGHT)
    np.savez(tmp_path / "f.npz", **{f"x.{i}": np.full((1, 2, 8), i, np.float32) for i in range(2)})
    reference = verify.run_reference(path, proto, partial(file_inputs, file=tmp_path / "f.npz"))
    assert len(reference.feeds) == 2
    np.testing.assert_allclose(reference.outputs[1]["y"][0, 0], WEIGHT.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_a_given_feed_that_does_not_run(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", PRODUCT, w=WEIGHT)
    np.savez(tmp_path / "f.npz", x=np.ones((1, 2, 9), np.float32))
    with pytest.raises(BctError, match=r"feed 0 of .*f\.npz: the model does not run on it: .*dimensions"):
        verify.run_reference(path, proto, partial(file_inputs, file=tmp_path / "f.npz"))


def test_budget_ends_the_search(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", PRODUCT, w=WEIGHT)
    assert len(verify.run_reference(path, proto, partial(made_inputs, budget_seconds=0.0)).feeds) == 1


def test_bfloat16_goes_in_and_out_as_float32(tmp_path: Path) -> None:
    text = """g (bfloat16[batch, 8] x) => (bfloat16[batch, 8] y) {
        f = Cast<to = 1>(x) d = Add(f, f) y = Cast<to = 16>(d)
    }"""
    path, proto = save(tmp_path / "in.onnx", text)
    reference = verify.run_reference(path, proto)
    for feed, outputs in zip(reference.feeds, reference.outputs, strict=True):
        assert outputs["y"].dtype == np.float32
        np.testing.assert_allclose(outputs["y"], 2 * np.asarray(feed["x"]), rtol=2**-8)


def test_sequence_outputs(tmp_path: Path) -> None:
    text = "g (seq(float[2, 3]) x) => (seq(float[2, 3]) y) { y = Identity(x) }"
    path, proto = save(tmp_path / "in.onnx", text)
    assert verify.run_reference(path, proto).outputs[0].keys() == {"y[0]", "y[1]"}


RANDOM = """g (float[batch, 8] x) => (float[batch, 32] y, float[batch, 8] noisy) {
    y = MatMul(x, w) noise = RandomNormalLike(x) noisy = Add(x, noise)
}"""


def test_models_that_draw_numbers_are_compared_with_the_same_draws(tmp_path: Path) -> None:
    path, proto = save(tmp_path / "in.onnx", RANDOM, w=WEIGHT)
    reference = verify.run_reference(path, proto)
    assert reference.seeded
    assert not reference.random
    result = verify.compare(reference, path)
    assert result.outputs["noisy"].error == 0
    other, _ = save(tmp_path / "out.onnx", RANDOM.replace("Add(x, noise)", "Sub(x, noise)"), w=WEIGHT)
    assert verify.compare(reference, other).outputs["noisy"].error > 0.5


def test_session_runs_silently_and_raises_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, _ = save(tmp_path / "m.onnx", "g (float[n] x) => (float[n] y) { y = Reshape(x, s) }", s=np.array([4, 4]))
    session = Session(path)
    with pytest.raises(OrtError) as caught:
        session.run({"x": np.ones(5, np.float32)})
    assert str(caught.value).startswith("Reshape node. Name:")
    assert "onnxruntime" not in str(caught.value)
    with pytest.raises(OrtError, match="File doesn't exist"):
        Session(tmp_path / "absent.onnx")
    assert capfd.readouterr() == ("", "")


def test_error_without_words() -> None:
    assert essential_words(RuntimeError()) == "RuntimeError"


EXTRA = ("vit_tiny", "cct_cifar10", "stories260k", "babyllama105", "bert_mini/sst2")


def test_zoo_models_get_feeds_that_run(data: Path) -> None:
    index = json.loads((data / "zoo" / "INDEX.json").read_text())
    failed = []
    for path in (data / "zoo" / entry["file"] for entry in index if entry["runs"].startswith("ok")):
        try:
            reference = verify.run_reference(
                path, onnx.load(path, load_external_data=False), partial(made_inputs, budget_seconds=2.0)
            )
        except BctError as error:
            failed.append(str(error))
        else:
            assert len(reference.outputs) == len(reference.feeds) >= 1
    assert not failed


@pytest.mark.parametrize("folder", EXTRA)
def test_trained_models_equal_themselves(folder: str, data: Path) -> None:
    path = data / folder / "model.onnx"
    reference = verify.run_reference(path, onnx.load(path, load_external_data=False))
    assert len(reference.feeds) in (4, 5)
    assert all(outputs["logits"].std() > 0.1 for outputs in reference.outputs)
    verify.compare(reference, path).check(verify.Bound(1e-3))


def test_a_model_that_runs_but_once_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run tells whether it draws numbers."""
    runs: list[int] = []
    run_session = Session.run

    def run_once(self: Session, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        runs.append(1)
        if len(runs) > 4:
            raise OrtError("stopped")
        return run_session(self, feed)

    monkeypatch.setattr(Session, "run", run_once)
    path, proto = save(tmp_path / "in.onnx", PRODUCT, w=WEIGHT)
    with pytest.raises(BctError, match="does not run a second time: stopped"):
        verify.run_reference(path, proto)
