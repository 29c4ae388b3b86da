"""One's own sessions as calibration text, from a real archive."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given

from quantchat import paths
from quantchat.domain import tree
from quantchat.domain.chat import Session
from quantchat.domain.text import plain
from quantchat.errors import Cancelled, StorageError, UsageError
from quantchat.quantize.examples import parse
from quantchat.services import calibration
from quantchat.services.archive import Archive
from quantchat.services.calibration import SessionPick, examples, session_text
from quantchat.store.atomic import temporary_name
from quantchat.store.locks import SessionLocks
from quantchat.store.recovery import recover
from quantchat.store.sessions import SessionStore
from ui.session_rig import make_session
from unit.exchange import trees

Messages = list[dict[str, str]]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))


@pytest.fixture
def store() -> SessionStore:
    return SessionStore()


def keep(store: SessionStore, *sessions: Session) -> None:
    for session in sessions:
        store.save(session)


def lines(path: str) -> list[Messages]:
    return [json.loads(line)["messages"] for line in Path(path).read_bytes().splitlines()]


def contents(path: str) -> list[list[str]]:
    return [[message["content"] for message in messages] for messages in lines(path)]


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def left() -> list[Path]:
    return list(paths.cache_dir().glob(".*")) if paths.cache_dir().is_dir() else []


def all_files(store: SessionStore) -> Iterator[tuple[str, bytes, int]]:
    for path in sorted(store.root.iterdir()):
        yield path.name, path.read_bytes(), path.stat().st_mtime_ns


async def test_sessions_become_lines_in_a_private_file_that_goes_in_the_end(store: SessionStore) -> None:
    keep(
        store,
        make_session("one", 1, ["q1", "a1", "q2", "a2"], system_prompt="Be brief."),
        make_session("two", 2, ["q", "a"]),
    )
    before = list(all_files(store))
    async with session_text(SessionPick(), store, samples=7, length=64) as text:
        folder, name = os.path.split(text.choice.path)
        assert (mode(folder), mode(os.path.join(folder, name))) == (0o700, 0o600)
        assert lines(text.choice.path) == [
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            [
                {"role": "system", "content": "Be brief."},
                *(
                    {"role": role, "content": f"{role[0].replace('u', 'q')}{n}"}
                    for n in (1, 2)
                    for role in ("user", "assistant")
                ),
            ],
        ]
        assert (text.choice.name, text.choice.samples, text.choice.length) == ("2 own sessions", 7, 64)
        assert (text.sessions, text.examples, text.left_out, text.unread) == (2, 2, 0, 0)
    assert left() == []
    assert list(all_files(store)) == before


async def test_only_the_branch_that_is_shown_and_nothing_deleted(store: SessionStore) -> None:
    session = make_session("branches", 0, ["shown", "first answer"])
    question = next(iter(session.messages))
    second = session.append("assistant", "second answer", parent=question)
    second.finish = "stop"
    session.append("user", "deleted question")
    tree.delete(session, str(session.head))
    session.draft, session.queued = "a draft", ["a queued prompt"]
    keep(store, session)
    async with session_text(SessionPick(), store) as text:
        assert contents(text.choice.path) == [["shown", "second answer"]]


async def test_what_has_no_answer_stays_out(store: SessionStore) -> None:
    failed = make_session("failed", 0, ["will fail", "half of"])
    failed.messages[str(failed.head)].finish = "error"
    streaming = make_session("streams", 1, ["answered", "yes", "still streams", "half"])
    streaming.messages[str(streaming.head)].finish = None
    asked = make_session("asked", 2, ["only a question"])
    greeted = make_session("greeted", 3, ["q", "a"])
    next(iter(greeted.messages.values())).role = "assistant"
    keep(store, failed, streaming, asked, greeted)
    async with session_text(SessionPick(), store) as text:
        assert contents(text.choice.path) == [["answered", "yes"]]
        assert (text.sessions, text.left_out) == (1, 3)
        assert text.choice.name == "one own session"


async def test_an_answer_that_was_stopped_counts(store: SessionStore) -> None:
    session = make_session("stopped", 0, ["q", "as far as it"])
    session.messages[str(session.head)].finish = "stopped"
    keep(store, session)
    async with session_text(SessionPick(), store) as text:
        assert contents(text.choice.path) == [["q", "as far as it"]]


async def test_open_sessions_are_taken_as_they_are_now_but_temporary_ones_not_at_all(store: SessionStore) -> None:
    keep(store, make_session("stored", 0, ["old question", "old answer"]))
    archive = Archive(lambda _: None, store)
    session = archive.open(store.list()[0].id)
    for message, words in zip(session.messages.values(), ("new question", "new answer"), strict=True):
        message.text = words
    hidden = archive.new(temporary=True)
    hidden.append("user", "a secret")
    hidden.append("assistant", "kept").finish = "stop"
    unsaved = archive.new()
    unsaved.append("user", "not written yet")
    unsaved.append("assistant", "fine").finish = "stop"
    async with session_text(SessionPick(), store, archive) as text:
        assert sorted(contents(text.choice.path)) == [["new question", "new answer"], ["not written yet", "fine"]]
    with pytest.raises(UsageError, match="no session has the id"):
        async with session_text(SessionPick(ids=(hidden.id,)), store, archive):
            pass
    await archive.close()


async def test_a_session_that_another_program_writes_is_read_and_left_alone(store: SessionStore) -> None:
    session = make_session("busy", 0, ["q", "a"])
    keep(store, session)
    archive = Archive(lambda _: None, store)
    with SessionLocks(store.root).acquire(session.id):
        archive.open(session.id)
        async with session_text(SessionPick(), store, archive) as text:
            assert text.sessions == 1
    await archive.close()


async def test_a_file_that_cannot_be_read_is_counted_and_stays(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make_session("bad", 0, ["q", "a"]), make_session("good", 1, ["q2", "a2"])
    keep(store, bad, good)
    rows = store.list()
    store.path(bad.id).write_bytes(b"{ torn")
    monkeypatch.setattr(store, "list", lambda: rows)
    async with session_text(SessionPick(), store) as text:
        assert (text.sessions, text.unread) == (1, 1)
    assert store.path(bad.id).read_bytes() == b"{ torn"


async def test_hostile_text_becomes_lines_that_parse(store: SessionStore) -> None:
    hostile = 'line\r\none\x00\x1b[2J\u2028"}]}\n{"messages": 3}'
    keep(store, make_session("hostile", 0, [hostile, "\ufeff answer"]), make_session("controls", 1, ["\x07\x08", "a"]))
    async with session_text(SessionPick(), store) as text:
        assert contents(text.choice.path) == [['line\none[2J\u2028"}]}\n{"messages": 3}', "\ufeff answer"]]
        assert text.left_out == 1


async def test_no_session_with_an_answer_is_refused_and_leaves_nothing(store: SessionStore) -> None:
    keep(store, make_session("asked", 0, ["only a question"]))
    with pytest.raises(UsageError, match="answered question"):
        async with session_text(SessionPick(), store):
            pass
    assert left() == []


async def test_what_goes_wrong_in_the_job_still_removes_the_file(store: SessionStore) -> None:
    keep(store, make_session("one", 0, ["q", "a"]))

    async def fail() -> None:
        async with session_text(SessionPick(), store) as text:
            assert text.examples == len(left()) == 1
            raise RuntimeError("the job failed")

    with pytest.raises(RuntimeError, match="job"):
        await fail()
    assert left() == []


async def test_a_full_disk_is_explained(store: SessionStore, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, *(make_session(f"s{n}", n, ["q" * 9000, "a" * 9000]) for n in range(8)))
    monkeypatch.setattr(paths, "cache_dir", lambda: small_disk / "cache")
    with pytest.raises(StorageError, match="disk is full"):
        async with session_text(SessionPick(), store):
            pass
    assert left() == []


async def test_a_stop_while_it_writes_leaves_nothing(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, *(make_session(f"s{n}", n, ["q", "a"]) for n in range(3)))
    reads: list[str] = []
    loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    ended: asyncio.Future[BaseException] = loop.create_future()
    whole, read = calibration._Writing.run, store.read_for_index

    def slow(session_id: str) -> object:
        reads.append(session_id)
        loop.call_soon_threadsafe(reading.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        return read(session_id)

    def run(writing: calibration._Writing, rows: object) -> None:
        try:
            whole(writing, rows)
        except BaseException as error:
            loop.call_soon_threadsafe(ended.set_result, error)
            raise

    monkeypatch.setattr(store, "read_for_index", slow)
    monkeypatch.setattr(calibration._Writing, "run", run)

    async def use() -> None:
        async with session_text(SessionPick(), store):
            raise AssertionError("it was to be stopped before")

    task = asyncio.create_task(use())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert isinstance(await asyncio.wait_for(ended, 20), Cancelled)
    assert len(reads) == 1
    assert left() == []


async def test_what_a_killed_program_left_is_removed_at_the_next_start(store: SessionStore) -> None:
    keep(store, make_session("one", 0, ["q", "a"]))
    name = temporary_name(calibration.FILE).replace(f".{os.getpid()}.", f".{2**22 + 1}.")
    paths.cache_dir().mkdir(parents=True, mode=0o700)
    (paths.cache_dir() / name).write_text("private words")
    recover(store, SessionLocks(store.root))
    assert left() == []
    (paths.cache_dir() / name).write_text("private words")
    async with session_text(SessionPick(), store) as text:
        assert [str(path) for path in left()] == [text.choice.path]


def test_a_long_session_becomes_parts_that_begin_with_a_question() -> None:
    said = [f"{kind} {n} " + "x" * 90 for n in range(10) for kind in ("question", "answer")]
    parts = list(examples(make_session("long", 0, said, system_prompt="Be kind."), length=100))
    assert [message.content for part in parts for message in part if message.role != "system"] == said
    assert len(parts) == 5
    for part in parts:
        assert [message.role for message in part] == ["system", *["user", "assistant"] * (len(part) // 2)]
        assert sum(len(message.content) for message in part[1:]) <= 100 * calibration.CHARACTERS


def test_a_huge_paste_does_not_make_a_huge_line() -> None:
    (part,) = examples(make_session("paste", 0, ["p" * 10**6, "a"]), length=64)
    assert [len(message.content) for message in part] == [64 * calibration.MOST_CHARACTERS, 1]


def test_questions_that_failed_do_not_come_before_those_that_were_answered() -> None:
    session = make_session("retry", 0, ["no answer", "", "asked again", "yes"])
    (part,) = examples(session, length=64)
    assert [message.content for message in part] == ["asked again", "yes"]


@given(trees.sessions())
def test_of_any_session_come_lines_that_calibration_takes_and_only_what_is_shown(session: Session) -> None:
    shown = {(message.role, message.text) for message in session.branch()} | {("system", session.system_prompt)}
    kept = {(role, plain(text)) for role, text in shown}
    for part in examples(session, length=64):
        assert parse(calibration._line(part)) == part
        assert {(message.role, message.content) for message in part} <= kept
        questions = [place for place, message in enumerate(part) if message.role == "user"]
        assert questions[0] == (1 if part[0].role == "system" else 0)
        assert part[-1].role == "assistant"
