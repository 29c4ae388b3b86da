"""What the screen tells the engine process: the commands of the protocol, and what they carry."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.loading import DeviceShare, KernelRefusal
from quantchat.domain.models import ModelInfo
from quantchat.domain.quantizing import CalibrationChoice, Recipe
from quantchat.domain.servers import ServerTarget

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
        server: Where to ask, for a model of a server.
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
    server: ServerTarget | None = None


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
        apart: Send the text of each token by itself, so that it can be told which token said what.
    """

    turn: str
    messages: list[ChatMessage]
    sampling: SamplingSettings
    session: str = ""
    resume: Partial | None = None
    template: str = ""
    apart: bool = False


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
    """Ask for the exact text that a conversation becomes; `session`, `reserve` and `template` as in `CountTokens`."""

    request: str
    messages: list[ChatMessage]
    session: str = ""
    reserve: int = 0
    template: str = ""


class Dequantize(Word, frozen=True, kw_only=True, tag="dequantize"):
    """Job: turn a GGUF file into an ordinary bf16 model folder."""

    job: str
    source: str
    output: str


class Quantize(Word, frozen=True, kw_only=True, tag="quantize"):
    """Job: make a GPTQ or AWQ folder.

    Attributes:
        source: An ordinary model folder, or a GGUF file, which is dequantized first.
        adapter: Folder of a LoRA adapter that is merged into the source first; empty for none.
        output: The folder to write; it appears when it is complete.
    """

    job: str
    source: str
    output: str
    recipe: Recipe = Recipe()
    calibration: CalibrationChoice = CalibrationChoice()
    adapter: str = ""


class Survey(Word, frozen=True, kw_only=True, tag="survey"):
    """Job: tokenize a calibration set as `Quantize` would, and tell its lengths (`Calibrated`)."""

    job: str
    source: str
    calibration: CalibrationChoice = CalibrationChoice()


class Evaluate(Word, frozen=True, kw_only=True, tag="evaluate"):
    """Job: measure the loaded model on a text.

    Its figures are `perplexity`, `tokens` (those predicted) and `window`; against a reference also `divergence`,
    `agreement` and `reference_perplexity`, as in `domain.quality.Quality`.

    Attributes:
        text: A UTF-8 text file; None for the bundled held-out text.
        window: Tokens per window; fewer where the model's context window is smaller.
        tokens: How many tokens of the text are read at most; 0 for all.
        keep: File to write the logits to, for comparisons; empty for none. It appears when it is complete.
        against: Such a file of the reference, made from the same text; empty for none.
    """

    job: str
    text: str | None = None
    window: int = 512
    tokens: int = 0
    keep: str = ""
    against: str = ""


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


Job = Dequantize | Quantize | Survey | Evaluate | MeasureBandwidth
"""What `Stop` ends by its `job`."""

Command = Load | Unload | Generate | Forget | Stop | CountTokens | RenderPrompt | Job | Ping | Shutdown
