"""The engine process: `python -m quantchat.engine --log PATH`. Commands on stdin, events on what was stdout."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import psutil

from quantchat.domain.backends import Backend
from quantchat.engine import frames, heap, protocol, quiet
from quantchat.engine.worker import Worker
from quantchat.paths import logs_dir

CLOSE_SECONDS = 2.0
PARENT_POLL_SECONDS = 1.0
CHUNK = 1 << 16
PIPE_BYTES = 1 << 20
"""What an answer may be ahead of the screen, which stands still while the user is in an editor: 15,000 tokens."""


_scratch: str | None = None


def enter_scratch_folder() -> None:
    """Work in a folder of this process's own.

    While it quantizes, GPTQModel writes `logs/` into the current folder from a thread, and ends the process when that
    folder is gone. All paths of the protocol are absolute.
    """
    global _scratch
    _scratch = tempfile.mkdtemp(prefix="quantchat-engine-")
    os.chdir(_scratch)


class Pipe:
    """Writes events, whole frames only, from whichever thread has one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        # Not everywhere is there such a call, or so much allowed.
        with contextlib.suppress(AttributeError, OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def emit(self, event: protocol.Event) -> None:
        """Send one event; a reader that went away ends the process."""
        frame = memoryview(frames.encode_frame(event))
        with self._lock:
            try:
                while frame:
                    frame = frame[os.write(self._descriptor, frame) :]
            except OSError:
                leave()


def leave(status: int = 0) -> None:
    """End this process and what it started, compilers included, without running torch's destructors."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
    os._exit(status)


def watch_parent(gone: Callable[[], None]) -> None:
    """Call `gone` when the parent process is no more; stdin can stay open in a sibling that inherited it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        gone()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def serve(worker: Worker, descriptor: int) -> int:
    """Feed commands to the worker until Shutdown or the end of the stream; return the exit status."""
    decoder = frames.FrameDecoder(frames.command_decoder)
    while data := os.read(descriptor, CHUNK):
        try:
            for command in decoder.feed(data):
                if isinstance(command, protocol.Shutdown):
                    return 0
                worker.submit(command)
        except frames.ProtocolError as error:
            print(error, file=sys.stderr, flush=True)  # noqa: T201 - fd 2 is the log file
            return error.exit_code
    return 0


def main(argv: list[str] | None = None) -> None:
    """Redirect output, start the worker, and listen."""
    parser = argparse.ArgumentParser(prog="quantchat.engine")
    parser.add_argument("--log", type=Path, default=logs_dir() / "engine.log")
    parser.add_argument("--backend", choices=get_args(Backend), default="torch")
    arguments = parser.parse_args(argv)
    descriptor = quiet.redirect_output(arguments.log)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Ctrl-C belongs to the screen, which shares the terminal's foreground group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent(leave)
    enter_scratch_folder()
    heap.keep_freed()
    worker = Worker(Pipe(descriptor).emit, arguments.backend)
    worker.start()
    status = serve(worker, 0)
    worker.close(CLOSE_SECONDS)
    leave(status)


if __name__ == "__main__":
    main()
