"""What the engine holds, what an unload gives back, and what running out of it looks like."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from quantchat.domain.memory import format_bytes
from quantchat.domain.placement import Room
from quantchat.engine import heap
from quantchat.engine.host import available_bytes as available_bytes
from quantchat.engine.host import resident_bytes as resident_bytes
from quantchat.errors import LoadError, QuantchatError

E = TypeVar("E", bound=QuantchatError)
CPU_ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory")
LOAD_REMEDY = (
    "Take a smaller model, end other programs that hold memory there, or with several GPUs divide the layers by the "
    "setting `placement`."
)
OUT_OF_MEMORY = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
"""Its name before torch 2.5."""
TURN_REMEDY = (
    "The chat goes on: shorten the conversation or begin a new session, lower `kv_cache_gib` in the settings, "
    "or take a smaller model."
)

WEIGHT_SUFFIX = ".safetensors"
FILE_SHARE = 0.9
"""A mapped file of which tensors read less is let go; they are copied."""

_UNITS = {"bytes": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}
_AMOUNT = r"([\d.]+) (bytes|KiB|MiB|GiB|TiB)"
_WANTED = re.compile(rf"(?:[Tt]ried to|Unable to) allocate {_AMOUNT}", re.IGNORECASE)
_FREE = re.compile(rf"of which {_AMOUNT} is free", re.IGNORECASE)
_GPU = re.compile(r"\bGPU (\d+) has a total capacity")


def cuda_bytes() -> int:
    """Bytes that torch holds on all GPUs."""
    if not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count()))


def device_bytes(*devices: str) -> int:
    """Bytes held on devices; on the CPU the resident set size."""
    if not devices[0].startswith("cuda"):
        return resident_bytes()
    return sum(int(torch.cuda.memory_reserved(device)) for device in devices)


def rooms(device: str | None) -> list[Room]:
    """Return the devices that a model may be placed on, and what is free there.

    Args:
        device: The only one to take; None takes all GPUs, else the CPU.

    Raises:
        LoadError: if there is no such device.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    wanted = ["cuda:0"] if device == "cuda" else [device] if device else gpus or ["cpu"]
    if unknown := set(wanted) - {*gpus, "cpu"}:
        there = ", ".join([*gpus, "cpu"])
        raise LoadError(f"There is no device {unknown.pop()}", f"There are: {there}.", "Choose one of these.")
    return [Room(name, _free_bytes(name)) for name in wanted]


def _free_bytes(device: str) -> int:
    if device == "cpu":
        return available_bytes()
    return int(torch.cuda.mem_get_info(device)[0])


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, shared ones once."""
    tensors = {id(tensor): tensor for group in (model.parameters(), model.buffers()) for tensor in group}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def give_back() -> None:
    """Return freed memory to the driver and the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    heap.trim()


def settle(model: Any) -> None:
    """Give back what a load leaves behind: what repacking has freed, and pages of files that nothing reads any more.

    transformers maps the files, and weights that need no change stay there. One such tensor keeps its whole file, with
    the pages of all matrices that a kernel has repacked or that were merged with others.
    """
    for file in _mapped():
        inside = [holder for holder in _holders(model) if holder.lies_in(file)]
        read = {holder.tensor.data_ptr(): holder.tensor.nbytes for holder in inside}
        if sum(read.values()) < FILE_SHARE * len(file):
            for holder in inside:
                holder.leave(file)
    give_back()


class _Holder:
    """A tensor of a module on the CPU, and its place there."""

    def __init__(self, tensors: dict[str, Any], name: str) -> None:
        self._tensors, self._name = tensors, name

    @property
    def tensor(self) -> Any:
        return self._tensors[self._name]

    def lies_in(self, file: range) -> bool:
        return self.tensor.data_ptr() in file

    def leave(self, file: range) -> None:
        """Copy it, if that was not done under another name; a parameter stays the object that others share."""
        if not self.lies_in(file):
            return
        if isinstance(self.tensor, torch.nn.Parameter):
            self.tensor.data = self.tensor.data.clone()
        else:
            self._tensors[self._name] = self.tensor.clone()


def _holders(model: Any) -> Iterator[_Holder]:
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.device.type == "cpu":
                    yield _Holder(tensors, name)


def _mapped() -> list[range]:
    """Addresses of mapped weight files; none where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    bounds = [line.split()[0].split("-") for line in lines if line.endswith(WEIGHT_SUFFIX)]
    return [range(int(first, 16), int(last, 16)) for first, last in bounds]


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise exhausted memory, which the CPU allocator only tells in words."""
    if isinstance(error, (OUT_OF_MEMORY, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_ALLOCATOR_WORDS)


def out_of_memory(device: str, kind: type[E], error: BaseException | None = None) -> E:
    """Explain it: where, how much was missing, and which setting helps.

    Args:
        device: Where the model is; the error's own words win, as one of several GPUs may be full.
        kind: `LoadError` for a load, else an error of a turn: what helps differs.
        error: What was raised.
    """
    shortage = parse_shortage(str(error or ""))
    if shortage.gpu is not None and device.startswith("cuda"):
        device = f"cuda:{shortage.gpu}"
    where = f"The GPU {device}" if device.startswith("cuda") else "This machine (cpu)"
    remedy = LOAD_REMEDY if issubclass(kind, LoadError) else TURN_REMEDY
    return kind(f"{where} ran out of memory", shortage.sentence(), remedy, code="out-of-memory")


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """What an allocator said when it refused; None where it did not say."""

    wanted: int | None = None
    free: int | None = None
    gpu: int | None = None

    def sentence(self) -> str:
        """Say how much was missing."""
        if self.wanted is None:
            return ""
        if self.free is None:
            return f"It asked for {format_bytes(self.wanted)} more than there is."
        missing = max(self.wanted - self.free, 0)
        said = f"It asked for {format_bytes(self.wanted)}, {format_bytes(self.free)} were free"
        return f"{said}: {format_bytes(missing)} are missing." if missing else f"{said}, but in pieces."


def parse_shortage(text: str) -> Shortage:
    """Read torch's words, such as `Tried to allocate 2.00 GiB. GPU 0 has ... of which 1.06 GiB is free`."""
    wanted, free, gpu = _WANTED.search(text), _FREE.search(text), _GPU.search(text)
    return Shortage(
        wanted=_bytes(wanted) if wanted else None,
        free=_bytes(free) if free else None,
        gpu=int(gpu[1]) if gpu else None,
    )


def _bytes(found: re.Match[str]) -> int:
    return int(float(found[1]) * _UNITS[found[2].lower()])
