"""The tree of a session: whatever is done to it, every word stays, and every deletion can be undone exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain import tree
from quantchat.domain.chat import Message, RunCard, Session
from quantchat.store.schema import decode_session, encode_session


def said(*texts: str) -> Session:
    """A session in which questions and answers take turns."""
    session = Session.new()
    for number, text in enumerate(texts):
        add(session, text, "assistant" if number % 2 else "user")
    return session


def add(session: Session, text: str, role: str = "user", **where: str | None) -> Message:
    message = session.append(role, text, **where)  # type: ignore[arg-type]
    message.finish = "stop" if role == "assistant" else None
    return message


def shown(session: Session) -> list[str]:
    return [message.text for message in session.branch()]


def find(session: Session, text: str) -> Message:
    return next(message for message in session.messages.values() if message.text == text)


# Appending


def test_a_message_without_a_parent_begins_a_branch_of_its_own() -> None:
    session = said("q", "a")
    first = session.append("user", "q2", parent=None)
    assert (first.parent, shown(session)) == (None, ["q2"])
    assert session.append("assistant", "a2").parent == first.id
    assert [message.text for message in session.siblings(first.id)] == ["q", "q2"]


# Versions


def branched() -> Session:
    """`q` with the answers a, b (followed by c, d) and e; e is shown."""
    session = said("q", "a")
    question = find(session, "q").id
    add(session, "b", "assistant", parent=question)
    add(session, "c")
    add(session, "d", "assistant")
    add(session, "e", "assistant", parent=question)
    return session


def test_each_version_is_shown_with_the_newest_branch_below_it() -> None:
    session = branched()
    walked = []
    for text in ("b", "a", "e", "b"):
        tree.show(session, find(session, text).id)
        walked.append(shown(session))
    assert walked == [["q", "b", "c", "d"], ["q", "a"], ["q", "e"], ["q", "b", "c", "d"]]


def test_the_newest_leaf_is_what_was_written_last_however_deep() -> None:
    session = said("q", "a", "deep", "deeper", "deepest")
    add(session, "new", parent=find(session, "a").id)
    assert tree.newest_leaf(session, find(session, "q").id) == find(session, "new").id
    assert tree.newest_leaf(session, find(session, "deep").id) == find(session, "deepest").id
    assert tree.newest_leaf(session, find(session, "new").id) == find(session, "new").id


def test_showing_a_message_keeps_the_branch_that_has_it() -> None:
    session = branched()
    tree.show(session, find(session, "c").id)
    assert shown(session) == ["q", "b", "c", "d"]
    tree.show(session, find(session, "q").id)
    assert shown(session) == ["q", "b", "c", "d"]
    tree.show(session, find(session, "a").id)
    assert shown(session) == ["q", "a"]


def test_a_circle_in_a_broken_file_ends_every_walk() -> None:
    session = said("a", "b")
    first, second = session.messages.values()
    first.parent = second.id
    assert set(tree.subtree(session, first.id)) == set(session.messages)
    assert tree.newest_leaf(session, first.id) in session.messages
    assert tree.delete(session, first.id).messages
    assert session.head is None


# Changes


@pytest.mark.parametrize("which", ["q", "second"])
def test_a_changed_question_stands_beside_the_first(which: str) -> None:
    session = said("q", "a", "second", "answer")
    original = find(session, which)
    copy = tree.revise(session, original.id, "other")
    assert (copy.parent, copy.edited_from, copy.role, copy.finish) == (original.parent, original.id, "user", None)
    assert shown(session) == [*(["q", "a"] if which == "second" else []), "other"]
    tree.show(session, original.id)
    assert shown(session) == ["q", "a", "second", "answer"]


def test_a_changed_answer_can_go_on() -> None:
    session = said("q", "a")
    original = find(session, "a")
    original.thinking, original.run = "hm", RunCard(model="m")
    copy = tree.revise(session, original.id, "a and")
    assert (copy.thinking, copy.run, copy.edited_from) == ("hm", original.run, original.id)
    assert session.unfinished() is copy
    assert (original.text, original.finish) == ("a", "stop")


def test_an_answer_that_the_user_begins_can_go_on() -> None:
    session = said("q", "a")
    answer = tree.begin_answer(session, find(session, "q").id, "Well,")
    assert (answer.given, answer.text) == ("Well,", "Well,")
    assert session.unfinished() is answer
    assert shown(session) == ["q", "Well,"]


# Deletion


@pytest.mark.parametrize(
    ("which", "left", "count"),
    [("e", ["q", "b", "c", "d"], 1), ("q", [], 6), ("b", ["q", "e"], 3), ("a", ["q", "e"], 1), ("d", ["q", "e"], 1)],
)
def test_a_message_goes_with_all_below_it_and_comes_back(which: str, left: list[str], count: int) -> None:
    session = branched()
    before = encode_session(session)
    deletion = tree.delete(session, find(session, which).id)
    assert (shown(session), len(deletion.messages), len(session.messages)) == (left, count, 6 - count)
    again = decode_session(encode_session(session))
    assert tree.undo(again) is not None
    again.updated = decode_session(before).updated
    assert encode_session(again) == before
    assert tree.undo(again) is None


def test_the_last_version_leaves_its_question() -> None:
    session = said("q", "a")
    tree.delete(session, find(session, "a").id)
    assert shown(session) == ["q"]


def test_deletions_are_undone_from_the_last_one_on_also_after_new_messages() -> None:
    session = said("q", "a", "r", "b")
    tree.delete(session, find(session, "r").id)
    tree.delete(session, find(session, "a").id)
    add(session, "new", "assistant")
    assert tree.undo(session) is not None
    assert shown(session) == ["q", "a"]
    assert [message.text for message in session.siblings(find(session, "a").id)] == ["a", "new"]
    assert tree.undo(session) is not None
    assert shown(session) == ["q", "a", "r", "b"]
    assert [message.text for message in session.messages.values()] == ["q", "a", "r", "b", "new"]


# Forks


def test_a_fork_holds_one_branch_and_all_settings() -> None:
    session = branched()
    session.system_prompt, session.preset, session.template, session.tags = "s", "precise", "{{ x }}", ["t"]
    tree.show(session, find(session, "d").id)
    before = encode_session(session)
    new = tree.fork(session, find(session, "c").id)
    assert encode_session(session) == before
    assert (shown(new), len(new.messages)) == (["q", "b", "c"], 3)
    assert new.id != session.id
    assert new.origin is not None
    assert (new.origin.session, new.origin.message) == (session.id, find(session, "c").id)
    assert (new.system_prompt, new.preset, new.template, new.tags) == ("s", "precise", "{{ x }}", ["t"])
    new.messages[new.head or ""].text = "changed"
    new.tags.append("u")
    assert encode_session(session) == before
    assert decode_session(encode_session(new)) == new


def test_a_fork_says_in_its_title_that_it_is_one_and_says_it_once() -> None:
    session = said("why is the sky blue", "a")
    fork = tree.fork(session, session.head or "")
    assert fork.title == "why is the sky blue (fork)"
    assert tree.fork(fork, fork.head or "").title == fork.title


def test_an_answer_that_streams_is_marked_in_the_fork() -> None:
    session = said("q", "a")
    find(session, "a").finish = None
    assert tree.fork(session, session.head or "").branch()[-1].finish == "interrupted"
    assert find(session, "a").finish is None


# Anything in any order


Act = Callable[[Session, int], object]


def _some(session: Session, number: int) -> str:
    return list(session.messages)[number % len(session.messages)]


def _revise(session: Session, number: int) -> None:
    if session.messages:
        tree.revise(session, _some(session, number), f"text {number}")


def _begin(session: Session, number: int) -> None:
    if session.messages:
        tree.begin_answer(session, _some(session, number), f"text {number}")


def _delete(session: Session, number: int) -> None:
    if session.messages:
        tree.delete(session, _some(session, number))


def _show(session: Session, number: int) -> None:
    if session.messages:
        tree.show(session, _some(session, number))


ACTS: list[Act] = [
    lambda session, number: add(session, f"text {number}", "assistant" if number % 2 else "user"),
    lambda session, number: add(session, f"text {number}", parent=None),
    _revise,
    _begin,
    _delete,
    _delete,
    _show,
    lambda session, _number: tree.undo(session),
]


def every_word(session: Session) -> dict[str, str]:
    gone = {key: message.text for deletion in session.deleted for key, message in deletion.messages.items()}
    return gone | {key: message.text for key, message in session.messages.items()}


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 1000)), max_size=40))
def test_no_word_is_lost_and_all_that_was_deleted_comes_back(acts: list[tuple[Act, int]]) -> None:
    session = Session.new()
    written: dict[str, str] = {}
    order: list[str] = []
    for act, number in acts:
        act(session, number)
        assert every_word(session).items() >= written.items()
        written = every_word(session)
        order += [key for key in session.messages if key not in order]
        assert session.head in session.messages or not session.messages or session.head is None
        assert all(message.parent in {None, *session.messages} for message in session.messages.values())
    session = decode_session(encode_session(session))
    while tree.undo(session):
        pass
    assert {key: message.text for key, message in session.messages.items()} == written
    assert list(session.messages) == order
    assert not session.messages or session.branch()
