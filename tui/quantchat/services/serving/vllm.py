"""What vLLM takes, from `model_executor/layers/quantization/` of vLLM 0.28, and how it is told of a model."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.domain.kernel_table import AMPERE, MARLIN_GROUPS, TURING, Capability
from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.services.serving.words import option

BASE_MODEL = "BASE_MODEL"
"""Stands for what a GGUF file was made from, where nobody has named it."""
BY_ITSELF = frozenset(
    {"none", "compressed-tensors", "fp8", "torchao", "quark", "auto-round", "mxfp4", "nvfp4", "modelopt"}
)
"""Methods that vLLM reads from config.json."""
PLUGINS = {"bitsandbytes": "vllm-bnb-plugin", "gguf": "vllm-gguf-plugin"}
NOT_IN_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "plamo2", "glm4")
"""Model types whose activations overflow in float16; vLLM refuses them there (`config/model.py`)."""


def refusal(model: ModelInfo) -> str:
    """Say why vLLM would not serve a model; empty if it would."""
    if model.kind in ("adapter", "draft"):
        return f"vLLM serves no {model.kind} alone, only together with the model that it belongs to."
    if model.container in ("mlx", "pickle"):
        return f"vLLM is given no {model.container} weights here; use a safetensors version."
    method = model.quant.method
    if method == "gptq":
        return _refused_gptq(model.quant)
    if method == "awq":
        return _refused_awq(model.quant)
    if method in BY_ITSELF or method in PLUGINS or model.container == "gguf":
        return ""
    return f"vLLM has no kernels for {model.quant.label()}."


def _refused_gptq(quant: QuantSpec) -> str:
    if quant.checkpoint_format == "marlin":
        return "vLLM repacks GPTQ for Marlin itself, and reads no weights that are packed so already."
    if quant.bits not in (4, 8) or quant.sym is False:
        kind = "symmetric" if quant.sym is not False else "asymmetric"
        return f"vLLM takes GPTQ with 4 or 8 bits, symmetric; this one has {quant.bits} bits and is {kind}."
    return _refused_groups(quant)


def _refused_awq(quant: QuantSpec) -> str:
    if quant.bits != 4:
        return f"vLLM takes AWQ with 4 bits; this one has {quant.bits}."
    if quant.checkpoint_format not in (None, "gemm"):
        return f"vLLM reads AWQ's gemm packing; this one is packed for {quant.checkpoint_format}."
    return _refused_groups(quant)


def _refused_groups(quant: QuantSpec) -> str:
    if quant.group_size in (None, *MARLIN_GROUPS):
        return ""
    return f"vLLM's kernels take groups of 32, 64, 128 or a whole column; this one has groups of {quant.group_size}."


def plugin(model: ModelInfo) -> str:
    """Return the package that vLLM needs for a model; empty for none."""
    return PLUGINS.get("gguf" if model.container == "gguf" else model.quant.method, "")


def model_options(
    model: ModelInfo, context: int | None, *, capability: Capability | None = None, tokenizer: str = BASE_MODEL
) -> Iterator[str]:
    """Return the words of the command line that a model's format asks for.

    Args:
        model: The model.
        context: Tokens to serve at most; the model's own window if None.
        capability: Compute capability of the weakest GPU; None if nobody knows.
        tokenizer: Where the tokenizer of a GGUF file comes from.
    """
    if kernel := _kernel(model.quant.method, capability):
        yield from ("--quantization", kernel)
    if model.container == "gguf":
        yield from option("--tokenizer", tokenizer)
    if model.kind == "embedding":
        yield from ("--runner", "pooling")
    elif window := min(filter(None, (context, model.context_window)), default=0):
        yield from ("--max-model-len", str(window))


def _kernel(method: str, capability: Capability | None) -> str:
    """Below these, versions differ in whether Marlin runs, and the plain name lets each take what it has."""
    if method not in ("gptq", "awq"):
        return ""
    marlin = AMPERE if method == "awq" else TURING
    return method if capability is not None and capability < marlin else f"{method}_marlin"


def dtype(model: ModelInfo, capability: Capability | None) -> str:
    """Return the dtype to serve in; `auto` is what config.json says.

    The kernels for packed weights are fastest in float16; before Ampere a GPU has no bfloat16 at all.
    """
    if model.model_type in NOT_IN_FLOAT16:
        return "auto"
    old = capability is not None and capability < AMPERE
    return "float16" if old or model.quant.method in ("gptq", "awq") else "auto"
