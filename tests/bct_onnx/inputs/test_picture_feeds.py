"""Feeds are every n-th picture as the model takes it; the score is of all others."""

from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner

from bct_onnx.evaluate import Preprocess, evaluate_images
from benchmarks.feeds import main

SUMS = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 4, 4] x) => (float[n, 3] logits) {
    logits = ReduceMean<axes = [2, 3], keepdims = 0>(x) }"""


def test_feeds_and_evaluation_share_no_picture(tmp_path: Path) -> None:
    model, data, feeds = tmp_path / "model.onnx", tmp_path / "data.npz", tmp_path / "feeds.npz"
    onnx.save(onnx.parser.parse_model(SUMS), model)
    images = np.random.default_rng(0).integers(0, 200, (10, 4, 4, 3)).astype(np.uint8)
    labels = np.arange(10) % 3
    # Right for the pictures that are no feeds, wrong for the others.
    answers = np.where(np.arange(10) % 3 == 0, (labels + 1) % 3, labels)
    images[np.arange(10), :, :, answers] = 255
    np.savez(data, images=images, labels=labels)
    options = ["--every", "3", "--count", "3", "--mean", "0.5", "--std", "0.5"]
    made = CliRunner().invoke(main, ["make", *map(str, (data, model, feeds)), "--batch", "2", *options])
    assert made.exit_code == 0, made.output
    with np.load(feeds) as arrays:
        assert set(arrays) == {"x.0", "x.1"}
        fed = np.concatenate([arrays["x.0"], arrays["x.1"]])
    expected = (images[[0, 3, 6]].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(fed, expected, atol=1e-6)
    scored = CliRunner().invoke(main, ["score", *map(str, (data, model, model)), *options])
    assert scored.exit_code == 0, scored.output
    # Of seven pictures six are right: number 9 is a multiple of three, too, but beyond the three feeds.
    assert "85.7" in scored.output
    result = evaluate_images(data, [model], preprocess=Preprocess((0.5,) * 3, (0.5,) * 3), left_out=[0, 3, 6])
    assert result.samples == 7
