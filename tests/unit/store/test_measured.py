"""What loads came to, on a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.store.measured import KEPT, Load, Measured, load_measured, save_measured


def load(path: str = "/m", measured: int = 10, versions: str = "torch 2", **more: object) -> Load:
    fields = {"weight_bytes": 5, "kernel": "gptq_marlin", "device": "cuda", "predicted": 9}
    return Load(path=path, measured=measured, versions=versions, **fields | more)


def test_a_load_is_found_again_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state" / "measured.json"
    assert save_measured(Measured().add(load(), 800), file)
    found = load_measured(file)
    assert found.find("/m", 5, "gptq_marlin", "cuda", "torch 2") == load()
    assert found.idle_bytes("torch 2") == 800


@pytest.mark.parametrize(
    "other",
    [
        ("/n", 5, "gptq_marlin", "cuda", "torch 2"),
        ("/m", 6, "gptq_marlin", "cuda", "torch 2"),
        ("/m", 5, "dense", "cuda", "torch 2"),
        ("/m", 5, "gptq_marlin", "cpu", "torch 2"),
        ("/m", 5, "gptq_marlin", "cuda", "torch 3"),
    ],
)
def test_another_model_kernel_device_or_library_is_not_taken_for_it(other: tuple[str, int, str, str, str]) -> None:
    assert Measured().add(load()).find(*other) is None


def test_what_new_libraries_took_stands_beside_what_old_ones_took() -> None:
    both = Measured().add(load(), 800).add(load(measured=11, versions="torch 3"), 900)
    measured = [both.find("/m", 5, "gptq_marlin", "cuda", f"torch {version}") for version in (2, 3, 4)]
    assert [known and known.measured for known in measured] == [10, 11, None]
    assert (both.idle_bytes("torch 3"), both.idle_bytes("torch 4")) == (900, None)


def test_the_last_of_equal_loads_counts_and_the_oldest_are_dropped() -> None:
    known = Measured().add(load(measured=1)).add(load(measured=2))
    assert [each.measured for each in known.loads] == [2]
    for index in range(KEPT):
        known = known.add(load(f"/{index}"))
    assert len(known.loads) == KEPT
    assert known.find("/m", 5, "gptq_marlin", "cuda", "torch 2") is None


def test_a_gpu_says_nothing_of_the_process() -> None:
    assert Measured().add(load(), 800).add(load("/n")).idle_bytes("torch 2") == 800


@pytest.mark.parametrize("text", [b"", b"[]", b'{"version": 99}', b'{"loads": [{"path": 3}]}', b"\xff\xfe"])
def test_a_file_of_something_else_is_a_fresh_start(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "measured.json"
    file.write_bytes(text)
    assert load_measured(file) == Measured()


def test_a_disk_that_refuses_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not save_measured(Measured().add(load()), tmp_path / "file" / "measured.json")
