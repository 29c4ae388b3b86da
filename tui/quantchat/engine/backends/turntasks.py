"""What the tasks of every engine that holds a model itself have in common: turns go to the loaded model's scheduler."""

from __future__ import annotations

from typing import Protocol

from quantchat.engine import protocol as p
from quantchat.engine.backends import IsCancelled
from quantchat.errors import GenerationError, LoadError
from quantchat.holding import hold


class Turns(Protocol):
    """The running turns of one loaded model."""

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""

    def start(self, command: p.Generate, cancelled: IsCancelled) -> None:
        """Begin a turn."""

    def step(self) -> list[p.Finished | p.Failed]:
        """Give every running turn a step; return the last events of those that ended."""

    def abandon(self) -> list[str]:
        """Drop all turns and return their names."""


class TurnTasks:
    """Passes turns on; without a loaded model there are none."""

    _turns: Turns | None = None

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""
        return self._turns is not None and self._turns.running

    def start(self, command: p.Generate, cancelled: IsCancelled) -> None:
        """Begin a turn.

        Raises:
            GenerationError: if no model is loaded.
        """
        if self._turns is None:
            raise no_model()
        self._turns.start(command, cancelled)

    def step(self) -> list[p.Finished | p.Failed]:
        """Give every running turn a step; return the last events of those that ended."""
        return self._turns.step() if self._turns is not None else []

    def abandon(self) -> list[str]:
        """Drop all turns and return their names: a step failed in a way that no turn can be blamed for."""
        return self._turns.abandon() if self._turns is not None else []


def hold_model(path: str) -> None:
    """Keep others from deleting a model while it is loaded.

    Raises:
        LoadError: if that is under way.
    """
    if not hold(path):
        detail = f"Another process has {path} to itself."
        raise LoadError("The model is being deleted", detail, "Choose another model.", code="in-removal")


def no_model() -> GenerationError:
    """Return what a question without a model is answered with."""
    return GenerationError("No model is loaded", "", "Load a model and send again.", code="no-model")
