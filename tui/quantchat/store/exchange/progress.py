"""How far reading or writing many sessions is; asked by one thread while another one works."""

from __future__ import annotations

import threading

from quantchat.errors import Cancelled


class Progress:
    """Moves while the work goes on, and can end it.

    Attributes:
        done: Of `total`, in bytes while files are read, in sessions while they are written.
        sessions: How many are done.
        may_be_left: Whether nobody need wait for the end of work that was stopped.
    """

    def __init__(self) -> None:
        self.done = self.total = self.sessions = 0
        self.may_be_left = True
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Let the work end at its next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the user said stop."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Go on, unless the user said stop.

        Raises:
            Cancelled: if so.
        """
        if self._cancelled.is_set():
            raise Cancelled("Stopped", "nothing was changed")
