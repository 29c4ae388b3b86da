"""Coming back: the session that was shown last, and the place where it was read."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.chat import Session
from quantchat.store.state import MOST_PLACES, ReadingPlace, UiState
from ui.rig import SIZES, Rig, running
from ui.session_rig import keep, make_session

Patch = pytest.MonkeyPatch
BOTH_SIZES = pytest.mark.parametrize("size", SIZES)
SAID = [f"message {number}\n\n" + "\n\n".join(f"line {line} of {number}" for line in range(12)) for number in range(20)]


@pytest.fixture
def sessions(tmp_path: Path) -> list[Session]:
    return keep(tmp_path, make_session("Long", 1, SAID), make_session("Other", 2, SAID[:6]))


def top(rig: Rig) -> str:
    """The first lines of the transcript as they are on the screen."""
    return "|".join(rig.chat.transcript.render_line(y).text.strip(" ▌█") for y in range(3))


async def shown(rig: Rig, title: str) -> None:
    await rig.until(lambda: rig.chat.session.title == title, title)
    await rig.pilot.pause()


@BOTH_SIZES
async def test_a_session_is_opened_where_it_was_read(
    tmp_path: Path, sessions: list[Session], monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 2)
        rig.chat.choose_session(sessions[0].id)
        await shown(rig, "Long")
        assert rig.chat.transcript.following, "what was never left is shown at its end"
        transcript = rig.chat.transcript
        ids = [message.id for message in rig.chat.session.branch()]
        assert transcript.go_to_message(ids[9], 0.5)
        await rig.pilot.pause()
        before = top(rig)
        assert "of 9" in before
        rig.chat.choose_session(sessions[1].id)
        await shown(rig, "Other")
        assert transcript.following
        rig.chat.choose_session(sessions[0].id)
        await shown(rig, "Long")
        assert top(rig) == before
        await rig.app.action_quit()
    async with running(tmp_path, monkeypatch, size=size, resume=True) as rig:
        await shown(rig, "Long")
        await rig.until(lambda: top(rig) == before, "the same line at the top")
        rig.chat.transcript.action_scroll_end()
        await rig.app.action_quit()
    async with running(tmp_path, monkeypatch, size=size, resume=True) as rig:
        await shown(rig, "Long")
        assert rig.chat.transcript.following
    assert "places" not in json.loads((tmp_path / "home" / "state" / "state.json").read_text())


async def test_another_width_keeps_the_message(tmp_path: Path, sessions: list[Session], monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(200, 50)) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 2)
        rig.chat.choose_session(sessions[0].id)
        await shown(rig, "Long")
        rig.chat.transcript.go_to_message(rig.chat.session.branch()[9].id, 0.5)
        await rig.app.action_quit()
    async with running(tmp_path, monkeypatch, size=(60, 20), resume=True) as rig:
        await shown(rig, "Long")
        await rig.until(lambda: "of 9" in top(rig))


async def test_a_message_that_is_gone_leaves_the_end(
    tmp_path: Path, sessions: list[Session], monkeypatch: Patch
) -> None:
    state = UiState(last_session=sessions[0].id, places={sessions[0].id: ReadingPlace("gone", 0.3)})
    (tmp_path / "home" / "state").mkdir()
    (tmp_path / "home" / "state" / "state.json").write_bytes(msgspec.json.encode(state))
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await shown(rig, "Long")
        assert rig.chat.transcript.following


async def test_the_last_session_that_is_gone_leaves_the_latest(
    tmp_path: Path, sessions: list[Session], monkeypatch: Patch
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 2)
        rig.chat.choose_session(sessions[0].id)
        await shown(rig, "Long")
        await rig.app.action_quit()
    (tmp_path / "home" / "data" / "sessions" / f"{sessions[0].id}.json").unlink()
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await shown(rig, "Other")
        assert rig.app.screen is rig.chat, "no dialog about it"


async def test_a_new_session_that_was_never_written_is_not_missed(
    tmp_path: Path, sessions: list[Session], monkeypatch: Patch
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 2)
        rig.chat.choose_session(sessions[0].id)
        await shown(rig, "Long")
        await rig.pilot.press("ctrl+n")
        await shown(rig, "New session")
        await rig.app.action_quit()
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await shown(rig, "Other")
        assert rig.app.screen is rig.chat


async def test_the_setting_does_what_the_option_does(
    tmp_path: Path, sessions: list[Session], monkeypatch: Patch
) -> None:
    async with running(tmp_path, monkeypatch, config="reopen = true\n") as rig:
        await shown(rig, "Other")


async def test_a_temporary_session_leaves_no_place(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        session = rig.app.desk.archive.new(temporary=True)
        for message in make_session("x", 1, SAID).messages.values():
            session.messages[message.id] = message
            session.head = message.id
        rig.chat.open_session(session)
        await rig.pilot.pause()
        assert rig.chat.transcript.go_to_message(session.branch()[3].id)
        assert rig.chat.transcript.reading_place is not None
        await rig.app.action_quit()
        assert rig.app.desk.state.places == {}


def test_the_places_that_were_left_first_are_forgotten_first() -> None:
    state = UiState()
    for number in range(MOST_PLACES + 5):
        state.places = state.places_with(str(number), ReadingPlace("m", 0.5))
    state.places = state.places_with("7", ReadingPlace("m", 0.1))
    assert len(state.places) == MOST_PLACES
    assert next(iter(state.places)) == "5"
    assert list(state.places)[-1] == "7"
    assert state.places_with("7", None).get("7") is None
