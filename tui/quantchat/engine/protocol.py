"""The words between the screen and the engine process; `frames` carries them.

Commands go down the engine's stdin, events come up the descriptor that was its stdout. The invariants: every
`Generate` ends in exactly one `Finished` or `Failed`, every event names its turn, and a second `Generate` for a busy
engine is refused by name.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import FinishReason, SamplingOverrides, SamplingSettings, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.domain.thinking import Channel as Channel
from quantchat.errors import ErrorReport

PROTOCOL = 1
"""Both sides must speak the same version; `Ready` carries the engine's."""


class _Word(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all commands and events."""


# Commands


class Load(_Word, frozen=True, kw_only=True, tag="load"):
    """Load a model, after unloading the one that is there.

    Attributes:
        device: `cpu`, `cuda:0`, ...; None takes the first GPU, else the CPU.
        kernel: A kernel name of the policy table; None takes the first candidate.
    """

    request: str
    model: ModelInfo
    device: str | None = None
    kernel: str | None = None


class Unload(_Word, frozen=True, kw_only=True, tag="unload"):
    """Drop the model; answered by `Unloaded`."""

    request: str


class Generate(_Word, frozen=True, kw_only=True, tag="generate"):
    """Answer a conversation whose last message is the user's."""

    turn: str
    messages: list[ChatMessage]
    sampling: SamplingSettings


class Stop(_Word, frozen=True, kw_only=True, tag="stop"):
    """End a turn or a job; the text so far is kept. Unknown names are ignored."""

    turn: str


class CountTokens(_Word, frozen=True, kw_only=True, tag="count-tokens"):
    """Ask for the length of a prompt by the loaded model's tokenizer and template."""

    request: str
    messages: list[ChatMessage]


class RenderPrompt(_Word, frozen=True, kw_only=True, tag="render-prompt"):
    """Ask for the exact text that a conversation becomes."""

    request: str
    messages: list[ChatMessage]


class Dequantize(_Word, frozen=True, kw_only=True, tag="dequantize"):
    """Job: turn a GGUF file into an ordinary bf16 model folder."""

    job: str
    source: str
    output: str


class Quantize(_Word, frozen=True, kw_only=True, tag="quantize"):
    """Job: make a GPTQ folder from an ordinary one.

    Attributes:
        calibration: JSONL file of `{"messages": [...]}`; None takes the bundled set.
        group_size: Weights per scale; -1 for one group per column.
        damping: Share of the mean Hessian diagonal that is added to it; None leaves GPTQModel's default.
    """

    job: str
    source: str
    output: str
    bits: int = 4
    group_size: int = 64
    desc_act: bool = False
    damping: float | None = None
    calibration: str | None = None


class Evaluate(_Word, frozen=True, kw_only=True, tag="evaluate"):
    """Job: measure perplexity on a text file (None: the bundled held-out text)."""

    job: str
    model: ModelInfo
    text: str | None = None


class Ping(_Word, frozen=True, kw_only=True, tag="ping"):
    """Answered by `Pong` at once, also while the worker is busy."""

    request: str


class Shutdown(_Word, frozen=True, kw_only=True, tag="shutdown"):
    """Stop everything and exit."""


Command = (
    Load | Unload | Generate | Stop | CountTokens | RenderPrompt | Dequantize | Quantize | Evaluate | Ping | Shutdown
)


# Events


class Ready(_Word, frozen=True, kw_only=True, tag="ready"):
    """The engine's libraries are imported; it takes commands.

    Attributes:
        versions: Library name to version: torch, transformers, gptqmodel, optimum.
        devices: Devices that torch sees, best first, such as `cuda:0` and `cpu`.
    """

    pid: int
    protocol: int = PROTOCOL
    versions: dict[str, str] = {}
    devices: tuple[str, ...] = ("cpu",)


class LoadProgress(_Word, frozen=True, kw_only=True, tag="load-progress"):
    """A step of a load. `total` 0 means that the end is not known.

    Attributes:
        stage: `reading weights`, `building kernel`, `warming up`, ... in words to show.
        unit: What `done` counts: `bytes`, `tensors` or empty.
    """

    request: str
    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""


class KernelRefusal(msgspec.Struct, frozen=True):
    """A faster kernel that was not taken, and why."""

    kernel: str
    reason: str


class LoadReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a load came to.

    Attributes:
        kernel: Name in the policy table of the kernel that multiplies most quantized layers; `dense` without any.
        layers: Linear modules per kernel class, such as `{"TorchAtenLinear": 210, "Linear": 1}`.
        refusals: Kernels ahead of it in the policy and why they were not taken.
        dtype: Of the activations, such as `bfloat16`.
        weight_bytes: Parameters and buffers on the device, bytes.
        device_bytes: Device memory that the process holds after the warm-up (CUDA), else its resident set size.
        context_window: Tokens; 0 if the model does not say.
        template: `model` for its own chat template, else the name of the fallback.
        recommended: Sampling that the model's `generation_config.json` asks for.
        seconds: Stage name to seconds.
        warnings: Sentences that the user should read, such as a slow kernel and its remedy.
    """

    path: str
    name: str
    architecture: str
    device: str
    dtype: str
    kernel: str
    layers: dict[str, int] = {}
    refusals: tuple[KernelRefusal, ...] = ()
    weight_bytes: int = 0
    device_bytes: int = 0
    context_window: int = 0
    template: str = "model"
    recommended: SamplingOverrides = SamplingOverrides()
    seconds: dict[str, float] = {}
    warnings: tuple[str, ...] = ()


class Loaded(_Word, frozen=True, kw_only=True, tag="loaded"):
    """The model answers; sent only after its warm-up gave sound logits."""

    request: str
    report: LoadReport


class LoadFailed(_Word, frozen=True, kw_only=True, tag="load-failed"):
    """The model did not load.

    Attributes:
        next_kernel: Where the fault was the kernel's: the next candidate, to be tried in a fresh engine process.
    """

    request: str
    error: ErrorReport
    next_kernel: str | None = None


class Prefill(_Word, frozen=True, kw_only=True, tag="prefill"):
    """Prompt tokens computed so far; `reused` of them came from the KV cache."""

    turn: str
    done: int
    total: int
    reused: int = 0


class Delta(_Word, frozen=True, kw_only=True, tag="delta"):
    """New text of an answer. `tokens` is the number generated so far."""

    turn: str
    text: str
    channel: Channel = "answer"
    tokens: int = 0


class Finished(_Word, frozen=True, kw_only=True, tag="finished"):
    """The last event of a turn that did not fail."""

    turn: str
    reason: FinishReason
    statistics: TurnStatistics


class Failed(_Word, frozen=True, kw_only=True, tag="failed"):
    """The last event of a turn that failed; the text so far stands."""

    turn: str
    error: ErrorReport


class Unloaded(_Word, frozen=True, kw_only=True, tag="unloaded"):
    """The model is gone; `freed` bytes came back."""

    request: str
    freed: int = 0


class TokenCount(_Word, frozen=True, kw_only=True, tag="token-count"):
    """Answer to `CountTokens`; `window` is the model's context window, 0 if unknown."""

    request: str
    tokens: int
    window: int = 0


class RenderedPrompt(_Word, frozen=True, kw_only=True, tag="rendered-prompt"):
    """Answer to `RenderPrompt`."""

    request: str
    text: str
    tokens: int


class RequestFailed(_Word, frozen=True, kw_only=True, tag="request-failed"):
    """A `CountTokens`, `RenderPrompt` or `Unload` that could not be answered."""

    request: str
    error: ErrorReport


class JobProgress(_Word, frozen=True, kw_only=True, tag="job-progress"):
    """A step of a job; `total` 0 means that the end is not known."""

    job: str
    stage: str
    done: int = 0
    total: int = 0


class JobFinished(_Word, frozen=True, kw_only=True, tag="job-finished"):
    """A job is done; `figures` are its measured results, such as `{"perplexity": 20.1}`."""

    job: str
    output: str = ""
    figures: dict[str, float] = {}


class JobFailed(_Word, frozen=True, kw_only=True, tag="job-failed"):
    """A job failed or was stopped (code `cancelled`); nothing half made is left."""

    job: str
    error: ErrorReport


class Memory(_Word, frozen=True, kw_only=True, tag="memory"):
    """What the engine holds now, in bytes."""

    resident: int
    device: int = 0


class Log(_Word, frozen=True, kw_only=True, tag="log"):
    """A line for the log screen."""

    level: Literal["info", "warning", "error"]
    text: str


class Pong(_Word, frozen=True, kw_only=True, tag="pong"):
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
    | RenderedPrompt
    | RequestFailed
    | JobProgress
    | JobFinished
    | JobFailed
    | Memory
    | Log
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
