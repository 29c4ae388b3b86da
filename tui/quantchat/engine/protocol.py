"""The words between the screen and the engine process; `frames` carries them.

Commands go down the engine's stdin, events come up the descriptor that was its stdout. The invariants: every
`Generate` ends in exactly one `Finished` or `Failed`, every event names its turn, and a second `Generate` for a
session that is answering is refused by name; turns of different sessions run side by side.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import FinishReason, SamplingOverrides, SamplingSettings, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.domain.thinking import Channel as Channel
from quantchat.errors import ErrorReport

Decoding = Literal["auto", "eager", "generate"]

PROTOCOL = 2
"""Both sides must speak the same version; `Ready` carries the engine's."""


class _Word(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all commands and events."""


class DeviceShare(msgspec.Struct, frozen=True):
    """A device and its share of a model's layers; shares are weighed against each other, 0 means by free memory."""

    device: str
    share: float = 0.0


class KernelRefusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kernel that was not taken, why, and what would change that (empty if nothing would)."""

    kernel: str
    reason: str
    remedy: str = ""


# Commands


class Load(_Word, frozen=True, kw_only=True, tag="load"):
    """Load a model, after unloading the one that is there.

    Attributes:
        device: `cpu`, `cuda:0`, ...; None takes the first GPU, else the CPU.
        kernel: A kernel name of the policy table; None takes the first candidate.
        failed: Kernels that failed in earlier engine processes, and how; they are not tried again.
        placement: Devices that share the layers, in order; empty takes `device`, or several if one is too small.
        decoding: `auto` takes the fastest way that passes its check; `eager` leaves out CUDA graphs; `generate` is
            transformers' own loop, without KV reuse.
        kv_budget: Bytes that the caches of all sessions may hold on the device; None takes a share of what is free
            after the load.
        host_kv_budget: Bytes of caches that may wait in host memory; None takes a share of what is free there.
    """

    request: str
    model: ModelInfo
    device: str | None = None
    kernel: str | None = None
    failed: tuple[KernelRefusal, ...] = ()
    placement: tuple[DeviceShare, ...] = ()
    decoding: Decoding = "auto"
    kv_budget: int | None = None
    host_kv_budget: int | None = None


class Unload(_Word, frozen=True, kw_only=True, tag="unload"):
    """Drop the model; answered by `Unloaded`."""

    request: str


class Partial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The beginning of an answer that is to go on, exactly as its `Delta`s gave it."""

    text: str = ""
    thinking: str = ""


class Generate(_Word, frozen=True, kw_only=True, tag="generate"):
    """Answer a conversation whose last message is the user's.

    Attributes:
        session: Whose KV cache is reused and kept; empty keeps none. One turn at a time runs for a session.
        resume: The answer's beginning, when a cut or stopped one goes on; its text is not sent again.
    """

    turn: str
    messages: list[ChatMessage]
    sampling: SamplingSettings
    session: str = ""
    resume: Partial | None = None


class Forget(_Word, frozen=True, kw_only=True, tag="forget"):
    """Drop the KV cache of a session that was deleted; unknown names are ignored."""

    session: str


class Stop(_Word, frozen=True, kw_only=True, tag="stop"):
    """End a turn or a job; the text so far is kept. Unknown names are ignored."""

    turn: str


class CountTokens(_Word, frozen=True, kw_only=True, tag="count-tokens"):
    """Ask for the length of a prompt by the loaded model's tokenizer and template.

    Attributes:
        session: Whose prompt it is, as in `Generate`.
        reserve: Tokens wanted for the reply (`max_new_tokens`).
    """

    request: str
    messages: list[ChatMessage]
    session: str = ""
    reserve: int = 0


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


class MeasureBandwidth(_Word, frozen=True, kw_only=True, tag="measure-bandwidth"):
    """Job: measure what bounds decoding with the loaded model.

    Its figures are `copy_bytes_per_second`, what a large copy moves on the model's device (read and written), and
    `token_bytes`, the weights that one token reads.
    """

    job: str


class Ping(_Word, frozen=True, kw_only=True, tag="ping"):
    """Answered by `Pong` at once, also while the worker is busy."""

    request: str


class Shutdown(_Word, frozen=True, kw_only=True, tag="shutdown"):
    """Stop everything and exit."""


Command = (
    Load
    | Unload
    | Generate
    | Forget
    | Stop
    | CountTokens
    | RenderPrompt
    | Dequantize
    | Quantize
    | Evaluate
    | MeasureBandwidth
    | Ping
    | Shutdown
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


class LoadReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a load came to.

    Attributes:
        kernel: Name in the policy table of the kernel that multiplies most quantized layers; `dense` without any.
        layers: Linear modules per kernel class, such as `{"TorchAtenLinear": 210, "Linear": 1}`.
        refusals: Kernels ahead of it in the policy and why they were not taken, failures at run time included.
        placement: Which layers are on which device, in words; empty with one device.
        dtype: Of the activations, such as `bfloat16`.
        weight_bytes: Parameters and buffers on the device, bytes.
        device_bytes: Device memory that the process holds after the warm-up (CUDA), else its resident set size.
        context_window: Tokens; 0 if the model does not say.
        template: `model` for its own chat template, else the name of the fallback.
        recommended: Sampling that the model's `generation_config.json` asks for.
        decoding: How tokens are computed: `graph` (captured CUDA graph), `eager` (own loop) or `generate`.
        decoding_reason: Why nothing faster; empty where nothing faster exists.
        kv_token_bytes: Bytes of KV cache per token.
        kv_budget: Bytes that the caches of all sessions may hold on the device.
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
    placement: str = ""
    weight_bytes: int = 0
    device_bytes: int = 0
    context_window: int = 0
    template: str = "model"
    recommended: SamplingOverrides = SamplingOverrides()
    decoding: str = "eager"
    decoding_reason: str = ""
    kv_token_bytes: int = 0
    kv_budget: int = 0
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
        failed: That kernel and how it failed, if it was tried at all.
    """

    request: str
    error: ErrorReport
    next_kernel: str | None = None
    failed: KernelRefusal | None = None


class Prefill(_Word, frozen=True, kw_only=True, tag="prefill"):
    """Prompt tokens computed so far; `reused` of them came from the KV cache.

    Attributes:
        dropped: Messages, oldest first and the system prompt not counted, that found no room in the context window.
    """

    turn: str
    done: int
    total: int
    reused: int = 0
    dropped: int = 0


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


class Warm(_Word, frozen=True, kw_only=True, tag="warm"):
    """The sessions whose caches are kept, most recently used first; sent whenever that changes."""

    sessions: tuple[WarmSession, ...] = ()


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
    | Warm
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
