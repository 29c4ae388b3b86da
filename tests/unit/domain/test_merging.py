"""Two programs have changed one session: what comes of it holds what both wrote."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta

from quantchat.domain.chat import Deletion, Session
from quantchat.domain.merging import merge, traits


def talk() -> Session:
    session = Session.new()
    session.append("user", "Why?")
    session.append("assistant", "Because.").finish = "stop"
    return session


def two() -> tuple[Session, Session]:
    session = talk()
    return session, deepcopy(session)


def test_messages_of_both_stay() -> None:
    ours, theirs = two()
    mine, other = ours.append("user", "mine"), theirs.append("user", "theirs")
    merged = merge(ours, theirs)
    assert set(merged.messages) == set(ours.messages) | {other.id}
    assert merged.head == mine.id
    assert {message.text for message in merged.siblings(mine.id)} == {"mine", "theirs"}
    assert merged.updated == max(ours.updated, theirs.updated)


def test_who_did_not_move_is_led_to_the_end_of_the_branch() -> None:
    ours, theirs = two()
    theirs.append("user", "more")
    assert merge(ours, theirs).head == theirs.head
    assert merge(theirs, ours).head == theirs.head


def test_an_answer_that_is_written_here_stays_the_object_it_is_written_into() -> None:
    ours, theirs = two()
    running = ours.append("assistant", "")
    copy = deepcopy(running)
    copy.text, copy.finish = "Half", "interrupted"
    theirs.messages[copy.id] = copy
    merged = merge(ours, theirs)
    assert merged.messages[running.id] is running


def test_the_longer_text_of_a_finished_answer_stays() -> None:
    ours, theirs = two()
    theirs.messages[theirs.head or ""].text = "Because of the kernel."
    assert merge(ours, theirs).branch()[-1].text == "Because of the kernel."
    assert merge(theirs, ours).branch()[-1].text == "Because of the kernel."


def test_what_either_changed_since_the_base_is_kept() -> None:
    ours, theirs = two()
    base = traits(ours)
    ours.title, theirs.tags, theirs.pinned = "Ours", ["theirs"], True
    for first, second in ((ours, theirs), (theirs, ours)):
        merged = merge(first, second, base)
        assert (merged.title, merged.tags, merged.pinned) == ("Ours", ["theirs"], True)


def test_without_a_base_the_later_state_wins() -> None:
    ours, theirs = two()
    ours.title, theirs.title = "Ours", "Theirs"
    theirs.updated += timedelta(seconds=1)
    assert merge(ours, theirs).title == merge(theirs, ours).title == "Theirs"


def test_a_message_that_one_deleted_is_there_once() -> None:
    ours, theirs = two()
    gone = ours.messages.pop(ours.head or "")
    ours.head = gone.parent
    ours.deleted = [Deletion(when=ours.updated, messages={gone.id: gone}, head=gone.id)]
    merged = merge(ours, theirs)
    assert gone.id in merged.messages
    assert merged.deleted == []
    assert merge(ours, deepcopy(ours)).deleted == ours.deleted


def test_drafts_of_both_stay() -> None:
    ours, theirs = two()
    ours.draft, theirs.draft = "mine", "theirs"
    assert merge(ours, theirs).draft == "theirs\n\nmine"
    theirs.draft = ""
    assert merge(ours, theirs).draft == merge(theirs, ours).draft == "mine"
    ours.queued, theirs.queued = ["a"], ["a", "b"]
    assert merge(ours, theirs).queued == ["a", "b"]


def test_what_was_sent_or_taken_out_of_the_prompt_does_not_come_back() -> None:
    ours, theirs = two()
    theirs.draft, theirs.queued = "was there", ["waited"]
    base = traits(theirs)
    assert (merge(ours, theirs, base).draft, merge(ours, theirs, base).queued) == ("", [])
    assert (merge(theirs, ours, base).draft, merge(theirs, ours, base).queued) == ("", [])


def test_two_ends_of_one_answer_are_two_versions() -> None:
    """Both programs went on with it, as a lock was broken whose holder lived."""
    ours, theirs = two()
    assert ours.head is not None
    ours.messages[ours.head].text += " by us"
    theirs.messages[ours.head].text += " by them, at length"
    texts = sorted(message.text for message in (ours.messages[ours.head], theirs.messages[ours.head]))
    merged = merge(ours, theirs)
    again = merge(merged, theirs)
    for session in (merged, again):
        assert sorted(message.text for message in session.siblings(ours.head)) == texts
        assert session.messages[ours.head].text.endswith("at length")
    assert merge(deepcopy(ours), ours).messages == ours.messages
