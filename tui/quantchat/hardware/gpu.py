"""NVIDIA GPUs as the driver's management library (NVML) sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
MILLIWATTS = 1000


class GpuProcess(msgspec.Struct, frozen=True):
    """A process with memory on a GPU; its bytes are None where the driver does not tell, as in containers."""

    pid: int
    bytes: int | None = None


class GpuDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at one moment; None for what this device or driver does not tell.

    Attributes:
        index: Position in NVML's order, which is the PCI bus order.
        total: Memory in bytes.
        used: Bytes in use by anyone, without what the driver reserves where it says so.
        free: Bytes that an allocation can get.
        engine_bytes: Bytes of the engine process; None also when the driver does not list that process.
        utilization: Share of the last sample period in which a kernel ran, percent.
        temperature: Of the GPU die, degrees Celsius.
        power: Watts drawn now.
        power_limit: Watts at which the driver throttles.
        capability: Compute capability, such as (9, 0).
        processes: What computes or draws on this GPU; empty also where the driver does not tell.
    """

    index: int
    name: str
    uuid: str | None = None
    total: int | None = None
    used: int | None = None
    free: int | None = None
    engine_bytes: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    power: float | None = None
    power_limit: float | None = None
    capability: tuple[int, int] | None = None
    processes: tuple[GpuProcess, ...] = ()


class GpuSnapshot(msgspec.Struct, frozen=True):
    """All GPUs at one moment. `notes` name devices that dropped out, one sentence each."""

    devices: tuple[GpuDevice, ...]
    notes: tuple[str, ...] = ()


class NotAvailable(msgspec.Struct, frozen=True):
    """There is no GPU to show, and why, in words for the screen."""

    reason: str


class _DeviceLost(Exception):
    """The device does not answer any more; the others may."""


class GpuMonitor:
    """Asks NVML for snapshots; starts it when first asked and again after the driver was lost.

    Never raises. A query takes milliseconds and may take seconds on a sick driver: call it off the UI thread.
    Calls from several threads take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: ModuleType | None = None

    def snapshot(self, engine_pid: int | None = None) -> GpuSnapshot | NotAvailable:
        """Return what the GPUs do now.

        Args:
            engine_pid: Process whose share of memory is wanted.
        """
        with self._lock:
            return self._snapshot(engine_pid)

    def close(self) -> None:
        """Let go of the driver; a later snapshot starts it again."""
        with self._lock:
            self._stop()

    def _snapshot(self, engine_pid: int | None) -> GpuSnapshot | NotAvailable:
        try:
            import pynvml
        except ImportError:
            return NotAvailable("the Python package nvidia-ml-py is missing")
        try:
            count = self._count(pynvml)
        except pynvml.NVMLError as error:
            self._stop()
            return NotAvailable(_reason(error, pynvml))
        devices: list[GpuDevice] = []
        notes: list[str] = []
        for index in range(count):
            try:
                devices.append(_Reader(pynvml, index).device(engine_pid))
            except _DeviceLost as lost:
                notes.append(f"GPU {index} does not answer: {lost}.")
        if devices:
            return GpuSnapshot(tuple(devices), tuple(notes))
        self._stop()
        return NotAvailable(" ".join(notes).rstrip(".") or "no NVIDIA GPU")

    def _count(self, pynvml: ModuleType) -> int:
        if self._nvml is not None:
            try:
                return int(pynvml.nvmlDeviceGetCount())
            except pynvml.NVMLError:
                self._stop()
        pynvml.nvmlInit()
        self._nvml = pynvml
        return int(pynvml.nvmlDeviceGetCount())

    def _stop(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is None:
            return
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError:
            # The driver is gone already, which is what shutting down wants.
            return


class _Reader:
    """Queries one device."""

    def __init__(self, pynvml: ModuleType, index: int) -> None:
        self._nvml = pynvml
        self._index = index
        self._gone = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED}
        self._absent = {
            pynvml.NVML_ERROR_NOT_SUPPORTED,
            pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            pynvml.NVML_ERROR_NO_PERMISSION,
            pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        }
        self._handle = self._needed(lambda: pynvml.nvmlDeviceGetHandleByIndex(index))

    def device(self, engine_pid: int | None) -> GpuDevice:
        nvml, handle = self._nvml, self._handle
        memory = self._memory()
        utilization = self._optional(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        capability = self._optional(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
        processes = self._processes()
        return GpuDevice(
            index=self._index,
            name=self._optional(lambda: str(nvml.nvmlDeviceGetName(handle))) or f"GPU {self._index}",
            uuid=self._optional(lambda: str(nvml.nvmlDeviceGetUUID(handle))),
            total=memory and int(memory.total),
            used=memory and int(memory.used),
            free=memory and int(memory.free),
            engine_bytes=_share(processes, engine_pid),
            utilization=utilization and int(utilization.gpu),
            temperature=self._optional(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            power=self._optional(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / MILLIWATTS),
            power_limit=self._optional(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / MILLIWATTS),
            capability=capability and (int(capability[0]), int(capability[1])),
            processes=processes,
        )

    def _memory(self) -> Any:
        """The second version tells the driver's own reserve from what programs use; old drivers lack it."""
        nvml, handle = self._nvml, self._handle
        newer = self._optional(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
        return newer or self._needed(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))

    def _processes(self) -> tuple[GpuProcess, ...]:
        """Those that compute and those that draw, such as a desktop; some do both, with the same memory."""
        found: dict[int, int | None] = {}
        for each in (*self._running("Compute"), *self._running("Graphics")):
            held = [int(size) for size in (found.get(int(each.pid)), each.usedGpuMemory) if size is not None]
            found[int(each.pid)] = max(held, default=None)
        return tuple(GpuProcess(pid, size) for pid, size in found.items())

    def _running(self, kind: str) -> list[Any]:
        """The function without a version raises what is no NVMLError where the driver is older than pynvml."""
        for version in ("v3", "v2"):
            query = getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses_{version}")
            running: list[Any] | None = self._optional(partial(query, self._handle))
            if running is not None:
                return running
        return []

    def _needed(self, query: Callable[[], T]) -> T | None:
        """Ask for what no device can be shown without: None if unsupported, lost for any other fault."""
        try:
            return query()
        except self._nvml.NVMLError as error:
            if error.value in self._absent:
                return None
            raise _DeviceLost(_reason(error, self._nvml)) from error

    def _optional(self, query: Callable[[], T]) -> T | None:
        try:
            return query()
        except self._nvml.NVMLError as error:
            if error.value in self._gone:
                raise _DeviceLost(_reason(error, self._nvml)) from error
            return None
        except UnicodeDecodeError:
            return None


def _share(processes: tuple[GpuProcess, ...], pid: int | None) -> int | None:
    known = [process.bytes for process in processes if process.pid == pid and process.bytes is not None]
    return sum(known) if known else None


def _reason(error: Any, pynvml: ModuleType) -> str:
    known = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was updated; restart the machine",
        pynvml.NVML_ERROR_NO_PERMISSION: "no permission to ask the NVIDIA driver",
        pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU is lost",
    }
    return known.get(error.value) or f"the NVIDIA driver says: {str(error).lower()}"
