from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantchat.domain.chat import Deletion, Message, Session, SessionSummary
from quantchat.domain.found import Hit, Part, fold, hits, parts
from quantchat.domain.text import clean

MOST_OF_A_LETTER = max(len(chr(code).casefold()) for code in range(0x110000))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def found(session: Session, text: str) -> list[Hit]:
    return list(hits(SessionSummary.of(session), parts(session), fold(text)))


def look(text: str, needle: str) -> list[Hit]:
    return list(hits(SessionSummary.of(Session.new()), [Part("question", text, "m")], fold(needle)))


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("Marlin kernels", "MARLIN"),
        ("act-order\n    and   groups", "act-order and groups"),
        ("Die Straße nach Köln", "STRASSE NACH KÖLN"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("量子化された模型です", "された模型"),
        ("\u2028two\u00a0lines", "two lines"),
        ("İstanbul ﬁle", "file"),
    ],
)
def test_case_and_white_space_do_not_count(text: str, needle: str) -> None:
    (hit,) = look(text, needle)
    assert fold(hit.excerpt[hit.start : hit.end]) == fold(needle)


@given(text=st.text(), data=st.data())
@example(text="ß  x", data=None).via("as long folded as it is written")
def test_every_part_of_a_text_is_found_and_shown(text: str, data: st.DataObject | None) -> None:
    folded = fold(text)
    if not folded:
        return
    start = data.draw(st.integers(0, len(folded) - 1)) if data else 3
    needle = folded[start : start + (data.draw(st.integers(1, 9)) if data else 1)].strip()
    if not needle:
        return
    (hit,) = look(text, needle)
    assert hit.count == folded.count(needle)
    if clean(text) == text:
        # A letter may fold to several, of which the needle holds only some; then it is shown whole.
        shown = fold(hit.excerpt[hit.start : hit.end])
        assert needle in shown
        assert len(shown) < len(needle) + 2 * MOST_OF_A_LETTER


def test_nothing_is_found_across_the_border_of_two_texts() -> None:
    session = Session.new()
    session.append("user", "one end")
    session.append("assistant", "begins another")
    assert not found(session, "end begins")


def test_an_excerpt_is_one_clean_line_with_words_around_the_place() -> None:
    text = "before " * 50 + "first\n\tline \x1b[31mred\u202e here " + "after " * 100
    (hit,) = look(text, "FIRST line")
    assert hit.excerpt[hit.start : hit.end] == "first line"
    assert hit.excerpt.startswith("…before before")
    assert hit.excerpt.endswith("after…")
    assert "\x1b" not in hit.excerpt
    assert "\u202e" not in hit.excerpt
    assert len(hit.excerpt) < 200


def test_text_without_spaces_keeps_its_context() -> None:
    (hit,) = look("字" * 300 + "針" + "字" * 300, "針")
    assert hit.excerpt == "…" + "字" * 40 + "針" + "字" * 120 + "…"
    assert hit.excerpt[hit.start : hit.end] == "針"


def test_all_texts_of_a_session_are_searched_with_their_places() -> None:
    session = Session.new()
    question = session.append("user", "word in a question")
    answer = session.append("assistant", "word in an answer")
    answer.thinking = "word in thoughts"
    other = session.append("assistant", "word on another branch", parent=question.id)
    session.head = answer.id
    session.title, session.tags, session.system_prompt = "Word in the title", ["word"], "one word more"
    session.draft, session.queued = "a word to send", ["a word that waits"]
    assert [(hit.place, hit.message) for hit in found(session, "WORD")] == [
        ("title", None),
        ("tag", None),
        ("system prompt", None),
        ("answer", other.id),
        ("answer", answer.id),
        ("thinking", answer.id),
        ("question", question.id),
        ("draft", None),
        ("draft", None),
    ]


def test_what_was_deleted_is_not_found() -> None:
    session = Session.new()
    gone = Message(id="m", role="user", text="regrettable", created=NOW)
    session.deleted = [Deletion(when=NOW, messages={"m": gone})]
    assert not found(session, "regrettable")
