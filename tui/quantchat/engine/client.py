"""The screen's side of the engine pipe: start the engine process, talk to it, see it end.

Imports neither torch nor Textual. Everything runs on the event loop that called `start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from quantchat import paths
from quantchat.domain.backends import OWN, EngineSpec
from quantchat.engine.frames import FrameDecoder, ProtocolError, encode_frame, event_decoder
from quantchat.engine.protocol import Command, Event, Shutdown
from quantchat.engine.protocol import EngineExited as EngineExited
from quantchat.errors import EngineGone

COMMAND_VARIABLE = "QUANTCHAT_ENGINE_COMMAND"
"""Environment variable with another engine command line; the tests start their scripted engine with it."""
INTERPRETER_REMEDY = "Correct the interpreter in `[engine]` of config.toml, or take it out."
OWN_PYTHON = ("PYTHONHOME", "PYTHONPATH")
"""Variables that would give another interpreter the libraries of this one."""
READY_SECONDS = 300.0
"""Another interpreter may be silent for so long before its first event: it may import from a slow network disk."""
TAIL_LINES = 40
LOGS_KEPT = 8
LINGER = 2.0
"""Seconds that a process may live after closing its pipes, and that pipes may stay open after the process."""
_TAIL_BYTES = 32 * 1024
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])")

logger = logging.getLogger(__name__)


class EngineClient:
    """Owns one engine process at a time.

    Args:
        on_event: Called on the event loop with every event in order, then once with `EngineExited`.
        command: Command line of the engine; default `python -m quantchat.engine` of this interpreter.
        log_path: Where the engine's stderr goes; default a file of this process in the log folder.
        env: Added to the environment of the engine.
        spec: Which kind of engine, and in which interpreter.
    """

    def __init__(
        self,
        on_event: Callable[[Event | EngineExited], None],
        *,
        command: Sequence[str] | None = None,
        log_path: Path | None = None,
        env: Mapping[str, str] | None = None,
        spec: EngineSpec = OWN,
    ) -> None:
        self._on_event = on_event
        self._command, self._spec = command, spec
        self._log_path = log_path or paths.logs_dir() / f"engine-{os.getpid()}.log"
        self._env = dict(env or {})
        self._link: _Link | None = None
        self._turnstile = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the running engine, which is also its process group; None when there is none."""
        return self._link.pid if self._link and self._link.alive else None

    @property
    def running(self) -> bool:
        """Whether commands can be sent."""
        return self._link is not None and self._link.open

    async def start(self) -> None:
        """Start the engine; without effect while one runs. May be called again after `EngineExited`.

        Raises:
            EngineGone: if the process cannot be started.
        """
        async with self._turnstile:
            if self.running:
                return
            if self._link:
                await self._link.ended.wait()
            await self._start_whole()

    async def _start_whole(self) -> None:
        """Start a process to the end, also when nobody waits for it any more, and then end it.

        asyncio waits for ever in a `subprocess_exec` that is cancelled before the pipes are connected.
        """
        spawning = asyncio.ensure_future(self._spawn())
        try:
            self._link = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await asyncio.wait({spawning}, timeout=LINGER)
            if spawning.done() and not spawning.cancelled() and not spawning.exception():
                self._link = spawning.result()
                self.kill()
            # Cancelled together with its caller it has killed the process, and a second time ends its waiting.
            spawning.cancel()
            raise

    async def _spawn(self) -> _Link:
        log = _open_log(self._log_path)
        try:
            command = self._command_line(log.path)
            link = _Link(self._on_event, log, READY_SECONDS if self._spec.python else None)
            await asyncio.get_running_loop().subprocess_exec(
                lambda: link, *command, stderr=log.descriptor, env=self._environment(), start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise EngineGone("The engine cannot be started", str(error), self._remedy()) from error
        finally:
            os.close(log.descriptor)
        return link

    def _command_line(self, log: str) -> list[str]:
        if self._command is not None:
            return list(self._command)
        if override := os.environ.get(COMMAND_VARIABLE):
            return shlex.split(override)
        # -P: a torch.py in the folder where the user happens to stand must not be imported.
        options = ("--log", log, "--backend", self._spec.backend)
        if self._spec.python:
            # By its path: that interpreter's own packages stand around it, and none of this one's.
            return [os.path.expanduser(self._spec.python), str(paths.PACKAGE / "engine" / "launch.py"), *options]
        return [sys.executable, "-P", "-m", "quantchat.engine", *options]

    def _remedy(self) -> str:
        return INTERPRETER_REMEDY if self._spec.python else "Reinstall quantchat."

    def _environment(self) -> dict[str, str]:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | self._env
        if self._spec.python:
            for name in OWN_PYTHON:
                environment.pop(name, None)
        if (os.cpu_count() or 1) <= 2:
            # GPTQModel counts on more cores than small machines have.
            environment.setdefault("GPTQMODEL_CPU_WORKERS", "2")
        return environment

    def send(self, command: Command) -> None:
        """Queue a command; returns at once.

        Raises:
            EngineGone: if no engine runs.
            ProtocolError: if the command is too large for a frame.
        """
        if self._link is None or not self._link.open:
            raise EngineGone("The engine is not running", remedy="Send again to start it.")
        self._link.write(encode_frame(command))

    async def close(self, grace: float = 2.0) -> None:
        """End the engine: ask it, and kill it and its children after `grace` seconds. May be called twice."""
        async with self._turnstile:
            link = self._link
            if link is None or link.ended.is_set():
                return
            if link.open:
                self.send(Shutdown())
            link.expected = True
            try:
                async with asyncio.timeout(grace):
                    await link.ended.wait()
            except TimeoutError:
                link.kill()
                # A process that hangs in a device driver cannot be reaped; quitting must not wait for it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        await link.ended.wait()
            except asyncio.CancelledError:
                link.kill()
                raise

    def kill(self) -> None:
        """Kill the engine and its children now, from any synchronous code; `EngineExited` follows on the loop."""
        if self._link:
            self._link.expected = True
            self._link.kill()


class _Log(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    descriptor: int
    start: int

    def tail(self) -> str:
        """Return the last lines written since the process started, safe to show."""
        try:
            with open(self.path, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self.start, end - _TAIL_BYTES))
                text = file.read(_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""
        lines = [_printable(line) for line in text.split("\n")]
        return "\n".join([line for line in lines if line][-TAIL_LINES:])


def _printable(line: str) -> str:
    # A progress bar rewrites its line with carriage returns: only the last state is worth reading.
    last = line.rstrip("\r").rpartition("\r")[2]
    plain = _ESCAPE_SEQUENCE.sub("", last).expandtabs(4)
    return "".join(character for character in plain if character.isprintable()).rstrip()


def _open_log(path: Path) -> _Log:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _prune_logs(path)
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        # A full or read-only disk costs the log, not the chat.
        logger.warning("no engine log: %s", error)
        path = Path(os.devnull)
        descriptor = os.open(path, flags)
    return _Log(path=str(path), descriptor=descriptor, start=os.fstat(descriptor).st_size)


def _prune_logs(path: Path) -> None:
    """Remove all but the newest logs of earlier runs."""
    logs = [log for log in path.parent.glob("engine-*.log") if log != path]
    # Another quantchat may be removing the same files.
    with contextlib.suppress(OSError):
        for log in sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)[LOGS_KEPT - 1 :]:
            log.unlink(missing_ok=True)


class _Link(asyncio.SubprocessProtocol):
    """One engine process, from its start to the delivery of `EngineExited`."""

    def __init__(self, on_event: Callable[[Event | EngineExited], None], log: _Log, patience: float | None) -> None:
        self._on_event = on_event
        self._log, self._patience = log, patience
        self._silence: asyncio.TimerHandle | None = None
        self._frames: FrameDecoder[Event] = FrameDecoder(event_decoder)
        self._complaint = ""
        self._transport: asyncio.SubprocessTransport | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._stdin_lost = False
        self.expected = False
        self.pid: int | None = None
        self.ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether the process has not been reaped."""
        return self._transport is not None and self._transport.get_returncode() is None

    @property
    def open(self) -> bool:
        """Whether a command could reach the process."""
        return self.alive and not (self.expected or self._complaint or self._stdin_lost)

    def write(self, frame: bytes) -> None:
        assert self._transport is not None
        cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0)).write(frame)

    def kill(self) -> None:
        if self.alive:
            self._kill_group()

    def _kill_group(self) -> None:
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        # Ninja gives every compiler a process group of its own; the session is what they all share.
        import psutil

        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        if self._patience is not None:
            self._silence = self._later(self._give_up, self._patience)

    def _give_up(self) -> None:
        self._complaint = f"It said nothing for {self._patience:g} s and was ended."
        self.kill()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self._complaint:
            return
        try:
            for event in self._frames.feed(data):
                if self._silence is not None:
                    self._silence.cancel()
                self._deliver(event)
        except ProtocolError as error:
            self._complaint = str(error)
            self.kill()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._stdin_lost = self._stdin_lost or fd == 0
        if self.alive:
            self._later(self.kill)

    def process_exited(self) -> None:
        # What the engine started (a compiler, a loader's helper) must not outlive it, nor hold its pipe open.
        self._kill_group()
        self._later(self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _later(self, action: Callable[[], None], seconds: float = LINGER) -> asyncio.TimerHandle:
        timer = asyncio.get_running_loop().call_later(seconds, action)
        self._timers.append(timer)
        return timer

    def _end(self) -> None:
        if self.ended.is_set():
            return
        for timer in self._timers:
            timer.cancel()
        assert self._transport is not None
        self._transport.close()
        self.ended.set()
        self._deliver(self._obituary(self._transport.get_returncode()))

    def _obituary(self, status: int | None) -> EngineExited:
        by_signal = status is not None and status < 0
        return EngineExited(
            code=None if by_signal else status,
            signal=_signal_name(-status) if status is not None and by_signal else None,
            log_tail="\n".join(part for part in (self._log.tail(), self._complaint) if part),
            expected=self.expected,
        )

    def _deliver(self, event: Event | EngineExited) -> None:
        try:
            self._on_event(event)
        except Exception:
            logger.exception("an event of the engine was not handled: %s", type(event).__name__)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
