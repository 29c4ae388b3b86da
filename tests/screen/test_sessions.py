"""The list of sessions, the search and the way back, in a bare terminal and in tmux."""

from __future__ import annotations

import pytest

from quantchat.store.sessions import SessionStore
from scripted_run import Inside, ScriptedHome
from ui.session_rig import keep, make_session

pytestmark = pytest.mark.parametrize(("inside", "columns", "lines"), [("bare", 200, 50), ("tmux", 80, 24)])

SAID = [f"message {number}\n\n" + "\n\n".join(f"line {line} of {number}" for line in range(12)) for number in range(20)]


def test_sessions_are_found_pinned_and_archived(
    scripted: ScriptedHome, inside: Inside, columns: int, lines: int
) -> None:
    one, two, three = keep(
        scripted.folder,
        make_session("Rivers of France", 1, ["which?", "the Loire"]),
        make_session("Sorting numbers", 2, ["how?", "sorted()"]),
        make_session("Apple pie", 3, ["a recipe?", "flour"]),
    )
    store = SessionStore(scripted.home / "data" / "sessions")
    terminal = scripted.start(inside=inside, columns=columns, lines=lines)
    terminal.wait_for("Ask something")
    terminal.press("f3")
    terminal.wait_for(lambda text: "Sessions 3" in text and "Rivers of France" in text)
    terminal.type("GP")
    terminal.wait_for("◆ Rivers of France")
    terminal.type("/sort")
    terminal.wait_for(lambda text: "Sessions: sort▏" in text and "Apple pie" not in text)
    terminal.press("esc")
    terminal.wait_for("Apple pie")
    terminal.type("gjXXA")
    terminal.wait_for("Sessions 1")
    terminal.wait_until(lambda: [store.load(each.id).archived for each in (one, two, three)] == [False, True, True])
    terminal.type("V")
    terminal.wait_for(lambda text: "Archived 2" in text and "Apple pie" in text)
    terminal.press("esc")
    terminal.wait_for("◆ Rivers of France")
    terminal.press("enter")
    terminal.wait_for("the Loire")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    assert store.load(one.id).pinned


def test_a_search_leads_to_the_message(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    said = [*SAID[:4], "and a cassowary?", "It swims well.", *SAID[4:]]
    keep(scripted.folder, make_session("Birds", 1, said), make_session("Other", 2, ["a", "b"]))
    terminal = scripted.start(inside=inside, columns=columns, lines=lines)
    terminal.wait_for("Ask something")
    terminal.type("/search CASSO")
    terminal.press("enter")
    terminal.wait_for(lambda text: "1 place in 1 session" in text and "and a cassowary?" in text)
    terminal.press("enter")
    terminal.wait_for(lambda text: "Find casso" in text and "1 of 1" in text and "It swims well." in text)
    assert "Birds" in terminal.screen_text.splitlines()[0]
    terminal.press("esc")
    terminal.wait_for(lambda text: "Find casso" not in text and "and a cassowary?" in text)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    again = scripted.start("--continue", inside=inside, columns=columns, lines=lines)
    again.wait_for(lambda text: "Birds" in text.splitlines()[0] and "and a cassowary?" in text)
    again.press("ctrl+q")
    assert again.wait_exit() == 0


def test_a_title_comes_while_the_engine_rests(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    script: dict[str, object] = {
        "answers": [{"match": "slow", "text": "word " * 60, "tokens_per_second": 40}, {"text": "The Seine."}],
        "title": {"text": "Title: Rivers of capitals", "tokens_per_second": 2},
    }
    terminal = scripted.start_loaded(script=script, inside=inside, columns=columns, lines=lines)
    terminal.type("which river flows there?")
    terminal.press("enter")
    terminal.wait_for("The Seine.")
    terminal.wait_for(lambda text: "Rivers of capitals" in text.splitlines()[0])
    terminal.type("/rename Mine")
    terminal.press("enter")
    terminal.wait_for(lambda text: "Mine" in text.splitlines()[0])
    terminal.type("be slow")
    terminal.press("enter")
    terminal.wait_for(lambda text: "word word" in text and "Answering" not in text)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    (session,) = SessionStore(scripted.home / "data" / "sessions").list()
    assert session.title == "Mine"
