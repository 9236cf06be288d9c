"""What verification takes is decided by size and free memory, and models load however much memory they may use."""

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser, save

from bct_onnx import files
from bct_onnx.sessions import MemoryUse, Session
from bct_onnx.sessions.memory import LARGE, available_bytes, plan_memory
from bct_onnx.verify import compare, run_reference


def test_small_models_are_loaded_as_by_any_user() -> None:
    assert plan_memory(10**8, 10**9).use is MemoryUse.FULL
    assert plan_memory(10**8, None).note is None


@pytest.mark.parametrize(("size", "available"), [(10**8, 25 * 10**7), (LARGE, None), (6 * 10**9, 23 * 10**9)])
def test_large_models_and_short_memory_ask_for_sparing_sessions(size: int, available: int | None) -> None:
    plan = plan_memory(size, available)
    assert plan.use is MemoryUse.MAPPED
    assert "latencies" in str(plan.note)


@pytest.mark.parametrize(("size", "available"), [(10**8, 10**8), (6 * 10**9, 2 * 10**9)])
def test_what_does_not_fit_is_skipped_and_said(size: int, available: int) -> None:
    plan = plan_memory(size, available)
    assert plan.use is None
    assert f"{available / 1e9:.1f} GB are free" in str(plan.note)


def test_the_system_tells_its_memory() -> None:
    assert 10**7 < (available_bytes() or 0) < 10**14


def test_sparing_sessions_give_the_same_and_no_latency(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64] x) => (float[2, 32] y) { y = MatMul(x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    save(model, tmp_path / "m.onnx")
    x = {"x": np.ones((2, 64), np.float32)}
    for use in MemoryUse:
        np.testing.assert_allclose(Session(tmp_path / "m.onnx", use).run(x)["y"], x["x"] @ weight, rtol=1e-4)
    reference = run_reference(tmp_path / "m.onnx", files.read(tmp_path / "m.onnx").proto, use=MemoryUse.MAPPED)
    verification = compare(reference, tmp_path / "m.onnx")
    assert reference.latency is None
    assert verification.latency is None
    assert verification.to_dict()["latency"]["reference"] is None  # type: ignore[index]
