"""What the log of a server says about its start: the steps in their order, how far they are, and figures.

The lines are those of vLLM 0.8 to 0.33 and of `transformers serve` 5.23.
"""

from __future__ import annotations

import re

import msgspec

READY = "ready"


class Stage(msgspec.Struct, frozen=True):
    """How far a start is; `total` is 0 where that is not known."""

    title: str
    done: int = 0
    total: int = 0


class Step(msgspec.Struct, frozen=True):
    """Lines that tell of a step; their groups `done` and `total` say how far it is."""

    title: str
    pattern: re.Pattern[str]


def _step(title: str, *patterns: str) -> Step:
    return Step(title, re.compile("|".join(patterns)))


STEPS = (
    _step("reading the config", r"vLLM API server version", r"Resolved architecture", r"Using max model len"),
    _step("starting the engine", r"Initializing an? (V1 )?LLM engine", r"EngineCore.*(started|launched)"),
    _step("joining the GPUs", r"world_size=(?!1 )\d+ ", r"Connecting to existing Ray cluster", r"vLLM is using nccl"),
    _step("loading weights", r"Starting to load model", r"Loading model from scratch", r"(?:^|\] )Loading .+@\S+$"),
    _step(
        "loading weights",
        r"[Ll]oading (?:safetensors|pt) checkpoint shards:.*?(?P<done>\d+)/(?P<total>\d+)",
        r"Loading weights:.*?(?P<done2>\d+)/(?P<total2>\d+)",
    ),
    _step("compiling", r"Dynamo bytecode transform", r"Compiling a graph", r"torch\.compile takes", r"Start compiling"),
    _step("measuring memory", r"Available KV cache memory", r"GPU KV cache size"),
    _step("capturing CUDA graphs", r"Capturing CUDA graphs?.*?(?P<done>\d+)/(?P<total>\d+)", r"Capturing cudagraphs"),
    _step("opening the port", r"Starting vLLM API server", r"Started server process"),
    _step(READY, r"Application startup complete"),
)

FIGURES = (
    ("version", re.compile(r"vLLM API server version (\S+)")),
    ("kernel", re.compile(r"Using (\S+) for \S*LinearMethod")),
    ("weights", re.compile(r"[Mm]odel loading took ([\d.]+ ?GiB)")),
    ("KV cache", re.compile(r"GPU KV cache size: ([\d,]+ tokens)")),
    ("at once", re.compile(r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+x)")),
)


class StartLog:
    """Reads the lines of a start.

    Attributes:
        figures: What the server told of itself, such as `KV cache`.
    """

    def __init__(self) -> None:
        self._step = -1
        self.figures: dict[str, str] = {}

    def read(self, line: str) -> Stage | None:
        """Return the stage that a line tells of; None if it tells none, or one that is over."""
        for name, pattern in FIGURES:
            if found := pattern.search(line):
                self.figures[name] = found[1]
        for place, step in enumerate(STEPS):
            if place >= self._step and (found := step.pattern.search(line)):
                self._step = place
                return _stage(step, found)
        return None


def _stage(step: Step, found: re.Match[str]) -> Stage:
    """Several patterns of a step may count, by names with a number."""
    counts = {name.rstrip("2"): int(value) for name, value in found.groupdict().items() if value}
    return Stage(step.title, counts.get("done", 0), counts.get("total", 0))
