"""A real pseudo-terminal with a program in it, and its screen as `pyte` sees it."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyte
from wcwidth import wcwidth

T = TypeVar("T")
LEFT_OUT = ("QUANTCHAT", "PYTEST", "SSH", "TMUX", "COLUMNS", "LINES")
"""A size in the environment, as test runners set it, would win over that of the terminal."""

# Sequences that pyte prints as text instead of ignoring them: kitty keyboard, mode queries, XTVERSION.
_UNKNOWN = re.compile(rb"\x1b\[[<>=?][0-9;]*u|\x1b\[\?[0-9;]*\$p|\x1b\[>[0-9;]*q|\x1b\[>[0-9;]*m")
_QUERY = re.compile(rb"\x1b\[\?(2026|2048)\$p")
_PARTIAL = re.compile(rb"\x1b(\[[<>=?0-9;$]*)?$")

KEYS = {
    "enter": "\r",
    "esc": "\x1b",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "tab": "\t",
    "pageup": "\x1b[5~",
    "f1": "\x1bOP",
    "f2": "\x1bOQ",
    "f3": "\x1bOR",
    "f4": "\x1bOS",
    "ctrl+c": "\x03",
    "ctrl+j": "\n",
    "ctrl+l": "\x0c",
    "ctrl+n": "\x0e",
    "ctrl+o": "\x0f",
    "ctrl+q": "\x11",
    "ctrl+r": "\x12",
    "delete": "\x1b[3~",
    "f5": "\x1b[15~",
    "f6": "\x1b[17~",
    "f7": "\x1b[18~",
    "f8": "\x1b[19~",
    "f9": "\x1b[20~",
    "f10": "\x1b[21~",
    "f12": "\x1b[24~",
    "ctrl+g": "\x07",
    "ctrl+k": "\x0b",
    "ctrl+p": "\x10",
    "ctrl+t": "\x14",
    "ctrl+x": "\x18",
    "alt+c": "\x1bc",
    "alt+r": "\x1br",
    "alt+s": "\x1bs",
    "alt+up": "\x1b[1;3A",
    "alt+down": "\x1b[1;3B",
    "shift+left": "\x1b[1;2D",
    "shift+tab": "\x1b[Z",
    "pagedown": "\x1b[6~",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "left": "\x1b[D",
    "right": "\x1b[C",
    "backspace": "\x7f",
}


class Screen(pyte.Screen):
    """Passes over what has no width, such as joiners and vowel signs; pyte would forget the text behind it."""

    @property
    def display(self) -> list[str]:
        # pyte's own fails on the second half of a wide character whose first half was written over.
        return ["".join(self.buffer[y][x].data for x in range(self.columns)) for y in range(self.lines)]

    def draw(self, data: str) -> None:
        if not data.isascii():
            data = "".join(char for char in data if wcwidth(char) > 0 or unicodedata.combining(char))
        super().draw(data)


class Terminal:
    """Runs a command under a pty of a given size; `screen_text` is what a person would see."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        columns: int = 120,
        lines: int = 40,
        cwd: Path | None = None,
    ) -> None:
        self.screen = Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._unseen = bytearray()
        self.raw = bytearray()
        self.bytes_read = 0
        self.status: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            if cwd is not None:
                os.chdir(cwd)
            os.execvpe(command[0], list(command), dict(env))
        self.resize(columns, lines)
        os.set_blocking(self._fd, False)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)
        if b"\x1b[?2048h" in self.raw:
            # Who asked for reports of the size in the input listens to nothing else.
            self.write(f"\x1b[48;{lines};{columns};{lines * 20};{columns * 10}t".encode())

    def pump(self, seconds: float = 0.05) -> bytes:
        """Read what the program wrote within some time; answers the mode queries as a modern terminal does."""
        data = self.read(seconds)
        self._show()
        return data

    def read(self, seconds: float = 0.05, most: int = 1 << 16) -> bytes:
        """Read at most so much without looking at it; the next `pump` shows it."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return b""
        try:
            data = os.read(self._fd, most)
        except OSError as error:
            if error.errno in (errno.EIO, errno.EAGAIN):
                return b""
            raise
        self.raw += data
        self.bytes_read += len(data)
        for query in _QUERY.finditer(data):
            self.write(b"\x1b[?" + query.group(1) + b";2$y")
        self._unseen += data
        return data

    def read_slowly(self, seconds: float, bytes_per_second: float) -> Iterator[bytes]:
        """Read as a line of that speed delivers, in steps of a few milliseconds."""
        end = due = time.monotonic()
        end += seconds
        while time.monotonic() < end:
            due = max(due, time.monotonic() - 0.01)
            data = self.read(0.002, max(1, round(bytes_per_second * 0.005)))
            due += len(data) / bytes_per_second
            time.sleep(max(0.0, due - time.monotonic()))
            yield data

    def _show(self) -> None:
        data = bytes(self._unseen)
        cut = _PARTIAL.search(data)
        end = cut.start() if cut else len(data)
        self._unseen = bytearray(data[end:])
        self._stream.feed(_UNKNOWN.sub(b"", data[:end]))

    def write(self, data: bytes) -> None:
        os.write(self._fd, data)

    def type(self, text: str) -> None:
        self.write(text.encode())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.write((key if len(key) == 1 else KEYS[key]).encode())

    def paste(self, text: str) -> None:
        """Send a text as terminals send a paste: in brackets, its line ends as carriage returns."""
        self.write(b"\x1b[200~" + text.replace("\n", "\r").encode("utf-8", "surrogatepass") + b"\x1b[201~")

    def wait_until(self, test: Callable[[], T], timeout: float = 30.0) -> T:
        """Read until something beside the screen holds, such as a file; return it."""
        end = time.monotonic() + timeout
        while not (found := test()):
            if time.monotonic() > end:
                raise AssertionError(f"waited in vain; exit {self.poll()}; the screen shows:\n{self.screen_text}")
            self.pump()
        return found

    @property
    def screen_text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, wanted: str | Callable[[str], bool], timeout: float = 30.0) -> str:
        """Read until the screen shows a text, or satisfies a condition; fail with the screen otherwise."""
        test = wanted if callable(wanted) else (lambda text: wanted in text)
        end = time.monotonic() + timeout
        while True:
            text = self.screen_text
            if test(text):
                return text
            if time.monotonic() > end or (self.poll() is not None and not self.pump(0.0)):
                raise AssertionError(f"waited for {wanted!r}; exit {self.status}; the screen shows:\n{text}")
            self.pump()

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait_exit(self, timeout: float = 10.0) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"still running; the screen shows:\n{self.screen_text}")
            self.pump(0.02)
        while self.pump(0.05):
            pass
        assert self.status is not None
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def hang_up(self) -> None:
        """Take the terminal away, as a dropped line does: the program gets SIGHUP and cannot write any more."""
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.status = -signal.SIGKILL
        if self._fd >= 0:
            os.close(self._fd)


def quantchat_command(*arguments: str) -> list[str]:
    """The installed console script of this interpreter."""
    return [str(Path(sys.executable).parent / "quantchat"), *arguments]


def program_env(home: Path, **more: str) -> dict[str, str]:
    """The environment of a fresh user with a modern terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
    return kept | {
        "QUANTCHAT_HOME": str(home),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LANG": "C.UTF-8",
        **more,
    }
