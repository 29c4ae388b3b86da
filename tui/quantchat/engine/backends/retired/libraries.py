"""How each library loads a folder, as a table by the method of its weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from quantchat.domain.models import ModelInfo
from quantchat.domain.stacks import RETIRED, RetiredLibrary, pip_line
from quantchat.engine.backends.retired import weights
from quantchat.errors import LoadError

CURRENT = "quantchat's own interpreter loads it: take the setting of another one out of `[engine]` in config.toml."
IPEX = "intel_extension_for_pytorch"
IPEX_PAIR = ("torch==2.8.0", "intel-extension-for-pytorch==2.8.0")
"""The last release, and the only version of torch that it works with."""


class Source(NamedTuple):
    """What to load, and how.

    Attributes:
        folder: As `folder.readable` made it.
    """

    info: ModelInfo
    folder: Path
    device: str
    dtype: torch.dtype

    @property
    def on_cpu(self) -> bool:
        """Whether no GPU is to be used."""
        return self.device == "cpu"


class Loader(NamedTuple):
    """One way to load a model.

    Attributes:
        refuses: Says what of a model it cannot load; empty if it can.
        load: Loads it; whatever it raises is explained by the caller.
        slow: What is said of it on the CPU; empty if it is not slow there.
    """

    library: RetiredLibrary
    refuses: Callable[[ModelInfo], str]
    load: Callable[[Source], Any]
    slow: str = ""


def _gptq_refuses(info: ModelInfo) -> str:
    quant = info.quant
    if quant.checkpoint_format not in (None, "gptq"):
        return f"it cannot unpack the format {quant.checkpoint_format}"
    if quant.lm_head or quant.dynamic:
        return "it knows no quantized output head and no bits per module"
    return ""


def _awq_refuses(info: ModelInfo) -> str:
    return "" if info.quant.bits in (None, 4) else f"it unpacks 4 bits, not {info.quant.bits}"


def _load_gptq(source: Source) -> Any:
    from auto_gptq import AutoGPTQForCausalLM

    with _weights_by_hand(source):
        wrapped = AutoGPTQForCausalLM.from_quantized(
            str(source.folder),
            device=source.device,
            torch_dtype=source.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            disable_exllama=True if source.on_cpu else None,
            disable_exllamav2=source.on_cpu,
        )
    return wrapped.model


@contextmanager
def _weights_by_hand(source: Source) -> Iterator[None]:
    """Let auto-gptq read the weights by us: through accelerate 0.34 and 1.15 it read none of them.

    It does so before its kernels pack them again, so that there is no later moment for it.
    """
    from accelerate.utils import modeling

    def read(model: Any, *_: Any, **__: Any) -> None:
        weights.fill(model, source.folder, source.dtype)

    own = modeling.load_checkpoint_in_model
    modeling.load_checkpoint_in_model = read
    try:
        yield
    finally:
        modeling.load_checkpoint_in_model = own


def _load_awq(source: Source) -> Any:
    if source.on_cpu and find_spec(IPEX) is None:
        raise LoadError(
            f"autoawq needs {IPEX} on the CPU",
            f"{sys.executable} does not have it. Its last release goes with torch 2.8 alone.",
            f"{pip_line(sys.executable, IPEX_PAIR)}, or: {CURRENT}",
            code="libraries",
        )
    from awq import AutoAWQForCausalLM

    wrapped = AutoAWQForCausalLM.from_quantized(
        str(source.folder),
        # Fused layers hold one conversation in a cache of their own: nothing could be reused, stopped or shared.
        fuse_layers=False,
        use_ipex=source.on_cpu,
        device_map={"": source.device},
        torch_dtype=source.dtype,
        safetensors=True,
        trust_remote_code=False,
    )
    return wrapped.model


def _load_unquantized(source: Source) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        source.folder, torch_dtype=source.dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return model.to(source.device)


LOADERS = {
    "gptq": Loader(
        RETIRED["gptq"],
        _gptq_refuses,
        _load_gptq,
        "auto-gptq has no kernel for the CPU: it unpacks every matrix for every token, far slower than GPTQModel.",
    ),
    "awq": Loader(RETIRED["awq"], _awq_refuses, _load_awq),
    "none": Loader(RETIRED["none"], lambda _: "", _load_unquantized),
}


def loader_for(info: ModelInfo) -> Loader:
    """Return what loads a model in this interpreter.

    Raises:
        LoadError: if nothing does, or the library is not there.
    """
    loader = LOADERS.get(info.quant.method)
    if loader is None:
        raise LoadError(f"{info.quant.label()} cannot be loaded by {sys.executable}", "", CURRENT, code="libraries")
    package, module = loader.library
    if find_spec(module) is None:
        raise LoadError(
            f"{sys.executable} lacks {package}",
            f"It loads {info.quant.label()} folders there.",
            f"{pip_line(sys.executable, [package])}, or: {CURRENT}",
            code="libraries",
        )
    if reason := loader.refuses(info):
        raise LoadError(f"{package} cannot load {info.name}", reason, CURRENT)
    return loader
