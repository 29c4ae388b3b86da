"""The machine as the checks see it: what several of them need is looked at once, and no program outlives the doctor."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from quantchat.domain.models import ModelInfo
from quantchat.hardware.driver import Driver
from quantchat.hardware.gpu import NotAvailable
from quantchat.services.doctor import nvml
from quantchat.services.doctor.probe import PROBE_SECONDS, Probe, command, read_probe

T = TypeVar("T")
SECONDS = 10.0
NOT_ASKED = "the NVIDIA driver was not asked, as no process could be started for it"


class Ran(NamedTuple):
    """What came of a program: its exit status (None if it was killed for being slow) and its words."""

    status: int | None
    out: str
    err: str


class Once(Generic[T]):
    """A fact that several checks ask for at the same time, and that is found once."""

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._found: list[T] = []

    def __call__(self) -> T:
        """Return the fact; whoever asks first finds it, the others wait."""
        with self._lock:
            if not self._found:
                self._found.append(self._find())
            return self._found[0]


class Machine:
    """Facts for the checks, which run on threads of their own.

    Attributes:
        models: Finds the models to judge.
        kernel: The kernel that the settings ask for.
        models_dirs: The user's own model folders.
        terminal: Whether the words go to a terminal, so that it is worth looking at.
    """

    def __init__(
        self,
        *,
        models: Callable[[], Sequence[ModelInfo]] = tuple,
        models_dirs: Sequence[Path] = (),
        kernel: str | None = None,
        device: str | None = None,
        named: bool = False,
        terminal: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.env = dict(os.environ if env is None else env)
        self.models = Once(models)
        self.models_dirs = tuple(models_dirs)
        self.kernel, self.device, self.named = kernel, device, named
        self.terminal = terminal
        self.probe: Once[Probe] = Once(self._probe)
        self.driver: Once[Driver | NotAvailable] = Once(self._driver)
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def path(self) -> str:
        """Where the engine looks for programs: on PATH, and beside this interpreter, where pip puts ninja."""
        return os.pathsep.join([self.env.get("PATH", os.defpath), str(Path(sys.executable).parent)])

    @property
    def scratch(self) -> Path:
        """The folder of temporary files; `tempfile` would write to those that it tries."""
        return Path(self.env.get("TMPDIR") or "/tmp")  # noqa: S108 - only looked at

    @property
    def closed(self) -> bool:
        """Whether the examination is over; work for it may be given up."""
        return self._closed

    def which(self, *names: str) -> str | None:
        """Return the path of the first of some programs that is there."""
        return next((found for name in names if (found := shutil.which(name, path=self.path))), None)

    def run(self, *words: str, seconds: float = SECONDS, env: Mapping[str, str] | None = None) -> Ran | None:
        """Run a program to its end, with some variables of its own; None if it cannot be started."""
        try:
            process = self._start(words, env or {})
        except OSError:
            return None
        try:
            out, err = process.communicate(timeout=seconds)
            return Ran(process.returncode, _text(out), _text(err))
        except subprocess.TimeoutExpired as slow:
            _kill(process)
            # What it started may have left its group and hold the pipes open.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=1)
            return Ran(None, _text(slow.stdout), _text(slow.stderr))
        finally:
            with self._lock:
                self._children.discard(process)

    def close(self) -> None:
        """End what still runs; nothing can be started any more."""
        with self._lock:
            self._closed = True
            children = tuple(self._children)
        for process in children:
            _kill(process)

    def _start(self, words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise ProcessLookupError
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**self.env, "PATH": self.path, **env},
                # The current folder may be gone, and what lies in it must not be imported or written to.
                cwd="/",
                start_new_session=True,
            )
            self._children.add(process)
        return process

    def _probe(self) -> Probe:
        env = {}
        if self.driver() == NotAvailable(nvml.SILENT):
            # torch would wait for it as long as anybody.
            env["CUDA_VISIBLE_DEVICES"] = ""
        if self.scratch.is_dir():
            # torch makes this folder when it is imported, and nothing is to be made here.
            env["TORCHINDUCTOR_CACHE_DIR"] = self.env.get("TORCHINDUCTOR_CACHE_DIR") or str(self.scratch)
        ran = self.run(*command(self.device), seconds=PROBE_SECONDS, env=env)
        return read_probe(*ran) if ran else Probe(failed="start", said="the interpreter could not be started")

    def _driver(self) -> Driver | NotAvailable:
        ran = self.run(*nvml.COMMAND, seconds=nvml.SECONDS)
        return nvml.read_driver(ran.status, ran.out) if ran else NotAvailable(NOT_ASKED)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
