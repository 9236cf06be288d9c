"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines may be busy: how long an example takes says nothing.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of optional models and data: BCT_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("BCT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no optional data at {folder} (set BCT_DATA)")
    return folder
