"""The index of sessions: never the only place of anything, never believed where a file has changed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quantchat.domain.chat import SCHEMA, Session
from quantchat.services.finding import find
from quantchat.store import index, indexing, manifest, segments, sessions
from quantchat.store.atomic import host_label
from quantchat.store.indexing import Indexer
from quantchat.store.sessions import SessionStore

LONG_AGO = 1_700_000_000


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index at once, whatever the size of this machine's disk."""
    for module in (index, indexing):
        monkeypatch.setattr(module, "MANY", 0)
    monkeypatch.setattr(indexing, "SPARE_BYTES", 0)


def write(store: SessionStore, text: str, session_id: str | None = None, age: int = 0) -> str:
    session = Session.new()
    session.id = session_id or session.id
    session.append("user", text)
    store.save(session)
    os.utime(store.path(session.id), (LONG_AGO - age, LONG_AGO - age))
    return session.id


def complete(store: SessionStore) -> Indexer:
    indexer = Indexer(store)
    indexer.complete(lambda: False, lambda done, total: None)
    return indexer


def searched(store: SessionStore, text: str) -> set[str]:
    found = find(store, text)
    assert found.complete
    assert found.sessions == len({hit.session.id for hit in found.hits})
    return {hit.session.id for hit in found.hits}


def sure(store: SessionStore, text: str) -> set[str]:
    """What the index knows by itself."""
    store.list()
    known, unsure = store.index.matching(text, lambda: False)
    assert not unsure
    return known


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "cache" / "sessions"


@pytest.fixture
def ids(store: SessionStore) -> list[str]:
    """Five sessions that are in the index."""
    made = [write(store, f"number {number} of the common words", age=number) for number in range(5)]
    complete(store)
    assert sure(store, "common") == set(made)
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions whose rows are read from now on."""
    read: list[str] = []
    decode = sessions.decode_summary

    def counting(session_id: str, data: bytes) -> object:
        read.append(session_id)
        return decode(session_id, data)

    monkeypatch.setattr(sessions, "decode_summary", counting)
    return read


def segment_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{segments.SUFFIX}"))


def test_the_next_program_reads_only_what_changed(store: SessionStore, ids: list[str], reads: list[str]) -> None:
    rows = SessionStore().list()
    assert rows == store.list()
    assert reads == []
    write(store, "something else", ids[2], age=100)
    assert [row.title for row in SessionStore().list() if row.id == ids[2]] == ["something else"]
    assert reads == [ids[2]]


def test_a_search_reads_only_sessions_that_hold_the_text(
    ids: list[str], monkeypatch: pytest.MonkeyPatch, store: SessionStore
) -> None:
    read: list[str] = []
    before = SessionStore.read_for_index
    monkeypatch.setattr(SessionStore, "read_for_index", lambda self, name: (read.append(name), before(self, name))[1])
    assert searched(SessionStore(), "number 3") == {ids[3]}
    assert searched(SessionStore(), "number 7") == set()
    assert read == [ids[3]]


def every_byte(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def zero(path: Path) -> None:
    every_byte(path, lambda data: bytes(len(data)))


def cut(path: Path) -> None:
    every_byte(path, lambda data: data[: len(data) // 2])


def flip(path: Path) -> None:
    every_byte(path, lambda data: data.replace(b"common", b"cammon"))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def scramble(path: Path) -> None:
    every_byte(path, lambda data: random.Random(1).randbytes(len(data)))


DAMAGES = [Path.unlink, zero, cut, flip, scramble, replace_by_folder]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("running", [True, False])
def test_damaged_texts_are_noticed_and_written_anew(
    store: SessionStore, folder: Path, ids: list[str], damage: Callable[[Path], None], running: bool
) -> None:
    for path in segment_files(folder):
        damage(path)
    other = store if running else SessionStore()
    assert searched(other, "common") == set(ids)
    assert searched(other, "cammon") == set()
    complete(other)
    assert sure(other, "common") == set(ids)
    assert sure(SessionStore(), "common") == set(ids)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_of_entries_is_passed_over(
    store: SessionStore, folder: Path, ids: list[str], damage: Callable[[Path], None]
) -> None:
    rows, other = store.list(), SessionStore()
    damage(folder / "manifest")
    assert other.list() == rows
    assert store.list() == rows
    assert searched(other, "common") == set(ids)
    if (folder / "manifest").is_dir():
        (folder / "manifest").rmdir()
    complete(other)
    assert sure(SessionStore(), "common") == set(ids)


def test_it_may_be_deleted_at_any_time(store: SessionStore, folder: Path, ids: list[str], reads: list[str]) -> None:
    shutil.rmtree(folder)
    assert searched(store, "common") == set(ids)
    assert searched(SessionStore(), "common") == set(ids)
    assert sorted(reads) == sorted(ids)
    complete(store)
    assert sure(SessionStore(), "common") == set(ids)


def test_entries_of_other_code_or_of_another_folder_do_not_count(
    store: SessionStore, ids: list[str], reads: list[str], monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(manifest.unicodedata, "unidata_version", "of another Python")
    SessionStore().list()
    assert sorted(reads) == sorted(ids)
    shutil.move(home, tmp_path / "moved")
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "moved"))
    SessionStore().list()
    assert sorted(reads) == sorted([*ids, *ids])


@pytest.mark.parametrize("running", [True, False])
def test_a_changed_file_is_never_shown_as_it_was(store: SessionStore, ids: list[str], running: bool) -> None:
    write(store, "only rare words", ids[0])
    other = store if running else SessionStore()
    assert searched(other, "common") == set(ids[1:])
    assert searched(other, "rare") == {ids[0]}


def test_a_file_that_has_the_same_size_and_time_is_told_by_its_inode(store: SessionStore, ids: list[str]) -> None:
    path = store.path(ids[0])
    before = path.stat()
    path.with_suffix(".new").write_bytes(path.read_bytes().replace(b"common", b"scarce"))
    path.with_suffix(".new").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert searched(store, "scarce") == {ids[0]}
    assert searched(store, "common") == set(ids[1:])


@pytest.mark.parametrize("coarse", [True, False])
def test_a_file_that_changed_just_now_is_read_again(store: SessionStore, ids: list[str], coarse: bool) -> None:
    """Clocks of file systems tick, so the next change may leave inode, size and time as they are."""
    path, now = store.path(ids[0]), time.time_ns() + 3600 * 10**9
    now = now - now % 10**9 + (0 if coarse else 1)
    for old, new in ((b"common", b"scarce"), (b"scarce", b"seldom")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest.time, "time_ns", lambda: now)
            with open(path, "r+b") as file:
                data = file.read().replace(old, new)
                file.seek(0)
                file.write(data)
            os.utime(path, ns=(now, now))
            assert searched(store, new.decode()) == {ids[0]}
            complete(store)
    assert searched(store, "seldom") == {ids[0]}
    assert searched(store, "scarce") == set()


def test_the_text_of_deleted_and_changed_sessions_leaves_the_disk(
    store: SessionStore, folder: Path, ids: list[str]
) -> None:
    def kept(text: bytes) -> bool:
        return any(text in path.read_bytes() for path in folder.iterdir())

    assert kept(b"number 0")
    assert kept(b"number 1")
    store.delete(ids[0])
    write(store, "other words", ids[1])
    assert searched(store, "common") == set(ids[2:])
    complete(store)
    assert not kept(b"number 0")
    assert not kept(b"number 1")
    assert sure(SessionStore(), "words") == set(ids[1:])


def test_a_session_that_comes_back_from_the_trash_is_found_by_all(store: SessionStore, ids: list[str]) -> None:
    other = SessionStore()
    assert sure(other, "common") == set(ids)
    store.delete(ids[0])
    store.list()
    (store.trash / f"{ids[0]}.json").rename(store.path(ids[0]))
    assert searched(store, "common") == set(ids)
    assert searched(other, "common") == set(ids)
    assert searched(SessionStore(), "common") == set(ids)


def test_one_program_takes_over_what_another_indexed(
    store: SessionStore, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SessionStore()
    new = write(store, "common to both", age=9)
    assert searched(other, "both") == {new}
    complete(store)
    monkeypatch.setattr(SessionStore, "read_for_index", lambda self, name: pytest.fail(f"{name} was read"))
    complete(other)
    assert sure(other, "common") == {*ids, new}


def test_what_another_program_stored_of_an_earlier_state_is_not_taken_over(store: SessionStore, ids: list[str]) -> None:
    other = SessionStore()
    other.list()
    write(store, "fresh words", ids[0])
    assert searched(store, "fresh") == {ids[0]}
    other.index.store()
    store.index.store()
    assert "fresh words" in [row.title for row in store.known()]
    assert searched(SessionStore(), "fresh") == {ids[0]}


def test_a_damaged_text_that_another_program_still_names_is_checked_again(
    store: SessionStore, folder: Path, ids: list[str]
) -> None:
    other = SessionStore()
    other.list()
    (path,) = segment_files(folder)
    every_byte(path, lambda data: data.replace(b"number 3 of the common", b"number 3 of the cammon"))
    assert searched(store, "common") == set(ids)
    other.index.store()
    assert searched(store, "common") == set(ids)
    assert searched(store, "cammon") == set()


def test_a_text_that_was_read_before_a_change_is_not_put_in(store: SessionStore, ids: list[str]) -> None:
    before = store.index.entries()[ids[0]]
    write(store, "fresh words", ids[0])
    store.list()
    store.index.put_text(ids[0], before)
    assert store.index.entries()[ids[0]].summary.title == "fresh words"
    assert searched(store, "fresh") == {ids[0]}


def test_texts_that_another_program_swept_away_are_found_all_the_same(
    store: SessionStore, folder: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "ORPHAN_SECONDS", -1)
    before = segment_files(folder)
    other = SessionStore()
    other.list()
    (folder / "manifest").unlink()
    fresh = SessionStore()
    complete(fresh)
    assert set(segment_files(folder)).isdisjoint(before)
    assert searched(store, "common") == set(ids)
    assert sure(other, "common") == set(ids), "what the last one wrote was not taken over"


def test_what_is_out_of_date_does_not_pile_up(
    store: SessionStore, folder: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "ORPHAN_SECONDS", -1)
    monkeypatch.setattr(indexing, "SEGMENTS", 3)
    for number in range(30):
        write(store, f"change {number} of the common words", ids[number % 4], age=50 + number)
        complete(store)
        assert sure(store, f"change {number} ") == {ids[number % 4]}
        assert len(segment_files(folder)) <= 4
    assert sure(SessionStore(), "common") == set(ids)
    assert sum(path.stat().st_size for path in segment_files(folder)) < 2000


def test_a_segment_of_which_half_is_out_of_date_is_written_anew(
    store: SessionStore, folder: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "ORPHAN_SECONDS", -1)
    before = segment_files(folder)
    for number in range(3):
        write(store, "few words", ids[number])
    complete(store)
    assert len(segment_files(folder)) == 1
    assert segment_files(folder) != before
    assert sure(SessionStore(), "words") == set(ids)


def test_what_a_killed_program_left_is_removed_by_the_next(store: SessionStore, folder: Path, ids: list[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = folder / f".x{segments.SUFFIX}.{host_label()}.{ended.pid}.0a1b.tmp"
    left.write_bytes(b"half")
    orphan = folder / f"orphan{segments.SUFFIX}"
    orphan.write_bytes(b"nobody's\0")
    os.utime(orphan, (LONG_AGO, LONG_AGO))
    before = segment_files(folder)
    complete(store)
    assert [path for path in folder.iterdir() if path.suffix == ".tmp"] == []
    assert set(segment_files(folder)) == set(before) - {orphan}


def test_indexing_that_is_broken_off_keeps_what_it_wrote(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [write(store, f"number {number}", age=number) for number in range(6)]
    told: list[tuple[int, int]] = []
    asked = iter([False] * 3)
    monkeypatch.setattr(indexing, "SEGMENT_BYTES", 1)
    Indexer(store).complete(lambda: next(asked, True), lambda done, total: told.append((done, total)))
    assert told == [(0, 6), (1, 6), (2, 6), (3, 6)]
    known, unsure = SessionStore().index, SessionStore()
    unsure.list()
    assert set(unsure.index.missing()) == set(made[:3])
    assert known is not unsure.index
    assert searched(SessionStore(), "number") == set(made)


def test_a_full_disk_costs_only_speed(
    store: SessionStore,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill_disk: Callable[[Path], Path],
    leftovers: Callable[[Path], list[str]],
) -> None:
    monkeypatch.setattr(sessions.paths, "cache_dir", lambda: small_disk)
    made = {write(store, "common words " * 2000, age=number) for number in range(3)}
    monkeypatch.setattr(indexing.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40))  # type: ignore[attr-defined]
    indexer = complete(store)
    assert searched(store, "common") == made
    assert not indexer.due, "a disk that refused is left alone"
    assert leftovers(small_disk / "sessions") == []
    fill_disk(small_disk)
    write(store, "the last one", age=7)
    assert len(SessionStore().list()) == 4
    assert leftovers(small_disk / "sessions") == []


def test_a_nearly_full_disk_is_left_to_the_sessions(
    store: SessionStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write(store, "common words")
    monkeypatch.setattr(indexing, "SPARE_BYTES", 2**60)
    complete(store)
    assert segment_files(folder) == []
    assert searched(store, "common") == {made}


def test_a_cache_that_cannot_be_written_costs_only_speed(home: Path, store: SessionStore) -> None:
    made = write(store, "common words")
    home.joinpath("cache").write_text("no folder")
    complete(store)
    assert searched(store, "common") == {made}
    assert [row.id for row in SessionStore().list()] == [made]


def test_an_index_of_few_sessions_is_not_worth_its_files(
    store: SessionStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (index, indexing):
        monkeypatch.setattr(module, "MANY", 64)
    made = write(store, "common words")
    complete(store)
    assert not folder.exists()
    monkeypatch.setattr(indexing, "MUCH", 10)
    complete(store)
    assert sure(SessionStore(), "common") == {made}


def test_a_store_of_another_folder_keeps_nothing(home: Path, tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "elsewhere")
    made = write(store, "common words")
    complete(store)
    assert searched(store, "common") == {made}
    assert not (home / "cache").exists()


def test_a_broken_session_is_in_no_list_and_no_search(store: SessionStore, ids: list[str]) -> None:
    store.path(ids[0]).write_bytes(b"{")
    assert searched(store, "common") == set(ids[1:])
    complete(store)
    assert searched(SessionStore(), "common") == set(ids[1:])


def test_a_session_of_a_later_quantchat_is_found_and_left_as_it_is(store: SessionStore, ids: list[str]) -> None:
    path = store.path(ids[0])
    data = path.read_bytes().replace(b'"version": %d' % SCHEMA, b'"version": 99')
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert searched(store, "common") == set(ids)
    complete(store)
    assert sure(SessionStore(), "common") == set(ids)
    assert path.read_bytes() == data


PROGRAM = """
import os, random, shutil, sys
from quantchat.services.finding import find
from quantchat.store import index, indexing
from quantchat.store.sessions import SessionStore
index.MANY = indexing.MANY = 0
indexing.SPARE_BYTES, indexing.SEGMENT_BYTES, indexing.SEGMENTS, indexing.ORPHAN_SECONDS = 0, 300, 3, 0.0
seed = int(sys.argv[1])
pick = random.Random(seed)
store = SessionStore()
own = []
for number in range(40):
    session = store.create()
    session.append("user", f"program {seed} writes {number}.")
    store.save(session)
    own.append(session.id)
    changed = pick.choice(own)
    session = store.load(changed)
    session.append("assistant", f"program {seed} adds {number}.")
    store.save(session)
    os.utime(store.path(changed), (pick.randrange(10**9),) * 2)
    if pick.random() < 0.1:
        shutil.rmtree(store.index.folder, ignore_errors=True)
    if pick.random() < 0.5:
        indexing.Indexer(store).complete(lambda: False, lambda done, total: None)
    found = find(store, f"program {seed}", most=999)
    assert {hit.session.id for hit in found.hits} == set(own), (seed, number)
    assert find(store, f"{seed} adds {number}.").hits[0].session.id == changed, (seed, number)
    assert len(find(SessionStore(), f"{seed} adds {number}.").hits) == 1, (seed, number)
"""


def test_programs_that_write_it_at_once_and_delete_it_never_find_less(home: Path) -> None:
    programs = [subprocess.Popen([sys.executable, "-c", PROGRAM, str(seed)], stderr=subprocess.PIPE) for seed in (1, 2)]
    for program in programs:
        _, said = program.communicate(timeout=60)
        assert program.returncode == 0, said.decode()
    assert len(SessionStore().list()) == 80
