"""Memory of the devices and of the host, looked at off the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.memory import Fit
from quantchat.domain.models import ModelInfo
from quantchat.hardware.gpu import GpuMonitor, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory, host_memory, process_bytes
from quantchat.services.background import in_background

if TYPE_CHECKING:
    from quantchat.engine.protocol import LoadReport
    from quantchat.services.experience import Experience
    from quantchat.services.loads import LoadOptions


class MemoryView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the memory of this machine; `gpus` says why when there is none.

    Attributes:
        engine_pid: The engine process while it runs.
        engine_host_bytes: What it holds of the host's memory, which a load gives back first.
        experience: What kernels ask of this machine, and what earlier loads came to; None before the first look.
        options: What the user wants of every load.
    """

    gpus: GpuSnapshot | NotAvailable
    host: HostMemory
    engine_pid: int | None = None
    engine_host_bytes: int | None = None
    experience: Experience | None = None
    options: LoadOptions | None = None

    def fit(self, model: ModelInfo) -> Fit | None:
        """Judge whether a model fits where it would be loaded; None if that is unknown."""
        # Not at the top: the first frame does not need it.
        from quantchat.services.fit import judge_model

        return judge_model(model, self)


async def look_once() -> MemoryView:
    """Return the memory now, without an engine, and what the settings want of loads."""
    from quantchat.services.loads import options_of
    from quantchat.store.settings import load_settings

    return await MemoryWatch(options_of(load_settings()[0])).look(None)


class MemoryWatch:
    """Takes looks; each runs on a worker thread, and never two at once."""

    def __init__(self, options: LoadOptions | None = None) -> None:
        self._options = options
        self._monitor = GpuMonitor()
        self._lock = asyncio.Lock()
        self._experience: Experience | None = None
        self.latest: MemoryView | None = None

    async def look(self, engine_pid: int | None) -> MemoryView:
        """Return the memory now, with the share of the engine process."""
        async with self._lock:
            self.latest = await in_background(self._look, engine_pid)
        return self.latest

    async def learn(self, model: ModelInfo, report: LoadReport, versions: dict[str, str]) -> None:
        """Keep what a load came to, beside what was predicted."""
        if not report.device_bytes or model.container == "server":
            return
        async with self._lock:
            await asyncio.to_thread(self._learn, model, report, versions)

    def _learn(self, model: ModelInfo, report: LoadReport, versions: dict[str, str]) -> None:
        self.experience.learn(model, report, versions)
        self.experience.remember()

    @property
    def experience(self) -> Experience:
        """What is known of loads on this machine; reads files when first asked."""
        if self._experience is None:
            from quantchat.services.experience import Experience

            self._experience = Experience()
        return self._experience

    def _look(self, engine_pid: int | None) -> MemoryView:
        return MemoryView(
            gpus=self._monitor.snapshot(engine_pid),
            host=host_memory(),
            engine_pid=engine_pid,
            engine_host_bytes=process_bytes(engine_pid) if engine_pid is not None else None,
            experience=self.experience,
            options=self._options,
        )
