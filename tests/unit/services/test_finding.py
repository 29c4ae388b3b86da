from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.services.archive import Archive
from quantchat.services.facts import Fact, IndexChanged
from quantchat.services.finding import MOST_HITS, MOST_OF_ONE, Finder, find
from quantchat.store import index, indexing
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(indexing, "SPARE_BYTES", 0)


def stored(*texts: str) -> Session:
    session = Session.new()
    for number, text in enumerate(texts):
        session.append("assistant" if number % 2 else "user", text)
    SessionStore().save(session)
    return session


@pytest.fixture
def facts() -> list[Fact]:
    return []


@pytest.fixture
def archive(facts: list[Fact]) -> Archive:
    return Archive(facts.append)


@pytest.fixture
def finder(archive: Archive, facts: list[Fact]) -> Finder:
    return Finder(archive, facts.append)


async def until(test: Callable[[], object]) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while not test():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.005)


async def test_what_is_open_and_not_written_yet_is_found_as_it_is_now(archive: Archive, finder: Finder) -> None:
    session = archive.open(stored("an old question").id)
    next(iter(session.messages.values())).text = session.title = "a new question"
    fresh = archive.new()
    answer = fresh.append("assistant", "a new ans")
    answer.text += "wer that streams"
    assert not (await finder.search("old question")).hits
    found = await finder.search("NEW")
    assert [(hit.session.id, hit.message) for hit in found.hits if hit.place != "title"] == [
        (fresh.id, answer.id),
        (session.id, session.head),
    ]
    assert (await finder.search("answer that")).sessions == 1
    await archive.close()


async def test_a_session_of_another_program_is_found_as_it_is_on_the_disk(
    archive: Archive, finder: Finder, tmp_path: Path
) -> None:
    session = stored("first words")
    with SessionLocks(SessionStore().root).acquire(session.id):
        shown = archive.open(session.id)
        assert archive.why_read_only(session.id) is not None
        session.append("user", "later words")
        SessionStore().save(session)
        assert len(shown.messages) == 1
        assert [hit.message for hit in (await finder.search("later")).hits] == [session.head]
    await archive.close()


async def test_a_temporary_session_is_found_while_it_is_open(archive: Archive, finder: Finder) -> None:
    session = archive.new(temporary=True)
    session.append("user", "between us")
    found = await finder.search("between us")
    assert {hit.session.id for hit in found.hits} == {session.id}
    assert not SessionStore().path(session.id).exists()


def test_the_session_that_changed_last_comes_first() -> None:
    made = [stored(f"word {number}") for number in range(3)]
    made[0].updated += timedelta(hours=1)
    SessionStore().save(made[0])
    found = find(SessionStore(), "word")
    assert [hit.session.id for hit in found.hits if hit.place == "question"] == [made[n].id for n in (0, 2, 1)]
    assert found.complete
    assert found.sessions == 3


@pytest.mark.parametrize("text", ["", "  \n", "\0"])
async def test_nothing_is_found_for_nothing(finder: Finder, text: str) -> None:
    stored("something")
    assert (await finder.search(text)).hits == ()


@pytest.mark.parametrize("indexed", [True, False])
def test_many_hits_are_counted_and_not_all_returned(monkeypatch: pytest.MonkeyPatch, indexed: bool) -> None:
    for _ in range(4):
        stored(*["word"] * 3)
    store = SessionStore()
    if indexed:
        monkeypatch.setattr(index, "MANY", 0)
        monkeypatch.setattr(indexing, "MANY", 0)
        monkeypatch.setattr(index, "settled", lambda found: found)
        store.list()
        indexing.Indexer(store).complete(lambda: False, lambda done, total: None)
        assert not store.index.missing()
    found = find(store, "word", most=6)
    assert len(found.hits) == 6
    assert (found.sessions, found.complete, found.counted) == (4 if indexed else 2, False, indexed)
    exact = find(store, "word", most=16)
    assert (len(exact.hits), exact.sessions, exact.complete) == (16, 4, True)


def test_a_long_session_does_not_hide_the_others() -> None:
    other = stored("word")
    long = stored(*["word"] * (MOST_HITS + 5))
    found = find(SessionStore(), "word")
    assert not found.complete
    assert len([hit for hit in found.hits if hit.session.id == long.id]) == MOST_OF_ONE
    assert other.id in {hit.session.id for hit in found.hits}
    alone = find(SessionStore(), "word", only=long.id, most=sys.maxsize)
    assert len(alone.hits) == MOST_HITS + 5 + 1
    assert alone.complete
    assert alone.sessions == 1


async def test_a_search_that_is_broken_off_ends_its_thread(finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        stored(f"word {number}")
    reading, go_on = threading.Event(), threading.Event()
    read: list[str] = []

    def slow(self: SessionStore, name: str) -> None:
        read.append(name)
        reading.set()
        go_on.wait(PATIENCE)

    monkeypatch.setattr(SessionStore, "read_for_index", slow)
    search = asyncio.create_task(finder.search("word"))
    await until(reading.is_set)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    go_on.set()
    await until(lambda: not any(thread.name == "find" for thread in threading.enumerate()))
    assert len(read) == 1


async def test_the_index_is_made_when_somebody_searches_and_says_how_far_it_is(
    finder: Finder, archive: Archive, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "settled", lambda found: found)
    for module in (index, indexing):
        monkeypatch.setattr(module, "MANY", 0)
    monkeypatch.setattr(indexing, "SEGMENT_BYTES", 1)
    made = [stored(f"word {number}") for number in range(3)]
    seen: list[tuple[int, int] | None] = []
    monkeypatch.setattr(
        finder, "_listen", lambda fact: seen.append(finder.indexing) if fact == IndexChanged() else None
    )
    assert (await finder.search("word")).sessions == 3
    await until(lambda: seen and seen[-1] is None)
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3), None]
    known, unsure = archive.store.index.matching("word", lambda: False)
    assert (known, unsure) == ({session.id for session in made}, set())


async def test_closing_breaks_the_indexing_off_and_says_nothing_more(
    finder: Finder, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "settled", lambda found: found)
    for module in (index, indexing):
        monkeypatch.setattr(module, "MANY", 0)
    for number in range(3):
        stored(f"word {number}")
    before = SessionStore.read_for_index
    read: list[str] = []

    def closing(self: SessionStore, name: str) -> object:
        read.append(name)
        finder.close()
        return before(self, name)

    SessionStore().list()
    await finder.search("word")
    monkeypatch.setattr(SessionStore, "read_for_index", closing)
    await until(lambda: not finder._at_work)
    await finder.keep_index()
    assert len(read) <= 1


async def test_the_rule_of_many_keeps_small_homes_without_an_index(finder: Finder, tmp_path: Path) -> None:
    stored("word")
    await finder.search("word")
    await finder.keep_index()
    assert not (tmp_path / "home" / "cache").exists()
