"""What a load would come to: kernel, bytes, devices, longest context. Nothing is loaded or imported for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from quantchat.catalog.fit import Judgement, Prediction, Setting, judge, largest_context, planned, predict
from quantchat.domain import kernels
from quantchat.domain.backends import engine_spec
from quantchat.domain.kernel_table import Kernel
from quantchat.domain.loading import DeviceShare, KernelRefusal
from quantchat.domain.memory import Fit, cache_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.placement import Block, Placement, Room, divide, loaded_parts
from quantchat.errors import KernelError, LoadError
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot, NotAvailable
from quantchat.hardware.holders import Holder, holders
from quantchat.hardware.visible import visible
from quantchat.services.experience import Experience, choose, is_llama, kernel_name
from quantchat.services.loads import LoadOptions
from quantchat.store.measured import Measured

if TYPE_CHECKING:
    from quantchat.services.memory import MemoryView

KV_TYPES = (("16 bits", 2.0, True), ("8 bits", 34 / 32, False), ("4 bits", 18 / 32, False))
"""Name, bytes per number, and whether our own engine keeps its cache so. Others need vLLM (`--kv-cache-dtype fp8`) or
llama.cpp, whose q8_0 and q4_0 blocks keep 32 numbers and a 16-bit scale."""


class DeviceMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A device as a load would find it.

    Attributes:
        free: Bytes, with what the engine holds now, which a load gives back first; None if the driver does not tell.
        holders: Processes other than the engine that hold memory there.
    """

    device: str
    name: str = ""
    total: int | None = None
    free: int | None = None
    holders: tuple[Holder, ...] = ()


class ContextRow(msgspec.Struct, frozen=True):
    """The longest conversation that fits, in tokens, with numbers of one kind in the cache."""

    kind: str
    tokens: int
    supported: bool


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a load would come to.

    Attributes:
        kernel: Name in the policy table, `dense`, or empty if none can run the model here.
        slow: The kernel works at a tenth of the usual speed or less.
        refusals: Faster kernels, and why they cannot run it here.
        problem: Why no kernel can, with the remedy.
        devices: All devices that a load could take.
        placement: Which layers would go where; one block on one device.
        prediction: Bytes by what holds them, of all devices together.
        judgement: None if the driver does not tell what is free.
        contexts: Longest contexts by kind of KV cache.
        interpreter: Another one that the settings have this model loaded by; all else is told of quantchat's own.
    """

    kernel: str = ""
    slow: bool = False
    refusals: tuple[KernelRefusal, ...] = ()
    problem: str = ""
    devices: tuple[DeviceMemory, ...] = ()
    placement: tuple[Block, ...] = ()
    prediction: Prediction | None = None
    judgement: Judgement | None = None
    contexts: tuple[ContextRow, ...] = ()
    interpreter: str = ""


def judge_model(model: ModelInfo, view: MemoryView) -> Fit | None:
    """Judge the row of a list: on the card with the most room where one holds it, else on all together.

    What no kernel here can run is broken, None is what nobody can know: a driver that does not tell what is free, or a
    model of a server.
    """
    if model.container == "server":
        return None
    if not model.loadable:
        return "broken"
    experience, options = view.experience or _bare(), view.options or LoadOptions()
    try:
        gpus = _gpus_for(model, view, options, experience)
    except LoadError:
        return None
    known = sorted((gpu for gpu in gpus if gpu.free is not None), key=lambda gpu: -(_free_bytes(gpu) or 0))
    if gpus and not known:
        return None
    free = [_free_bytes(gpu) or 0 for gpu in known] or [_host_memory(view).free or 0]

    def predicted(devices: Sequence[GpuDevice]) -> Prediction | None:
        return experience.predicted(model, devices, wish=options.kernel, graphs=options.decoding == "auto")

    one = None if options.placement else predicted(known[:1])
    if one is not None and (judge(one, free[0]).fit != "too big" or (len(known) < 2 and not is_llama(model))):
        return judge(one, free[0]).fit
    several = predicted(known)
    if several is None:
        return "broken"
    judged = judge(_spread(several, len(known)), sum(free))
    return _shared(model, judged, _host_memory(view) if known else None).fit


def forecast(
    model: ModelInfo,
    view: MemoryView,
    options: LoadOptions | None = None,
    failed: Sequence[KernelRefusal] = (),
) -> Forecast:
    """Say what a load would come to with the memory as it was seen last.

    Args:
        model: As the catalog read it.
        view: A look at the memory.
        options: What the user wants of every load; None takes the view's.
        failed: Kernels that have failed and are not tried again.

    Returns:
        The forecast; an empty one for a model of a server, which takes nothing here.
    """
    if model.container == "server":
        return Forecast()
    options = options or view.options or LoadOptions()
    experience = view.experience or _bare()
    devices: tuple[DeviceMemory, ...] = ()
    try:
        gpus = _gpus_for(model, view, options, experience)
        devices = tuple(_gpu_memory(gpu, view.engine_pid) for gpu in gpus) or (_host_memory(view),)
        placement = _placed(model, devices, options.placement)
    except LoadError as error:
        return Forecast(problem=str(error), devices=devices)
    if placement is not None:
        gpus = tuple(gpu for gpu in gpus if _name(gpu) in placement.devices)
    host = experience.host(gpus)
    chosen = choose(model, host, options.kernel, failed)
    if isinstance(chosen, KernelError):
        return Forecast(problem=str(chosen), devices=devices)
    setting = experience.setting(model, chosen, len(gpus), graphs=options.decoding == "auto")
    prediction, judgement, free = _judged(model, setting, devices, placement)
    if judgement is not None:
        judgement = _shared(model, judgement, _host_memory(view) if gpus else None)
    return Forecast(
        interpreter=engine_spec(model, options.interpreters).python,
        kernel=kernel_name(model, chosen),
        slow=bool(chosen and chosen.slow),
        refusals=_refusals(model, host, chosen, failed),
        devices=devices,
        placement=placement.blocks if placement else (),
        prediction=prediction,
        judgement=judgement,
        contexts=() if free is None else contexts(model, setting, free),
    )


def contexts(model: ModelInfo, setting: Setting, free: int) -> tuple[ContextRow, ...]:
    """Return the longest conversation that fits into `free` bytes, by kind of KV cache."""
    return tuple(
        ContextRow(name, largest_context(model, setting, free, size), supported) for name, size, supported in KV_TYPES
    )


def _refusals(
    model: ModelInfo, host: kernels.Host, chosen: Kernel | None, failed: Sequence[KernelRefusal]
) -> tuple[KernelRefusal, ...]:
    if chosen is None:
        return ()
    return kernels.plan(model.quant, host, model.weights.matrices, failed).ahead_of(chosen.name)


def _gpus_for(
    model: ModelInfo, view: MemoryView, options: LoadOptions, experience: Experience
) -> tuple[GpuDevice, ...]:
    """GPUs that a load of this model may take: llama.cpp was perhaps built without them."""
    if is_llama(model) and not experience.llama_offloads and options.device is None:
        return ()
    return _wanted_gpus(view, options)


def _shared(model: ModelInfo, judged: Judgement, host: DeviceMemory | None) -> Judgement:
    """Of a GGUF file that is too big for the GPUs, the CPU takes the layers that find no room there."""
    if judged.fit != "too big" or not is_llama(model) or host is None or judged.needed > judged.free + (host.free or 0):
        return judged
    return Judgement(fit="tight", needed=judged.needed, free=judged.free + (host.free or 0))


def _wanted_gpus(view: MemoryView, options: LoadOptions) -> tuple[GpuDevice, ...]:
    """GPUs that a load may take, as `engine.memory.rooms` finds them; none means the CPU."""
    seen = visible(view.gpus.devices) if isinstance(view.gpus, GpuSnapshot) else ()
    if options.device is None:
        return seen
    wanted = "cuda:0" if options.device == "cuda" else options.device
    found = tuple(gpu for gpu in seen if _name(gpu) == wanted)
    if not found and wanted != "cpu":
        there = ", ".join([*map(_name, seen), "cpu"])
        why = f" ({view.gpus.reason})" if isinstance(view.gpus, NotAvailable) else ""
        raise LoadError(f"There is no device {wanted}{why}", f"There are: {there}.", "Change the setting `device`.")
    return found


def _name(gpu: GpuDevice) -> str:
    return f"cuda:{gpu.index}"


def _gpu_memory(gpu: GpuDevice, engine_pid: int | None) -> DeviceMemory:
    others = holders(process for process in gpu.processes if process.pid != engine_pid)
    free = _free_bytes(gpu)
    return DeviceMemory(device=_name(gpu), name=gpu.name, total=gpu.total, free=free, holders=others)


def _free_bytes(gpu: GpuDevice) -> int | None:
    return None if gpu.free is None else gpu.free + (gpu.engine_bytes or 0)


def _host_memory(view: MemoryView) -> DeviceMemory:
    free = view.host.available + (view.engine_host_bytes or 0)
    return DeviceMemory(device="cpu", total=view.host.total, free=free)


def _placed(model: ModelInfo, devices: Sequence[DeviceMemory], wanted: Sequence[DeviceShare]) -> Placement | None:
    """Divide the layers as the engine does before it chooses a kernel; None where the free bytes are not known.

    Raises:
        LoadError: if a wished device is not there.
    """
    rooms = [Room(device.device, device.free) for device in devices if device.free is not None]
    parts = loaded_parts(model.weights)
    layer = cache_bytes(model, planned(model)) // max(len(parts.layers), 1)
    return divide(parts, rooms, layer, wanted) if rooms else None


def _judged(
    model: ModelInfo, setting: Setting, devices: Sequence[DeviceMemory], placement: Placement | None
) -> tuple[Prediction, Judgement | None, int | None]:
    """Predict and judge the devices that the placement takes; also the bytes that are free for a longer context."""
    prediction = predict(model, setting)
    if placement is None:
        return prediction, None, None
    free = {device.device: device.free or 0 for device in devices}
    if len(placement.blocks) == 1:
        room = free[placement.blocks[0].device]
        return prediction, judge(prediction, room), room
    prediction = _spread(prediction, len(placement.blocks))
    each = (prediction.runtime + prediction.passes) // len(placement.blocks)
    missing = sum(max(block.weight_bytes + block.kv_bytes + each - free[block.device], 0) for block in placement.blocks)
    room = sum(free[block.device] for block in placement.blocks)
    judgement = judge(prediction, room)
    if missing:
        judgement = Judgement(fit="too big", needed=prediction.needed, free=room, missing=missing)
    return prediction, judgement, room - (len(placement.blocks) - 1) * each


def _spread(prediction: Prediction, devices: int) -> Prediction:
    """A context, and the intermediate results of its layers, on each device; no captured step over several."""
    return msgspec.structs.replace(
        prediction, runtime=prediction.runtime * devices, passes=prediction.passes * devices, buffers=0
    )


@cache
def _bare() -> Experience:
    """For views that were made without a watch: the machine, and no earlier loads."""
    return Experience(Measured())
