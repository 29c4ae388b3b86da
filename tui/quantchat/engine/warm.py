"""The caches of the sessions that wait: the last used on the device, older ones in host memory, the oldest dropped."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import torch

from quantchat.engine import memory
from quantchat.engine.protocol import WarmSession

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

logger = logging.getLogger(__name__)

GIB = 1024**3
DEVICE_SHARE = 0.6
"""Of what is free on a GPU after the load; activations of a prefill and the buffers of CUDA graphs need the rest."""
CPU_SHARE, CPU_CAP = 0.25, 8 * GIB
"""Of the available memory: it is shared with everything else on the box, and caches must not push that to swap."""
HOST_SHARE, HOST_CAP = 0.15, 16 * GIB
"""Less than for a CPU's own caches: pinned memory cannot be swapped, and its blocks are rounded to powers of two."""

Place = Literal["device", "host"]


def default_budgets(device: str) -> tuple[int, int]:
    """Bytes of caches to keep on a device after a model was loaded on it, and in host memory behind it."""
    if not device.startswith("cuda"):
        # The device's memory is the host's: there is no second place.
        return min(int(CPU_SHARE * memory.available_bytes()), CPU_CAP), 0
    return int(DEVICE_SHARE * _free_on_gpus(device)), min(int(HOST_SHARE * memory.available_bytes()), HOST_CAP)


def _free_on_gpus(device: str) -> int:
    """Bytes free on the GPUs that the model is on; layers are spread evenly, so the fullest one limits all."""
    used = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_allocated(index)]
    free = [_free_on_gpu(index) for index in used] or [_free_on_gpu(device)]
    return min(free) * len(free)


def _free_on_gpu(device: str | int) -> int:
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + int(unused)


class WarmSessions:
    """Caches by session, within a budget of bytes on the device and one in host memory.

    A session's cache is taken out while its turn runs and put back when the turn ends. What is lent to turns takes its
    part of the budget too, though nothing of it leaves.
    """

    def __init__(self, budget: int, host_budget: int) -> None:
        self._budgets: dict[Place, int] = {"device": budget, "host": host_budget}
        self._kept: OrderedDict[str, SessionCache] = OrderedDict()
        self._bytes: dict[str, int] = {}
        self._lent: WeakKeyDictionary[SessionCache, int] = WeakKeyDictionary()

    def lend(self, cache: SessionCache, planned: int) -> None:
        """Make room for a running turn's cache, which is going to hold so many bytes; counts while it is in use."""
        self._lent[cache] = planned
        self.room(0)

    def take(self, session: str) -> SessionCache | None:
        """Take a session's cache out, on the device; None if there is none any more."""
        cache, held = self._kept.pop(session, None), self._bytes.pop(session, 0)
        if cache is None or cache.place == "device":
            return cache
        self.room(held)
        try:
            cache.to_device()
        except (RuntimeError, MemoryError):
            logger.warning("the kept cache of a session found no room on the device", exc_info=True)
            return None
        return cache

    def put(self, session: str, cache: SessionCache) -> None:
        """Keep a cache, as the most recently used, if it fits anywhere."""
        self.forget(session)
        self._lent.pop(cache, None)
        if not cache.ids:
            return
        with contextlib.suppress(RuntimeError, MemoryError):
            # Where there is no memory to make a smaller copy, the large one stays.
            cache.compact()
        self._kept[session], self._bytes[session] = cache, cache.nbytes
        if self._bytes[session] > self._budgets["device"]:
            # It leaves first: it would drive out all others and still not fit.
            self._leave(session, cache)
        self.room(0)

    def forget(self, session: str) -> None:
        """Drop a session's cache."""
        self._kept.pop(session, None)
        self._bytes.pop(session, None)

    def clear(self) -> None:
        """Drop all."""
        self._kept.clear()
        self._bytes.clear()

    def room(self, needed: int) -> None:
        """Make room on the device for so many bytes beside what is lent; the least recently used leave."""
        needed += sum(max(planned, cache.nbytes) for cache, planned in self._lent.items())
        for session, cache in list(self._kept.items()):
            if self._held("device") + needed <= self._budgets["device"]:
                return
            if cache.place == "device":
                self._leave(session, cache)

    def listing(self) -> tuple[WarmSession, ...]:
        """What is kept, most recently used first."""
        return tuple(
            WarmSession(session=session, tokens=len(cache.ids), bytes=self._bytes[session], place=cache.place)
            for session, cache in reversed(self._kept.items())
        )

    def _held(self, place: Place) -> int:
        return sum(self._bytes[session] for session, cache in self._kept.items() if cache.place == place)

    def _leave(self, session: str, cache: SessionCache) -> None:
        """Move a cache to the host, or drop it where older ones cannot make enough room."""
        if not self._room_on_host(session, self._bytes[session]):
            self.forget(session)
            return
        try:
            cache.to_host()
        except (RuntimeError, MemoryError):
            logger.warning("a session's cache found no room in host memory", exc_info=True)
            self.forget(session)
            return
        self._bytes[session] = cache.nbytes

    def _room_on_host(self, session: str, needed: int) -> bool:
        if needed > self._budgets["host"]:
            return False
        for older, cache in list(self._kept.items()):
            if self._held("host") + needed <= self._budgets["host"]:
                return True
            if older == session:
                return False
            if cache.place == "host":
                self.forget(older)
        return False
