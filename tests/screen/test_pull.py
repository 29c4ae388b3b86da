"""Downloading a model in a pseudo-terminal, while the chat goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub_server import Fault, HubServer, hub_env, serving
from pull_rig import NAME, WEIGHTS, gptq_repository
from scripted_run import SIZES, ScriptedHome


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving({NAME: gptq_repository()}) as hub:
        yield hub


@pytest.mark.parametrize("size", SIZES)
def test_a_download_goes_on_while_chatting(hub: HubServer, scripted: ScriptedHome, size: tuple[int, int]) -> None:
    columns, lines = size
    env = hub_env(hub, str(scripted.folder / "hf"))
    del env["HF_HUB_CACHE"]
    terminal = scripted.start_loaded(
        columns=columns, lines=lines, answers=[{"match": "hi", "text": "Hello back"}], **env
    )
    terminal.type(f"/pull {NAME}\r")
    terminal.wait_for("GPTQ 4b g128")
    terminal.wait_for("p downloads")
    stall = hub.fault(WEIGHTS, Fault(stall_after=500_000))
    terminal.press("p")
    terminal.wait_until(stall.reached.is_set)
    terminal.wait_for("x stops")
    terminal.press("esc")
    terminal.wait_for(f"Downloading {NAME}")
    terminal.type("hi\r")
    terminal.wait_for("Hello back")
    stall.released.set()
    terminal.wait_for("is downloaded and")
    snapshot = (
        scripted.folder / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / hub.repositories[NAME].commit
    )
    assert (snapshot / WEIGHTS).read_bytes() == hub.repositories[NAME].files[WEIGHTS]
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
