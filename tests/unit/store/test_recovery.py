from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantchat.domain.chat import Deletion, Message, Session, new_id, utc_now
from quantchat.domain.generation import TurnStatistics
from quantchat.errors import StorageError
from quantchat.store.atomic import temporary_name
from quantchat.store.journal import Journal
from quantchat.store.locks import SessionLocks
from quantchat.store.recovery import RECOVERED_TITLE, Recovered, fold, recover, settle
from quantchat.store.sessions import SessionStore

CHILD = Path(__file__).with_name("child_journal.py")


def asked(store: SessionStore) -> tuple[Session, Message]:
    """A session whose answer is about to stream; only the question is on disk."""
    session = store.create()
    session.append("user", "Why is it slow?")
    store.save(session)
    return session, session.append("assistant", "")


def died(store: SessionStore, session: Session, message: Message, text: str, finish: str | None = None) -> None:
    journal = Journal(store.journal_path(session.id), message)
    journal.append(text)
    journal.close(finish, TurnStatistics(new_tokens=7) if finish else None)  # type: ignore[arg-type]


def test_nothing_to_recover(store: SessionStore, locks: SessionLocks) -> None:
    assert recover(store, locks) == []
    asked(store)
    assert recover(store, locks) == []


def test_an_answer_comes_back_marked_as_interrupted(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    died(store, session, message, "Because the kernel")
    assert recover(store, locks) == [
        Recovered(session_id=session.id, message_id=message.id, title="Why is it slow?", characters=18)
    ]
    back = store.load(session.id)
    assert [m.text for m in back.branch()] == ["Why is it slow?", "Because the kernel"]
    assert back.messages[message.id].finish == "interrupted"
    assert os.listdir(store.root) == [f"{session.id}.json"]
    assert recover(store, locks) == []


def test_a_finish_in_the_journal_counts(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    store.save(session)
    died(store, session, message, "Done.", "length")
    recover(store, locks)
    back = store.load(session.id).messages[message.id]
    assert (back.text, back.finish, back.statistics) == ("Done.", "length", TurnStatistics(new_tokens=7))


def test_what_the_session_already_has_stands(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")
    message.text, message.finish = "Because of the kernel.", "stop"
    store.save(session)
    before = store.path(session.id).read_bytes()
    assert recover(store, locks) == []
    assert store.path(session.id).read_bytes() == before
    assert not store.journal_path(session.id).exists()


def test_dying_between_save_and_removal_changes_nothing(
    store: SessionStore, locks: SessionLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")
    journal = store.journal_path(session.id).read_bytes()
    recover(store, locks)
    once = store.load(session.id)
    store.journal_path(session.id).write_bytes(journal)
    assert recover(store, locks) == []
    assert store.load(session.id) == once


def test_text_without_its_opening_line_is_folded_once(store: SessionStore, locks: SessionLocks) -> None:
    session, _ = asked(store)
    for _ in range(2):
        store.journal_path(session.id).write_bytes(b'{"mess\n{"text": "orphan"}\n')
        recover(store, locks)
    assert [m.text for m in store.load(session.id).branch()] == ["Why is it slow?", "orphan"]


def test_a_session_is_built_around_a_lone_journal(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")
    store.path(session.id).unlink()
    recover(store, locks)
    back = store.load(session.id)
    assert back.title == RECOVERED_TITLE
    assert [m.text for m in back.branch()] == ["Because"]


def test_a_session_is_built_when_its_file_does_not_parse(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")
    store.path(session.id).write_bytes(b'{"id": "')
    recover(store, locks)
    assert [m.text for m in store.load(session.id).branch()] == ["Because"]
    assert [p.read_bytes() for p in store.quarantine.iterdir()] == [b'{"id": "']
    assert [p.code for p in store.take_problems()] == ["session-unreadable"]


def test_a_newer_session_keeps_its_journal(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")
    store.path(session.id).write_text(json.dumps({"version": 99}))
    assert recover(store, locks) == []
    assert store.journal_path(session.id).exists()
    assert store.path(session.id).read_text() == '{"version": 99}'
    assert store.take_problems() == [], "opening it says so, and each start need not"


def test_a_refusing_disk_keeps_the_journal(
    store: SessionStore, locks: SessionLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")

    def full(_: object) -> None:
        raise StorageError("The disk is full", code="disk-full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "save", full)
        assert recover(store, locks) == []
    assert [p.code for p in store.take_problems()] == ["disk-full"]
    assert [one.characters for one in recover(store, locks)] == [7]


def test_the_reader_stays_on_another_branch(store: SessionStore, locks: SessionLocks) -> None:
    session = store.create()
    question = session.append("user", "Why?")
    other = session.append("assistant", "First try")
    other.finish = "stop"
    store.save(session)
    message = Message(id=new_id(), role="assistant", text="", created=utc_now(), parent=question.id)
    died(store, session, message, "Second try")
    recover(store, locks)
    back = store.load(session.id)
    assert back.head == other.id
    assert [m.text for m in back.siblings(other.id)] == ["First try", "Second try"]


def test_an_answer_without_a_word_leaves_no_trace(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    Journal(store.journal_path(session.id), message).close()
    assert recover(store, locks) == []
    assert len(store.load(session.id).messages) == 1
    assert not store.journal_path(session.id).exists()


def test_garbage_is_kept_in_quarantine(store: SessionStore, locks: SessionLocks) -> None:
    session, _ = asked(store)
    store.journal_path(session.id).write_bytes(b"\x00" * 100)
    recover(store, locks)
    assert [p.read_bytes() for p in store.quarantine.iterdir()] == [b"\x00" * 100]
    assert len(store.take_problems()) == 1


def test_a_session_that_is_being_written_is_left_alone(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    died(store, session, message, "Because")
    with locks.acquire(session.id):
        assert recover(store, SessionLocks()) == []
        assert store.journal_path(session.id).exists()
    assert len(recover(store, locks)) == 1


def test_clears_what_dead_processes_left(store: SessionStore, locks: SessionLocks) -> None:
    session, _ = asked(store)
    program = (
        "import os, sys; from pathlib import Path; from quantchat.store.locks import SessionLocks;"
        "from quantchat.store.atomic import temporary_name; root = Path(sys.argv[1]);"
        "(root / temporary_name('x.json')).touch(); lock = SessionLocks(root).acquire(sys.argv[2]);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(store.root), session.id], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(store.root)) == 3
    mine = store.root / temporary_name("y.json")
    mine.touch()
    recover(store, locks)
    assert sorted(os.listdir(store.root)) == sorted([f"{session.id}.json", mine.name])


def test_a_killed_program_loses_at_most_a_moment(store: SessionStore, locks: SessionLocks) -> None:
    session, _ = asked(store)
    path = store.journal_path(session.id)
    child = subprocess.Popen([sys.executable, str(CHILD), str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line.split()[0]) >= 150:
            break
    child.kill()
    child.stdout.close()
    child.wait()
    (one,) = recover(store, locks)
    text = store.load(session.id).messages[one.message_id].text
    assert text.startswith("0 1 2 ")
    assert store.load(session.id).messages["answer"].finish == "interrupted"


def test_thinking_that_was_cut_off_comes_back(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    store.save(session)
    journal = Journal(store.journal_path(session.id), message)
    journal.append("It sorts.", "thinking")
    journal.close()
    content = store.journal_path(session.id).read_bytes()
    (one,) = recover(store, locks)
    assert (one.message_id, one.characters) == (message.id, 9)
    back = store.load(session.id)
    answer = back.messages[message.id]
    assert (answer.text, answer.thinking, answer.finish) == ("", "It sorts.", "interrupted")
    assert [m.content for m in back.prompt()] == ["Why is it slow?"], "there is nothing to ask a model with"
    store.journal_path(session.id).write_bytes(content)
    assert recover(store, locks) == []
    assert store.load(session.id) == back


def test_thinking_of_a_message_that_never_was_saved_is_added(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    journal = Journal(store.journal_path(session.id), message)
    journal.append("It sorts.", "thinking")
    journal.append("By column.")
    journal.close("stop")
    recover(store, locks)
    answer = store.load(session.id).branch()[-1]
    assert (answer.text, answer.thinking, answer.finish) == ("By column.", "It sorts.", "stop")


def test_settle_marks_only_unfinished_answers() -> None:
    session = Session.new()
    session.append("user", "Hi")
    done = session.append("assistant", "Hello")
    done.finish = "stop"
    session.append("user", "More")
    open_answer = session.append("assistant", "Mo")
    assert settle(session)
    assert [m.finish for m in session.branch()] == [None, "stop", None, "interrupted"]
    assert open_answer.finish == "interrupted"
    assert not settle(session)


def test_longer_text_of_the_journal_wins_over_an_earlier_interruption() -> None:
    session = Session.new()
    session.append("user", "Hi")
    known = session.append("assistant", "Hel")
    known.finish = "interrupted"
    longer = Message(id=known.id, role="assistant", text="Hello you", created=known.created, parent=known.parent)
    assert fold(session, longer)
    assert (known.text, known.finish) == ("Hello you", "interrupted")
    assert not fold(session, longer)


def unsaved(store: SessionStore) -> tuple[Session, Message, Message]:
    """A session whose last question never got to the disk; only the journal of its answer did."""
    session, first = asked(store)
    first.text, first.finish = "Because.", "stop"
    session.queued = ["And on AWQ?"]
    store.save(session)
    session.queued.clear()
    question = session.append("user", "And on AWQ?")
    return session, question, session.append("assistant", "")


def test_a_question_that_the_disk_had_no_room_for_comes_back_with_its_answer(
    store: SessionStore, locks: SessionLocks
) -> None:
    session, question, message = unsaved(store)
    journal = Journal(store.journal_path(session.id), message, question=question)
    journal.append("Too")
    journal.close()
    content = store.journal_path(session.id).read_bytes()
    assert [one.message_id for one in recover(store, locks)] == [message.id]
    back = store.load(session.id)
    assert [m.text for m in back.branch()] == ["Why is it slow?", "Because.", "And on AWQ?", "Too"]
    assert back.queued == []
    store.journal_path(session.id).write_bytes(content)
    assert recover(store, locks) == []
    assert store.load(session.id) == back


def test_a_question_comes_back_before_its_answer_has_a_word(store: SessionStore, locks: SessionLocks) -> None:
    session, question, message = unsaved(store)
    Journal(store.journal_path(session.id), message, question=question).close()
    assert recover(store, locks) == [], "no answer came back"
    back = store.load(session.id)
    assert [m.text for m in back.branch()][-1] == "And on AWQ?"
    assert not store.journal_path(session.id).exists()


def test_what_was_deleted_meanwhile_does_not_come_back_from_a_journal(store: SessionStore, locks: SessionLocks) -> None:
    session, message = asked(store)
    message.text, message.finish = "Because", "stop"
    session.messages.pop(message.id)
    session.head = message.parent
    session.deleted = [Deletion(when=session.updated, messages={message.id: message}, head=message.id)]
    store.save(session)
    died(store, session, message, "Because")
    assert recover(store, locks) == []
    assert [m.text for m in store.load(session.id).branch()] == ["Why is it slow?"]


def test_temporary_files_of_killed_programs_go_from_all_folders(
    store: SessionStore, locks: SessionLocks, home: Path
) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for folder in ("state", "config", "cache"):
        (home / folder).mkdir(parents=True)
        name = temporary_name("x.json").replace(f".{os.getpid()}.", f".{int(dead.stdout)}.")
        (home / folder / name).touch()
    recover(store, locks)
    assert list(home.rglob("*.tmp")) == []


def test_an_answer_that_was_cut_off_before_its_journal_began_is_marked(
    store: SessionStore, locks: SessionLocks
) -> None:
    session, message = asked(store)
    store.save(session)
    locks.path(session.id).touch()
    assert recover(store, locks) == []
    assert store.load(session.id).messages[message.id].finish == "interrupted"
    assert os.listdir(store.root) == [f"{session.id}.json"]
