"""Disks that fill up, fail and refuse while the program works: it says so, loses nothing, and goes on afterwards.

`QUANTCHAT_TEST_FAULTS=100` runs so many rounds of faults that come and go at random, and prints its figures.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import disks
from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session
from quantchat.store.sessions import SessionStore
from unit.safety.program import Program, compiled_shim, put_in_order

ROUNDS = int(os.environ.get("QUANTCHAT_TEST_FAULTS", "6"))
SEED = int(os.environ.get("QUANTCHAT_TEST_SEED", "20261121"))
PATIENCE = 20.0
WRITING = {
    "a write finds the disk full": ("write .json.", errno.ENOSPC),
    "the disk is full in the middle of a write": ("write .json.", errno.ENOSPC, 1, 1),
    "the quota is used up": ("write .json.", errno.EDQUOT),
    "a sync fails": ("fsync .json.", errno.EIO),
    "a rename fails": ("rename .json", errno.EIO),
    "no file can be made": ("create .json.", errno.ENOSPC),
    "the disk turned read-only": ("create sessions", errno.EROFS),
    "the sync of the folder fails": ("fsync =sessions", errno.EIO),
    "the file cannot be looked at": ("open .json", errno.EIO),
}
"""Faults that keep the session from the disk."""
JOURNAL = {
    "the journal finds the disk full": ("write .journal", errno.ENOSPC),
    "the journal is cut in a line": ("write .journal", errno.ENOSPC, 1, 1),
    "each second write of the journal fails": ("write .journal", errno.EIO, 2, 1),
    "a sync of the journal fails": ("fsync .journal", errno.EIO),
    "no journal can be made": ("create .journal", errno.ENOSPC),
    "the journal cannot be removed": ("unlink .journal", errno.EIO),
}
"""Faults that cost nothing as long as the program lives."""
LOCKS = {
    "locks are not supported": ("flock .lock", errno.ENOLCK),
    "no lock can be made": ("create .lock", errno.ENOSPC),
}
CLEAR = {"disk-full", "no-permission", "storage"}


class Faults:
    """The file that tells the shim what to refuse."""

    def __init__(self, folder: Path, shim: Path) -> None:
        self.path = folder / "faults"
        self.env = {"LD_PRELOAD": str(shim), "QUANTCHAT_FAULTS": str(self.path)}

    def begin(self, *faults: tuple[Any, ...]) -> None:
        lines = [" ".join(str(part) for part in (*fault, *(1, 0)[len(fault) - 2 :])) for fault in faults]
        temporary = self.path.with_suffix(".new")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(self.path)

    def end(self) -> None:
        self.path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def faults(tmp_path: Path, shim: Path) -> Faults:
    return Faults(tmp_path, shim)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def store_of(home: Path) -> SessionStore:
    return SessionStore(home / "data" / "sessions")


def on_disk(home: Path) -> dict[str, Session]:
    return {path.stem: decode_session(path.read_bytes()) for path in store_of(home).root.glob("*.json")}


def texts(session: Session) -> list[str]:
    return [message.text for message in session.branch()]


def until(test: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)


def talk(program: Program, question: str, words: str, session: str = "") -> str:
    """Ask and be answered; return the session."""
    session = program.do("ask", text=question, session=session)
    assert isinstance(session, str), session
    for word in words.split():
        program.do("say", session=session, text=f"{word} ")
    program.do("end", session=session)
    program.do("flush")
    return session


def check_tidy(home: Path) -> None:
    """Nothing but sessions is left."""
    assert {path.suffix for path in store_of(home).root.iterdir()} == {".json"}
    assert not list(home.rglob("*.tmp"))
    assert not store_of(home).quarantine.exists()


def go_on(program: Program, session: str, answers: list[str], home: Path) -> None:
    """After the fault: what was said is on the disk soon, and the work goes on."""
    until(lambda: program.do("unsaved") == [], "the disk to take it")
    talk(program, "after", "all is well", session)
    said = [*answers, "after", "all is well "]
    assert texts(on_disk(home)[session]) == said == program.do("open", session=session)["texts"]
    assert program.do("close") == []


@pytest.mark.parametrize("fault", WRITING)
def test_a_session_that_cannot_be_written(home: Path, faults: Faults, fault: str) -> None:
    with Program(home, env=faults.env) as program:
        session = talk(program, "before", "some words")
        assert program.do("told") == []
        faults.begin(WRITING[fault])
        talk(program, "during", "many more words", session)
        program.do("rename", session=session, title="Renamed meanwhile")
        program.do("flush")
        told, unsaved = program.do("told"), program.do("unsaved")
        assert len(told) == 1, "said once, not with each try"
        assert {*told, *unsaved} <= CLEAR
        assert unsaved
        # What is there is whole: the session of before, or, where only the sync failed, that of now.
        assert texts(on_disk(home)[session])[:2] == ["before", "some words "]
        assert program.do("open", session=session)["texts"][-1] == "many more words "
        faults.end()
        go_on(program, session, ["before", "some words ", "during", "many more words "], home)
        assert on_disk(home)[session].title == "Renamed meanwhile"
    check_tidy(home)


@pytest.mark.parametrize("fault", WRITING)
def test_a_kill_while_the_session_cannot_be_written_loses_no_word(home: Path, faults: Faults, fault: str) -> None:
    """The journal has the answer, and the question, which never got to the session's file."""
    with Program(home, env=faults.env) as program:
        session = talk(program, "before", "some words")
        faults.begin(WRITING[fault])
        talk(program, "during", "many more words", session)
        journal = store_of(home).journal_path(session)
        if fault == "the disk turned read-only":
            assert not journal.exists()
    faults.end()
    put_in_order(home)
    found = texts(on_disk(home)[session])
    if fault == "the disk turned read-only":
        assert found[:2] == ["before", "some words "]
    else:
        assert found == ["before", "some words ", "during", "many more words "]
    check_tidy(home)


@pytest.mark.parametrize("fault", JOURNAL)
def test_a_journal_that_cannot_be_written(home: Path, faults: Faults, fault: str) -> None:
    with Program(home, env=faults.env) as program:
        session = talk(program, "before", "some words")
        faults.begin(JOURNAL[fault])
        talk(program, "during", "many more words", session)
        assert program.do("unsaved") == []
        assert texts(on_disk(home)[session])[-1] == "many more words "
        talk(program, "again", "and more", session)
        faults.end()
        go_on(program, session, ["before", "some words ", "during", "many more words ", "again", "and more "], home)
    put_in_order(home)
    assert len(on_disk(home)[session].messages) == 8, "a journal that stayed is folded in without effect"
    check_tidy(home)


@pytest.mark.parametrize("fault", LOCKS)
def test_locks_that_cannot_be_taken(home: Path, faults: Faults, fault: str) -> None:
    faults.begin(LOCKS[fault])
    with Program(home, env=faults.env) as program:
        session = talk(program, "before", "some words")
        assert program.do("unsaved") == []
        if fault == "locks are not supported":
            with Program(home, env=faults.env) as other:
                assert other.do("open", session=session)["read_only"] == "session-locked"
        faults.end()
        go_on(program, session, ["before", "some words "], home)
    check_tidy(home)


def test_a_disk_that_fills_up(small_disk: Path, fill_disk: Callable[[Path], Path]) -> None:
    home = small_disk / "home"
    with Program(home) as program:
        session = talk(program, "before", "some words")
        ballast = fill_disk(small_disk)
        long = " ".join(f"word{number}" for number in range(400))
        talk(program, "during", long, session)
        assert program.do("unsaved") == ["disk-full"]
        assert program.do("told") == ["disk-full"]
        assert texts(on_disk(home)[session]) == ["before", "some words "]
        ballast.unlink()
        go_on(program, session, ["before", "some words ", "during", f"{long} "], home)
    check_tidy(home)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system that can be mounted anew, read-only or not."""
    with disks.mounted(tmp_path / "mounted", "size=4m") as mount:
        yield mount


def test_a_home_that_is_read_only_from_the_start(tmp_path: Path, mounted: Callable[[str], None]) -> None:
    home = tmp_path / "mounted" / "home"
    with Program(home) as program:
        session = talk(program, "before", "some words")
        assert program.do("close") == []
    mounted("remount,ro")
    with Program(home) as program:
        opened = program.do("open", session=session)
        assert (opened["texts"], opened["read_only"]) == (["before", "some words "], None)
        talk(program, "during", "more words", session)
        assert program.do("unsaved") == ["no-permission"]
        mounted("remount,rw")
        go_on(program, session, ["before", "some words ", "during", "more words "], home)
    check_tidy(home)


@pytest.mark.parametrize("part", ["data/sessions", "data", "."])
def test_permissions_that_are_taken_away_in_flight(home: Path, part: str) -> None:
    folder = home / part
    with Program(home, privileged=False) as program:
        session = talk(program, "before", "some words")
        folder.chmod(0o500 if part == "data/sessions" else 0o000)
        try:
            talk(program, "during", "more words", session)
            assert program.do("unsaved") == ["no-permission"]
            assert program.do("told")[0] == "no-permission"
        finally:
            folder.chmod(0o700)
        go_on(program, session, ["before", "some words ", "during", "more words "], home)
    check_tidy(home)


# Faults that come and go


PLACES = {
    "write": (errno.ENOSPC, errno.EIO),
    "create": (errno.ENOSPC, errno.EACCES),
    "fsync": (errno.EIO,),
    "rename": (errno.EIO,),
    "open": (errno.EIO,),
    "unlink": (errno.EIO,),
    "truncate": (errno.EIO,),
}


class Storm:
    """Random work under random faults: what the user was not told about is there in the end, all of it."""

    def __init__(self, home: Path, faults: Faults, seed: int, figures: Counter[str]) -> None:
        self.home, self.faults, self.figures = home, faults, figures
        self.random = Random(seed)
        self.expected: dict[str, dict[str, Any]] = {}

    def run(self, program: Program) -> None:
        for number in range(60):
            self._weather()
            self._work(program, number)
        self.faults.end()
        until(lambda: program.do("unsaved") == [], "the disk to take everything")
        program.do("flush")
        self.figures["notices"] += len(program.do("told"))
        assert program.do("close") == []

    def _weather(self) -> None:
        """Now and then the faults change."""
        if self.random.random() < 0.3:
            self.faults.end()
            return
        if self.random.random() < 0.5:
            self.faults.begin(*(self._fault() for _ in range(self.random.randrange(1, 4))))
            self.figures["changes of weather"] += 1

    def _fault(self) -> tuple[Any, ...]:
        call = self.random.choice(list(PLACES))
        part = self.random.choice([".json", ".journal", ".lock", "=sessions", "sessions"])
        return f"{call} {part}", self.random.choice(PLACES[call]), self.random.randrange(1, 4), self.random.randrange(2)

    def _work(self, program: Program, number: int) -> None:
        session = self.random.choice(["", *self.expected])
        if not session or self.random.random() < 0.5:
            self._talk(program, session, number)
            return
        what = self.random.choice(["rename", "draft", "flush"])
        if what == "rename" and self._done(program.do("rename", session=session, title=f"title {number}")):
            self.expected[session]["title"] = f"title {number}"
        elif what == "draft" and self._done(program.do("draft", session=session, text=f"draft {number}")):
            self.expected[session]["draft"] = f"draft {number}"
        else:
            program.do("flush")

    def _talk(self, program: Program, session: str, number: int) -> None:
        question = f"question {number}"
        answer = program.do("ask", text=question, session=session)
        if not self._done(answer):
            return
        program.do("say", session=answer, text=f"answer {number}")
        program.do("end", session=answer)
        known = self.expected.setdefault(answer, {"texts": [], "title": question, "draft": ""})
        known["texts"] += [question, f"answer {number}"]

    def _done(self, answer: object) -> bool:
        refused = isinstance(answer, dict) and "error" in answer
        self.figures["refused"] += refused
        self.figures["done"] += not refused
        return not refused

    def check(self) -> None:
        """Compare the disk with what the user did."""
        put_in_order(self.home)
        there = on_disk(self.home)
        for session_id, known in self.expected.items():
            session = there[session_id]
            assert texts(session) == known["texts"]
            assert (session.title, session.draft) == (known["title"], known["draft"])
            self.figures["messages checked"] += len(known["texts"])
        check_tidy(self.home)


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_faults_that_come_and_go(tmp_path: Path, shim: Path) -> None:
    figures = Counter[str]()
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        faults = Faults(folder, shim)
        storm = Storm(folder / "home", faults, SEED + number, figures)
        try:
            with Program(folder / "home", env=faults.env) as program:
                storm.run(program)
            storm.check()
        except AssertionError as error:
            raise AssertionError(f"round {number}, seed {SEED + number}: {error}") from error
        figures["rounds"] += 1
    print("\n" + "\n".join(f"{name}: {count:,}" for name, count in sorted(figures.items())))
    assert figures["notices"] > 0
