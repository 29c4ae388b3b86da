"""A program in a private tmux server, seen and driven through a client that is attached in a real terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from terminal import Terminal


class Tmux(Terminal):
    """`Terminal` with tmux between it and the program.

    Keys go through the attached client, so that tmux's own reading of them (`escape-time`, Alt) is part of the test. As
    in life, tmux's status line takes the last line of the terminal; `screen_text` is the program's pane.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        columns: int = 120,
        lines: int = 40,
        cwd: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """`options` are tmux commands such as `set -s set-clipboard on`."""
        # Not -L: tmux leaves the sockets of ended servers behind.
        self._folder = tempfile.mkdtemp(prefix="quantchat-tmux-")
        self._server = ["tmux", "-S", f"{self._folder}/socket", "-f", "/dev/null"]
        self._env = {name: value for name, value in env.items() if not name.startswith("TMUX")}
        self.status = None
        # A dead pane stays, so that the program's exit status can be asked for.
        chained = [word for option in (*options, "set -g remain-on-exit on") for word in (*option.split(), ";")]
        place = ["-c", str(cwd)] if cwd is not None else []
        size = ["-x", str(columns), "-y", str(lines)]
        self.tmux("start-server", ";", *chained, "new-session", "-d", *size, *place, *command)
        self.attach(columns, lines)

    def tmux(self, *command: str, check: bool = True) -> str:
        """Run a tmux command on this server and return what it prints."""
        done = subprocess.run([*self._server, *command], capture_output=True, timeout=20, env=self._env)
        if check and done.returncode:
            raise AssertionError(f"tmux {command}: {done.stderr.decode()}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def attach(self, columns: int, lines: int) -> None:
        """Look at the session from a new terminal."""
        command = [*self._server, "attach-session"]
        self.client = Terminal(command, env=self._env, columns=columns, lines=lines)
        # Terminal's own condition: the status line is drawn when the client is attached.
        self.client.wait_for(lambda text: text.splitlines()[-1].startswith("["))

    def detach(self) -> None:
        """Take the terminal away, as a closed laptop does; the program goes on."""
        self.client.close()

    @property
    def buffer(self) -> str:
        """tmux's newest paste buffer; empty if there is none."""
        return self.tmux("save-buffer", "-", check=False)

    @property
    def program_pid(self) -> int:
        return int(self.tmux("display-message", "-p", "#{pane_pid}"))

    @property
    def screen_text(self) -> str:
        return "\n".join(line.rstrip() for line in self.tmux("capture-pane", "-p", check=False).splitlines())

    def resize(self, columns: int, lines: int) -> None:
        self.client.resize(columns, lines)

    def pump(self, seconds: float = 0.05) -> bytes:
        return self.client.pump(seconds)

    def write(self, data: bytes) -> None:
        self.client.write(data)

    def poll(self) -> int | None:
        if self.status is None:
            wanted = "#{pane_dead}|#{pane_dead_status}|#{pane_dead_signal}|#{pane_pid}"
            dead, status, number, pid = self.tmux("display-message", "-p", wanted).strip().split("|")
            if dead == "1":
                self.status = int(status) if status else -int(number) if number else _status_of_zombie(int(pid))
        return self.status

    def close(self) -> None:
        self.tmux("kill-server", check=False)
        self.client.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _status_of_zombie(pid: int) -> int | None:
    """The exit status of a program that ended and that tmux, which then shows none, did not wait for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == "Z" else None
