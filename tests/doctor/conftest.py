"""Fixtures of the doctor's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.rig import clean_env


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh user."""
    return clean_env(tmp_path / "home")
