"""Export and import in a real terminal and in tmux: the dialog, the typed names, the way back."""

from __future__ import annotations

import json

import pytest

from quantchat.domain.chat import Session
from quantchat.store.sessions import SessionStore
from scripted_run import INSIDE, SIZES, Inside, ScriptedHome

pytestmark = pytest.mark.parametrize(
    ("inside", "columns", "lines"), [(inside, *size) for inside, size in zip(INSIDE, SIZES, strict=True)]
)


def make_session(home: ScriptedHome) -> Session:
    session = Session.new()
    session.append("user", "Why do tides come?")
    session.append("assistant", "The moon pulls \x1b[31mat the sea.").finish = "stop"
    SessionStore(home.home / "data" / "sessions").save(session)
    return session


def test_there_and_back(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    session = make_session(scripted)
    folder = scripted.home / "exported"
    folder.mkdir()
    terminal = scripted.start("--session", session.id, inside=inside, columns=columns, lines=lines)
    terminal.wait_for("The moon pulls")
    terminal.type("/export")
    terminal.press("enter")
    terminal.wait_for("Enter exports")
    terminal.type("j")
    terminal.wait_for("Why-do-tides-come.json")
    terminal.press("esc")
    terminal.wait_for(lambda text: "Enter exports" not in text)
    terminal.type(f"/export {folder}/talk.json")
    terminal.press("enter")
    terminal.wait_for("Written to")
    path = folder / "talk.json"
    content = json.loads(path.read_text())
    content["id"], content["title"] = "20200101T000000000-abcdef", "Brought back"
    (folder / "brought.json").write_text(json.dumps(content))
    terminal.type(f"/import {folder}/br")
    terminal.wait_for("brought.json")
    terminal.press("tab")
    terminal.press("enter")
    terminal.wait_for("Brought back")
    terminal.wait_for("1 session with 2 messages")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    titles = {row.title for row in SessionStore(scripted.home / "data" / "sessions").list()}
    assert titles == {"Why do tides come?", "Brought back"}
