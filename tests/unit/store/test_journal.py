from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantchat.domain.chat import Message, RunCard, utc_now
from quantchat.domain.generation import TurnStatistics
from quantchat.store import journal as module
from quantchat.store.journal import Journal, replay

Until = Callable[[Callable[[], object]], None]
CHILD = Path(__file__).with_name("child_journal.py")


def answer(**more: Any) -> Message:
    values = {"id": "a1", "role": "assistant", "text": "", "created": utc_now(), "parent": "u1"} | more
    return Message(**values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions" / "one.journal"


def text_on_disk(path: Path) -> str:
    return "".join(message.text for message in replay(path)) if path.exists() else ""


def test_holds_the_answer_and_how_it_ended(path: Path) -> None:
    message = answer(run=RunCard(model="smol", kernel="marlin"))
    statistics = TurnStatistics(new_tokens=3, decode_seconds=0.5)
    journal = Journal(path, message)
    for piece in ("Columns ", "are\nsorted", " 列 \ud83d."):
        journal.append(piece)
    journal.close("stop", statistics)
    (back,) = replay(path)
    message.text, message.finish, message.statistics = "Columns are\nsorted 列 ?.", "stop", statistics
    assert back == message
    assert path.stat().st_mode & 0o777 == 0o600
    journal.remove()
    assert not path.exists()


def test_the_first_text_is_written_at_once(path: Path, until: Until) -> None:
    journal = Journal(path, answer(), interval=3600)
    journal.append("first")
    until(lambda: text_on_disk(path) == "first")
    journal.append(" second")
    journal.append(" third")
    journal.close()
    assert text_on_disk(path) == "first second third"


def test_writes_again_within_the_interval(path: Path, until: Until) -> None:
    journal = Journal(path, answer(), interval=0.02)
    for number in range(3):
        journal.append(str(number))
        until(lambda number=number: text_on_disk(path).endswith(str(number)))
    journal.close()


def test_an_answer_that_is_continued_keeps_its_beginning(path: Path) -> None:
    journal = Journal(path, answer(text="Once ", thinking="A ", finish="length"))
    journal.append("tale?", "thinking")
    journal.append("more")
    journal.close()
    (back,) = replay(path)
    assert (back.text, back.thinking, back.finish) == ("Once more", "A tale?", None)


def test_channels_stay_apart(path: Path) -> None:
    journal = Journal(path, answer(), interval=3600)
    for text, channel in (("<think> is", "answer"), ("It ", "thinking"), ("sorts.", "thinking"), (" a tag", "answer")):
        journal.append(text, channel)  # type: ignore[arg-type]
    journal.close("stop")
    (back,) = replay(path)
    assert (back.text, back.thinking, back.finish) == ("<think> is a tag", "It sorts.", "stop")


def test_a_journal_of_the_first_schema_kept_thinking_in_the_text(path: Path) -> None:
    path.parent.mkdir()
    opened = b'{"message":{"id":"a1","role":"assistant","text":"","created":"2026-01-01T00:00:00Z"}}\n'
    path.write_bytes(opened + b'{"text":"<think>It so"}\n{"text":"rts.</think>By column."}\n')
    (back,) = replay(path)
    assert (back.text, back.thinking) == ("By column.", "It sorts.")


def test_a_slow_disk_does_not_hold_up_the_caller(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, let_go = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        stuck.set()
        assert let_go.wait(20)

    monkeypatch.setattr(module.os, "fsync", slow)
    journal = Journal(path, answer())
    assert stuck.wait(20)
    began = time.perf_counter()
    for _ in range(1000):
        journal.append("x")
    took = time.perf_counter() - began
    let_go.set()
    journal.close()
    assert text_on_disk(path) == "x" * 1000
    assert took < 10, "it waited for the disk"


def test_a_refusing_disk_is_told_and_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch, until: Until) -> None:
    real = os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        real(descriptor, bytes(data)[:10], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "pwrite", half)
        journal = Journal(path, answer(), interval=0.01)
        journal.append("kept in ")
        until(lambda: journal.error is not None)
        assert journal.error is not None
        assert journal.error.report.code == "disk-full"
        journal.append("memory")
    until(lambda: text_on_disk(path) == "kept in memory")
    until(lambda: journal.error is None)
    journal.close()
    assert path.read_bytes().count(b'"message"') == 1


def test_a_full_disk(small_disk: Path, fill_disk: Callable[[Path], Path], until: Until) -> None:
    path = small_disk / "one.journal"
    journal = Journal(path, answer(), interval=0.01)
    journal.append("before ")
    until(lambda: text_on_disk(path) == "before ")
    ballast = fill_disk(small_disk)
    journal.append("during " * 2000)
    until(lambda: journal.error is not None)
    assert text_on_disk(path).startswith("before ")
    ballast.unlink()
    until(lambda: journal.error is None)
    journal.append("after")
    journal.close("stop")
    assert text_on_disk(path) == "before " + "during " * 2000 + "after"


def test_close_with_a_refusing_disk_neither_raises_nor_waits(path: Path) -> None:
    path.parent.parent.joinpath("sessions").write_text("a file, no folder")
    journal = Journal(path, answer(), interval=3600)
    journal.append("text")
    journal.close("stop")
    assert journal.error is not None
    journal.remove()


def test_an_older_answer_in_the_file_stays_in_front(path: Path) -> None:
    first = Journal(path, answer())
    first.append("older")
    first.close()
    with open(path, "ab") as file:
        file.write(b'{"text": "cut o')
    second = Journal(path, answer(id="a2"))
    second.append("newer")
    second.close("stop")
    assert [(m.id, m.text, m.finish) for m in replay(path)] == [("a1", "older", None), ("a2", "newer", "stop")]
    second.remove()
    assert [m.id for m in replay(path)] == ["a1"]


def test_replay_at_every_cut_gives_a_prefix(path: Path) -> None:
    journal = Journal(path, answer())
    journal.append("eins zwei drei vier")
    journal.close("stop")
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert "eins zwei drei vier".startswith(text_on_disk(path))


def test_replay_passes_over_garbage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'\x00\x00\xff\n[]\n{"text": "orphan"}\n{"text": 3}\nnot json\n{"text": " text"}\n{"what": 1}\n')
    (message,) = replay(path)
    assert (message.id, message.role, message.text) == ("one-recovered", "assistant", "orphan text")


def test_sigkill_loses_at_most_the_last_second(path: Path) -> None:
    child = subprocess.Popen([sys.executable, str(CHILD), str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    handed: list[tuple[int, float]] = []
    for line in child.stdout:
        number, moment = line.split()
        handed.append((int(number), float(moment)))
        if handed[-1][1] - handed[0][1] > 1.7:
            break
    killed = handed[-1][1]
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    words = text_on_disk(path).split()
    assert words == [str(number) for number in range(len(words))]
    due = [number for number, moment in handed if moment < killed - 1.0]
    assert len(words) > len(due) > 20


@pytest.mark.parametrize("lines", [1, 37, 113, 240])
def test_sigkill_at_any_moment_keeps_both_channels(path: Path, lines: int) -> None:
    child = subprocess.Popen([sys.executable, str(CHILD), str(path), "both"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    handed = [line.split() for line in itertools.islice(child.stdout, lines)]
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    said, thought = ([], []) if not path.exists() else both_on_disk(path)
    words = len(said) + len(thought)
    assert said == [str(number) for number in range(words) if number % 3]
    assert thought == [str(number) for number in range(words) if number % 3 == 0]
    due = [number for number, moment in handed if float(moment) < float(handed[-1][1]) - 1.0]
    assert words >= len(due)


def both_on_disk(path: Path) -> tuple[list[str], list[str]]:
    answers = replay(path)
    return (
        [word for message in answers for word in message.text.split()],
        [word for message in answers for word in message.thinking.split()],
    )
