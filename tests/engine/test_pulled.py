"""A model that was downloaded answers as the one from which the hub's copy was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.rig import Rig
from hub_server import Repository
from pull_rig import NAME, PullRig, folder_files
from pull_rig import rig as pull_rig

__all__ = ["pull_rig"]
pytestmark = pytest.mark.engine


@pytest.mark.parametrize("kind", ["dense", "gptq"])
def test_what_was_downloaded_loads_and_answers(rig: Rig, models: Path, pull_rig: PullRig, kind: str) -> None:
    pull_rig.hub.repositories[NAME] = pull_rig.repository = Repository(folder_files(models / kind))
    done = pull_rig.run(NAME, "--yes")
    assert done.returncode == 0, done.stderr
    said = []
    for folder in (models / kind, Path(done.stdout.splitlines()[-1])):
        loaded = rig.load(folder)
        assert not hasattr(loaded, "error"), loaded
        text, end = rig.answer()
        assert end.statistics.new_tokens > 0
        said.append(text)
    assert said[0] == said[1]
