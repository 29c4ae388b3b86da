"""The clock is set back, or far ahead: ids and times of change go on in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from quantchat.domain import chat
from quantchat.domain.chat import Session, new_id

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def set_clock(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(chat, "utc_now", lambda: moment)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_ticks", chat._Ticks())


def test_ids_of_one_program_sort_in_the_order_of_making(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for moment in (NOW, NOW, NOW - timedelta(days=400), NOW - timedelta(seconds=1), NOW + timedelta(hours=1), NOW):
        set_clock(monkeypatch, moment)
        ids += [new_id() for _ in range(20)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("jump", [timedelta(days=-3000), timedelta(hours=-1), timedelta(0), timedelta(days=900)])
def test_a_session_goes_on_in_order_when_the_clock_jumps(monkeypatch: pytest.MonkeyPatch, jump: timedelta) -> None:
    set_clock(monkeypatch, NOW)
    session = Session.new()
    session.append("user", "before")
    # As after a restart: this program has seen no later moment.
    monkeypatch.setattr(chat, "_ticks", chat._Ticks())
    set_clock(monkeypatch, NOW + jump)
    before = session.updated
    session.append("assistant", "after")
    session.append("user", "more")
    messages = list(session.messages.values())
    assert [m.id for m in messages] == sorted(m.id for m in messages)
    assert [m.created for m in messages] == sorted(m.created for m in messages)
    assert before < messages[1].created < messages[2].created == session.updated
    assert session.touch() > messages[2].created


def test_one_session_of_the_future_does_not_carry_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOW)
    future = Session.new()
    future.updated = NOW + timedelta(days=3650)
    future.append("user", "written while the clock was wrong")
    assert Session.new().created < NOW + timedelta(seconds=1)
