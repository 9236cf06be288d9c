"""Fixtures shared by all tests."""

import gc
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from passes.formats.compiled import Encoder

# Machines may be busy: how long an example takes says nothing.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """Take what tests are made of out of the collector's sight: compressing collects several times a model."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def numpy_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test begin with numpy as what encodes, whatever the tests before it compressed with."""
    monkeypatch.setattr(Encoder, "offered", None)


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of optional models and data: BCT_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("BCT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no optional data at {folder} (set BCT_DATA)")
    return folder


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the folder of npm packages: BCT_NODE_MODULES, or where `make test-hosts` puts them."""
    folder = Path(os.environ.get("BCT_NODE_MODULES", Path(__file__).parents[1] / "build" / "hosts" / "node_modules"))
    if shutil.which("node") is None:
        pytest.skip("no node (apt-get install nodejs npm chromium, then make test-hosts)")
    if not folder.is_dir():
        pytest.skip(f"no npm packages at {folder} (make test-hosts installs them, or set BCT_NODE_MODULES)")
    return folder
