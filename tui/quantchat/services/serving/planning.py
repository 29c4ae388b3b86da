"""Planning a server for a model on this machine: the right command of vLLM, or of `transformers serve`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.template import CHATML
from quantchat.errors import ModelError, UsageError
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot
from quantchat.hardware.visible import VARIABLE, visible
from quantchat.services.memory import MemoryView
from quantchat.services.serving import ports, vllm
from quantchat.services.serving.parallel import Split, obstacle
from quantchat.services.serving.plan import KEY_VARIABLE, ServePlan, Wish, listed
from quantchat.services.serving.room import USUAL_SHARE, Place, best, places
from quantchat.services.serving.words import option
from quantchat.services.snippets import code_files, unfit

RAY_PORT = 6379
CHATS = ("chat", "vision")
BEFORE = "Write it before the --"
OURS = {
    "--host": BEFORE,
    "--port": BEFORE,
    "--served-model-name": BEFORE,
    "--api-key": f"Put the key into {KEY_VARIABLE}, where others on the machine do not see it",
}


def require_servable(model: ModelInfo, wish: Wish) -> None:
    """Make sure that a model can be served at all.

    Raises:
        ModelError: if not.
    """
    if model.kind not in CHATS:
        raise ModelError(f"{model.name} is no chat model", f"It is of the kind {model.kind}")
    if model.remote_code and not wish.remote_code:
        raise ModelError(
            f"{model.name} wants to run code of its own",
            f"It is in {code_files(model)}",
            "Read it first; --trust-remote-code lets the server run it",
            code="remote-code",
        )
    require_free_words(wish.extra)
    reason = unfit(model) or (vllm.refusal(model) if wish.backend == "vllm" else "")
    if reason:
        raise ModelError(f"{model.name} cannot be served", reason)


def require_free_words(words: Sequence[str]) -> None:
    """Make sure that words for the server alone leave to quantchat what it must know to reach it.

    Raises:
        UsageError: if not.
    """
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in OURS:
            raise UsageError(f"{name} cannot stand behind --", "quantchat would not find the server", OURS[name])


def chosen_gpus(view: MemoryView, wish: Wish) -> tuple[GpuDevice, ...]:
    """Return the GPUs that may be taken.

    Raises:
        UsageError: if one that the user named is not there.
    """
    seen = visible(view.gpus.devices) if isinstance(view.gpus, GpuSnapshot) else ()
    if not wish.devices:
        return seen
    found = {f"cuda:{gpu.index}": gpu for gpu in seen}
    for device in wish.devices:
        if device != "cpu" and device not in found:
            raise UsageError(f"There is no device {device}", f"There are: {', '.join([*found, 'cpu'])}")
    return tuple(found[device] for device in wish.devices if device != "cpu")


def plan_vllm(model: ModelInfo, view: MemoryView, wish: Wish, program: str) -> ServePlan:
    """Plan `vllm serve` for a model.

    Raises:
        ModelError: if the model cannot be served, or not even its weights fit.
        UsageError: if what the user wants cannot be.
    """
    require_servable(model, wish)
    if "cpu" in wish.devices:
        raise UsageError("vLLM serves on GPUs here", remedy="Add --backend transformers to serve on the CPU")
    gpus = chosen_gpus(view, wish)
    place = _with_share(_placed(model, gpus, wish), wish)
    context = _context(model, place, wish)
    capability = min((gpu.capability for gpu in place.gpus if gpu.capability), default=None)
    dtype = wish.dtype or vllm.dtype(model, capability)
    port = wish.port or ports.free_port(wish.host)
    name = wish.name or model.name
    words = [
        *("serve", model.path),
        *option("--served-model-name", name),
        *("--host", wish.host, "--port", str(port)),
        *vllm.model_options(model, context, capability=capability, tokenizer=wish.tokenizer or vllm.BASE_MODEL),
        *option("--dtype", dtype if dtype != "auto" else ""),
        *place.split.options(),
        *option("--distributed-executor-backend", "ray" if wish.nodes > 1 else ""),
        *option("--gpu-memory-utilization", place.share),
        *option("--chat-template", "" if model.has_chat_template else CHATML),
        *(["--trust-remote-code"] if model.remote_code else []),
        *wish.extra,
    ]
    return ServePlan(
        backend="vllm",
        program=program,
        arguments=tuple(words),
        environment=_environment(place.gpus, view, wish),
        model=name,
        host=wish.host,
        port=port,
        context=context or model.context_window or 0,
        keyed=True,
        notes=tuple(_notes(model, gpus, place, wish)),
        cluster=tuple(_cluster(wish.nodes)),
    )


def _placed(model: ModelInfo, gpus: Sequence[GpuDevice], wish: Wish) -> Place:
    fixed = _fixed(model, len(gpus), wish)
    if fixed is not None and gpus and fixed.gpus > len(gpus) * wish.nodes:
        there = f"{len(gpus)} visible here" + (f", on {wish.nodes} machines" if wish.nodes > 1 else "")
        raise UsageError(f"That takes {fixed.gpus} GPUs", f"There are {there}")
    return best(places(model, gpus, wish.nodes, fixed), model.context_window or 0)


def _fixed(model: ModelInfo, gpus: int, wish: Wish) -> Split | None:
    if not (wish.tensor or wish.pipeline):
        return None
    heads = model.shape.attention_heads
    if wish.tensor and heads % wish.tensor:
        raise UsageError(f"Tensor parallelism of {wish.tensor} is not possible", obstacle(model, wish.tensor))
    return Split(wish.tensor or 1, wish.pipeline or wish.nodes)


def _with_share(place: Place, wish: Wish) -> Place:
    return place if wish.share is None else msgspec.structs.replace(place, share=wish.share, context=None)


def _context(model: ModelInfo, place: Place, wish: Wish) -> int | None:
    if wish.context:
        if model.context_window and wish.context > model.context_window:
            detail = f"{model.name} was made for {model.context_window:,}"
            raise UsageError(f"A context of {wish.context:,} tokens is not possible", detail)
        return wish.context
    if place.context == 0:
        free = sum(gpu.free or 0 for gpu in place.gpus)
        raise ModelError(
            f"{model.name} does not fit",
            f"Its weights take {format_bytes(model.weight_bytes)}, and of the GPUs here {format_bytes(free)} are free",
            "Free memory there, take several machines with --nodes, or give --max-model-len to try all the same",
            code="too-big",
        )
    return place.context


def _environment(gpus: Sequence[GpuDevice], view: MemoryView, wish: Wish) -> dict[str, str]:
    seen = visible(view.gpus.devices) if isinstance(view.gpus, GpuSnapshot) else ()
    settings = visible_devices(gpus, len(seen))
    if wish.nodes > 1:
        settings["VLLM_HOST_IP"] = ports.own_address()
    return settings


def visible_devices(gpus: Sequence[GpuDevice], seen: int) -> dict[str, str]:
    """Return what makes a program number the GPUs as the driver does, and see only these."""
    if not gpus:
        return {}
    settings = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if len(gpus) < seen:
        names = os.environ.get(VARIABLE, "").split(",") if VARIABLE in os.environ else [str(n) for n in range(seen)]
        settings[VARIABLE] = ",".join(names[gpu.index].strip() for gpu in gpus)
    return settings


def _notes(model: ModelInfo, gpus: Sequence[GpuDevice], place: Place, wish: Wish) -> Iterator[str]:
    if not gpus:
        yield "No NVIDIA GPU is visible here, and the usual vLLM needs one; --backend transformers runs on any machine."
    if plugin := vllm.plugin(model):
        yield f"vLLM needs a plug-in for this format: pip install {plugin}, where vLLM is."
    if model.container == "gguf":
        yield "quantchat itself runs GGUF files with llama.cpp, without a server: vLLM is slow with them."
    if not model.has_chat_template:
        yield "The model has no chat template; it is served with ChatML, as quantchat itself would."
    yield from _place_notes(model, gpus, place, wish)
    if wish.host not in ports.LOOPBACK:
        yield f"Whoever reaches {wish.host} can use it with the key; /metrics and some others ask for none."


def _place_notes(model: ModelInfo, gpus: Sequence[GpuDevice], place: Place, wish: Wish) -> Iterator[str]:
    window = model.context_window or 0
    if place.context and not wish.context and place.context < window:
        yield f"About {place.context:,} of the model's {window:,} tokens of context fit; vLLM measures it once more."
    if place.share is not None and wish.share is None and place.share < USUAL_SHARE:
        yield f"Others hold memory on a GPU: vLLM gets {place.share:.0%} of each."
    if left := [gpu.index for gpu in gpus if gpu not in place.gpus]:
        yield f"GPU {listed(left)} {'is' if len(left) == 1 else 'are'} left free."
    here = len(place.gpus)
    if here > 1 and place.split.tensor < here and not wish.tensor and (reason := obstacle(model, here)):
        yield f"The layers are divided in a pipeline: {reason}."


def _cluster(nodes: int) -> Iterator[str]:
    """Say how machines are joined; the addresses must be those by which they reach each other."""
    if nodes < 2:
        return
    here = ports.own_address()
    yield f"# Join the {nodes} machines first; on each the same vLLM, Ray and path of the model. On this one:"
    yield f"VLLM_HOST_IP={here} ray start --head --node-ip-address={here} --port={RAY_PORT}"
    yield f"# On each of the {nodes - 1} others, with its own address for ITS_ADDRESS:"
    yield f"VLLM_HOST_IP=ITS_ADDRESS ray start --address={here}:{RAY_PORT} --node-ip-address=ITS_ADDRESS"
    yield f"# `ray status` shows when all {nodes} are there. Afterwards, on each: ray stop"
