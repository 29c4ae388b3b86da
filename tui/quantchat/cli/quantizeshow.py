"""How a quantization is told on a terminal, on a pipe, and to a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol

import click
import msgspec

from quantchat.cli.common import say
from quantchat.cli.quantizewords import (
    layer_line,
    module_line,
    outcome_lines,
    preflight_lines,
    problem_line,
    stage_words,
    step_line,
    text_line,
)
from quantchat.domain.quantizing import CalibrationReport
from quantchat.domain.text import clean, shortened, without_surrogates
from quantchat.errors import QuantchatError
from quantchat.services.pull.describing import duration
from quantchat.services.quantizing.plan import JobState, Outcome, Preflight

STEPS = 20
"""Lines that tell how far a job is, where nobody watches it on a terminal; a program hears five times as often."""
STAGE, BAR = 34, 16
"""Cells of the bar's line."""


class Shown(Protocol):
    """How a quantization is told."""

    def preflight(self, preflight: Preflight) -> None:
        """Tell what it takes."""

    def changed(self, state: JobState) -> None:
        """Tell how far it is."""

    def done(self, outcome: Outcome) -> None:
        """Tell what came of it."""

    def failed(self, error: QuantchatError) -> None:
        """Tell a program; people read it on stderr."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class JsonLines:
    """One object per line on stdout; `event` is preflight, calibration, module, progress, done or error."""

    def __init__(self) -> None:
        self._modules = 0
        self._calibration: CalibrationReport | None = None
        self._step = (0, "")

    def preflight(self, preflight: Preflight) -> None:
        """Print all that is known."""
        self._print("preflight", possible=preflight.possible, **msgspec.structs.asdict(preflight))

    def changed(self, state: JobState) -> None:
        """Print what is new."""
        if state.calibration is not None and state.calibration is not self._calibration:
            self._calibration = state.calibration
            self._print("calibration", **msgspec.structs.asdict(state.calibration))
        for module in state.modules[self._modules :]:
            fields = msgspec.structs.asdict(module)
            self._print("module", **{name: value for name, value in fields.items() if name != "job"})
        self._modules = len(state.modules)
        step = (int(state.share * STEPS * 5), state.stage)
        if step != self._step:
            self._step = step
            self._print(
                "progress",
                stage=state.stage,
                share=round(state.share, 4),
                layer=state.layer,
                layers=state.layers,
                seconds=round(state.seconds, 1),
                seconds_left=state.seconds_left,
            )

    def done(self, outcome: Outcome) -> None:
        """Print the outcome."""
        self._print("done", **msgspec.structs.asdict(outcome))

    def failed(self, error: QuantchatError) -> None:
        """Print the error's report."""
        self._print("error", **msgspec.structs.asdict(error.report))

    def close(self) -> None:
        """Nothing is left open."""

    def _print(self, event: str, **what: object) -> None:
        row = msgspec.to_builtins({"event": event, **what}, enc_hook=str)
        click.echo(msgspec.json.encode(without_surrogates(row)))


class Lines:
    """Words on stdout; a bar and a line per layer on stderr, where that is no terminal a line now and then."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._bar: _Bar | None = None
        self._step = 0
        self._modules = self._seen = 0
        self._stage = ""
        self._calibration: CalibrationReport | None = None

    def preflight(self, preflight: Preflight) -> None:
        """Print what it takes, and what stands against it but the first error, which ends the command."""
        for line in preflight_lines(preflight):
            say(line)
        for problem in preflight.problems:
            if problem not in preflight.errors[:1]:
                say(problem_line(problem), err=True)

    def changed(self, state: JobState) -> None:
        """Draw the bar, and what is new above it."""
        if sys.stderr.isatty() and self._bar is None and not state.ended:
            self._bar = _Bar()
        if state.calibration is not None and state.calibration is not self._calibration:
            self._calibration = state.calibration
            self._say(text_line(state.calibration))
        for line in self._new_lines(state):
            self._say(line)
        if self._bar is not None:
            self._bar.draw(state)
        elif (step := int(state.share * STEPS)) > self._step:
            self._step = step
            self._say(step_line(state))

    def done(self, outcome: Outcome) -> None:
        """Print what came of it, the folder last."""
        self.close()
        for line in outcome_lines(outcome):
            say(line)
        for note in outcome.notes:
            say(f"quantchat: {note.sentence()}", err=True)
        say(str(outcome.folder))

    def failed(self, error: QuantchatError) -> None:
        """The caller tells."""

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.say(line)
        else:
            say(line, err=True)

    def _new_lines(self, state: JobState) -> Iterator[str]:
        """A line per matrix, or per layer once the next one has begun."""
        new = state.modules[self._modules :]
        if self._verbose:
            self._modules = len(state.modules)
            yield from map(module_line, new)
            return
        if len(state.modules) > self._seen:
            self._seen, self._stage = len(state.modules), state.stage
        going_on = new[-1].layer if new and state.stage == self._stage and not state.ended else None
        complete = [module for module in new if module.layer != going_on]
        self._modules += len(complete)
        for layer in dict.fromkeys(module.layer for module in complete):
            yield layer_line([module for module in complete if module.layer == layer])


class _Bar:
    """rich's bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.fields[stage]}", markup=False),
            BarColumn(BAR),
            TextColumn("{task.fields[words]}", markup=False),
        )
        self._rich = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._rich.add_task("", total=1.0, stage="".ljust(STAGE), words="")
        self._rich.start()

    def draw(self, state: JobState) -> None:
        """Show how it stands."""
        stage = shortened(stage_words(state), STAGE).ljust(STAGE)
        left = f", {duration(state.seconds_left)} left" if state.seconds_left is not None else ""
        share = f"{int(state.share * 100)}%{left}"
        self._rich.update(self._task, completed=state.share, stage=stage, words=share)

    def say(self, line: str) -> None:
        """Print a line above it."""
        self._rich.console.print(clean(line, newlines=False), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take it away."""
        self._rich.stop()
