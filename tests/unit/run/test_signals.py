"""Signals to a `quantchat run` on pipes: what was said is saved, the engine is gone, and the status tells."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import termios
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil
import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from scripted_shell import PATIENCE
from unit.run.conftest import RunShell

Process = subprocess.Popen[str]
T = TypeVar("T")


class Running:
    """A run whose standard input stays open."""

    def __init__(self, shell: RunShell, process: Process) -> None:
        self._shell, self.process = shell, process

    def ask(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def reads(self, count: int) -> str:
        """The next characters of its answers."""
        assert self.process.stdout is not None
        return self.process.stdout.read(count)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @property
    def engine(self) -> psutil.Process:
        return self.until(lambda: children(str(SCRIPTED_ENGINE), self.process.pid))[0]

    def until(self, test: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        while not (found := test()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return found

    def ends(self) -> tuple[int, str]:
        """Exit status, and what it said on standard error."""
        _, err = self.process.communicate(timeout=PATIENCE)
        assert "Traceback" not in err
        return self.process.returncode, err


def suspend(run: Running, engine: psutil.Process) -> None:
    engine.suspend()
    run.until(lambda: engine.status() == psutil.STATUS_STOPPED)


def unread(engine: psutil.Process) -> int:
    """How many bytes of commands a suspended engine has before it."""
    count = array("i", [0])
    with open(
        f"/proc/{engine.pid}/fd/0", "rb", opener=lambda path, _: os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ) as pipe:
        fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


@contextmanager
def running(shell: RunShell, *arguments: str) -> Iterator[Running]:
    with shell.start("-io", shell.file(), *arguments) as process:
        try:
            yield Running(shell, process)
        finally:
            process.kill()


def kept(shell: RunShell, question: str = "slow") -> list[str]:
    """The words of a cut answer, which must be there."""
    (role, asked), (_, answer) = shell.said()[-2:]
    assert (role, asked) == ("user", question)
    words = answer.split()
    assert 0 < len(words) < 1000
    assert set(words) == {"word"}
    return words


def test_ctrl_c_stops_the_answer_and_keeps_it(shell: RunShell) -> None:
    with running(shell) as run:
        run.ask("slow")
        run.reads(50)
        run.signal(signal.SIGINT)
        # The next question is read on, and answered to its end.
        run.ask("then")
        status, err = run.ends()
    assert (status, err) == (130, "")
    assert shell.said()[-2:] == [("user", "then"), ("assistant", "You said: then")]
    assert shell.said()[0] == ("user", "slow")
    assert 0 < len(shell.said()[1][1].split()) < 1000


def test_a_second_ctrl_c_leaves_and_still_saves(shell: RunShell) -> None:
    with running(shell) as run:
        run.ask("slow")
        run.reads(50)
        engine = run.engine
        # It hears of no stop any more.
        suspend(run, engine)
        run.signal(signal.SIGINT)
        run.until(lambda: unread(engine))
        run.signal(signal.SIGINT)
        assert run.ends() == (130, "")
    assert len(kept(shell)) >= 10
    assert not engine.is_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_questions_leaves(shell: RunShell, number: signal.Signals) -> None:
    with running(shell) as run:
        run.ask("one")
        run.reads(len("You said: one\n"))
        run.signal(number)
        assert run.ends() == (128 + number, "")
    assert shell.said() == [("user", "one"), ("assistant", "You said: one")]


def test_ctrl_c_stops_a_single_answer_with_its_status(shell: RunShell) -> None:
    with running(shell, "-p", "slow") as run:
        run.reads(50)
        run.signal(signal.SIGINT)
        assert run.ends() == (130, "")
    kept(shell)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_save_what_there_is_at_once(shell: RunShell, number: signal.Signals) -> None:
    with running(shell) as run:
        run.ask("slow")
        run.reads(50)
        engine = run.engine
        suspend(run, engine)
        run.signal(number)
        assert run.ends() == (128 + number, "")
    kept(shell)
    assert not engine.is_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_loads(shell: RunShell, number: signal.Signals) -> None:
    shell.script(load={"seconds": 600})
    with running(shell) as run:
        engine = run.engine
        run.signal(number)
        assert run.ends() == (128 + number, "")
    assert not engine.is_running()
    assert not (shell.folder / "h.json").exists()


def test_a_question_that_was_not_answered_yet_is_kept(shell: RunShell) -> None:
    shell.script(answers=[{"prefill_seconds": 600}])
    with running(shell) as run:
        run.ask("a long one")
        run.until(lambda: [run.engine] if (shell.folder / "h.json").exists() else [])
        run.signal(signal.SIGHUP)
        assert run.ends()[0] == 129
    assert shell.said() == [("user", "a long one")]


def test_nobody_reads_the_answers_any_more(shell: RunShell) -> None:
    """`| head -c 10`"""
    read, write = os.pipe()
    command = shell.command("-p", "slow", "-p", "never", "-io", shell.file())
    with subprocess.Popen(command, env=shell.environment, stdout=write, stderr=subprocess.PIPE, text=True) as process:
        os.close(write)
        assert os.read(read, 10)
        os.close(read)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (141, "")
    kept(shell)


def test_a_reader_that_pauses_delays_no_signal(shell: RunShell) -> None:
    shell.script(answers=[{"match": "slow", "text": "word " * 1000, "fast_tokens": 900, "tokens_per_second": 0.01}])
    read, write = os.pipe()
    # The pipe is full from the start.
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, b"x"):
            pass
    os.set_blocking(write, True)
    command = shell.command("-p", "slow", "-io", shell.file())
    with subprocess.Popen(command, env=shell.environment, stdout=write, stderr=subprocess.PIPE, text=True) as process:
        run = Running(shell, process)
        run.until(lambda: [run.engine] if (shell.folder / "h.json").exists() else [])
        run.until(lambda: [run.engine] if run.engine.num_threads() > 2 else [])
        run.signal(signal.SIGTERM)
        assert run.ends() == (143, "")
    os.close(read)
    os.close(write)
    assert shell.said()[0] == ("user", "slow")


def test_answers_that_cannot_be_written_are_kept(shell: RunShell) -> None:
    with open("/dev/full", "wb") as full:
        command = shell.command("-p", "slow", "-io", shell.file())
        done = subprocess.run(command, env=shell.environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert "The answers cannot be written. No space left on device." in done.stderr
    kept(shell)
