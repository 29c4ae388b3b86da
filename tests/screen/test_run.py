"""`quantchat run` in a pseudo-terminal: typing, editing, stopping, leaving, and what a person sees of it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from client_rig import SCRIPTED_ENGINE
from disks import mounted
from processes import children
from terminal import Terminal
from unit.run.conftest import RunShell

READY = ">>> "
TERMS = ["xterm-256color", "dumb"]


class Line:
    """A terminal with `quantchat run alpha -io h.json` in it."""

    def __init__(self, shell: RunShell) -> None:
        self.shell = shell
        self.file = shell.folder / "h.json"
        self.terminals: list[Terminal] = []

    @property
    def terminal(self) -> Terminal:
        return self.terminals[-1]

    def start(self, *arguments: str, around: str = "", **env: str) -> Terminal:
        """Start it, or a line for the shell with it in the place of `{}`."""
        command = self.shell.command("-io", str(self.file), *arguments)
        if around:
            command = ["sh", "-c", around.format(shlex.join(command))]
        self.terminals.append(Terminal(command, env=self.shell.environment | env))
        return self.terminal

    def ready(self, term: str = "xterm-256color") -> Terminal:
        self.start(TERM=term)
        return self.asks()

    def asks(self) -> Terminal:
        """Wait for the prompt of an empty line."""
        self.terminal.wait_for(lambda text: text.rstrip("\n").endswith(READY.rstrip()))
        return self.terminal

    def ask(self, text: str) -> None:
        self.terminal.type(text + "\r")

    def talk(self, text: str) -> None:
        """Ask, and wait for the whole answer and the next prompt."""
        self.ask(text)
        self.terminal.wait_for(f"You said: {text}\n")
        self.asks()

    def leave(self, how: str = "\x04") -> None:
        """Leave as all is well: what was said is saved, and the terminal as it was."""
        self.terminal.type(how)
        assert self.terminal.wait_exit() == 0
        assert f"Saved to {self.file}" in self.terminal.screen_text.replace("\n", "")
        assert self.echoes()

    @property
    def said(self) -> list[str]:
        return [row["content"] for row in json.loads(self.file.read_bytes())]

    @property
    def engine(self) -> psutil.Process:
        return children(str(SCRIPTED_ENGINE), self.terminal.pid)[0]

    def streams(self) -> None:
        """Ask for a long answer, and wait until there is something of it."""
        self.ask("slow")
        self.terminal.wait_for("word word word")

    def stop(self) -> None:
        """Stop an answer."""
        before = self.terminal.screen_text.count("Stopped.")
        self.terminal.press("ctrl+c")
        self.terminal.wait_for(lambda text: text.count("Stopped.") > before)
        self.asks()

    def assert_cut(self) -> None:
        """The long answer is kept as far as it came."""
        assert self.said[0] == "slow"
        assert 2 < len(self.said[1].split()) < 1000

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, line by line, as it does for shells."""
        flags = termios.tcgetattr(self.terminal._fd)[3]
        return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(RunShell(tmp_path))
    yield made
    for terminal in made.terminals:
        terminal.close()


@pytest.mark.parametrize(("term", "leave"), [("xterm-256color", "exit\r"), ("dumb", " Bye\r")])
def test_a_talk_and_the_words_that_leave_it(line: Line, term: str, leave: str) -> None:
    terminal = line.ready(term)
    assert "alpha-GPTQ · gptq_torch_aten · cpu" in terminal.screen_text
    line.talk("hello")
    line.leave(leave)
    assert line.said == ["hello", "You said: hello"]


def test_a_dumb_terminal_gets_no_escapes_and_no_tricks(line: Line) -> None:
    terminal = line.ready("dumb")
    line.ask("hostile")
    terminal.wait_for("\nc\n")
    line.asks()
    line.ask("pondered")
    terminal.wait_for("The answer.")
    line.asks()
    line.leave()
    # The terminal's own echo of Ctrl+D rubs itself out again.
    shown = bytes(terminal.raw).replace(b"^D\b\b", b"")
    assert not set(shown) & (set(range(32)) - {10, 13})
    assert b"Loading alpha-GPTQ: reading weights\r\n" in shown
    assert b"a[31mred]0;title    b\r\nc" in shown


def test_a_terminal_shows_how_far_the_load_is_in_one_line(line: Line) -> None:
    line.shell.script(load={"seconds": 0.2})
    terminal = line.ready()
    assert b"\rLoading alpha-GPTQ: reading weights" in terminal.raw
    assert "Loading" not in terminal.screen_text


@pytest.mark.parametrize("term", TERMS)
def test_ctrl_c_stops_the_answer_and_keeps_it_and_a_second_one_leaves(line: Line, term: str) -> None:
    terminal = line.ready(term)
    line.streams()
    line.stop()
    line.assert_cut()
    line.talk("then")
    # A question came between: this one stops again, and does not leave.
    line.ask("slow")
    terminal.wait_for(lambda text: "word word" in text.rpartition("You said: then")[2])
    line.stop()
    terminal.press("ctrl+c")
    assert terminal.wait_exit() == 130
    assert line.said[2:5] == ["then", "You said: then", "slow"]
    assert 1 < len(line.said[5].split()) < 1000
    assert line.echoes()


def test_a_second_ctrl_c_waits_for_no_engine(line: Line) -> None:
    terminal = line.ready()
    line.streams()
    engine = line.engine
    engine.suspend()
    terminal.wait_until(lambda: engine.status() == psutil.STATUS_STOPPED)
    # Signals do not queue: the second one is pressed until it is the second.
    terminal.press("ctrl+c")
    terminal.wait_for("^C")
    terminal.press("ctrl+c")
    terminal.wait_until(lambda: terminal.poll() is not None or terminal.press("ctrl+c"))
    assert terminal.wait_exit() == 130
    line.assert_cut()
    assert not engine.is_running()


def test_ctrl_c_clears_what_is_typed_and_twice_on_an_empty_line_leaves(line: Line) -> None:
    terminal = line.ready()
    terminal.press("ctrl+c")
    terminal.wait_for("Ctrl+C again")
    line.asks()
    terminal.type("never asked")
    terminal.wait_for(">>> never asked")
    terminal.press("ctrl+c")
    line.asks()
    assert terminal.screen_text.count("Ctrl+C again") == 1
    line.talk("asked")
    terminal.press("ctrl+c")
    terminal.wait_for(lambda text: text.count("Ctrl+C again, or Ctrl+D, leaves.") == 2)
    line.asks()
    terminal.press("ctrl+c")
    assert terminal.wait_exit() == 130
    assert line.said == ["asked", "You said: asked"]


def test_lines_can_be_edited_and_recalled_also_the_next_time(line: Line) -> None:
    terminal = line.ready()
    terminal.type("helo")
    terminal.press("left")
    line.ask("l")
    terminal.wait_for("You said: hello")
    line.asks()
    terminal.press("up")
    terminal.wait_for(lambda text: text.splitlines()[-1].endswith(">>> hello") or ">>> hello\n\n" in text)
    terminal.type(" again\r")
    terminal.wait_for("You said: hello again")
    line.asks()
    line.leave()
    line.ready()
    line.terminal.press("up", "up")
    line.ask("!")
    line.terminal.wait_for("You said: hello!")
    line.asks()
    line.leave()
    assert line.said[::2] == ["hello", "hello again", "hello!"]


@pytest.mark.parametrize("term", TERMS)
def test_questions_of_several_lines(line: Line, term: str) -> None:
    terminal = line.ready(term)
    for text in ('"""', "one", "exit", '"""'):
        line.ask(text)
    terminal.wait_for("You said: one\nexit\n")
    line.asks()
    line.ask("two\\")
    terminal.wait_for("\n... ")
    line.ask("three")
    terminal.wait_for("You said: two\nthree\n")
    line.asks()
    line.ask('"""four')
    terminal.wait_for(lambda text: text.rstrip("\n").endswith("..."))
    terminal.type("\x04")
    terminal.wait_for("You said: four\n")
    line.asks()
    line.leave()
    assert line.said[::2] == ["one\nexit", "two\nthree", "four"]


def test_a_paste_of_several_lines_is_one_question(line: Line) -> None:
    terminal = line.ready()
    terminal.paste("one\ntwo")
    terminal.wait_for("two")
    terminal.press("enter")
    terminal.wait_for("You said: one\ntwo\n")
    line.asks()
    line.leave()
    assert line.said[0] == "one\ntwo"


@pytest.mark.parametrize(("term", "number"), [("xterm-256color", signal.SIGTERM), ("dumb", signal.SIGHUP)])
def test_a_signal_at_the_prompt_leaves_the_terminal_as_it_was(line: Line, term: str, number: signal.Signals) -> None:
    terminal = line.ready(term)
    line.talk("one")
    terminal.kill(number)
    assert terminal.wait_exit() == 128 + number
    assert line.said == ["one", "You said: one"]
    assert line.echoes()


def test_a_terminal_that_is_gone_costs_no_word(line: Line) -> None:
    terminal = line.ready()
    line.streams()
    engine = line.engine
    terminal.hang_up()
    wait_gone(terminal)
    assert terminal.status == 129
    line.assert_cut()
    assert not engine.is_running()


def wait_gone(terminal: Terminal) -> None:
    """Without a terminal there is nothing to read while it ends."""
    _, status = os.waitpid(terminal.pid, 0)
    terminal.status = os.waitstatus_to_exitcode(status)


def test_answers_go_down_a_pipe_and_questions_are_still_asked(line: Line) -> None:
    terminal = line.start(around="{} | cat >" + str(line.shell.folder / "out"))
    line.asks()
    line.ask("hostile")
    terminal.wait_until(lambda: terminal.raw.count(READY.encode()) == 2)
    line.ask("exit")
    assert terminal.wait_exit() == 0
    assert (line.shell.folder / "out").read_text() == "a[31mred]0;title\tb\nc\n"


def test_questions_of_a_pipe_are_answered_on_the_terminal(line: Line) -> None:
    terminal = line.start(around="printf 'hostile\\n' | {}")
    assert terminal.wait_exit() == 0
    assert terminal.screen_text.strip() == "a[31mred]0;title    b\nc"


def test_ctrl_c_ends_a_question_of_the_command_line(line: Line) -> None:
    terminal = line.start("-p", "slow")
    terminal.wait_for("word word word")
    terminal.press("ctrl+c")
    assert terminal.wait_exit() == 130
    line.assert_cut()


def test_bytes_that_are_no_text_cost_one_character(line: Line) -> None:
    line.start(TERM="xterm-256color", PYTHONIOENCODING="utf-8:strict")
    terminal = line.asks()
    os.write(terminal._fd, b"a\xffb\r")
    terminal.wait_for("You said: a\N{REPLACEMENT CHARACTER}b")


def test_what_fails_ends_no_talk(line: Line) -> None:
    terminal = line.ready()
    line.ask("refused")
    terminal.wait_for("quantchat: Refused.")
    line.asks()
    line.ask("crash")
    terminal.wait_for("The engine stopped (exit code 70)")
    line.asks()
    line.talk("still there?")
    line.leave()
    assert line.said == ["crash", "one two", "still there?", "You said: still there?"]


def test_a_full_disk_is_told_of_and_tried_again(line: Line, fill_disk: Callable[[Path], Path]) -> None:
    with mounted(line.shell.folder / "disk", "size=64k"):
        line.file = line.shell.folder / "disk" / "h.json"
        terminal = line.ready()
        ballast = fill_disk(line.file.parent)
        line.ask("one")
        terminal.wait_for("You said: one")
        terminal.wait_for("The disk is full")
        line.asks()
        ballast.unlink()
        line.talk("two")
        line.leave()
        assert line.said == ["one", "You said: one", "two", "You said: two"]
