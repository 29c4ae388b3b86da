"""Dividing a model over several GPUs that are not here."""

from __future__ import annotations

import itertools

import pytest

from quantchat.domain.loading import DeviceShare
from quantchat.domain.memory import GIB, MIB
from quantchat.domain.models import LayerRun, Pieces, WeightSizes
from quantchat.domain.placement import Room, as_loaded, complete, place, weigh
from quantchat.errors import LoadError

LAYERS = 32
LAYER_BYTES = 200 * MIB
KV_LAYER_BYTES = 16 * MIB


def llama(tied: bool = False) -> dict[str, int]:
    tensors = {"model.embed_tokens.weight": 1000 * MIB, "model.norm.weight": 1 * MIB}
    if not tied:
        tensors["lm_head.weight"] = 1000 * MIB
    for index in range(LAYERS):
        tensors[f"model.layers.{index}.self_attn.q_proj.qweight"] = LAYER_BYTES // 2
        tensors[f"model.layers.{index}.mlp.experts.3.up_proj.qweight"] = LAYER_BYTES // 2
    return tensors


INSIDE = ("model.layers.0.self_attn", "model.layers.0.self_attn.q_proj")
LISTED = tuple(f"model.layers.{index}" for index in range(LAYERS))
MODULES = (
    "",
    "model",
    "model.embed_tokens",
    "model.layers",
    *LISTED,
    *INSIDE,
    "model.norm",
    "model.rotary_emb",
    "lm_head",
)


def rooms(*gibibytes: float) -> list[Room]:
    return [Room(f"cuda:{index}", int(size * GIB)) for index, size in enumerate(gibibytes)]


def test_parts_are_told_apart() -> None:
    parts = weigh(llama())
    assert parts.prefix == "model.layers"
    assert parts.layers == (LAYER_BYTES,) * LAYERS
    assert parts.inputs == {"model.embed_tokens": 1000 * MIB}
    assert parts.outputs == {"model.norm": MIB, "lm_head": 1000 * MIB}
    assert parts.total == sum(llama().values())


@pytest.mark.parametrize("sizes", [(24,), (4,), (24, 24), (4, 24), (24, 4)])
def test_one_device_that_is_large_enough_takes_all(sizes: tuple[float, ...]) -> None:
    found = place(weigh(llama()), rooms(*sizes), KV_LAYER_BYTES)
    largest = next((n for n, size in enumerate(sizes) if size == 24), 0)
    assert found.device_map() == {"": f"cuda:{largest}"}
    assert found.devices == (f"cuda:{largest}",)
    assert found.describe() == ""


@pytest.mark.parametrize("sizes", [(8, 8), (6, 9), (9, 6), (5, 5, 5), (4, 3, 7)])
def test_layers_are_cut_into_blocks_that_fit(sizes: tuple[float, ...]) -> None:
    found = place(weigh(llama()), rooms(*sizes), KV_LAYER_BYTES)
    assert found.devices == tuple(f"cuda:{n}" for n in range(len(sizes)))
    assert [block.first for block in found.blocks] == [
        0,
        *itertools.accumulate(block.count for block in found.blocks[:-1]),
    ]
    assert sum(block.count for block in found.blocks) == LAYERS
    assert sum(block.weight_bytes for block in found.blocks) == found.parts.total
    for block, room in zip(found.blocks, rooms(*sizes), strict=True):
        assert block.kv_bytes == block.count * KV_LAYER_BYTES
        assert block.weight_bytes + block.kv_bytes <= room.usable


def test_the_map_covers_every_module_once() -> None:
    found = place(weigh(llama()), rooms(8, 8), KV_LAYER_BYTES)
    covered = complete(found.device_map(), MODULES, found.devices[0])
    assert covered["model.embed_tokens"] == "cuda:0"
    assert covered["lm_head"] == covered["model.norm"] == "cuda:1"
    assert covered["model.rotary_emb"] == "cuda:0"
    assert covered["model.layers.0"] == "cuda:0"
    assert covered[f"model.layers.{LAYERS - 1}"] == "cuda:1"
    assert not {"", "model", "model.layers", "model.layers.0.self_attn"} & set(covered)


def test_a_tied_head_goes_where_the_embeddings_are() -> None:
    found = place(weigh(llama(tied=True)), rooms(7, 7), KV_LAYER_BYTES)
    assert complete(found.device_map(), MODULES, found.devices[0])["lm_head"] == "cuda:0"


def test_layers_are_weighed_by_what_a_load_makes_of_them() -> None:
    """FP8 weights are unpacked to 16 bits: they take twice what is on disk."""
    sizes = WeightSizes(
        prefix="model.layers",
        layers=(LayerRun(LAYERS, Pieces(floats=LAYER_BYTES)),),
        inputs=Pieces(floats=500 * MIB),
        outputs=Pieces(floats=500 * MIB),
    )
    parts = as_loaded(weigh(llama()), sizes)
    assert parts.layers == (2 * LAYER_BYTES,) * LAYERS
    assert parts.inputs == {"model.embed_tokens": 1000 * MIB}
    assert sum(parts.outputs.values()) == pytest.approx(1000 * MIB, abs=2)
    assert len(place(parts, rooms(12, 12), KV_LAYER_BYTES).blocks) == 2
    assert len(place(weigh(llama()), rooms(12, 12), KV_LAYER_BYTES).blocks) == 1


def test_what_was_not_sorted_is_weighed_as_it_is_on_disk() -> None:
    parts = weigh(llama())
    assert as_loaded(parts, WeightSizes()) == parts
    assert as_loaded(parts, WeightSizes(prefix="h", layers=(LayerRun(LAYERS, Pieces(floats=5)),))) == parts


def test_shares_are_kept() -> None:
    wanted = (DeviceShare("cuda:1", 3), DeviceShare("cuda:0", 1))
    found = place(weigh(llama()), rooms(24, 24), KV_LAYER_BYTES, wanted)
    assert found.devices == ("cuda:1", "cuda:0")
    first, second = (block.weight_bytes + block.kv_bytes for block in found.blocks)
    assert abs(first / (first + second) - 0.75) < 0.03


def test_devices_without_shares_divide_by_free_memory() -> None:
    wanted = (DeviceShare("cuda:0"), DeviceShare("cuda:1"))
    found = place(weigh(llama()), rooms(40, 20), KV_LAYER_BYTES, wanted)
    first, second = (block.weight_bytes + block.kv_bytes for block in found.blocks)
    assert abs(first / (first + second) - 2 / 3) < 0.05


def test_it_is_said_in_words() -> None:
    found = place(weigh(llama()), rooms(8, 8), KV_LAYER_BYTES)
    first, second = found.blocks
    assert found.describe() == (
        f"layers 0-{first.count - 1} on cuda:0 ({first.weight_bytes / GIB:.1f} GiB + {first.kv_bytes // MIB} MiB KV), "
        f"layers {first.count}-31 on cuda:1 ({second.weight_bytes / GIB:.1f} GiB + {second.kv_bytes // MIB} MiB KV)"
    )


def test_what_does_not_fit_names_device_missing_bytes_and_setting() -> None:
    with pytest.raises(LoadError) as caught:
        place(weigh(llama()), rooms(3, 3), KV_LAYER_BYTES)
    report = caught.value.report
    assert report.code == "out-of-memory"
    assert "cuda:0 is too small" in report.title
    assert "are missing" in report.detail
    assert "placement" in report.remedy


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(LoadError, match=r"There is no device cuda:3.*cuda:0, cuda:1"):
        place(weigh(llama()), rooms(24, 24), KV_LAYER_BYTES, (DeviceShare("cuda:3"),))


def test_a_model_without_layers_goes_to_one_device() -> None:
    found = place(weigh({"head.weight": MIB}), rooms(24, 24), KV_LAYER_BYTES)
    assert found.device_map() == {"": "cuda:0"}
