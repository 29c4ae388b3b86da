"""Two programs on one home, at once: one writes, the other follows; nothing that either was given is lost.

`QUANTCHAT_TEST_TWO=200` does so many interleaved operations, and prints its figures.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session
from quantchat.store.sessions import SessionStore
from unit.safety.program import Program

OPERATIONS = int(os.environ.get("QUANTCHAT_TEST_TWO", "30"))
SEED = int(os.environ.get("QUANTCHAT_TEST_SEED", "20261121"))
WITHIN = 1.0
"""Seconds after which a reader shows what the writer was given; asked of a run that was started to measure it."""
ENOUGH = 100
"""Operations of such a run."""
PATIENCE = 20.0
LOCKED = "session-locked"


class Two:
    """Two programs, and what each session must hold."""

    def __init__(self, home: Path, programs: tuple[Program, Program], random: Random) -> None:
        self.home, self.programs, self.random = home, programs, random
        self.expected: dict[str, dict[str, Any]] = {}
        self.figures = Counter[str]()
        self.delays: list[float] = []

    def step(self, number: int) -> None:
        """Let one of the two do something with a session that either of them has begun."""
        own, other = self.random.sample(self.programs, 2)
        session = self.random.choice(["", "", *self.expected]) if len(self.expected) < 12 else ""
        session = session or self.random.choice([*self.expected, ""])
        things = [self.talk, self.talk, self.rename, self.draft, self.tag, self.turn_away, self.watch]
        self.random.choice(things)(own, other, session, number)
        self.figures["operations"] += 1

    def talk(self, own: Program, other: Program, session: str, number: int) -> None:
        answer = own.do("ask", text=f"question {number}", session=session)
        if self._refused(answer):
            return
        own.do("say", session=answer, text=f"answer {number}")
        own.do("end", session=answer)
        known = self.expected.setdefault(answer, {"title": f"question {number}", "texts": [], "tags": [], "draft": ""})
        known["texts"] += [f"question {number}", f"answer {number}"]

    def rename(self, own: Program, other: Program, session: str, number: int) -> None:
        if session and not self._refused(own.do("rename", session=session, title=f"title {number}")):
            self.expected[session]["title"] = f"title {number}"

    def draft(self, own: Program, other: Program, session: str, number: int) -> None:
        if session and not self._refused(own.do("draft", session=session, text=f"draft {number}")):
            self.expected[session]["draft"] = f"draft {number}"

    def tag(self, own: Program, other: Program, session: str, number: int) -> None:
        if session and not self._refused(own.do("tag", session=session, tag=f"tag{number}")):
            self.expected[session]["tags"].append(f"tag{number}")

    def turn_away(self, own: Program, other: Program, session: str, number: int) -> None:
        """Show another session: the one before is free for the other program, once it is on the disk."""
        if session and "error" not in own.do("open", session=session):
            own.do("show", session=session)

    def watch(self, own: Program, other: Program, session: str, number: int) -> None:
        """Stream in one, and see it in the other, live."""
        answer = own.do("ask", text=f"question {number}", session=session)
        if self._refused(answer):
            return
        known = self.expected.setdefault(answer, {"title": f"question {number}", "texts": [], "tags": [], "draft": ""})
        own.do("flush")
        other.do("follow", session=answer)
        self._see(other, answer, f"question {number}", -2)
        said = ""
        for word in range(3):
            said += f"word{word} "
            own.do("say", session=answer, text=f"word{word} ")
            self._see(other, answer, said, -1)
        own.do("end", session=answer)
        known["texts"] += [f"question {number}", said]
        own.do("rename", session=answer, title=f"title {number}")
        known["title"] = f"title {number}"
        self._see(other, answer, f"title {number}", None)
        self.figures["answers followed"] += 1

    def _see(self, reader: Program, session: str, wanted: str, place: int | None) -> None:
        begun = time.monotonic()
        while True:
            held = reader.do("look", session=session)
            texts = held["texts"]
            if wanted == (held["title"] if place is None else texts[place] if len(texts) >= -place else None):
                break
            assert time.monotonic() < begun + PATIENCE, f"{wanted!r} never came; there is {held}"
            time.sleep(0.01)
        self.delays.append(time.monotonic() - begun)

    def _refused(self, answer: object) -> bool:
        refused = isinstance(answer, dict) and "error" in answer
        if refused:
            assert isinstance(answer, dict)
            assert answer["error"] == LOCKED, answer
        self.figures["refused, as the other one writes it" if refused else "done"] += 1
        return refused

    def check(self) -> None:
        """Compare the disk with what the two were given."""
        store = SessionStore(self.home / "data" / "sessions")
        there: dict[str, Session] = {path.stem: decode_session(path.read_bytes()) for path in store.root.glob("*.json")}
        for session_id, known in self.expected.items():
            session = there[session_id]
            assert [message.text for message in session.branch()] == known["texts"]
            assert len(session.messages) == len(known["texts"])
            assert (session.title, session.tags, session.draft) == (known["title"], known["tags"], known["draft"])
            self.figures["messages checked"] += len(known["texts"])
        assert {path.suffix for path in store.root.iterdir()} == {".json"}
        assert not list(self.home.rglob("*.tmp"))


@pytest.mark.timeout(60 + 3 * OPERATIONS)
def test_interleaved_operations_of_two_processes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Program(home) as first, Program(home) as second:
        two = Two(home, (first, second), Random(SEED))
        for number in range(OPERATIONS):
            two.step(number)
        told = [code for program in (first, second) for code in program.do("told")]
        assert first.do("close") == second.do("close") == []
    two.check()
    delays = sorted(two.delays)
    print("\n" + "\n".join(f"{name}: {count:,}" for name, count in sorted(two.figures.items())))
    print(f"sessions: {len(two.expected)}; told: {dict(Counter(told))}")
    print(f"seen after: median {statistics.median(delays):.2f} s, longest {delays[-1]:.2f} s of {len(delays)}")
    assert set(told) <= {"merged"}
    assert two.figures["answers followed"] > 0
    if OPERATIONS >= ENOUGH:
        assert delays[len(delays) * 9 // 10] < WITHIN


@pytest.mark.timeout(60 + 3 * OPERATIONS)
def test_programs_that_are_killed_while_another_works(tmp_path: Path) -> None:
    """What was on the disk stays when its holder dies in the middle of an answer, and the other goes on at once."""
    home = tmp_path / "home"
    programs = [Program(home), Program(home)]
    two = Two(home, (programs[0], programs[1]), Random(SEED + 1))
    try:
        for number in range(OPERATIONS):
            two.step(number)
            for program in programs:
                program.do("flush")
            if two.random.random() < 0.2:
                victim = two.random.randrange(2)
                session = programs[victim].do("ask", text=f"cut off {number}")
                programs[victim].do("say", session=session, text="said and ")
                programs[victim].do("flush")
                programs[victim].end()
                programs[victim] = Program(home)
                two.programs = (programs[0], programs[1])
                two.figures["killed"] += 1
                found = programs[1 - victim].do("open", session=session)
                assert found["texts"][0] == f"cut off {number}"
                assert found["finishes"][1:] == ["interrupted"]
                assert found["read_only"] is None
        for program in programs:
            assert program.do("close") == []
    finally:
        for program in programs:
            program.end()
    two.check()
    print("\n" + "\n".join(f"{name}: {count:,}" for name, count in sorted(two.figures.items())))
    assert two.figures["killed"] > 0


def test_a_reader_takes_over_with_the_last_words_when_the_writer_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Program(home) as reader:
        with Program(home) as writer:
            session = writer.do("ask", text="why")
            writer.do("flush")
            assert reader.do("follow", session=session)["read_only"] == LOCKED
            assert reader.do("ask", text="not from here", session=session)["error"] == LOCKED
            writer.do("say", session=session, text="because of")
            end = time.monotonic() + PATIENCE
            while reader.do("look", session=session)["texts"][-1:] != ["because of"]:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert reader.do("look", session=session)["finishes"][-1] is None
        while reader.do("look", session=session)["read_only"] is not None:
            assert time.monotonic() < end
            time.sleep(0.01)
        held = reader.do("look", session=session)
        assert (held["texts"], held["finishes"]) == (["why", "because of"], [None, "interrupted"])
        reader.do("ask", text="and now", session=session)
        assert reader.do("close") == []


def test_a_lock_file_that_somebody_deletes_costs_nothing(tmp_path: Path) -> None:
    """Two programs then believe that they may write: what both wrote is merged."""
    home = tmp_path / "home"
    with Program(home) as first, Program(home) as second:
        session = first.do("ask", text="first question")
        first.do("say", session=session, text="first answer")
        first.do("end", session=session)
        first.do("flush")
        store = SessionStore(home / "data" / "sessions")
        (store.root / f"{session}.lock").unlink()
        assert second.do("open", session=session)["read_only"] is None
        second.do("draft", session=session, text="of the second")
        second.do("rename", session=session, title="By the second")
        second.do("flush")
        first.do("tag", session=session, tag="by-the-first")
        first.do("flush")
        assert first.do("unsaved") == [LOCKED], "it has lost its lock, and keeps what it has"
        assert second.do("close") == []
        end = time.monotonic() + PATIENCE
        while first.do("unsaved"):
            assert time.monotonic() < end
            time.sleep(0.01)
        held = first.do("open", session=session)
        assert (held["title"], held["tags"], held["draft"]) == ("By the second", ["by-the-first"], "of the second")
        assert first.do("close") == []
        assert decode_session(store.path(session).read_bytes()).tags == ["by-the-first"]
