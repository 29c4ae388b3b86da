"""The process of a server: started with a log, watched, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantchat import paths
from quantchat.domain.text import clean
from quantchat.errors import ServeError

GRACE = 10.0
"""Seconds that a server gets to end its workers before all are killed."""
REAP_SECONDS = 5.0
"""What the guard itself may take beyond that."""
APART_SECONDS = 0.05
"""Signals that arrive together count as one."""
LOGS_KEPT = 5
TAIL_BYTES = 128 * 1024
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])")
_LINE_END = re.compile(rb"[\r\n]+")


class Server:
    """A running server; `guard` ends it when this program ends, however it does.

    Args:
        command: Its words.
        environment: What is set beside this program's own environment, with the key.
        log_path: Where it writes; default a file of this process in the log folder.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log_path: Path | None = None) -> None:
        self.log_path = log_path or paths.logs_dir() / f"serve-{os.getpid()}.log"
        self._read = 0
        self._rest = b""
        log = _open_log(self.log_path)
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-P", "-m", "quantchat.services.serving.guard", str(GRACE), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise ServeError("The server cannot be started", str(error)) from error
        finally:
            os.close(log)

    @property
    def pid(self) -> int:
        """Process id of the guard, whose descendants are the server."""
        return self._guard.pid

    @property
    def status(self) -> int | None:
        """How the server ended; None while anything of it runs."""
        return self._guard.poll()

    def new_lines(self) -> list[str]:
        """Return what was written since the last call, as whole lines that are safe to show.

        A progress bar writes over its line: each state of it is a line here.
        """
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(self._read)
            data = log.read()
            self._read += len(data)
            *lines, self._rest = _LINE_END.split(self._rest + data)
            return _shown(lines)
        return []

    def tail(self) -> list[str]:
        """Return the last lines of the log."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL_BYTES))
            return _shown(_LINE_END.split(log.read()))
        return []

    def stop(self) -> None:
        """Ask it to end, and wait; what does not end in time is killed, as is all on Ctrl+C meanwhile."""
        try:
            self._close_input()
            self._guard.wait(GRACE + REAP_SECONDS)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            self.kill()

    def kill(self) -> None:
        """Kill all of it, without asking."""
        self._close_input()
        # The first signal may have to say that it shall end at all, the second that it shall not wait.
        for _ in range(2):
            self._guard.terminate()
            time.sleep(APART_SECONDS)
        # A process that hangs in a driver cannot be killed; nobody waits for it longer.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(REAP_SECONDS)

    def _close_input(self) -> None:
        if self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()


def _shown(lines: Sequence[bytes]) -> list[str]:
    texts = (_ESCAPE.sub("", line.decode(errors="replace")) for line in lines)
    return [text for line in texts if (text := clean(line, newlines=False).rstrip())]


def _open_log(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = sorted(path.parent.glob("serve-*.log"), key=lambda log: log.stat().st_mtime)
        for log in old[: max(0, len(old) - LOGS_KEPT + 1)]:
            log.unlink(missing_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    except OSError as error:
        raise ServeError("There is no place for the log of the server", f"{path}: {error.strerror}") from error
