"""What a load would come to: kernel, bytes, devices, longest context. Nothing is loaded or imported for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from quantchat.catalog.fit import Judgement, Prediction, Setting, judge, largest_context, parts_of, planned, predict
from quantchat.domain import kernels
from quantchat.domain.kernel_table import TABLE, DeviceKind, Kernel
from quantchat.domain.loading import DeviceShare, KernelRefusal
from quantchat.domain.memory import Fit, cache_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.placement import Block, Placement, Room, divide
from quantchat.errors import KernelError, LoadError
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot
from quantchat.hardware.holders import Holder, holders
from quantchat.hardware.processor import has_avx512_bf16
from quantchat.services.loads import LoadOptions
from quantchat.store.measured import Load, Measured, load_measured, save_measured
from quantchat.toolchain import built_extensions, compilers, offline

if TYPE_CHECKING:
    from quantchat.engine.protocol import LoadReport
    from quantchat.services.memory import MemoryView

KV_TYPES = (("16 bits", 2.0, True), ("8 bits", 34 / 32, False), ("4 bits", 18 / 32, False))
"""Name, bytes per number, and whether our own engine keeps its cache so. Others need vLLM (`--kv-cache-dtype fp8`) or
llama.cpp, whose q8_0 and q4_0 blocks keep 32 numbers and a 16-bit scale."""
NO_CAPABILITY = (99, 0)
"""Of a GPU whose driver does not tell its compute capability: no kernel is ruled out for it."""


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


class Experience:
    """What is known of this machine that does not change while the program runs, and what earlier loads came to."""

    def __init__(self, measured: Measured | None = None) -> None:
        self.measured = load_measured() if measured is None else measured
        self._compiler, self._nvcc = compilers()
        self._avx512_bf16, self._built, self._offline = has_avx512_bf16(), built_extensions(), offline()
        self._judged: dict[tuple[object, ...], Prediction | None] = {}

    def host(self, devices: Sequence[GpuDevice]) -> kernels.Host:
        """Return what the kernels ask, as `engine.kernels.probe` does in the engine."""
        known = [device.capability or NO_CAPABILITY for device in devices]
        return kernels.Host(
            device="cuda" if devices else "cpu",
            capability=min(known, default=(0, 0)),
            avx512_bf16=self._avx512_bf16,
            compiler=self._compiler,
            nvcc=self._nvcc,
            offline=self._offline,
            built=self._built,
        )

    def learn(self, model: ModelInfo, report: LoadReport, versions: dict[str, str]) -> Measured:
        """Note what a load came to, beside what the formulas say; `remember` writes it."""
        idle = report.idle_bytes if report.device == "cpu" else 0
        kernel = next((row for row in TABLE if row.name == report.kernel), None)
        kind: DeviceKind = "cuda" if report.device.startswith("cuda") else "cpu"
        setting = Setting(device=kind, kernel=kernel, graphs=report.decoding != "generate", runtime=idle or None)
        load = Load(
            path=model.path,
            weight_bytes=model.weight_bytes,
            kernel=report.kernel,
            device=report.device,
            versions=" ".join(f"{name} {version}" for name, version in sorted(versions.items())),
            predicted=predict(model, setting).predicted,
            measured=report.device_bytes,
        )
        self._judged.clear()
        self.measured = self.measured.add(load, idle)
        return self.measured

    def remember(self) -> bool:
        """Write what was learnt; false if the disk refused."""
        return save_measured(self.measured)

    def setting(self, model: ModelInfo, kernel: Kernel | None, device: str) -> Setting:
        """Return what to predict for, with what was measured before."""
        kind: DeviceKind = "cuda" if device.startswith("cuda") else "cpu"
        name = kernel.name if kernel else kernels.DENSE
        known = self.measured.find(model.path, model.weight_bytes, name, device)
        runtime = self.measured.idle_bytes if kind == "cpu" else None
        return Setting(device=kind, kernel=kernel, runtime=runtime, loaded=known.measured if known else None)

    def predicted(self, model: ModelInfo, host: kernels.Host, device: str) -> Prediction | None:
        """Predict for the kernel that the policy takes, once per model; None if none can run it."""
        key = model.path, model.modified, model.weight_bytes, host, device
        if key not in self._judged:
            chosen = _choose(model, host, None)
            runs = chosen is None or isinstance(chosen, Kernel)
            self._judged[key] = predict(model, self.setting(model, chosen, device)) if runs else None
        return self._judged[key]


def judge_model(model: ModelInfo, view: MemoryView) -> Fit | None:
    """Judge the row of a list: where the model would go whole, else on all GPUs together."""
    if not model.loadable:
        return "broken"
    experience = view.experience or _bare()
    gpus = view.gpus.devices if isinstance(view.gpus, GpuSnapshot) else ()
    device = f"cuda:{gpus[0].index}" if gpus else "cpu"
    prediction = experience.predicted(model, experience.host(gpus), device)
    free = [_free_bytes(gpu) for gpu in gpus] or [_host_memory(view).free]
    known = [room for room in free if room is not None]
    if prediction is None or not known:
        return None
    one = judge(prediction, max(known))
    if one.fit != "too big" or len(known) == 1:
        return one.fit
    return judge(_spread(prediction, len(known)), sum(known)).fit


def forecast(model: ModelInfo, view: MemoryView, options: LoadOptions | None = None) -> Forecast:
    """Say what a load would come to with the memory as it was seen last."""
    options = options or LoadOptions()
    experience = view.experience or _bare()
    gpus = _wanted_gpus(view, options)
    devices = tuple(_gpu_memory(gpu, view.engine_pid) for gpu in gpus) or (_host_memory(view),)
    host = experience.host(gpus)
    chosen = _choose(model, host, options.kernel)
    if isinstance(chosen, KernelError):
        return Forecast(problem=str(chosen), devices=devices)
    setting = experience.setting(model, chosen, devices[0].device)
    placement = _placed(model, setting, devices, options.placement)
    prediction, judgement, free = _judged(model, setting, devices, placement)
    return Forecast(
        kernel=chosen.name if chosen else kernels.DENSE,
        slow=bool(chosen and chosen.slow),
        refusals=_refusals(model, host, chosen),
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


def _choose(model: ModelInfo, host: kernels.Host, wish: str | None) -> Kernel | KernelError | None:
    """Return the kernel that the engine would take; None for unquantized weights."""
    if model.quant.method not in kernels.QUANTIZED_METHODS:
        return None
    try:
        plan = kernels.plan(model.quant, host, model.weights.matrices)
        return plan.choose(kernels.wished(wish, model.quant.method))
    except KernelError as error:
        return error


def _refusals(model: ModelInfo, host: kernels.Host, chosen: Kernel | None) -> tuple[KernelRefusal, ...]:
    if chosen is None:
        return ()
    return kernels.plan(model.quant, host, model.weights.matrices).ahead_of(chosen.name)


def _wanted_gpus(view: MemoryView, options: LoadOptions) -> tuple[GpuDevice, ...]:
    gpus = view.gpus.devices if isinstance(view.gpus, GpuSnapshot) else ()
    if options.device in (None, "cuda"):
        return gpus if options.device is None else gpus[:1]
    return tuple(gpu for gpu in gpus if f"cuda:{gpu.index}" == options.device)


def _gpu_memory(gpu: GpuDevice, engine_pid: int | None) -> DeviceMemory:
    others = holders(process for process in gpu.processes if process.pid != engine_pid)
    free = _free_bytes(gpu)
    return DeviceMemory(device=f"cuda:{gpu.index}", name=gpu.name, total=gpu.total, free=free, holders=others)


def _free_bytes(gpu: GpuDevice) -> int | None:
    return None if gpu.free is None else gpu.free + (gpu.engine_bytes or 0)


def _host_memory(view: MemoryView) -> DeviceMemory:
    free = view.host.available + (view.engine_host_bytes or 0)
    return DeviceMemory(device="cpu", total=view.host.total, free=free)


def _placed(
    model: ModelInfo, setting: Setting, devices: Sequence[DeviceMemory], wanted: Sequence[DeviceShare]
) -> Placement | None:
    """Divide the layers as the engine would; None where the free bytes or a wished device are not known."""
    rooms = [Room(device.device, device.free) for device in devices if device.free is not None]
    parts = parts_of(model, setting)
    layer = cache_bytes(model, planned(model)) // max(len(parts.layers), 1)
    try:
        return divide(parts, rooms, layer, wanted) if rooms else None
    except LoadError:
        return None


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


_without_files: Experience | None = None


def _bare() -> Experience:
    """For views that were made without a watch: the machine, and no earlier loads."""
    global _without_files
    if _without_files is None:
        _without_files = Experience(Measured())
    return _without_files
