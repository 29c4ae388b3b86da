"""Runs a server as a child and ends it with all its descendants, whatever becomes of quantchat.

    python -P -m quantchat.services.serving.guard SECONDS PROGRAM [ARGUMENT]...

The server runs until it ends by itself, or until standard input ends, which it also does when quantchat is killed. It
is then asked to end (SIGTERM), and killed after SECONDS. A signal to this process is the same, a second one kills at
once. Exits as the server did, once nothing of it is left: processes cannot escape by leaving their group or parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

LOOK_SECONDS = 0.1
SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER` of `prctl(2)`."""
ORPHAN_SHARE = 0.2
"""Workers whose server has ended have nobody to wait for: they get this much of the time."""
CANNOT_RUN = 127
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Guard:
    """One server and all that it starts."""

    def __init__(self, command: Sequence[str], grace: float) -> None:
        self._grace = grace
        self._status: int | None = None
        self._hurried = 0
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._hurried += 1

    def run(self) -> int:
        """Wait for an end; return the server's exit status, 128 and the number for a signal."""
        while self._status is None and not self._told():
            self._reap()
        self._end()
        status = self._status or 0
        return status if status >= 0 else 128 - status

    def _told(self) -> bool:
        """Wait a moment for the end of the input, or a signal."""
        ready, _, _ = select.select([0], [], [], LOOK_SECONDS)
        return bool(ready) or self._hurried > 0

    def _end(self) -> None:
        """Ask the server first, which knows best how to end its workers; then those it left; then kill."""
        if self._status is None:
            self._send(signal.SIGTERM, [self._server.pid])
        deadline = time.monotonic() + self._grace
        asked = False
        while left := self._left():
            if self._status is not None and not asked:
                self._send(signal.SIGTERM, left)
                asked = True
                deadline = min(deadline, time.monotonic() + self._grace * ORPHAN_SHARE)
            if time.monotonic() > deadline or self._hurried > 1:
                self._send(signal.SIGKILL, left)
            time.sleep(LOOK_SECONDS)

    def _left(self) -> list[int]:
        self._reap()
        return [child.pid for child in psutil.Process().children(recursive=True)]

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._server.pid:
                    self._status = self._server.returncode = os.waitstatus_to_exitcode(status)

    def _send(self, number: signal.Signals, pids: Sequence[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def main(arguments: Sequence[str]) -> int:
    """Run the command of the arguments."""
    # Where the system has no such thing, processes that leave their parents are not found again.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    grace, *command = arguments
    try:
        guard = Guard(command, float(grace))
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - the log of the server
        return CANNOT_RUN
    return guard.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
