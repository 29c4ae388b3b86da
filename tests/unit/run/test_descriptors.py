"""`quantchat run` with standard descriptors that are closed, or that another program has set not to wait."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from collections.abc import Callable, Iterator

import pytest

from quantchat.cli.descriptors import write_all
from quantchat.cli.lines import StreamLines
from scripted_shell import PATIENCE
from unit.run.conftest import RunShell
from unit.run.test_pipes import ASSISTANT, exchange


def redirected(shell: RunShell, how: str, *arguments: str) -> tuple[int, str, str]:
    """Run it from a shell that redirects its descriptors."""
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(shell.command(*arguments))} {how}"],
        env=shell.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def assert_kept(shell: RunShell) -> None:
    """The answer ends as soon as nobody takes it; what there was of it by then is in the history."""
    (question, (role, text)) = shell.said()
    assert (question, role) == (exchange("one")[0], ASSISTANT)
    assert text
    assert "You said: one".startswith(text)


def test_answers_that_have_nowhere_to_go_are_kept(shell: RunShell) -> None:
    status, out, err = redirected(shell, ">&-", "-p", "one", "-io", shell.file())
    assert (status, out) == (3, "")
    assert err == "quantchat: The answers cannot be written. Bad file descriptor.\n"
    assert_kept(shell)


def test_closed_input_is_empty(shell: RunShell) -> None:
    assert redirected(shell, "<&-") == (0, "", "")


@pytest.mark.parametrize("how", ["2>&-", "2>&- <&-"])
def test_nobody_need_hear_of_errors(shell: RunShell, how: str) -> None:
    assert redirected(shell, how, "-p", "one", "-v", "-io", shell.file()) == (0, "You said: one\n", "")
    assert shell.said() == exchange("one")


def test_with_everything_closed_the_history_is_still_written(shell: RunShell) -> None:
    assert redirected(shell, ">&- 2>&- <&-", "-p", "one", "-io", shell.file())[0] == 3
    assert_kept(shell)


@pytest.fixture
def impatient() -> Iterator[tuple[int, int]]:
    """A pipe that waits for nobody."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def when_waited_for(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let the other side do something as soon as this one waits for it."""
    wait = select.select
    monkeypatch.setattr(select, "select", lambda *what: (act(), wait(*what))[1])


def test_input_that_does_not_wait_is_waited_for(impatient: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    when_waited_for(monkeypatch, lambda: os.write(impatient[1], b"one\n"))
    assert StreamLines(impatient[0]).line("") == "one"


def test_a_pipe_that_does_not_wait_gets_all_of_an_answer(
    impatient: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[bytes] = []
    when_waited_for(monkeypatch, lambda: came.append(os.read(impatient[0], 1 << 20)))
    write_all(impatient[1], b"word " * 40_000)
    came.append(os.read(impatient[0], 1 << 20))
    assert b"".join(came) == b"word " * 40_000
