"""The kinds of engine: what the worker asks of each, and how it gets one. Imports none of their libraries itself."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, assert_never

from quantchat.domain.backends import Backend
from quantchat.engine import protocol as p
from quantchat.engine import quiet
from quantchat.toolchain import versions_of as versions_of

Emit = Callable[[p.Event], None]
IsCancelled = Callable[[], bool]


class Tasks(Protocol):
    """A loaded model, its running turns and its sessions. All calls come from the one worker thread.

    The worker calls `step` as long as `running`, and answers requests between two steps: a step takes moments.
    What a call raises is told to the user as the failure of that turn, job or request.
    """

    def load(self, command: p.Load) -> p.Event:
        """Load a model in place of the one that is there; return `Loaded` or `LoadFailed`."""

    def unload(self, command: p.Unload) -> p.Event:
        """Drop the model; return `Unloaded`."""

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""

    def start(self, command: p.Generate, cancelled: IsCancelled) -> None:
        """Begin a turn; its step sees when `cancelled` says so, and ends it with reason `stopped`."""

    def step(self) -> list[p.Finished | p.Failed]:
        """Give every running turn a step; return the last events of those that ended, which the worker emits."""

    def abandon(self) -> list[str]:
        """Drop all turns and return their names: a step raised."""

    def forget(self, session: str) -> None:
        """Drop what is kept of a session; unknown names are ignored."""

    def count(self, command: p.CountTokens) -> p.Event:
        """Return a `TokenCount`."""

    def render(self, command: p.RenderPrompt) -> p.Event:
        """Return a `RenderedPrompt`."""

    def run_job(self, command: p.Job, cancelled: IsCancelled) -> p.Event:
        """Do a whole job; return `JobFinished` or `JobFailed`."""

    def memory(self) -> p.Memory:
        """Return what is held now."""


class Opened(NamedTuple):
    """A kind of engine whose libraries are imported; `versions` and `devices` as in `Ready`."""

    tasks: Tasks
    versions: dict[str, str]
    devices: tuple[str, ...]


def open_backend(backend: Backend, emit: Emit) -> Opened:
    """Import a backend's libraries; called once, on the worker thread, with the process's output redirected.

    Raises:
        Exception: whatever an import raises.
    """
    match backend:
        case "torch":
            quiet.silence()
            from quantchat.engine import tasks

            return Opened(tasks.Tasks(emit), versions_of(p.LIBRARIES), tasks.devices())
        case "llama":
            from quantchat.engine.backends.llama import open_llama

            return open_llama(emit)
        case "server":
            from quantchat.engine.backends.server import open_server

            return open_server(emit)
        case "retired":
            from quantchat.engine.backends.retired import open_retired

            return open_retired(emit)
    assert_never(backend)


def ready(pid: int, backend: Backend, versions: Mapping[str, str], devices: tuple[str, ...]) -> p.Ready:
    """Return the event that an engine begins with."""
    return p.Ready(pid=pid, versions=dict(versions), devices=devices, backend=backend, python=platform.python_version())
