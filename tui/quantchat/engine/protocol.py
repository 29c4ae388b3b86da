"""The words between the screen and the engine process; `frames` carries them.

Commands go down the engine's stdin, events come up the descriptor that was its stdout. The invariants: every
`Generate` ends in exactly one `Finished` or `Failed`, every event names its turn, and a second `Generate` for a
session that is answering is refused by name; turns of different sessions run side by side.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.backends import Backend as Backend
from quantchat.domain.generation import FinishReason, TurnStatistics
from quantchat.domain.loading import DeviceShare as DeviceShare
from quantchat.domain.loading import KernelRefusal as KernelRefusal
from quantchat.domain.quantizing import CalibrationReport
from quantchat.domain.thinking import Channel as Channel
from quantchat.engine.commands import Command as Command
from quantchat.engine.commands import CountTokens as CountTokens
from quantchat.engine.commands import Decoding as Decoding
from quantchat.engine.commands import Dequantize as Dequantize
from quantchat.engine.commands import Evaluate as Evaluate
from quantchat.engine.commands import Forget as Forget
from quantchat.engine.commands import Generate as Generate
from quantchat.engine.commands import Job as Job
from quantchat.engine.commands import Load as Load
from quantchat.engine.commands import MeasureBandwidth as MeasureBandwidth
from quantchat.engine.commands import Partial as Partial
from quantchat.engine.commands import Ping as Ping
from quantchat.engine.commands import Quantize as Quantize
from quantchat.engine.commands import RenderPrompt as RenderPrompt
from quantchat.engine.commands import Shutdown as Shutdown
from quantchat.engine.commands import Stop as Stop
from quantchat.engine.commands import Survey as Survey
from quantchat.engine.commands import Unload as Unload
from quantchat.engine.commands import Word as Word
from quantchat.engine.reports import LoadReport as LoadReport
from quantchat.engine.reports import PromptPiece as PromptPiece
from quantchat.engine.reports import PromptWarning as PromptWarning
from quantchat.errors import ErrorReport

PROTOCOL = 4
"""Both sides must speak the same version; `Ready` carries the engine's."""
LIBRARIES = ("torch", "transformers", "gptqmodel", "optimum")
"""Whose versions the `Ready` of a `torch` engine carries."""


class Ready(Word, frozen=True, kw_only=True, tag="ready"):
    """The engine's libraries are imported; it takes commands.

    Attributes:
        versions: Of the libraries that this kind of engine loads models with, by name.
        devices: Devices that they see, best first, such as `cuda:0` and `cpu`.
        backend: What kind of engine it is.
        python: Version of its interpreter.
    """

    pid: int
    protocol: int = PROTOCOL
    backend: Backend = "torch"
    python: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu",)


class LoadProgress(Word, frozen=True, kw_only=True, tag="load-progress"):
    """A step of a load. `total` 0 means that the end is not known.

    Attributes:
        stage: `reading weights`, `building kernel`, `warming up`, ... in words to show.
        unit: What `done` counts: `bytes`, `tensors` or empty.
        kernel: The kernel that runs in this stage, to be blamed if the process dies in it; empty if none does.
        note: What the user should know about this stage, such as that it happens only once.
    """

    request: str
    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    kernel: str = ""
    note: str = ""


class Loaded(Word, frozen=True, kw_only=True, tag="loaded"):
    """The model answers; sent only after its warm-up gave sound logits."""

    request: str
    report: LoadReport


class LoadFailed(Word, frozen=True, kw_only=True, tag="load-failed"):
    """The model did not load.

    Attributes:
        next_kernel: Where the fault was the kernel's: the next candidate, to be tried in a fresh engine process.
        failed: That kernel and how it failed, if it was tried at all.
    """

    request: str
    error: ErrorReport
    next_kernel: str | None = None
    failed: KernelRefusal | None = None


class Prefill(Word, frozen=True, kw_only=True, tag="prefill"):
    """Prompt tokens computed so far; `reused` of them came from the KV cache.

    Attributes:
        dropped: Messages, oldest first and the system prompt not counted, that found no room in the context window.
    """

    turn: str
    done: int
    total: int
    reused: int = 0
    dropped: int = 0


class Delta(Word, frozen=True, kw_only=True, tag="delta"):
    """New text of an answer. `tokens` is the number generated so far."""

    turn: str
    text: str
    channel: Channel = "answer"
    tokens: int = 0


class Finished(Word, frozen=True, kw_only=True, tag="finished"):
    """The last event of a turn that did not fail."""

    turn: str
    reason: FinishReason
    statistics: TurnStatistics


class Failed(Word, frozen=True, kw_only=True, tag="failed"):
    """The last event of a turn that failed; the text so far stands."""

    turn: str
    error: ErrorReport


class Unloaded(Word, frozen=True, kw_only=True, tag="unloaded"):
    """The model is gone; `freed` bytes came back."""

    request: str
    freed: int = 0


class TokenCount(Word, frozen=True, kw_only=True, tag="token-count"):
    """Answer to `CountTokens`.

    Attributes:
        tokens: Of the prompt as it would be sent.
        window: The model's context window, 0 if unknown.
        dropped: Messages, oldest first and the system prompt not counted, that would find no room.
        reserve: Tokens that are kept free for the reply.
    """

    request: str
    tokens: int
    window: int = 0
    dropped: int = 0
    reserve: int = 0


class WarmSession(msgspec.Struct, frozen=True):
    """A session whose KV cache is kept; `place` is where it waits."""

    session: str
    tokens: int
    bytes: int
    place: Literal["device", "host"] = "device"


class Warm(Word, frozen=True, kw_only=True, tag="warm"):
    """The sessions whose caches are kept, most recently used first; sent whenever that changes."""

    sessions: tuple[WarmSession, ...] = ()


class RenderedPrompt(Word, frozen=True, kw_only=True, tag="rendered-prompt"):
    """Answer to `RenderPrompt`.

    Attributes:
        text: The exact prompt.
        pieces: The same, cut where a special token stands or another message begins; empty where the tokens are not
            known, as with some servers.
        warnings: What is wrong with it, such as a doubled start token.
        window: The model's context window, 0 if unknown.
    """

    request: str
    text: str
    tokens: int
    window: int = 0
    pieces: tuple[PromptPiece, ...] = ()
    warnings: tuple[PromptWarning, ...] = ()


class RequestFailed(Word, frozen=True, kw_only=True, tag="request-failed"):
    """A `CountTokens`, `RenderPrompt` or `Unload` that could not be answered."""

    request: str
    error: ErrorReport


class JobProgress(Word, frozen=True, kw_only=True, tag="job-progress"):
    """A step of a job; `total` 0 means that the end of its stage is not known.

    Attributes:
        share: How much of the whole job is done, 0 to 1; it never falls and ends at 1. 0 where that is not known.
    """

    job: str
    stage: str
    done: int = 0
    total: int = 0
    share: float = 0.0


class JobModule(Word, frozen=True, kw_only=True, tag="job-module"):
    """A linear module is quantized.

    Attributes:
        layer: Number of its layer, from 0, of `layers`; -1 outside the layers.
        module: Its name within the layer, such as `self_attn.q_proj`.
        error: Mean squared error of its output on the calibration set, as GPTQModel gives it; None if it gives none.
        samples: Tokens that it saw.
        seconds: What it took.
    """

    job: str
    layer: int
    layers: int
    module: str
    error: float | None = None
    samples: int = 0
    seconds: float = 0.0


class Calibrated(Word, frozen=True, kw_only=True, tag="calibrated"):
    """What became of the calibration set of a `Quantize` or `Survey` job."""

    job: str
    report: CalibrationReport


class JobFinished(Word, frozen=True, kw_only=True, tag="job-finished"):
    """A job is done; `figures` are its measured results, such as `{"perplexity": 20.1}`."""

    job: str
    output: str = ""
    figures: dict[str, float] = msgspec.field(default_factory=dict)


class JobFailed(Word, frozen=True, kw_only=True, tag="job-failed"):
    """A job failed or was stopped (code `cancelled`); nothing half made is left."""

    job: str
    error: ErrorReport


class Memory(Word, frozen=True, kw_only=True, tag="memory"):
    """What the engine holds now, in bytes."""

    resident: int
    device: int = 0


class Log(Word, frozen=True, kw_only=True, tag="log"):
    """A line for the log screen."""

    level: Literal["info", "warning", "error"]
    text: str


class ServerState(Word, frozen=True, kw_only=True, tag="server-state"):
    """How the server of the loaded model is, told when it changes; figures are None where the server tells none.

    Attributes:
        healthy: It answers.
        detail: One line: why not, and what is done about it.
        latency: Seconds of the last health check.
        running: Requests that it computes now, of all its users.
        waiting: Requests that wait there.
        cache_used: Share of its KV cache that is used, 0 to 1.
        prefix_hits: Share of prompt tokens that its prefix cache gave since it was last told, 0 to 1.
    """

    healthy: bool
    detail: str = ""
    latency: float = 0.0
    running: int | None = None
    waiting: int | None = None
    cache_used: float | None = None
    prefix_hits: float | None = None


class Pong(Word, frozen=True, kw_only=True, tag="pong"):
    """Answer to `Ping`."""

    request: str
    busy: bool


Event = (
    Ready
    | LoadProgress
    | Loaded
    | LoadFailed
    | Prefill
    | Delta
    | Finished
    | Failed
    | Unloaded
    | TokenCount
    | Warm
    | RenderedPrompt
    | RequestFailed
    | JobProgress
    | JobModule
    | Calibrated
    | JobFinished
    | JobFailed
    | Memory
    | Log
    | ServerState
    | Pong
)


class EngineExited(msgspec.Struct, frozen=True, kw_only=True):
    """The engine process is gone; the last thing that a client reports about it; no frame carries it.

    Attributes:
        code: Exit status; None when a signal ended it.
        signal: Name of that signal, such as `SIGKILL`; None when it exited.
        log_tail: The last lines that this process wrote to its log, free of control characters.
        expected: The client was told to end it, by `close` or `kill`.
    """

    code: int | None
    signal: str | None
    log_tail: str
    expected: bool
