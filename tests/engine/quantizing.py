"""Runs quantize jobs on the tiny model, in this process, and keeps what they told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.tiny import TEXTS
from quantchat.domain.quantizing import CalibrationChoice, Recipe
from quantchat.engine.protocol import Event, JobModule, JobProgress, Quantize
from quantchat.quantize import jobs

E = TypeVar("E", bound=Event)
SAMPLES = 12


def never() -> bool:
    return False


class StopAfter:
    """Asks for a stop once a number of questions whether to go on was asked."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def write_calibration(folder: Path) -> Path:
    """Write a dozen conversations that are all different."""
    path = folder / "calibration.jsonl"
    rows = [{"role": "user", "content": f"{number} {TEXTS[number % len(TEXTS)]} {number}"} for number in range(SAMPLES)]
    path.write_text("".join(json.dumps({"messages": [row]}) + "\n" for row in rows), encoding="utf-8")
    return path


def command(source: Path, output: Path, calibration: Path, adapter: str = "", **recipe: Any) -> Quantize:
    """Ask for a quantization; GPTQ 4 bits in groups of 32 unless told otherwise."""
    return Quantize(
        job="q",
        source=str(source),
        output=str(output),
        recipe=Recipe(**{"group_size": 32} | recipe),
        calibration=CalibrationChoice(path=str(calibration), length=64),
        adapter=adapter,
    )


def run(job: Quantize, cancelled: Callable[[], bool] = never) -> list[Event]:
    """Do the job and return its events."""
    events: list[Event] = []
    jobs.run(job, events.append, cancelled)
    return events


def of_kind(kind: type[E], events: list[Event]) -> list[E]:
    """Keep the events of a kind."""
    return [event for event in events if isinstance(event, kind)]


def shares(events: list[Event]) -> list[float]:
    """The shares of the whole job, in the order in which they were told."""
    return [event.share for event in of_kind(JobProgress, events)]


def modules(events: list[Event]) -> dict[tuple[int, str], JobModule]:
    """What was told of each module."""
    return {(event.layer, event.module): event for event in of_kind(JobModule, events)}
