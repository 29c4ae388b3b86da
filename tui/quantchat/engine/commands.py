"""What the screen tells the engine process: the commands of the protocol, and what they carry."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.loading import DeviceShare, KernelRefusal
from quantchat.domain.models import ModelInfo

Decoding = Literal["auto", "eager", "generate"]


class Word(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all commands and events."""


class Load(Word, frozen=True, kw_only=True, tag="load"):
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


class Unload(Word, frozen=True, kw_only=True, tag="unload"):
    """Drop the model; answered by `Unloaded`."""

    request: str


class Partial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The beginning of an answer that is to go on, exactly as its `Delta`s gave it."""

    text: str = ""
    thinking: str = ""


class Generate(Word, frozen=True, kw_only=True, tag="generate"):
    """Answer a conversation whose last message is the user's.

    Attributes:
        session: Whose KV cache is reused and kept; empty keeps none. One turn at a time runs for a session.
        resume: The answer's beginning, when a cut or stopped one goes on; its text is not sent again.
        template: A Jinja chat template in place of the model's own; empty for that.
    """

    turn: str
    messages: list[ChatMessage]
    sampling: SamplingSettings
    session: str = ""
    resume: Partial | None = None
    template: str = ""


class Forget(Word, frozen=True, kw_only=True, tag="forget"):
    """Drop the KV cache of a session that was deleted; unknown names are ignored."""

    session: str


class Stop(Word, frozen=True, kw_only=True, tag="stop"):
    """End a turn or a job; the text so far is kept. Unknown names are ignored."""

    turn: str


class CountTokens(Word, frozen=True, kw_only=True, tag="count-tokens"):
    """Ask for the length of a prompt by the loaded model's tokenizer and template.

    Attributes:
        session: Whose prompt it is, as in `Generate`.
        reserve: Tokens wanted for the reply (`max_new_tokens`).
        template: As in `Generate`.
    """

    request: str
    messages: list[ChatMessage]
    session: str = ""
    reserve: int = 0
    template: str = ""


class RenderPrompt(Word, frozen=True, kw_only=True, tag="render-prompt"):
    """Ask for the exact text that a conversation becomes; `template` as in `Generate`."""

    request: str
    messages: list[ChatMessage]
    template: str = ""


class Dequantize(Word, frozen=True, kw_only=True, tag="dequantize"):
    """Job: turn a GGUF file into an ordinary bf16 model folder."""

    job: str
    source: str
    output: str


class Quantize(Word, frozen=True, kw_only=True, tag="quantize"):
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


class Evaluate(Word, frozen=True, kw_only=True, tag="evaluate"):
    """Job: measure perplexity on a text file (None: the bundled held-out text)."""

    job: str
    model: ModelInfo
    text: str | None = None


class MeasureBandwidth(Word, frozen=True, kw_only=True, tag="measure-bandwidth"):
    """Job: measure what bounds decoding with the loaded model.

    Its figures are `copy_bytes_per_second`, what a large copy moves on the model's device (read and written), and
    `token_bytes`, the weights that one token reads.
    """

    job: str


class Ping(Word, frozen=True, kw_only=True, tag="ping"):
    """Answered by `Pong` at once, also while the worker is busy."""

    request: str


class Shutdown(Word, frozen=True, kw_only=True, tag="shutdown"):
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
