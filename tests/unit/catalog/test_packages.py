"""What is installed, by the names of metadata folders alone: as the standard library says it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from quantchat.catalog.packages import installed, versions


def test_all_packages_here_have_the_version_that_their_metadata_says() -> None:
    versions.cache_clear()
    known = {found.metadata["Name"]: metadata.version(found.metadata["Name"]) for found in metadata.distributions()}
    assert {name: installed(name) for name in known} == known
    assert len({re.sub(r"[-_.]+", "-", name).lower() for name in known}) <= len(versions())


@pytest.mark.parametrize(
    ("entry", "name", "version"),
    [
        ("Some_Thing.x-1.2+cu121.dist-info", "some-thing-x[extra]", "1.2+cu121"),
        ("old-0.3-py3.11.egg-info", "old", "0.3"),
        ("linked.egg-info", "linked", None),
        ("other-1.0", "other", None),
    ],
)
def test_names_of_metadata_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, name: str, version: str | None
) -> None:
    (tmp_path / entry).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    versions.cache_clear()
    assert installed(name) == version
    versions.cache_clear()
