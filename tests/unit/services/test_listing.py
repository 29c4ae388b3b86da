from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.services import listing
from quantchat.services.archive import Archive
from quantchat.services.facts import Fact, SessionsChanged
from quantchat.store import sessions
from quantchat.store.sessions import SessionStore

PATIENCE = 20.0


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three sessions, the oldest first."""
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    ids = []
    for number in range(3):
        session = Session.new()
        session.append("user", f"number {number}")
        SessionStore().save(session)
        ids.append(session.id)
    return ids


async def test_a_list_that_is_there_soon_is_whole(made: list[str]) -> None:
    archive = Archive(lambda fact: None)
    assert [row.id for row in await archive.summaries()] == made[::-1]
    assert archive.listing.progress is None


async def test_a_slow_disk_shows_what_is_read_the_newest_first_and_then_the_rest(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PATIENCE", 0.02)
    begun, go_on = threading.Event(), threading.Event()
    decode = sessions.decode_summary

    def slow(session_id: str, data: bytes) -> object:
        if session_id == made[1]:
            begun.set()
            go_on.wait(PATIENCE)
        return decode(session_id, data)

    monkeypatch.setattr(sessions, "decode_summary", slow)
    told = asyncio.Event()

    def hear(fact: Fact) -> None:
        assert fact == SessionsChanged()
        told.set()

    archive = Archive(hear)
    own = archive.new()
    own.append("user", "mine")
    await archive.summaries()
    await asyncio.to_thread(begun.wait, PATIENCE)
    assert [row.id for row in await archive.summaries()] == [own.id, made[2]]
    assert archive.listing.progress == (1, 3)
    await asyncio.wait_for(told.wait(), PATIENCE)
    go_on.set()
    while archive.listing.progress is not None:
        told.clear()
        await asyncio.wait_for(told.wait(), PATIENCE)
    assert [row.id for row in await archive.summaries()] == [own.id, *made[::-1]]
