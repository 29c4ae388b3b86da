"""The engine never outlives the screen, however the screen ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from client_rig import SCRIPTED_ENGINE
from processes import is_running
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import Event, Log, Ping, Pong, Ready

PARENT = """
import asyncio, sys
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import Ready

def hear(event):
    if isinstance(event, EngineExited):
        sys.exit(event.log_tail)
    if isinstance(event, Ready):
        ready.set()

async def main():
    global ready
    ready = asyncio.Event()
    client = EngineClient(hear)
    await client.start()
    if "wait" in sys.argv:
        await ready.wait()
    print(client.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def kill_parent(home: Path, *arguments: str, engine_command: str = "") -> psutil.Process:
    """Start a parent with an engine, kill the parent, and return the orphan."""
    # A parent whose engine does not come up ends by itself, so that the read below cannot wait for ever.
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"QUANTCHAT_HOME": str(home), "QUANTCHAT_ENGINE_COMMAND": engine_command},
    )
    with parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        assert engine.ppid() == parent.pid
        assert os.getsid(engine.pid) == engine.pid, "signals of the terminal must not reach the engine"
        parent.send_signal(signal.SIGKILL)
    return engine


def await_end(process: psutil.Process, patience: float = 30.0) -> None:
    """Wait for the end of a process that is not our child; a zombie of an idle init counts as ended."""
    end = time.monotonic() + patience
    while is_running(process.pid):
        if time.monotonic() > end:
            process.kill()
            pytest.fail(f"the engine outlived its parent by {patience} s")
        time.sleep(0.02)


def test_the_engine_dies_with_a_killed_parent(tmp_path: Path) -> None:
    orphan = kill_parent(tmp_path, "wait", engine_command=f"{sys.executable} {SCRIPTED_ENGINE}")
    await_end(orphan)


async def test_compilers_in_process_groups_of_their_own_are_killed_too(tmp_path: Path) -> None:
    """Ninja starts each compiler so: quitting during "building kernel" left them running."""
    note = tmp_path / "pid"
    os.mkfifo(note)
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'], process_group=0)\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(note)]
    client = EngineClient(lambda event: None, command=command, log_path=tmp_path / "log")
    await client.start()
    compiler = psutil.Process(int(await asyncio.to_thread(note.read_text)))
    client.kill()
    await client.close()
    await_end(compiler)


@pytest.mark.engine
@pytest.mark.timeout(120)
@pytest.mark.parametrize("moment", ["wait", "at once"])
def test_the_real_engine_dies_with_a_killed_parent(tmp_path: Path, moment: str) -> None:
    orphan = kill_parent(tmp_path, moment)
    await_end(orphan)


@pytest.mark.engine
@pytest.mark.timeout(120)
async def test_what_libraries_print_goes_to_the_log_and_not_into_the_protocol(tmp_path: Path) -> None:
    """A `sitecustomize` prints to both descriptors at interpreter start and once more from C level later."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, threading\n"
        "def shout():\n"
        "    os.write(1, b'NOISE ON 1\\n')\n"
        "    os.write(2, b'NOISE ON 2\\n')\n"
        "    print('NOISE FROM PRINT')\n"
        "for delay in (1, 2, 3):\n"
        "    timer = threading.Timer(delay, shout)\n"
        "    timer.daemon = True\n"
        "    timer.start()\n"
    )
    seen: list[Event | EngineExited] = []
    log = tmp_path / "engine.log"
    client = EngineClient(seen.append, log_path=log, env={"PYTHONPATH": str(site)})
    await client.start()
    try:
        async with asyncio.timeout(60):
            while not any(isinstance(event, Ready) for event in seen) or log.read_text().count("NOISE ON 1") < 3:
                assert client.running, seen
                await asyncio.sleep(0.05)
            client.send(Ping(request="ping"))
            while not any(isinstance(event, Pong) for event in seen):
                assert client.running, seen
                await asyncio.sleep(0.05)
    finally:
        await client.close()
    assert {type(event) for event in seen} <= {Ready, Pong, Log, EngineExited}
    assert isinstance(seen[-1], EngineExited)
    assert seen[-1].expected
    text = log.read_text()
    assert text.count("NOISE ON 2") == text.count("NOISE FROM PRINT") == 3
