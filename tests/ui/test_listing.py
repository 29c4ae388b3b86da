"""The list while the disk takes its time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.services import listing
from quantchat.store import sessions
from quantchat.store.sessions import SessionStore
from quantchat.ui.widgets.sessions import SessionList
from ui.rig import PATIENCE, running


async def test_sessions_appear_while_others_are_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SessionStore(tmp_path / "home" / "data" / "sessions")
    made = []
    for number in range(3):
        session = Session.new()
        session.append("user", f"number {number}")
        store.save(session)
        made.append(session.id)
    begun, go_on = threading.Event(), threading.Event()
    decode = sessions.decode_summary

    def slow(session_id: str, data: bytes) -> object:
        if session_id == made[1]:
            begun.set()
            go_on.wait(PATIENCE)
        return decode(session_id, data)

    monkeypatch.setattr(sessions, "decode_summary", slow)
    monkeypatch.setattr(listing, "PATIENCE", 0.05)
    async with running(tmp_path, monkeypatch) as rig:
        rows = rig.chat.query_one(SessionList)
        await rig.until(begun.is_set)
        await rig.until(lambda: "reading 1 of 3" in str(rows.border_subtitle), "progress")
        assert [row.id for row in rig.chat.summaries] == [made[2]]
        go_on.set()
        await rig.until(lambda: len(rig.chat.summaries) == 3, "the rest")
        await rig.until(lambda: "reading" not in str(rows.border_subtitle), "the end of the progress")
