from __future__ import annotations

import pytest

from bad_server import BadServer
from engine.servers.rig import ServerRig
from quantchat.engine.backends.server import turn


@pytest.fixture
def server():
    server = BadServer().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def asker():
    rig = ServerRig()
    yield rig
    assert rig.worker.close(timeout=30)


@pytest.fixture
def box(asker, server, monkeypatch):
    """The worker with the server's model loaded; waits between tries are short."""
    monkeypatch.setattr(turn, "FIRST_WAIT", 0.01)
    loaded = asker.use(server.url)
    assert not hasattr(loaded, "error"), loaded
    asker.events.clear()
    server.requests.clear()
    return asker
