"""Real processes of the program's services, under a shim that makes the disk refuse."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from quantchat.store.locks import SessionLocks
from quantchat.store.recovery import recover
from quantchat.store.sessions import SessionStore

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
PR_CAPBSET_DROP = 24
OVERRIDES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: with them permissions mean nothing to root."""


def without_privileges() -> None:
    """Let permissions hold for root too, in the program that is about to start."""
    prctl = ctypes.CDLL(None).prctl
    for capability in OVERRIDES:
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def compiled_shim(folder: Path) -> Path:
    """Compile the shim; skip where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler for the shim")
    shim = folder / "shim.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(shim), str(HERE / "fault_shim.c"), "-ldl"], check=True
    )
    return shim


def put_in_order(home: Path) -> tuple[SessionStore, int]:
    """Do what the next start does first; return the store, and how many answers came back."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("QUANTCHAT_HOME", str(home))
        store = SessionStore(home / "data" / "sessions")
        return store, len(recover(store, SessionLocks(store.root)))


class Program:
    """One process with the services of the program on a home.

    Attributes:
        recovered: How many answers it found that were cut off.
    """

    def __init__(self, home: Path, *, env: Mapping[str, str] | None = None, privileged: bool = True) -> None:
        before: Callable[[], None] | None = None if privileged else without_privileges
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fault_child.py"), str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": str(TESTS), **(env or {})},
            preexec_fn=before,
        )
        assert self._read() == "ready"
        self.recovered = self.do("begin")

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill the process."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
            self._errors.close()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(f"the program ended: {self._errors.read().decode()[-3000:]}")
        return json.loads(line)

    def do(self, what: str, **arguments: object) -> Any:
        """Have something done; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {json.dumps(arguments)}\n".encode())
        self.process.stdin.flush()
        return self._read()
