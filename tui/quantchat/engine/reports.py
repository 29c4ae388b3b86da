"""What events of the protocol carry: how a load went, and what a prompt is made of."""

from __future__ import annotations

import msgspec

from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.loading import KernelRefusal


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
        idle_bytes: Resident set size of the process before the load.
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
    idle_bytes: int = 0
    context_window: int = 0
    template: str = "model"
    recommended: SamplingOverrides = SamplingOverrides()
    decoding: str = "eager"
    decoding_reason: str = ""
    kv_token_bytes: int = 0
    kv_budget: int = 0
    seconds: dict[str, float] = {}
    warnings: tuple[str, ...] = ()


class PromptPiece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a prompt: one special token, or ordinary text.

    Attributes:
        text: As it stands in the prompt; of a special token its name, such as `<|im_start|>`.
        tokens: So many tokens.
        special: The tokenizer takes it as one token with a meaning of its own.
        message: Index of the message in `RenderPrompt.messages` whose words it holds; None for what the template adds.
    """

    text: str
    tokens: int
    special: bool = False
    message: int | None = None


class PromptWarning(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a prompt that makes answers worse.

    Attributes:
        code: `doubled-bos`, `no-generation-prompt`, `unclosed-thinking`, ...
        cause: One line: what is wrong.
        remedy: One line: what to do.
    """

    code: str
    cause: str
    remedy: str
