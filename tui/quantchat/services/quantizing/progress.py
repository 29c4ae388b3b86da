"""Puts the events of a quantization together into how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from quantchat.domain.text import clean
from quantchat.engine.protocol import Calibrated, JobModule, JobProgress, Log, Ready
from quantchat.errors import ErrorReport
from quantchat.services.jobs import JobEvent
from quantchat.services.quantizing.plan import Ended, JobState, Outcome

LOG_LINES = 500
SURE_SHARE = 0.2
"""From this share on the time left is told by the speed so far alone, before that by the estimate too."""

OnChange = Callable[[JobState], None]


class Tracker:
    """The state of a job; its share and its log only grow.

    Args:
        quantizing: Seconds that the engine's job was estimated at.
        after: Seconds for what is done with the model then.
        on_change: Hears of each step.
        clock: Counts seconds.

    Attributes:
        versions: Of the engine's libraries.
    """

    def __init__(
        self, quantizing: float, after: float, on_change: OnChange, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._whole = quantizing + after
        self._weight = quantizing / self._whole
        self._on_change = on_change
        self._clock = clock
        self._begun: float | None = None
        self._state = JobState()
        self.versions: dict[str, str] = {}

    @property
    def state(self) -> JobState:
        """How it stands at this moment."""
        if self._begun is None or self._state.ended:
            return self._state
        seconds = self._clock() - self._begun
        left = seconds_left(seconds, self._state.share, self._whole)
        return msgspec.structs.replace(self._state, seconds=seconds, seconds_left=left)

    def begin(self) -> None:
        """Start the clock."""
        self._begun = self._clock()
        self._change(log=(self._state.stage,))

    def take(self, event: JobEvent) -> None:
        """Take an event of the engine's job."""
        match event:
            case Ready():
                self.versions = dict(event.versions)
            case JobProgress():
                self.enter(event.stage, event.share * self._weight)
            case JobModule():
                layer = max(self._state.layer, event.layer + 1)
                self._change(modules=(*self._state.modules, event), layer=layer, layers=event.layers)
            case Calibrated():
                self._change(calibration=event.report)
            case Log():
                self._change(log=self._with(event.text))

    def enter(self, stage: str, share: float = 0.0) -> None:
        """Begin a stage, or go on with it; `share` is that of the whole."""
        log = self._state.log if stage == self._state.stage else self._with(stage)
        self._change(stage=stage, share=max(self._state.share, min(share, 1.0)), log=log)

    def made(self) -> None:
        """The engine's job is done."""
        self._change(share=max(self._state.share, self._weight))

    def after(self, stage: str, share: float = 0.0) -> None:
        """Begin a stage after the engine's job; `share` is that of what is done then."""
        self.enter(stage, self._weight + share * (1 - self._weight))

    def end(self, ended: Ended, error: ErrorReport | None = None, outcome: Outcome | None = None) -> None:
        """Nothing more comes."""
        share = 1.0 if ended == "done" else self._state.share
        self._state = msgspec.structs.replace(
            self.state, ended=ended, error=error, outcome=outcome, seconds_left=None, share=share
        )
        self._on_change(self._state)

    def _with(self, line: str) -> tuple[str, ...]:
        return (*self._state.log, clean(line, newlines=False))[-LOG_LINES:]

    def _change(self, **changes: object) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        self._on_change(self.state)


def seconds_left(seconds: float, share: float, estimate: float) -> float:
    """Tell how long a job still takes, from its speed so far and from what was estimated for all of it."""
    if not share:
        return max(estimate - seconds, 0.0)
    by_speed, by_estimate = seconds * (1 - share) / share, estimate * (1 - share)
    trust = min(share / SURE_SHARE, 1.0)
    return trust * by_speed + (1 - trust) * by_estimate
