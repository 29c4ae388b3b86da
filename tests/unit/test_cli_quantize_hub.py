"""`quantchat quantize` of what has yet to be fetched: a repository of the hub, and the base of an adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Repository, hub_env, serving
from pull_rig import folder_files
from unit.catalog.corpus import build
from unit.catalog.model_folders import make_dense, write_json
from unit.test_cli_quantize import Workbench

NAME = "acme/base"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Workbench]:
    shell = Workbench(tmp_path)
    with serving({NAME: Repository(folder_files(make_dense(tmp_path / "their" / "base")))}) as hub:
        shell.environment |= hub_env(hub, str(tmp_path / "hf"))
        yield shell


def test_a_repository_is_fetched_and_named_as_the_base(shell: Workbench) -> None:
    status, out, err = shell.run(NAME, "--yes", "--no-smoke")
    assert status == 0, err
    made = Path(out.splitlines()[-1])
    assert made.name == "base-GPTQ-4bit-g64"
    assert made.parent == shell.folder / "home" / "data" / "models"
    assert f"base_model: {NAME}\n" in (made / "README.md").read_text()
    # The second time it is here, and nobody has to be asked.
    status, out, err = shell.run(NAME, "--no-smoke", "--bits", "8")
    assert status == 0, err
    assert out.startswith(f"{NAME} → GPTQ 8b g64")


def test_nothing_is_fetched_that_nobody_agreed_to(shell: Workbench) -> None:
    status, _, err = shell.run(NAME, "-o", str(shell.out))
    assert status == 2
    assert "--yes" in err
    assert shell.run(NAME, "--dry-run")[0] == 0
    assert not list((shell.folder / "hf").rglob("*.safetensors"))
    assert shell.left() == []


def test_the_base_of_an_adapter_is_fetched(shell: Workbench) -> None:
    adapter = build("lora-adapter", shell.folder)
    write_json(adapter / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": NAME})
    status, out, err = shell.run(str(adapter), "-o", str(shell.out), "--json", "--no-smoke")
    assert status == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    (preflight,) = [event for event in events if event["event"] == "preflight"]
    assert preflight["plan"]["adapter"] == str(adapter)
    assert preflight["model"]["name"] == NAME
    assert events[-1]["folder"] == str(shell.out)


def test_a_repository_that_is_not_there_is_told_once(shell: Workbench) -> None:
    status, out, err = shell.run("acme/none", "--json")
    assert status == 6
    assert [json.loads(line)["event"] for line in out.splitlines()].count("error") == 1
    assert err.count("acme/none") == 1
