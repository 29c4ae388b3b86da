"""Lines that become questions."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from quantchat.cli.lines import TERMINAL_LINE, GivenQuestions, Questions, StreamLines, TypedQuestions
from quantchat.cli.outlet import Filter
from quantchat.cli.signals import Interrupted
from quantchat.errors import UsageError


def asked(questions: Questions) -> list[str]:
    return list(iter(questions.next, None))


def piped(data: bytes) -> StreamLines:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    return StreamLines(read)


def typed(data: bytes) -> list[str]:
    return asked(TypedQuestions(piped(data)))


@pytest.mark.parametrize(
    ("data", "questions"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo", ["one", "two"]),
        (b"\n \n\t\none\n\n", ["one"]),
        (b"  kept as it is  \n", ["  kept as it is  "]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        ("日本語 🙂\n".encode(), ["日本語 🙂"]),
        (b"one \\\ntwo\\\n\\\nthree\nfour\n", ["one \ntwo\n\nthree", "four"]),
        (b"a \\\\\nb\n", ["a \\\\", "b"]),
        (b"a \\\\\\\nb\n", ["a \\\\\nb"]),
        (b"cut \\\n", ["cut "]),
        (b'"""\none\n\nexit\ntwo\n"""\nthree\n', ["one\n\nexit\ntwo", "three"]),
        (b'"""one\ntwo"""\n', ["one\ntwo"]),
        (b'  """one"""  \n', ["one"]),
        (b'"""\nno end\nexit', ["no end\nexit"]),
        (b'""""""\n"""\n"""\none\n', ["one"]),
        (b"one\nexit\ntwo\n", ["one"]),
        (b"one\n  QUIT \ntwo\n", ["one"]),
        (b"one\nBye\ntwo\n", ["one"]),
        (b"one\n/exit\ntwo\n", ["one"]),
        (b"exit now\nquit?\n", ["exit now", "quit?"]),
        (b"es\x1b[31mcape\x00\n", ["es[31mcape"]),
    ],
)
def test_lines_of_a_pipe(data: bytes, questions: list[str]) -> None:
    assert typed(data) == questions


def test_a_question_of_a_megabyte() -> None:
    read, write = os.pipe()
    with open(write, "wb", buffering=0) as end, ThreadPoolExecutor() as pool:
        pool.submit(end.write, b"x" * (1 << 20) + b"\nlast\n")
        check_long(read)


def check_long(read: int) -> None:
    questions = TypedQuestions(StreamLines(read))
    assert len(questions.next() or "") == 1 << 20
    assert questions.next() == "last"


def test_what_is_no_text_is_named_by_its_place() -> None:
    questions = TypedQuestions(piped(b"one\nab\xff\n"))
    assert questions.next() == "one"
    with pytest.raises(UsageError, match="byte 3 of line 2"):
        questions.next()


def test_given_questions_are_taken_as_they_are() -> None:
    given = GivenQuestions(["exit", '"""', "-", "a\\"], lambda: "all of it\nto its end")
    assert asked(given) == ["exit", '"""', "all of it\nto its end", "a\\"]


def test_an_empty_question_is_not_passed_over_in_silence() -> None:
    """`-p -` behind a command that gave nothing ended well and said nothing."""
    given = GivenQuestions(["-", "then"], lambda: " \n")
    with pytest.raises(UsageError, match="nothing to ask: standard input is empty"):
        given.next()


@pytest.fixture
def terminal() -> Iterator[tuple[int, StreamLines]]:
    """The far end of a terminal without line editing, and the lines that it passes on."""
    far, near = os.openpty()
    flags = termios.tcgetattr(near)
    flags[3] &= ~termios.ECHO
    termios.tcsetattr(near, termios.TCSANOW, flags)
    yield far, StreamLines(near)
    os.close(far)
    os.close(near)


LONG = b"x" * (TERMINAL_LINE + 100)


@pytest.mark.parametrize(
    "lost",
    [
        LONG + b"\n",
        b"begun \\\n" + LONG + b"\n",
        b'"""\none\n' + LONG + b'\ntwo\n"""\n',
        b'"""' + LONG + b"\n" + LONG + b'\nexit\nthree"""\n',
    ],
)
def test_a_line_that_the_terminal_cut_is_told_and_nothing_of_its_question_is_asked(
    terminal: tuple[int, StreamLines], lost: bytes
) -> None:
    """The rest of a block was asked line by line."""
    far, lines = terminal
    for line in lost.splitlines(keepends=True):
        os.write(far, line)
    questions = TypedQuestions(lines)
    with pytest.raises(UsageError, match=r"cut that line: .* 4,095 bytes"):
        questions.next()
    os.write(far, b"then\n")
    assert questions.next() == "then"


def test_a_signal_ends_the_dropping_of_a_block(
    terminal: tuple[int, StreamLines], monkeypatch: pytest.MonkeyPatch
) -> None:
    far, lines = terminal
    os.write(far, b'"""' + LONG + b"\n")
    questions = TypedQuestions(lines)
    with pytest.raises(UsageError):
        questions.next()
    with monkeypatch.context() as interrupted:
        interrupted.setattr(lines, "line", Mock(side_effect=Interrupted(signal.SIGINT)))
        with pytest.raises(Interrupted):
            questions.next()
    os.write(far, b"then\n")
    assert questions.next() == "then"


def streamed(pieces: Iterable[str], *, shown: bool) -> str:
    stream = Filter(shown=shown)
    return "".join([*(stream.feed(piece) for piece in pieces), stream.flush()])


def test_a_pipe_gets_text_without_control_codes_and_all_else_as_it_is() -> None:
    pieces = ["a\tb\r", "\nc\r", "d\x1b[2J\x07", "e\u200bf\ufe0f", "\x9b31m", "\r"]
    assert streamed(pieces, shown=False) == "a\tb\nc\nd[2Je\u200bf\ufe0f31m\n"


def test_a_terminal_gets_what_the_screen_would_show() -> None:
    assert streamed(["a\r", "\nd\x1b[2J\u202e", "e\u200bf"], shown=True) == "a\nd[2Jef"
