"""Memory of the devices and of the host, looked at off the event loop."""

from __future__ import annotations

import asyncio

import msgspec

from quantchat.domain.memory import Fit, judge_fit
from quantchat.domain.models import ModelInfo
from quantchat.hardware.gpu import GpuMonitor, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory, host_memory, process_bytes
from quantchat.services.background import in_background


class MemoryView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the memory of this machine; `gpus` says why when there is none."""

    gpus: GpuSnapshot | NotAvailable
    host: HostMemory
    engine_host_bytes: int | None = None

    def fit(self, model: ModelInfo) -> Fit | None:
        """Judge whether a model fits where it would be loaded: the first GPU, else host memory; None if unknown."""
        if isinstance(self.gpus, GpuSnapshot) and self.gpus.devices:
            device = self.gpus.devices[0]
            if device.free is None:
                return None
            return judge_fit(model, "cuda", device.free + (device.engine_bytes or 0))
        return judge_fit(model, "cpu", self.host.available + (self.engine_host_bytes or 0))


class MemoryWatch:
    """Takes looks; each runs on a worker thread, and never two at once."""

    def __init__(self) -> None:
        self._monitor = GpuMonitor()
        self._lock = asyncio.Lock()
        self.latest: MemoryView | None = None

    async def look(self, engine_pid: int | None) -> MemoryView:
        """Return the memory now, with the share of the engine process."""
        async with self._lock:
            self.latest = await in_background(self._look, engine_pid)
        return self.latest

    def _look(self, engine_pid: int | None) -> MemoryView:
        return MemoryView(
            gpus=self._monitor.snapshot(engine_pid),
            host=host_memory(),
            engine_host_bytes=process_bytes(engine_pid) if engine_pid is not None else None,
        )
