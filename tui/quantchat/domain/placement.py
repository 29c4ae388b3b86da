"""Which layers go to which device: contiguous blocks, planned before a weight is read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec

from quantchat.domain.loading import DeviceShare
from quantchat.domain.memory import MIB, format_bytes
from quantchat.domain.models import Pieces, WeightSizes
from quantchat.errors import LoadError

HEADROOM_BYTES = 700 * MIB
"""Per GPU: the CUDA context, the kernels' workspaces, activations of a prefill chunk (estimate)."""
HEADROOM_SHARE = 0.06
"""What kernels repack and the allocator cannot use, as a share of free memory (4 to 8 % measured on the CPU)."""
LOADED_FLOAT = 2
"""Bytes of a number in float16 or bfloat16, which `engine/loader.py` loads in."""
_LAYER = re.compile(r"(.*?)\.(\d{1,6})\.")
_INPUT = re.compile(r"embed(?!_out)|\bwte\b|\bwpe\b|vision|visual|tower|projector|audio")


class Room(msgspec.Struct, frozen=True):
    """A device and the bytes that are free on it."""

    device: str
    free: int

    @property
    def usable(self) -> int:
        """Bytes that may be planned with."""
        return max(0, int(self.free * (1 - HEADROOM_SHARE)) - HEADROOM_BYTES)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """A model's weights, by what can be moved.

    Attributes:
        prefix: Name of the list of layers, such as `model.layers`.
        layers: Bytes of each layer.
        inputs: Modules that run before the layers, with their bytes: embeddings, image towers.
        outputs: Modules that run after them: last norm, head.
    """

    prefix: str
    layers: tuple[int, ...]
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return sum(self.layers) + sum(self.inputs.values()) + sum(self.outputs.values())


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A run of layers on one device; the bytes include embeddings and head where they go with it."""

    device: str
    first: int
    count: int
    weight_bytes: int
    kv_bytes: int

    def describe(self) -> str:
        """Say it, such as `layers 0-19 on cuda:0 (10.2 GiB + 1.1 GiB KV)`."""
        last = self.first + self.count - 1
        layers = f"layers {self.first}-{last}" if self.count > 1 else f"layer {self.first}"
        return f"{layers} on {self.device} ({format_bytes(self.weight_bytes)} + {format_bytes(self.kv_bytes)} KV)"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything goes; the first device takes the prompt's ids and the last gives the logits."""

    parts: Parts
    blocks: tuple[Block, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, in the order of the layers."""
        return tuple(block.device for block in self.blocks)

    def describe(self) -> str:
        """Say which layers go where; empty with one device."""
        return ", ".join(block.describe() for block in self.blocks) if len(self.blocks) > 1 else ""

    def device_map(self) -> dict[str, str]:
        """Return module names to devices, as transformers takes them."""
        if len(self.blocks) == 1:
            return {"": self.blocks[0].device}
        ends = ((self.parts.inputs, self.blocks[0]), (self.parts.outputs, self.blocks[-1]))
        modules = {module: block.device for names, block in ends for module in names}
        for block in self.blocks:
            for index in range(block.first, block.first + block.count):
                modules[f"{self.parts.prefix}.{index}"] = block.device
        return modules


def complete(device_map: Mapping[str, str], modules: Sequence[str], device: str) -> dict[str, str]:
    """Add the modules that have no tensors on disk, such as rotary embeddings and a tied head.

    Args:
        device_map: From `Placement.device_map`.
        modules: Names of all modules of the network.
        device: Where they go: the first device, which holds the embeddings that a head may be tied to.
    """
    covered = set(device_map)
    ancestors = {parent for name in covered for parent in _parents(name)}
    missing = {}
    for name in modules:
        if name and name not in covered and name not in ancestors and not covered.intersection(_parents(name)):
            missing[name] = device
            covered.add(name)
    return {**device_map, **missing}


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def in_list(name: str) -> tuple[str, int] | None:
    """Return the list of modules that a tensor belongs to, such as `model.layers`, and its place there."""
    found = _LAYER.match(name)
    return (found[1], int(found[2])) if found else None


def is_input(name: str) -> bool:
    """Whether a tensor outside the layers is needed before them: embeddings, image towers."""
    return _INPUT.search(name) is not None


def loaded_parts(sizes: WeightSizes) -> Parts:
    """Return a model's parts as a load makes them: floating-point numbers in 16 bits, packed ones as they are.

    What kernels repack is in `HEADROOM_SHARE`: a kernel is chosen for the devices, so it is not known yet. Modules
    outside the layers have no names here.
    """
    return Parts(
        prefix=sizes.prefix,
        layers=tuple(size for run in sizes.layers for size in [_loaded(run.pieces)] * run.count),
        inputs={"": _loaded(sizes.inputs)},
        outputs={"": _loaded(sizes.outputs)},
    )


def _loaded(pieces: Pieces) -> int:
    in_floats = (pieces.floats + pieces.scales) * LOADED_FLOAT
    return in_floats + pieces.packed + pieces.zeros + pieces.order + pieces.other


def as_loaded(parts: Parts, sizes: WeightSizes) -> Parts:
    """Weigh what `weigh` found on disk by what a load makes of it; as it is where that is not known."""
    loaded = loaded_parts(sizes)
    if not loaded.layers or loaded.prefix != parts.prefix or len(loaded.layers) > len(parts.layers):
        return parts
    return Parts(
        prefix=parts.prefix,
        layers=loaded.layers,
        inputs=_scaled(parts.inputs, loaded.inputs[""]),
        outputs=_scaled(parts.outputs, loaded.outputs[""]),
    )


def _scaled(modules: Mapping[str, int], total: int) -> dict[str, int]:
    stored = max(sum(modules.values()), 1)
    return {name: size * total // stored for name, size in modules.items()}


def weigh(sizes: Mapping[str, int]) -> Parts:
    """Sort tensors, by name with their bytes, into layers and what comes before and after them.

    The layers are the list that weighs most.
    """
    lists: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for name, nbytes in sizes.items():
        if found := in_list(name):
            lists[found[0]][found[1]] += nbytes
    prefix = max(lists, key=lambda name: sum(lists[name].values()), default="")
    layers = lists.get(prefix, {})
    inputs: dict[str, int] = defaultdict(int)
    outputs: dict[str, int] = defaultdict(int)
    for name, nbytes in sizes.items():
        if not (prefix and name.startswith(f"{prefix}.")):
            (inputs if is_input(name) else outputs)[name.rpartition(".")[0]] += nbytes
    by_layer = tuple(layers.get(index, 0) for index in range(max(layers, default=-1) + 1))
    return Parts(prefix=prefix, layers=by_layer, inputs=dict(inputs), outputs=dict(outputs))


def place(parts: Parts, rooms: Sequence[Room], kv_layer_bytes: int, wanted: Sequence[DeviceShare] = ()) -> Placement:
    """Divide the layers.

    Without wishes the model goes whole to the first device that holds it, and else to all of them in proportion to
    their free memory.

    Args:
        parts: The weights.
        rooms: The devices that may be used, best first.
        kv_layer_bytes: KV cache of one layer for the planned context.
        wanted: Devices in the order of the layers; a share of 0 for all means by free memory.

    Raises:
        LoadError: if a wanted device is not there, or what it should hold does not fit.
    """
    placement = divide(parts, rooms, kv_layer_bytes, wanted)
    if len(placement.blocks) > 1:
        _check_room(placement.blocks, {room.device: room for room in rooms})
    return placement


def divide(parts: Parts, rooms: Sequence[Room], kv_layer_bytes: int, wanted: Sequence[DeviceShare] = ()) -> Placement:
    """Divide the layers as `place` does, whether what goes to a device fits there or not.

    Raises:
        LoadError: if a wanted device is not there.
    """
    chosen = _named(rooms, wanted)
    if not wanted and len(chosen) > 1:
        need = parts.total + kv_layer_bytes * len(parts.layers)
        chosen = [room for room in chosen if room.usable >= need][:1] or chosen
    return Placement(parts=parts, blocks=_blocks(parts, chosen, kv_layer_bytes, _weights(chosen, wanted)))


def _named(rooms: Sequence[Room], wanted: Sequence[DeviceShare]) -> list[Room]:
    by_name = {room.device: room for room in rooms}
    missing = [share.device for share in wanted if share.device not in by_name]
    if missing:
        raise LoadError(
            f"There is no device {missing[0]}",
            f"The placement names it; there are {', '.join(by_name)}.",
            "Change the setting `placement`, or take it out.",
        )
    return [by_name[share.device] for share in wanted] or list(rooms)


def _weights(rooms: Sequence[Room], wanted: Sequence[DeviceShare]) -> list[float]:
    shares = {share.device: share.share for share in wanted}
    if any(shares.values()):
        return [shares[room.device] for room in rooms]
    return [float(max(room.usable, 1)) for room in rooms]


def _blocks(parts: Parts, rooms: Sequence[Room], kv_layer_bytes: int, weights: Sequence[float]) -> tuple[Block, ...]:
    before, after = sum(parts.inputs.values()), sum(parts.outputs.values())
    taken = _cut(parts, len(rooms), kv_layer_bytes, weights)
    filled = [(room, layers) for room, layers in zip(rooms, taken, strict=True) if layers] or [(rooms[0], [])]
    return tuple(
        Block(
            device=room.device,
            first=layers[0] if layers else 0,
            count=len(layers),
            weight_bytes=sum(parts.layers[index] for index in layers)
            + (before if position == 0 else 0)
            + (after if position == len(filled) - 1 else 0),
            kv_bytes=kv_layer_bytes * len(layers),
        )
        for position, (room, layers) in enumerate(filled)
    )


def _cut(parts: Parts, count: int, kv_layer_bytes: int, weights: Sequence[float]) -> list[list[int]]:
    """Give each layer to the device into whose share of all bytes its middle falls."""
    total = parts.total + kv_layer_bytes * len(parts.layers)
    ends = [total * share / sum(weights) for share in accumulate(weights)]
    taken: list[list[int]] = [[] for _ in range(count)]
    position, passed = 0, float(sum(parts.inputs.values()))
    for index, size in enumerate(parts.layers):
        cost = size + kv_layer_bytes
        while position < count - 1 and passed + cost / 2 > ends[position]:
            position += 1
        taken[position].append(index)
        passed += cost
    return taken


def _check_room(blocks: Sequence[Block], rooms: Mapping[str, Room]) -> None:
    for block in blocks:
        missing = block.weight_bytes + block.kv_bytes - rooms[block.device].usable
        if missing > 0:
            raise LoadError(
                f"{block.device} is too small for its part of the model",
                f"{block.describe()}; {format_bytes(rooms[block.device].free)} are free, {format_bytes(missing)} are "
                f"missing. The whole placement: {', '.join(each.describe() for each in blocks)}.",
                "Give that device a smaller share in the setting `placement`, free memory on it, or take a smaller "
                "model.",
                code="out-of-memory",
            )
