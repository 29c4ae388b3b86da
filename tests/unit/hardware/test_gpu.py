"""`hardware.gpu` against the real pynvml, which loads a driver library that these tests compile and script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("stub_nvml.c")
ENGINE = 4242
WATCH = """
import json, os, sys
from pathlib import Path
import msgspec
from quantchat.hardware.gpu import GpuMonitor

script, monitor = Path(os.environ["NVML_SCRIPT"]), GpuMonitor()
for step in json.load(sys.stdin):
    if step == "close":
        monitor.close()
        continue
    script.write_text(step, errors="surrogateescape")
    snapshot = monitor.snapshot(4242)
    print(json.dumps(msgspec.to_builtins(snapshot)))
"""

FIRST = """
0.name NVIDIA GeForce RTX 3090
0.uuid GPU-aa
0.memory 24000 20000 4000
0.memory2 24000 19500 4000
0.utilization 37
0.temperature 61
0.power 215500
0.limit 350000
0.capability 8 6
0.processes 17:1000 4242:2500
"""
SECOND = """
1.name NVIDIA H200
1.uuid GPU-bb
1.memory 140000 140000 0
1.memory2 140000 139000 0
1.utilization 0
1.temperature 30
1.power 75000
1.limit 700000
1.processes
"""
UP = "init 0\ncount 2\n"

Snapshots = Callable[..., list[dict[str, object]]]


def compiled(folder: Path, *options: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "the README asks for gcc"
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", *options, "-o", library, STUB], check=True)
    return folder


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def snapshots(driver: Path, tmp_path: Path) -> Snapshots:
    def run(*steps: str, folder: Path = driver) -> list[dict[str, object]]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", WATCH],
            input=json.dumps(steps),
            env=os.environ | {"LD_LIBRARY_PATH": str(folder), "NVML_SCRIPT": str(tmp_path / "script")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_two_devices_tell_everything(snapshots: Snapshots) -> None:
    (seen,) = snapshots(UP + FIRST + SECOND)
    first, second = seen["devices"]
    assert first == {
        "index": 0,
        "name": "NVIDIA GeForce RTX 3090",
        "uuid": "GPU-aa",
        "total": 24000,
        "used": 4000,
        "free": 19500,
        "engine_bytes": 2500,
        "utilization": 37,
        "temperature": 61,
        "power": 215.5,
        "power_limit": 350.0,
        "capability": [8, 6],
        "processes": [{"pid": 17, "bytes": 1000}, {"pid": 4242, "bytes": 2500}],
    }
    assert second["name"] == "NVIDIA H200"
    assert second["used"] == 0
    assert second["utilization"] == 0
    assert second["engine_bytes"] is None
    assert seen["notes"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("name", "name"),
        ("uuid", "uuid"),
        ("utilization", "utilization"),
        ("temperature", "temperature"),
        ("power", "power"),
        ("limit", "power_limit"),
        ("capability", "capability"),
    ],
)
@pytest.mark.parametrize("code", [3, 4, 999])
def test_an_unanswered_query_leaves_only_its_own_field_empty(
    snapshots: Snapshots, query: str, field: str, code: int
) -> None:
    script = "\n".join(line for line in FIRST.splitlines() if not line.startswith(f"0.{query} "))
    whole, seen = snapshots("init 0\ncount 1\n" + FIRST, f"init 0\ncount 1\n{script}\n0.{query} !{code}\n")
    expected = whole["devices"][0] | {field: "GPU 0" if field == "name" else None}
    assert seen["devices"] == [expected]


@pytest.mark.parametrize("code", [3, 4, 999])
def test_processes_that_the_driver_hides(snapshots: Snapshots, code: int) -> None:
    whole, seen = snapshots(
        "init 0\ncount 1\n" + FIRST,
        f"init 0\ncount 1\n{FIRST}".replace("0.processes 17:1000 4242:2500", f"0.processes !{code}"),
    )
    assert seen["devices"] == [whole["devices"][0] | {"processes": [], "engine_bytes": None}]


def test_what_draws_is_named_too_and_what_does_both_once(snapshots: Snapshots) -> None:
    (seen,) = snapshots("init 0\ncount 1\n" + FIRST + "0.drawing 900:70 17:1200 4242:-1\n")
    assert seen["devices"][0]["processes"] == [
        {"pid": 17, "bytes": 1200},
        {"pid": 4242, "bytes": 2500},
        {"pid": 900, "bytes": 70},
    ]


def test_a_driver_older_than_pynvml_names_processes(snapshots: Snapshots, tmp_path: Path) -> None:
    script = "init 0\ncount 1\n" + FIRST
    assert snapshots(script, folder=compiled(tmp_path, "-DOLD")) == snapshots(script)


def test_a_driver_without_the_second_memory_query(snapshots: Snapshots) -> None:
    (seen,) = snapshots("init 0\ncount 1\n" + FIRST.replace("0.memory2 24000 19500 4000", "0.memory2 !13"))
    assert seen["devices"][0]["free"] == 20000


def test_memory_that_the_device_does_not_tell(snapshots: Snapshots) -> None:
    (seen,) = snapshots("init 0\ncount 1\n0.name NVIDIA GB10\n0.power 30000\n")
    (device,) = seen["devices"]
    assert (device["total"], device["used"], device["free"], device["power"]) == (None, None, None, 30.0)


@pytest.mark.parametrize("fault", ["handle !15", "handle !999", "memory !999", "temperature !15", "power !16"])
def test_a_vanishing_device_leaves_the_other(snapshots: Snapshots, fault: str) -> None:
    broken = SECOND.replace("1.memory2 140000 139000 0", "1.memory2 !999") if "memory" in fault else SECOND
    query = f"1.{fault.split()[0]} "
    kept = "\n".join(line for line in broken.splitlines() if not line.startswith(query))
    before, during, after = snapshots(UP + FIRST + SECOND, f"{UP}{FIRST}{kept}\n1.{fault}\n", UP + FIRST + SECOND)
    assert len(before["devices"]) == 2
    assert [device["index"] for device in during["devices"]] == [0]
    (note,) = during["notes"]
    assert note.startswith("GPU 1 does not answer: ")
    assert after == before


def test_every_device_lost(snapshots: Snapshots) -> None:
    lost, back = snapshots("init 0\ncount 1\n0.handle !15\n", "init 0\ncount 1\n" + FIRST)
    assert lost == {"reason": "GPU 0 does not answer: the GPU is lost"}
    assert back["devices"][0]["index"] == 0


def test_the_driver_comes_back_after_it_was_lost(snapshots: Snapshots) -> None:
    working, lost, back = snapshots(UP + FIRST + SECOND, "init !9\ncount !1\n", UP + FIRST + SECOND)
    assert lost == {"reason": "the NVIDIA driver is not loaded"}
    assert back == working


def test_closing_is_not_for_ever(snapshots: Snapshots) -> None:
    first, second = snapshots(UP + FIRST + SECOND, "close", "close", UP + FIRST + SECOND, "close")
    assert first == second


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("init !9", "the NVIDIA driver is not loaded"),
        ("init !18", "the NVIDIA driver was updated; restart the machine"),
        ("init !4", "no permission to ask the NVIDIA driver"),
        ("init !999", "the NVIDIA driver says: unknown error"),
        ("init !77", "the NVIDIA driver says: stub error"),
        ("init 0\ncount !999", "the NVIDIA driver says: unknown error"),
        ("init 0\ncount 0", "no NVIDIA GPU"),
    ],
)
def test_no_gpu_is_said_in_words(snapshots: Snapshots, script: str, reason: str) -> None:
    assert snapshots(script + "\n") == [{"reason": reason}]


def test_an_old_library_lacks_every_symbol(snapshots: Snapshots, tmp_path: Path) -> None:
    source = tmp_path / "empty.c"
    source.write_text("int unrelated(void) { return 0; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", source], check=True)
    (seen,) = snapshots("", folder=tmp_path)
    assert seen == {"reason": "the NVIDIA driver says: function not found"}


def test_a_name_that_is_not_utf8(snapshots: Snapshots) -> None:
    (seen,) = snapshots("init 0\ncount 1\n0.name RTX \udcff\n")
    assert seen["devices"][0]["name"] == "GPU 0"
