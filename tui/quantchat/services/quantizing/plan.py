"""What is to be quantized, what that takes on this machine, how it goes, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from quantchat.domain.models import ModelInfo, Problem
from quantchat.domain.quality import Quality
from quantchat.domain.quantizing import CalibrationChoice, CalibrationReport, Recipe
from quantchat.engine.protocol import JobModule
from quantchat.errors import ErrorReport, JobError, ModelError, QuantchatError, StorageError, UsageError
from quantchat.services.picking import SessionPick

Ended = Literal["", "done", "cancelled", "failed"]
_KINDS: dict[str, type[QuantchatError]] = {
    "output": StorageError,
    "disk": StorageError,
    "memory": JobError,
    **dict.fromkeys(
        ("bits", "format", "group-size", "desc-act", "damping", "awq", "lm-head", "calibration", "adapter"), UsageError
    ),
}
"""What the codes of problems begin with; what is wrong with a model itself is a `ModelError`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants made.

    Attributes:
        source: Path of an ordinary model folder or GGUF file, or of an adapter's folder, whose base is then looked for.
        output: The folder to make; None names one in quantchat's own models.
        adapter: Folder of a LoRA adapter that is merged into the source first; empty for none.
        sessions: Own sessions to calibrate with, in place of a file; samples and length of `calibration` still count.
        force: Begin also where memory or disk seem too small.
        smoke: Ask the result one question afterwards.
        evaluate: Measure the quality of the result against its source afterwards.
    """

    source: str
    output: Path | None = None
    recipe: Recipe = Recipe()
    calibration: CalibrationChoice = CalibrationChoice()
    adapter: str = ""
    sessions: SessionPick | None = None
    force: bool = False
    smoke: bool = True
    evaluate: bool = False

    @property
    def then(self) -> str:
        """What comes after the quantization and takes time of its own, as it goes on a line; empty for nothing."""
        after = " and ".join(["a question"] * self.smoke + ["a measurement"] * self.evaluate)
        return f", then {after}" if after else ""


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan takes on this machine, from headers alone. Sizes are in bytes.

    Attributes:
        plan: With its output and group size filled in, and the base as the source where an adapter was named.
        model: The source as the catalog read it; None if it is no model.
        device: Where the layers are quantized: `cpu` or `cuda:0`.
        memory: What the job holds at most on that device; `free` what is there for it, None if nobody knows.
        host_memory: What it holds at most of the host's memory, the same as `memory` on the CPU; `host_free` likewise.
        held: What unloading the model that chats would give back on that device; 0 without one.
        disk: What it writes, scratch included; `disk_free` what is there, None if nobody knows.
        result: What the weights of the result take.
        seconds: How long it takes, without the smoke prompt and the evaluation.
        matrices: How many matrices are quantized.
        kernel: The kernel that would run the result here; empty if none can, or nobody knows.
        problems: What stands against it; an `error` keeps it from being started.
    """

    plan: Plan
    model: ModelInfo | None = None
    device: str = "cpu"
    memory: int = 0
    free: int | None = None
    host_memory: int = 0
    host_free: int | None = None
    held: int = 0
    disk: int = 0
    disk_free: int | None = None
    result: int = 0
    seconds: float = 0.0
    matrices: int = 0
    kernel: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep it from being started."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def possible(self) -> bool:
        """Whether it can be started."""
        return not self.errors

    def refusal(self) -> QuantchatError | None:
        """Return the error of a plan that cannot be carried out."""
        if self.possible:
            return None
        first = self.errors[0]
        kind = next((kind for word, kind in _KINDS.items() if first.code.startswith(word)), ModelError)
        return kind(first.cause, remedy=first.remedy, code=first.code)

    @property
    def output(self) -> Path:
        """The folder to make."""
        assert self.plan.output is not None
        return self.plan.output


class Smoke(msgspec.Struct, frozen=True, kw_only=True):
    """What the result answered to one question.

    Attributes:
        kernel: The kernel that it was loaded with.
        warning: What is wrong with the answer, such as one word over and over; empty for nothing.
    """

    question: str
    answer: str
    tokens_per_second: float = 0.0
    kernel: str = ""
    warning: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job.

    Attributes:
        folder: The quantized model.
        weight_bytes: Its weights on disk.
        seconds: What quantizing took.
        smoke: None if it was not asked, or could not be.
        quality: None if it was not measured, or could not be.
        notes: What went wrong after the model was made.
    """

    folder: Path
    weight_bytes: int = 0
    seconds: float = 0.0
    smoke: Smoke | None = None
    quality: Quality | None = None
    notes: tuple[ErrorReport, ...] = ()


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands.

    Attributes:
        stage: In words to show, such as `quantizing layers`.
        share: How much of the whole is done, 0 to 1; it never falls, and is 1 only when all is done.
        layer: The layer that is being quantized, from 1, of `layers`; both 0 before the first.
        seconds: Since it began; `seconds_left` None if that cannot be told.
        modules: What is quantized so far, in its order.
        log: Lines that the engine logged, and the stages as they began, the newest last.
        ended: How it ended; empty while it runs.
        error: Why it failed.
        outcome: What it made, once it is done.
    """

    stage: str = "starting the engine"
    share: float = 0.0
    layer: int = 0
    layers: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    modules: tuple[JobModule, ...] = ()
    calibration: CalibrationReport | None = None
    log: tuple[str, ...] = ()
    ended: Ended = ""
    error: ErrorReport | None = None
    outcome: Outcome | None = None

    @property
    def worst(self) -> JobModule | None:
        """The module with the largest error so far."""
        known = [module for module in self.modules if module.error is not None]
        return max(known, key=lambda module: module.error or 0.0, default=None)
