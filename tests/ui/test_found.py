"""What a stranger found by using the program: each test is one fault that was there."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events

from ui.rig import Rig, running

Patch = pytest.MonkeyPatch


def packet(rig: Rig, *keys: str) -> None:
    """Keys that arrive at once, as a paste or a slow line delivers them; nothing waits between them."""
    for key in keys:
        rig.app.post_message(events.Key(key, {"enter": "\r"}.get(key, key if len(key) == 1 else None)))


async def test_keys_of_one_packet_behind_enter_stay_in_the_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        packet(rig, *"one", "enter", *"two")
        await rig.answered()
        assert rig.chat.session.branch()[0].text == "one"
        assert rig.chat.prompt.text == "two"


async def test_a_prompt_goes_to_the_session_in_which_it_was_sent(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("first")
        await rig.answered()
        first = rig.chat.session
        packet(rig, *"more", "enter", "ctrl+n")
        await rig.until(lambda: rig.chat.session is not first)
        assert [message.text for message in first.branch() if message.role == "user"] == ["first", "more"]
        assert not rig.chat.session.messages
        assert not first.draft
