"""What must hold after a kill, told from the log of the killed process and the files that it left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session
from quantchat.store.sessions import SessionStore
from unit.safety.program import put_in_order

LAST_SECOND = 1.0
Event = dict[str, Any]
BEGINNINGS = {
    "asks": "answered",
    "renames": "renamed",
    "drafts": "drafted",
    "imports": "imported",
    "upgrades": "upgraded",
    "deletes": "deleted",
    "begins": "recovered",
}


def events_of(log: Path) -> list[Event]:
    """Read a log; its last line may be missing, but none is half there."""
    return [json.loads(line) for line in log.read_bytes().splitlines()] if log.exists() else []


class Aftermath:
    """A home after its program was killed, and after the next start has put it in order.

    Attributes:
        figures: What was looked at, and how often.
    """

    def __init__(self, home: Path, log: Path, killed: float, figures: Counter[str]) -> None:
        self.home, self.killed, self.figures = home, killed, figures
        self.events = events_of(log)
        self.store = SessionStore(home / "data" / "sessions")
        self.figures["journals left"] += len(list(self.store.root.glob("*.journal")))
        self.figures["temporary files left"] += len(list(home.rglob("*.tmp")))
        self.figures["locks left"] += len(list(self.store.root.glob("*.lock")))
        self.store, recovered = put_in_order(home)
        self.figures["answers recovered"] += recovered
        self.problems = self.store.take_problems()
        self.sessions = self._read()

    def _read(self) -> dict[str, Session]:
        return {path.stem: decode_session(path.read_bytes()) for path in self.store.root.glob("*.json")}

    def check(self) -> None:
        """Check everything."""
        assert self.problems == []
        assert not self.store.quarantine.exists()
        self._check_leftovers()
        gone = {event["session"] for event in self._of("deletes")}
        self.figures["sessions read"] += len(self.sessions)
        self._check_words(gone)
        self._check_questions(gone)
        self._check_last("renames", "renamed", "title", gone)
        self._check_last("drafts", "drafted", "draft", gone)
        self._check_imports()
        for event in [*self._of("upgraded"), *self._of("laid")]:
            self.figures["upgrades"] += event["what"] == "upgraded"
            assert event["session"] in self.sessions or event["session"] in gone
        for event in self._of("upgraded"):
            if event["session"] in self.sessions:
                assert len(self.sessions[event["session"]].messages) >= 7
        for event in self._of("deleted"):
            assert event["session"] not in self.sessions
            assert any(path.name.startswith(event["session"]) for path in self.store.trash.iterdir())

    def under_way(self) -> list[str]:
        """What had begun and was not at its end when the kill came."""
        open_ones: Counter[str] = Counter()
        ends = {end: begin for begin, end in BEGINNINGS.items()}
        for event in self.events:
            what = event["what"]
            if what in BEGINNINGS:
                open_ones[what] += 1
            elif what in ends:
                open_ones[ends[what]] = 0 if what == "drafted" else open_ones[ends[what]] - 1
        return [what for what, count in open_ones.items() if count > 0]

    def _of(self, what: str) -> list[Event]:
        return [event for event in self.events if event["what"] == what]

    def _check_leftovers(self) -> None:
        names = {path.name for path in self.store.root.iterdir()}
        assert {name for name in names if not name.endswith(".json")} == set()
        temporary = [str(path) for path in self.home.rglob("*.tmp")]
        assert temporary == [], temporary
        assert not (self.home / "data" / "incoming").exists(), "an import was neither finished nor forgotten"

    def _check_words(self, gone: set[str]) -> None:
        """Each answer is an unbroken run from its first word, and has all that is older than a second."""
        said: dict[tuple[str, str], list[Event]] = {}
        for event in self._of("said"):
            said.setdefault((event["session"], event["message"]), []).append(event)
        ended = {event["message"] for event in self._of("answered")}
        for (session, message), words in said.items():
            if session in gone:
                continue
            due = [w["number"] for w in words if message in ended or w["at"] < self.killed - LAST_SECOND]
            answer = self.sessions[session].messages.get(message) if session in self.sessions else None
            assert answer is not None or not due, f"{len(due)} words of {message} are missing"
            if answer is not None:
                self._check_run(answer.thinking, answer.text, due)
                assert answer.finish == ("stop" if message in ended else answer.finish)
                assert answer.finish is not None
            self.figures["words due"] += len(due)
            self.figures["words said"] += len(words)

    @staticmethod
    def _check_run(thinking: str, text: str, due: list[int]) -> None:
        thought, spoken = [int(word) for word in thinking.split()], [int(word) for word in text.split()]
        there = sorted([*thought, *spoken])
        assert there == list(range(len(there)))
        assert all(number % 5 == 0 for number in thought)
        assert len(there) > (due[-1] if due else -1)

    def _check_questions(self, gone: set[str]) -> None:
        for event in self._of("asks"):
            words = [w for w in self._of("said") if w["session"] == event["session"] and w["at"] > event["at"]]
            # It is the save of the question that must have had its second.
            if event["session"] in gone or event["at"] > self.killed - LAST_SECOND or not words:
                continue
            session = self.sessions[event["session"]]
            asked = [message.text for message in session.messages.values()]
            assert event["question"] in [*asked, *session.queued] or event["question"] in session.draft
            self.figures["questions due"] += 1

    def _check_last(self, begin: str, end: str, name: str, gone: set[str]) -> None:
        """What was written for good is there, unless something newer was under way or there."""
        for session_id in {event["session"] for event in self._of(end)} - gone:
            events = [e for e in self.events if e["what"] in (begin, end) and e.get("session") == session_id]
            last = max(number for number, event in enumerate(events) if event["what"] == end)
            # Several workers write one session: what began before the last end, and was not at its own, may be later.
            fitting = {event[name] for event in events[max(0, last - 6) :]}
            value = str(getattr(self.sessions[session_id], name))[:40]
            assert value in fitting or any(part in value for part in fitting)
            self.figures[f"{name}s due"] += 1

    def _check_imports(self) -> None:
        """All sessions of a file came in, or none."""
        texts = Counter(
            message.text.rsplit(" ", 1)[0]
            for session in self.sessions.values()
            for message in session.messages.values()
            if message.text.startswith("import-")
        )
        done = {event["name"] for event in self._of("imported")}
        removed = sum(1 for _ in self._of("deletes"))
        for event in self._of("imports"):
            there = texts[event["name"]]
            if removed:
                assert there <= event["count"]
            elif event["name"] in done:
                assert there == event["count"]
            else:
                assert there in (0, event["count"])
            self.figures["imports"] += 1
