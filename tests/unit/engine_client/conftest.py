from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from client_rig import ClientRig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Callable[..., ClientRig]]:
    """Make rigs; afterwards close them and see that none of their processes is left."""
    rigs: list[ClientRig] = []

    def make(**script: object) -> ClientRig:
        folder = tmp_path / str(len(rigs))
        folder.mkdir()
        rigs.append(ClientRig(folder, script))
        return rigs[-1]

    yield make
    for each in rigs:
        await each.client.close(grace=0.5)
        assert not [pid for pid in each.pids if psutil.pid_exists(pid)]
        assert len(each.exits()) == each.spawned
