"""The list while the disk takes its time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.services import listing
from quantchat.store import sessions
from quantchat.store.sessions import SessionStore
from quantchat.ui.widgets.sessions import SessionList
from ui.rig import PATIENCE, running


@pytest.fixture
def made(tmp_path: Path) -> list[str]:
    """Three sessions, the oldest first."""
    store, ids = SessionStore(tmp_path / "home" / "data" / "sessions"), []
    for number in range(3):
        session = Session.new()
        session.append("user", f"number {number}")
        store.save(session)
        ids.append(session.id)
    return ids


@pytest.fixture
def reading(made: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes its time with all but the newest, until this is set."""
    go_on = threading.Event()
    decode = sessions.decode_summary

    def slow(session_id: str, data: bytes) -> object:
        if session_id == made[1]:
            go_on.wait(PATIENCE)
        return decode(session_id, data)

    monkeypatch.setattr(sessions, "decode_summary", slow)
    monkeypatch.setattr(listing, "PATIENCE", 0.05)
    yield go_on
    go_on.set()


async def test_sessions_appear_while_others_are_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[str], reading: threading.Event
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        rows = rig.chat.query_one(SessionList)
        await rig.until(lambda: "reading 1 of 3" in str(rows.border_subtitle), "progress")
        assert [row.id for row in rig.chat.summaries] == [made[2]]
        reading.set()
        await rig.until(lambda: len(rig.chat.summaries) == 3, "the rest")
        await rig.until(lambda: "reading" not in str(rows.border_subtitle), "the end of the progress")


async def test_the_last_session_is_continued_before_its_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[str], reading: threading.Event
) -> None:
    state = tmp_path / "home" / "state" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"last_session": made[0]}))
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.until(lambda: rig.chat.session.id == made[0], "the last session")
        assert made[1] not in [row.id for row in rig.chat.summaries]
        reading.set()
        await rig.until(lambda: len(rig.chat.summaries) == 3, "the list")
