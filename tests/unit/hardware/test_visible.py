"""What `CUDA_VISIBLE_DEVICES` leaves of the GPUs, and under which numbers."""

from __future__ import annotations

import pytest

from quantchat.hardware.gpu import GpuDevice
from quantchat.hardware.visible import visible

BOX = tuple(GpuDevice(index=index, name=f"card {index}", uuid=f"GPU-{index}{index}-ab") for index in range(3))
MOVED = (GpuDevice(index=2, name="card 2", uuid="GPU-22-ab"),)
"""The others do not answer."""


def names(wish: str | None, devices: tuple[GpuDevice, ...] = BOX) -> list[str]:
    found = visible(devices, {} if wish is None else {"CUDA_VISIBLE_DEVICES": wish})
    if wish is not None:
        assert [device.index for device in found] == list(range(len(found)))
    return [device.name for device in found]


@pytest.mark.parametrize(
    ("wish", "cards"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [2]),
        ("2,0", [2, 0]),
        (" 1 , 0", [1, 0]),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("1,1", []),
        ("1gpu2,2ampere", [1, 2]),
        ("GPU-11", [1]),
        ("GPU-22-ab,GPU-00", [2, 0]),
        ("GPU-", []),
        ("GPU-77,0", []),
        ("GPU-11,1", []),
    ],
)
def test_what_is_left_and_in_which_order(wish: str | None, cards: list[int]) -> None:
    assert names(wish) == [f"card {number}" for number in cards]


def test_the_number_is_the_drivers_where_others_do_not_answer() -> None:
    assert names("2", MOVED) == ["card 2"]
    assert names("0", MOVED) == []


def test_of_a_slice_only_the_existence_is_known() -> None:
    (slice_,) = visible(BOX, {"CUDA_VISIBLE_DEVICES": "MIG-5c89"})
    assert (slice_.free, slice_.total, slice_.capability) == (None, None, None)
