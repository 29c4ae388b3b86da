"""Variables that mislead the libraries, and what is done about each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from doctor.rig import doctor, only

CASES = [
    ("HF_HUB_OFFLINE", "1", "yellow"),
    ("HF_ENDPOINT", "hub.example", "red"),
    ("HF_TOKEN", " hf_secret\n", "red"),
    ("HF_HOME", "/no/such/folder", "yellow"),
    ("TRANSFORMERS_CACHE", "/data/hub", "yellow"),
    ("TRANSFORMERS_CACHE", "/data/our hub; echo $HOME", "yellow"),
    ("USE_TORCH", "0", "red"),
    ("TORCH_LOGS", "", "red"),
    ("CUDA_VISIBLE_DEVICES", "", "red"),
    ("CUDA_HOME", "/no/such/folder", "red"),
    ("GPTQMODEL_CPU_WORKERS", "1", "red"),
    ("GPTQMODEL_KERNEL_REBUILD", "true", "yellow"),
    ("PYTHONPATH", "/somewhere", "yellow"),
]


@pytest.mark.parametrize(("name", "value", "level"), CASES)
def test_a_variable_that_misleads(env: dict[str, str], name: str, value: str, level: str) -> None:
    found = doctor(*only("environment"), env=env | {name: value})[f"environment.{name}"]
    assert found.level == level
    assert "secret" not in found.found + found.fix
    shell = ["sh", "-c", f"{found.fix}\nenv"]
    mended = subprocess.run(shell, env=env | {name: value}, capture_output=True, text=True, check=True).stdout
    values = dict(line.partition("=")[::2] for line in mended.splitlines())
    assert values.get(name) != value, "the command does away with it"
    if "HF_HUB_CACHE" in found.fix:
        assert values["HF_HUB_CACHE"] == value


def test_values_that_are_right(env: dict[str, str], tmp_path: Path) -> None:
    right = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path), "GPTQMODEL_CPU_WORKERS": "4"}
    seen = doctor(*only("environment"), env=env | right | {"CUDA_VISIBLE_DEVICES": "1", "LD_PRELOAD": ""})
    assert {finding.id for finding in seen.findings} == {"environment"}
    assert seen.status == 0


def test_an_empty_token_is_none(env: dict[str, str]) -> None:
    seen = doctor(*only("environment"), env=env | {"HF_TOKEN": ""})
    assert {finding.id for finding in seen.findings} == {"environment"}


def test_a_mirror_is_named(env: dict[str, str]) -> None:
    seen = doctor(*only("environment"), env=env | {"HF_ENDPOINT": "https://mirror.example"})
    assert seen["environment.HF_ENDPOINT"].level == "green"


@pytest.mark.parametrize("address", ["https://me:secret@mirror.example/hub", "me:secret@mirror.example"])
def test_a_password_in_the_address_of_a_mirror_is_not_shown(env: dict[str, str], address: str) -> None:
    found = doctor(*only("environment"), env=env | {"HF_ENDPOINT": address})["environment.HF_ENDPOINT"]
    assert "mirror.example" in found.found
    assert "secret" not in found.found + found.fix


def test_cuda_libraries_of_elsewhere(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "libcublas.so.12").write_bytes(b"")
    (tmp_path / "fine one").mkdir()
    seen = doctor(*only("environment"), env=env | {"LD_LIBRARY_PATH": f"{tmp_path}:{tmp_path}/fine one"})
    assert seen["environment.LD_LIBRARY_PATH"].fix == f"export LD_LIBRARY_PATH='{tmp_path}/fine one'"
