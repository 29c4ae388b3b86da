"""Planning `transformers serve`: it comes with a library that quantchat needs anyway, and runs on any machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat.catalog.roots import hub_cache
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError, UsageError
from quantchat.hardware.gpu import GpuSnapshot
from quantchat.hardware.visible import visible
from quantchat.services.fit import Forecast, forecast
from quantchat.services.loads import LoadOptions
from quantchat.services.memory import MemoryView
from quantchat.services.serving import ports
from quantchat.services.serving.plan import ServePlan, Wish
from quantchat.services.serving.planning import chosen_gpus, require_servable, visible_devices
from quantchat.services.serving.words import option
from quantchat.services.snippets import wrong_untold

FEW_CORES = 2
WAITING = "OMP_WAIT_POLICY"
"""Threads that spin while they wait take the cores from those they wait for: twenty times slower beside two others."""


def plan_transformers(model: ModelInfo, view: MemoryView, wish: Wish, program: str) -> ServePlan:
    """Plan `transformers serve` for a model.

    Raises:
        ModelError: if the model cannot be served, or would be loaded wrongly.
        UsageError: if what the user wants is for vLLM alone.
    """
    require_servable(model, wish)
    _require_possible(wish)
    found = forecast(model, view, _options(view, wish))
    device = _device(found, wish)
    named = _named(model, "cpu" if device == "cpu" else "cuda")
    if found.problem:
        raise ModelError(f"{model.name} cannot be served here", found.problem)
    port = wish.port or ports.free_port(wish.host)
    words = [
        *("serve", named, "--host", wish.host, "--port", str(port), "--device", device),
        *option("--dtype", wish.dtype or _dtype(model, device)),
        *(["--trust-remote-code"] if model.remote_code else []),
        *wish.extra,
    ]
    return ServePlan(
        backend="transformers",
        program=program,
        arguments=tuple(words),
        environment=_environment(view, wish, device),
        model=named,
        host=wish.host,
        port=port,
        context=model.context_window or 0,
        notes=tuple(_notes(model, found)),
    )


def make_cache() -> None:
    """Make the hub's cache folder if there is none: without it the server fails when it is asked for its models."""
    # One that cannot be made costs the list, and not the answers.
    with contextlib.suppress(OSError):
        hub_cache().mkdir(parents=True, exist_ok=True)


def _require_possible(wish: Wish) -> None:
    """It knows no keys, so nobody from outside may reach it."""
    if wish.host not in ports.LOOPBACK:
        detail = "`transformers serve` asks for no key: whoever reaches it could use it"
        raise UsageError(
            f"It is not served on {wish.host}", detail, "Serve with vLLM, or reach it through SSH (ssh -L)"
        )
    wanted = {
        "--nodes": wish.nodes > 1,
        "--tensor-parallel-size": wish.tensor,
        "--pipeline-parallel-size": wish.pipeline,
        "--max-model-len": wish.context,
        "--gpu-memory-utilization": wish.share,
        "--served-model-name": wish.name,
        "--tokenizer": wish.tokenizer,
    }
    if alone := [name for name, value in wanted.items() if value]:
        raise UsageError(f"{alone[0]} is for vLLM", "`transformers serve` has nothing like it")


def _options(view: MemoryView, wish: Wish) -> LoadOptions:
    options = view.options or LoadOptions()
    if not wish.devices:
        return options
    return msgspec.structs.replace(options, device=wish.devices[0], placement=())


def _device(found: Forecast, wish: Wish) -> str:
    """Never `auto` on a machine without a GPU: a kernel that needs one would be taken, and fail at the first token."""
    if wish.devices:
        return wish.devices[0] if len(wish.devices) == 1 else "auto"
    if len(found.placement) == 1:
        return found.placement[0].device
    return found.devices[0].device if len(found.devices) == 1 else "auto"


def _named(model: ModelInfo, device: str) -> str:
    """Return what the server calls a model: its path, for a GGUF file with the name behind a colon.

    Raises:
        ModelError: if it would not be loaded rightly.
    """
    if reason := wrong_untold(model, "cpu" if device == "cpu" else "cuda"):
        remedy = "quantchat itself loads it; serve it with vLLM, or save it again with GPTQModel"
        raise ModelError(f"{model.name} cannot be served by transformers", reason, remedy)
    path = Path(model.path)
    named = f"{path.parent}:{path.name}" if model.container == "gguf" else model.path
    if "@" in named or (":" in model.path and model.path.endswith(".gguf")):
        detail = "`transformers serve` takes what follows an @, or a colon before a .gguf, for a revision or a file"
        raise ModelError(
            f"The path of {model.name} cannot be served", detail, "Rename the folder, or make a link to it"
        )
    return named


def _dtype(model: ModelInfo, device: str) -> str:
    """float16 is ten times slower on a CPU, and right for packed weights on a GPU."""
    if device == "cpu":
        return "bfloat16"
    return "float16" if model.quant.method in ("gptq", "awq") else "auto"


def _environment(view: MemoryView, wish: Wish, device: str) -> dict[str, str]:
    seen = visible(view.gpus.devices) if isinstance(view.gpus, GpuSnapshot) else ()
    settings = {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "GPTQMODEL_OFFLINE": "1"}
    if (os.cpu_count() or 1) <= FEW_CORES:
        settings["GPTQMODEL_CPU_WORKERS"] = str(FEW_CORES)
        if device == "cpu" and WAITING not in os.environ:
            settings[WAITING] = "PASSIVE"
    # One of several is named by --device; the numbers stay as they are.
    several = chosen_gpus(view, wish) if len(wish.devices) > 1 else seen
    return settings | visible_devices(several, len(seen))


def _notes(model: ModelInfo, found: Forecast) -> Iterator[str]:
    yield "It asks for no key: everyone who is logged in on this machine can use it."
    yield "Each request is computed for itself, without what the last one left: long conversations begin slowly."
    if model.container == "gguf":
        yield "transformers unpacks GGUF to 16 bits: it is slow, and takes four times the memory."
    if found.judgement is not None and found.judgement.fit in ("too big", "tight"):
        yield f"Memory may not suffice: the model is {found.judgement.fit} here."
    if found.slow:
        yield f"The kernel {found.kernel} is a slow one."
