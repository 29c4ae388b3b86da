from __future__ import annotations

import pytest

from quantchat.domain.chat import SessionSummary
from quantchat.errors import UsageError
from quantchat.services.picking import SessionPick, picked, read_pick
from ui.session_rig import make_session


def row(title: str, number: int, **fields: object) -> SessionSummary:
    return SessionSummary.of(make_session(title, number, ["a question", "an answer"], **fields))


ROWS = [
    row("first", 0, tags=["Work"]),
    row("second", 1),
    row("third", 2, tags=["home", "work"]),
    row("put away", 3, archived=True, tags=["work"]),
]


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        ("", ["third", "second", "first"]),
        ("all", ["third", "second", "first"]),
        ("last 2", ["third", "second"]),
        ("#WORK", ["third", "first"]),
        ("#work archived", ["put away", "third", "first"]),
        ("#work, last 1", ["third"]),
        ("archived last 1", ["put away"]),
        (ROWS[3].id, ["put away"]),
        (f"{ROWS[1].id[:14]} #home", ["third", "second"]),
        (f"{ROWS[0].id} {ROWS[0].id[:-1]}", ["first"]),
    ],
    # The ids of sessions are drawn, and all workers must give a test the same name.
    ids=[f"words{number}" for number in range(10)],
)
def test_words_pick_sessions(words: str, titles: list[str]) -> None:
    assert [found.title for found in picked(ROWS, read_pick(words))] == titles


@pytest.mark.parametrize(
    "words", ["yesterday", "last", "last x", "last 0", "last ²", "last -1", "#", "last 99999999999"]
)
def test_words_that_mean_nothing_are_named(words: str) -> None:
    with pytest.raises(UsageError, match="last 20"):
        read_pick(words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [("2026", "4 sessions"), ("2031", "no session has the id"), ("#none", "the tag none"), ("0[31m", "no session")],
)
def test_what_means_no_session_is_named(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        picked(ROWS, read_pick(words))


def test_temporary_and_empty_sessions_are_never_taken() -> None:
    hidden = SessionSummary(
        id="x", title="t", updated=ROWS[0].updated, created=ROWS[0].created, messages=2, temporary=True
    )
    empty = SessionSummary.of(make_session("nothing said"))
    with pytest.raises(UsageError, match="no sessions yet"):
        picked([hidden, empty], SessionPick())
    with pytest.raises(UsageError, match="no session has the id"):
        picked([hidden, *ROWS], SessionPick(ids=("x",)))
