from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from quantchat.domain.attachments import Attachment, Draft
from quantchat.errors import StorageError
from quantchat.services.recall import Recall, Walk
from quantchat.store import history
from quantchat.store.history import Entry, PromptHistory

WRITER = """
import sys
from pathlib import Path
from quantchat.store import history
history.MOST_ENTRIES = 40
store = history.PromptHistory(Path(sys.argv[1]))
for number in range(200):
    store.append(history.Entry(f"{sys.argv[2]} {number} " + "x" * 50))
"""


def texts(store: PromptHistory) -> list[str]:
    return [entry.text for entry in store.entries()]


@pytest.fixture
def store(tmp_path: Path) -> PromptHistory:
    return PromptHistory(tmp_path / "state" / "history.jsonl")


def test_prompts_come_back_in_order_and_privately(store: PromptHistory) -> None:
    for text in ("one", "two\nlines", "drei ❤\ufe0f \ud800"):
        store.append(Entry(text))
    assert texts(store) == ["one", "two\nlines", "drei ❤\ufe0f ?"]
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


def test_equal_neighbours_are_one(store: PromptHistory) -> None:
    for text in ("one", "one", "two", "one"):
        store.append(Entry(text))
    assert texts(store) == ["one", "two", "one"]


def test_broken_lines_are_passed_over(store: PromptHistory) -> None:
    store.append(Entry("one"))
    with open(store.path, "ab") as file:
        deep = b"[" * 100_000 + b"]" * 100_000
        file.write(b'{"text": 3}\n\xff\xfe\n\n[]\n{"text": "", "more": ' + deep + b'}\n{"text": "torn')
    store.append(Entry("two"))
    assert texts(store) == ["one", "two"]


def test_the_file_stays_bounded(store: PromptHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_ENTRIES", 10)
    for number in range(100):
        store.append(Entry(str(number)))
    assert texts(store) == [str(number) for number in range(90, 100)]
    assert len(store.path.read_bytes().splitlines()) <= 13


def test_the_file_stays_small(store: PromptHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_BYTES", 2000)
    for number in range(100):
        store.append(Entry(f"{number} " + "x" * 100))
    assert store.path.stat().st_size <= 2000 * history.SLACK + 150
    assert texts(store)[-1].startswith("99 ")


def test_a_prompt_that_is_larger_than_the_file_may_be_costs_no_other(
    store: PromptHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_BYTES", 2000)
    for text in ("one", "two", "x" * 3000, "three"):
        store.append(Entry(text))
    assert texts(store) == ["one", "two", "three"]


def test_two_writers_at_once_lose_nothing_new(store: PromptHistory) -> None:
    command = [sys.executable, "-c", WRITER, str(store.path)]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = texts(store)
    for name in ("a", "b"):
        own = [int(text.split()[1]) for text in found if text.startswith(name)]
        assert own == sorted(own)
    assert {found[-1].split()[1]} == {"199"}
    assert len(found) >= 40


def test_a_lock_that_is_never_given_back_does_not_stop_us(
    store: PromptHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LOCK_SECONDS", 0.02)
    with store_lock(store):
        store.append(Entry("one"))
    assert texts(store) == ["one"]


def store_lock(store: PromptHistory) -> object:
    store.path.parent.mkdir(parents=True, exist_ok=True)
    return PromptHistory(store.path)._locked()


def test_a_disk_that_refuses_is_named_and_the_run_remembers(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    store = PromptHistory(blocked / "history.jsonl")
    with pytest.raises(StorageError):
        store.append(Entry("one"))
    recall = Recall(store)
    recall.add(Draft("one"))
    recall.flush()
    assert [entry.text for entry in recall.entries()] == ["one"]


def test_attachments_are_kept_compactly(store: PromptHistory) -> None:
    paste = Attachment(number=1, text="line of a log\t❤\ufe0f\n" * 5000)
    draft = Draft(f"Why? {paste.token}", (paste,))
    store.append(Entry.of(draft))
    assert store.path.stat().st_size < len(paste.text) / 10
    assert store.entries()[0].draft() == draft


def test_an_attachment_that_is_too_large_leaves_words(store: PromptHistory) -> None:
    paste = Attachment(number=1, text=os.urandom(200_000).hex())
    kept = Entry.of(Draft(f"Why? {paste.token}", (paste,))).draft()
    assert kept.attachments == ()
    assert kept.text == "Why? (paste 1: 400000 characters: too large for the history)"


def test_recall_sees_other_programs_and_its_own_run_at_once(store: PromptHistory) -> None:
    recall = Recall(store)
    recall.add(Draft("mine"))
    recall.add(Draft("mine"))
    recall.flush()
    PromptHistory(store.path).append(Entry("theirs"))
    assert [entry.text for entry in recall.entries()] == ["theirs", "mine"]


def test_a_prompt_that_is_being_written_is_recalled_once(store: PromptHistory) -> None:
    written, read = threading.Event(), threading.Event()

    class Slow(PromptHistory):
        def append(self, entry: Entry) -> None:
            super().append(entry)
            written.set()
            read.wait()

    recall = Recall(Slow(store.path))
    recall.add(Draft("once"))
    written.wait()
    entries = recall.entries()
    read.set()
    recall.flush()
    assert [entry.text for entry in entries] == [entry.text for entry in recall.entries()] == ["once"]


def test_a_walk_goes_back_and_forth() -> None:
    walk = Walk([Entry("new"), Entry("old")])
    steps = [walk.older(), walk.older(), walk.older(), walk.newer(), walk.newer(), walk.newer()]
    assert [step and step.text for step in steps] == ["new", "old", None, "new", "", ""]
