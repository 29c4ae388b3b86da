"""Temporary sessions on the screen: marked, left without a trace, kept after all."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.store.schema import decode_session
from quantchat.store.state import load_state
from ui.rig import SIZES, Rig, running

Patch = pytest.MonkeyPatch
SECRET = "xyzzy"
MARK = "temporary: never written"


def traces(home: Path) -> list[str]:
    """Files that hold the secret word, or are named after a session."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET.encode() in path.read_bytes() or path.parent.name == "sessions"]


async def begun(rig: Rig) -> None:
    await rig.load()
    await rig.ask("/temporary")
    await rig.until(lambda: MARK in rig.line("header"), "the mark")


@pytest.mark.parametrize("size", SIZES)
async def test_a_temporary_session_is_marked_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await begun(rig)
        session = rig.chat.session
        await rig.ask(f"{SECRET} one")
        await rig.answered(1)
        await rig.ask(f"/rename {SECRET} title")
        await rig.ask(f"/system {SECRET} law")
        await rig.ask(f"{SECRET} two")
        await rig.answered(2)
        rig.chat.prompt.load(f"{SECRET} draft")
        rig.chat.keep_draft()
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: rig.chat.session is not session)
        assert MARK not in rig.line("header")
        await rig.chat.refresh_sessions()
        assert [row.id for row in rig.chat.summaries if row.temporary] == [session.id]
        rig.chat.choose_session(session.id)
        await rig.until(lambda: MARK in rig.line("header") and rig.chat.prompt.text == f"{SECRET} draft")
        rig.chat.prompt.load("")
        await rig.pilot.press("up")
        assert rig.chat.prompt.text == f"{SECRET} two", "its own prompts are recalled in it"
        await rig.chat.desk.archive.flush()
        rig.chat.recall.flush()
        assert traces(tmp_path / "home") == []
    assert traces(tmp_path / "home") == []
    assert load_state().last_session != session.id


async def test_other_sessions_do_not_recall_its_prompts(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await begun(rig)
        await rig.ask(f"{SECRET} one")
        await rig.answered()
        await rig.ask("/new")
        await rig.until(lambda: MARK not in rig.line("header"))
        rig.chat.prompt.focus()
        await rig.pilot.press("up")
        assert rig.chat.prompt.text == ""


async def test_a_temporary_session_is_kept_while_it_answers(tmp_path: Path, monkeypatch: Patch) -> None:
    script = {"answers": [{"match": "slow", "text": "word " * 300, "tokens_per_second": 50}]}
    async with running(tmp_path, monkeypatch, script) as rig:
        await begun(rig)
        await rig.ask("be slow")
        await rig.until(lambda: rig.chat.own_turn and rig.chat.own_turn.tokens > 2)
        session = rig.chat.session
        assert traces(tmp_path / "home") == []
        await rig.ask("/keep")
        await rig.until(lambda: MARK not in rig.line("header"))
        journal = tmp_path / "home" / "data" / "sessions" / f"{session.id}.journal"
        await rig.until(lambda: journal.exists() and "word word" in journal.read_text())
        assert rig.chat.desk.state.last_session == session.id
        await rig.pilot.press("escape")
        await rig.answered()
        await rig.chat.desk.archive.flush()
    stored = decode_session(journal.with_suffix(".json").read_bytes())
    assert stored.branch()[-1].text.startswith("word word")


async def test_one_that_is_kept_already_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/keep")
        await rig.until(lambda: any("kept already" in str(notice.message) for notice in rig.app._notifications))


async def test_an_empty_temporary_session_is_not_doubled(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/temporary")
        await rig.until(lambda: MARK in rig.line("header"))
        session = rig.chat.session
        await rig.ask("/temporary")
        await rig.until(lambda: any("is temporary" in str(notice.message) for notice in rig.app._notifications))
        assert rig.chat.session is session
        await rig.ask("/new")
        await rig.until(lambda: MARK not in rig.line("header"))
