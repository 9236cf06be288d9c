"""The native kernels, built for the tests, on every kind of processor that this one can be."""

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from bct_onnx import kernels
from bct_onnx.kernels.build import FOLDER, build, compiler


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Build the library where it is missing or older than its sources."""
    if compiler() is None:
        pytest.skip("no C++ compiler (g++)")
    sources = max(path.stat().st_mtime for path in (FOLDER / "src").iterdir())
    if not kernels.available() or Path(kernels.library()).stat().st_mtime < sources:
        build()


PROCESSORS = {"x86_64": ["amx", "avx512", "avxvnni", "avx2"], "aarch64": ["i8mm", "dotprod"]}


@pytest.fixture(params=[*PROCESSORS.get(platform.machine(), []), "portable"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let sessions that are made use the kernels of a kind of processor, or of the best there is."""
    monkeypatch.setenv("BCT_ONNX_KERNELS", request.param)
    return request.param
