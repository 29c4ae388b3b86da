"""Imports come in whole or not at all: ids, copies, full disks, crashes in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantchat.errors import Cancelled, StorageError
from quantchat.store.atomic import host_label
from quantchat.store.exchange import staging
from quantchat.store.exchange.importing import Import
from quantchat.store.exchange.staging import READY, Incoming, finish_imports
from quantchat.store.locks import SessionLocks
from quantchat.store.recovery import recover
from quantchat.store.sessions import SessionStore
from unit.exchange.test_hostile import SESSION, with_message

Patch = pytest.MonkeyPatch


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "data" / "sessions")


def file_of(folder: Path, *contents: object, name: str = "in.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(list(contents)))
    return path


def numbered(count: int) -> list[dict[str, Any]]:
    return [{**SESSION, "id": f"20200101T000000000-{n:06x}", "title": f"Number {n}"} for n in range(count)]


def bring_in(store: SessionStore, path: Path) -> Import:
    with Import(store) as incoming:
        incoming.read(path)
        incoming.commit()
    return incoming


def left_behind(store: SessionStore) -> list[Path]:
    return [path for path in store.root.parent.rglob("*") if "incoming" in path.parts]


def test_sessions_come_in_with_their_ids_and_say_where_they_are_from(store: SessionStore, tmp_path: Path) -> None:
    bring_in(store, file_of(tmp_path, *numbered(3)))
    assert {row.title for row in store.list()} == {"Number 0", "Number 1", "Number 2"}
    session = store.load("20200101T000000000-000001")
    assert session.origin is not None
    assert session.origin.source == "json: in.json"
    assert os.stat(store.path(session.id)).st_mode & 0o777 == 0o600
    assert not left_behind(store)


def test_what_is_here_is_left_out_and_what_differs_stands_beside_it(store: SessionStore, tmp_path: Path) -> None:
    bring_in(store, file_of(tmp_path, SESSION))
    again = bring_in(store, file_of(tmp_path, SESSION))
    assert (again.incoming.known, again.incoming.rows) == (1, [])
    other = bring_in(store, file_of(tmp_path, with_message("b", text="No.")))
    assert len(other.incoming.rows) == 1
    texts = {store.load(row.id).branch()[-1].text for row in store.list()}
    assert texts == {"So.", "No."}


def test_what_was_continued_here_is_known(store: SessionStore, tmp_path: Path) -> None:
    bring_in(store, file_of(tmp_path, SESSION))
    session = store.load(SESSION["id"])
    session.append("user", "And then?")
    store.save(session)
    assert bring_in(store, file_of(tmp_path, SESSION)).incoming.known == 1
    assert store.load(SESSION["id"]).branch()[-1].text == "And then?"


def test_ids_that_stand_twice_or_are_none_get_others(store: SessionStore, tmp_path: Path) -> None:
    odd = ["../../etc/passwd", "20200101T000000000-ABCDEF", "", "x" * 5000]
    contents = [SESSION, SESSION, *({**SESSION, "id": name} for name in odd)]
    done = bring_in(store, file_of(tmp_path, *contents))
    assert len(done.incoming.rows) == len(store.list()) == 6
    assert sorted(path.name for path in store.root.parent.iterdir()) == ["sessions"]


def test_one_bad_session_keeps_all_out_unless_that_is_wanted(store: SessionStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, SESSION, with_message("a", parent="b"))
    with Import(store) as incoming:
        incoming.read(path)
        assert incoming.bad == 1
        assert "in.json, line 1: message 'a' follows itself" in str(incoming.refusal())
    assert store.list() == []
    assert not left_behind(store)


def test_times_of_other_zones_and_of_the_future_do_not_spoil_the_list(store: SessionStore, tmp_path: Path) -> None:
    naive, future = "2020-01-01T00:00:00", "2999-01-01T00:00:00+14:00"
    contents = [{**SESSION, "id": str(n), "updated": when, "created": when} for n, when in enumerate([naive, future])]
    bring_in(store, file_of(tmp_path, *contents, SESSION))
    store.save(store.create())
    rows = store.list()
    assert len(rows) == 3
    assert all(row.updated.year < 2999 and row.updated.tzinfo is not None for row in rows)


def test_an_answer_that_was_running_is_interrupted(store: SessionStore, tmp_path: Path) -> None:
    bring_in(store, file_of(tmp_path, SESSION))
    assert store.load(SESSION["id"]).branch()[-1].finish == "interrupted"


def test_a_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    store = SessionStore(small_disk / "data" / "sessions")
    path = file_of(tmp_path, *numbered(500))
    with pytest.raises(StorageError, match="disk is full"):
        bring_in(store, path)
    assert store.list() == []
    assert not left_behind(store)


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_fails_or_is_stopped_in_the_middle_takes_back_what_came_in(
    store: SessionStore, tmp_path: Path, monkeypatch: Patch, failure: BaseException
) -> None:
    real, calls = os.link, list[Path]()

    def fail_later(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > 2:
            raise failure
        real(source, target)

    def no_rename(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", fail_later)
    monkeypatch.setattr(Path, "rename", no_rename)
    with pytest.raises((StorageError, KeyboardInterrupt)):
        bring_in(store, file_of(tmp_path, *numbered(5)))
    assert len(calls) == 3
    assert store.list() == []
    assert not left_behind(store)


def test_a_file_system_without_links_is_good_enough(store: SessionStore, tmp_path: Path, monkeypatch: Patch) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    bring_in(store, file_of(tmp_path, *numbered(3)))
    assert len(store.list()) == 3


def test_stopping_leaves_nothing(store: SessionStore, tmp_path: Path) -> None:
    with Import(store) as incoming:
        incoming.read(file_of(tmp_path, *numbered(3)))
        incoming.progress.cancel()
        with pytest.raises(Cancelled):
            incoming.commit()
    assert store.list() == []
    assert not left_behind(store)


CHILD = """
import os, sys
from pathlib import Path
from quantchat.store.exchange import staging
from quantchat.store.exchange.importing import Import
from quantchat.store.sessions import SessionStore

def die(*_):
    os.kill(os.getpid(), 9)

moment = sys.argv[3]
if moment == "staged":
    staging.Incoming._sync = die
elif moment == "ready":
    staging._move_in = die
else:
    real, count = os.link, [0]
    def link(source, target):
        real(source, target)
        count[0] += 1
        if count[0] == 3:
            die()
    os.link = link
with Import(SessionStore(Path(sys.argv[1]))) as incoming:
    incoming.read(Path(sys.argv[2]))
    incoming.commit()
"""


@pytest.mark.parametrize(("moment", "expected"), [("staged", 0), ("ready", 8), ("moving", 8)])
def test_after_a_crash_all_have_come_in_or_none(
    store: SessionStore, tmp_path: Path, moment: str, expected: int, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    path = file_of(tmp_path, *numbered(8))
    done = subprocess.run([sys.executable, "-c", CHILD, str(store.root), str(path), moment])
    assert done.returncode == -9
    assert left_behind(store)
    recover(store, SessionLocks(store.root))
    assert len(store.list()) == expected
    assert not left_behind(store)


def test_an_import_that_runs_is_left_alone(store: SessionStore, tmp_path: Path) -> None:
    with Import(store) as incoming:
        incoming.read(file_of(tmp_path, SESSION))
        finish_imports(store.root)
        assert len(left_behind(store)) == 3
        assert incoming.commit() == 1
    assert len(store.list()) == 1


def test_what_a_process_of_this_id_left_is_told_from_ones_own(store: SessionStore, tmp_path: Path) -> None:
    with Import(store) as incoming:
        incoming.read(file_of(tmp_path, SESSION))
        folder = incoming.incoming._folder
        (folder / READY).touch()
        staging._own.clear()
        finish_imports(store.root)
    assert [row.id for row in store.list()] == [SESSION["id"]]
    assert not left_behind(store)


@pytest.mark.parametrize(("host", "hours", "came_in"), [("other", 1, 0), ("other", 25, 1), (None, 1, 0), (None, 25, 1)])
def test_what_lies_there_for_a_day_belongs_to_nobody(
    store: SessionStore, tmp_path: Path, host: str | None, hours: int, came_in: int
) -> None:
    incoming = Import(store)
    incoming.read(file_of(tmp_path, SESSION))
    incoming.incoming._sync()
    left = incoming.incoming._folder
    # Process 1 lives, as another one does that has got the id of the one that is gone.
    folder = left.rename(left.with_name(f"{host or host_label()}.1.abcd"))
    then = folder.stat().st_mtime - hours * 3600
    os.utime(folder, (then, then))
    finish_imports(store.root)
    assert len(store.list()) == came_in
    assert bool(left_behind(store)) == (not came_in)


def test_two_at_once_bring_the_same_file_in_once(store: SessionStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, *numbered(4))
    with Import(store) as one, Import(store) as two:
        one.read(path)
        two.read(path)
        one.commit()
        two.commit()
    assert len(store.list()) == 4


def test_faults_are_listed_up_to_a_number(store: SessionStore, tmp_path: Path) -> None:
    with Import(store) as incoming:
        incoming.read(file_of(tmp_path, *[{}] * 50))
        assert (incoming.bad, len(incoming.faults)) == (50, 10)
        assert "and 40 more" in str(incoming.refusal())


def test_incoming_without_sessions_makes_no_folder(store: SessionStore) -> None:
    with Incoming(store) as incoming:
        assert incoming.commit() == 0
    assert not store.root.parent.exists()
