"""Where a load goes: which layers on which GPUs, how many cells for conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantchat.domain import offload
from quantchat.domain.models import ModelInfo
from quantchat.engine.backends.llama.library import Gpu, gpus
from quantchat.engine.host import available_bytes
from quantchat.engine.protocol import Load
from quantchat.errors import LoadError

CUDA_BUILD = 'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python'
"""The wheel of the index is source code; without this it is built for the CPU alone."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a load asks llama.cpp for.

    Attributes:
        device: Where the first layers on a GPU are, else `cpu`.
        gpus: That take layers, as they were before.
        layers: Layers on GPUs, the output head counted as one.
        of: Layers in all, likewise.
        cells: Tokens that the KV cache holds, of all sessions.
        token_bytes: Bytes of a cell.
        chunk: Most prompt tokens of a pass.
    """

    device: str
    gpus: tuple[Gpu, ...]
    layers: int
    of: int
    cells: int
    token_bytes: int
    chunk: int

    @property
    def only(self) -> int | None:
        """The number of the single GPU that takes layers; None where several do, or none."""
        return self.gpus[0].place if len(self.gpus) == 1 else None

    def describe(self) -> str:
        """Say where the layers are; empty where all are in one place."""
        if not self.layers or (self.layers == self.of and len(self.gpus) == 1):
            return ""
        names = ", ".join(gpu.device for gpu in self.gpus)
        share = f"{self.layers} of {self.of} layers" if self.layers < self.of else "all layers"
        return f"{share} on {names}" + (", the rest on the CPU" if self.layers < self.of else "")

    def taken(self) -> int:
        """Bytes that the GPUs hold more than before the load."""
        now = {gpu.device: gpu.free for gpu in gpus()}
        return sum(max(gpu.free - now.get(gpu.device, gpu.free), 0) for gpu in self.gpus)


def lay_out(command: Load) -> Layout:
    """Plan a load by what is free.

    Raises:
        LoadError: if the wished device is not there for llama.cpp.
    """
    info, chosen = command.model, _wished(command.device, gpus())
    token_bytes = offload.token_bytes(info)
    free = sum(gpu.free for gpu in chosen) if chosen else available_bytes()
    cells = offload.planned_cells(info, free, command.kv_budget)
    sizes, outputs = layer_sizes(info)
    cell_bytes = cells * token_bytes // max(len(sizes), 1)
    layers = offload.gpu_layers(sizes, outputs, cell_bytes, free) if chosen else 0
    return Layout(
        device=chosen[0].device if layers else "cpu",
        gpus=tuple(chosen) if layers else (),
        layers=layers,
        of=len(sizes) + 1,
        cells=cells,
        token_bytes=token_bytes,
        chunk=offload.GPU_CHUNK if layers else offload.CHUNK,
    )


def _wished(wish: str | None, found: Sequence[Gpu]) -> list[Gpu]:
    if wish == "cpu":
        return []
    if wish is None:
        return list(found)
    wanted = f"{wish}:0" if ":" not in wish else wish
    taken = [gpu for gpu in found if gpu.device == wanted]
    if not taken:
        there = ", ".join([*(gpu.device for gpu in found), "cpu"])
        remedy = "Choose one of these." if found else f"For a GPU, build it anew: {CUDA_BUILD}"
        raise LoadError(f"There is no device {wanted} for llama.cpp", f"There are: {there}.", remedy, code="device")
    return taken


def layer_sizes(info: ModelInfo) -> tuple[list[int], int]:
    """Return the bytes of each layer and of the output head; guessed evenly where the headers were not sorted."""
    sizes = [run.pieces.other for run in info.weights.layers for _ in range(run.count)]
    if sizes:
        return sizes, info.weights.outputs.other or info.weights.inputs.other
    each = info.weight_bytes // max(info.shape.layers + 1, 1)
    return [each] * info.shape.layers, each
