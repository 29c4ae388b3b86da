"""The scanner: what it finds appears while it looks, changes appear by themselves, and it can be broken off."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from quantchat.catalog import readers
from quantchat.services import scanning
from quantchat.services.facts import Fact, ModelsChanged, Notice
from quantchat.services.scanning import Scanner
from unit.catalog.model_folders import make_gptq

PATIENCE = 20.0


class Watched:
    """A scanner over one folder, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.facts: list[Fact] = []
        self.sizes: list[int] = []
        self.scanner = Scanner(self._hear, [folder])

    def _hear(self, fact: Fact) -> None:
        self.facts.append(fact)
        if isinstance(fact, ModelsChanged):
            self.sizes.append(len(self.scanner.models))

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.scanner.models]

    @property
    def warnings(self) -> list[str]:
        return [fact.report.detail for fact in self.facts if isinstance(fact, Notice)]

    async def until(self, test: Callable[[], object]) -> None:
        """Look for changes until something is as it should be."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not test():
            assert asyncio.get_running_loop().time() < end, self.names
            await self.scanner.watch()
            await asyncio.sleep(0.01)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(scanning, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(scanning, "WATCH_SHARE", 1.0)
    make_gptq(tmp_path / "models" / "alpha")
    return Watched(tmp_path / "models")


async def test_what_is_found_is_said(watched: Watched) -> None:
    scan = asyncio.create_task(watched.scanner.scan())
    await asyncio.sleep(0)
    assert watched.scanner.scanning
    await scan
    assert (watched.names, watched.scanner.scanning) == (["alpha"], False)
    assert watched.sizes[-1] == 1


async def test_models_appear_while_the_scan_goes_on(watched: Watched, tmp_path: Path) -> None:
    slow = "import time, quantchat.catalog.__main__ as m\nread = m.read_entry\n"
    slow += "m.read_entry = lambda candidate: (time.sleep(0.15), read(candidate))[1]\nm.main()"
    for number in range(4):
        make_gptq(tmp_path / "models" / f"m{number}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_COMMAND", (sys.executable, "-c", slow))
        await watched.scanner.scan()
    assert watched.sizes[-1] == 5
    assert set(watched.sizes[:-1]) & {1, 2, 3, 4}


async def test_changes_on_the_disk_appear_by_themselves(watched: Watched, tmp_path: Path) -> None:
    await watched.scanner.scan()
    make_gptq(tmp_path / "models" / "owner" / "beta")
    await watched.until(lambda: watched.names == ["alpha", "beta"])
    (tmp_path / "models" / "alpha" / "model.safetensors").unlink()
    await watched.until(lambda: not watched.scanner.models[0].loadable)
    shutil.rmtree(tmp_path / "models" / "alpha")
    await watched.until(lambda: watched.names == ["beta"])


async def test_nothing_is_said_where_nothing_changed(watched: Watched, tmp_path: Path) -> None:
    for place, _, files in os.walk(tmp_path / "models"):
        for name in (*files, "."):
            os.utime(os.path.join(place, name), (time.time() - 1000,) * 2)
    await watched.scanner.scan()
    said = len(watched.facts)
    models = watched.scanner.models
    await watched.until(lambda: watched.scanner.due)
    await watched.scanner.watch()
    assert len(watched.facts) == said
    assert watched.scanner.models is models


async def test_looks_are_rare_beside_the_time_that_they_take(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "WATCH_SHARE", 1e-9)
    await watched.scanner.scan()
    assert not watched.scanner.due
    begun = len(watched.facts)
    await watched.scanner.watch()
    assert len(watched.facts) == begun


async def test_a_folder_that_cannot_be_looked_at_is_named_once(watched: Watched, tmp_path: Path) -> None:
    await watched.scanner.look_in([tmp_path / "absent"])
    assert watched.names == []
    assert watched.warnings == [f"{tmp_path}/absent: no such file or directory."]
    await watched.until(lambda: watched.scanner.due)
    await watched.scanner.watch()
    assert len(watched.warnings) == 1
    await watched.scanner.scan()
    assert len(watched.warnings) == 2, "who asks gets an answer"


async def test_who_asks_while_changes_are_looked_for_is_told_of_his_scan(watched: Watched) -> None:
    await watched.scanner.scan()
    await watched.until(lambda: watched.scanner.due)
    watch = asyncio.create_task(watched.scanner.watch())
    await asyncio.sleep(0)
    scan = asyncio.create_task(watched.scanner.scan())
    assert not watched.scanner.scanning
    await watch
    assert watched.scanner.scanning
    await scan
    assert not watched.scanner.scanning


async def test_what_is_installed_is_noticed(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "new" / "site-packages"
    site.mkdir(parents=True)
    monkeypatch.syspath_prepend(site)
    for place, _, files in os.walk(tmp_path / "models"):
        for name in (*files, "."):
            os.utime(os.path.join(place, name), (time.time() - 1000,) * 2)
    await watched.scanner.scan()
    monkeypatch.setattr(readers, "_COMMAND", ("/absent",))
    await watched.scanner.scan()
    assert watched.scanner.models[0].loadable, "nothing had to be read"
    (site / "gptqmodel").mkdir()
    await watched.scanner.scan()
    assert not watched.scanner.models[0].loadable, "it was to be read again"


async def test_many_folders_that_may_not_be_read_are_one_warning(watched: Watched, tmp_path: Path) -> None:
    missing = [tmp_path / f"absent-{number}" for number in range(5)]
    await watched.scanner.look_in(missing)
    (warning,) = watched.warnings
    assert warning.count("no such file") == 3
    assert warning.endswith(" …")
    await watched.scanner.look_in(missing[:2])
    assert watched.warnings[1].count("no such file") == 2


async def test_a_download_appears_when_it_is_complete(watched: Watched, tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "models" / "beta")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    await watched.scanner.scan()
    assert [model.loadable for model in watched.scanner.models] == [True, False]
    (folder / "model.safetensors").write_bytes(whole)
    await watched.until(lambda: watched.scanner.models[1].loadable)


async def test_a_scan_is_broken_off_for_another_folder(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_gptq(tmp_path / "other" / "gamma")
    command = readers._COMMAND
    monkeypatch.setattr(readers, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    hanging = asyncio.create_task(watched.scanner.scan())
    end = asyncio.get_running_loop().time() + PATIENCE
    while not psutil.Process().children():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)
    children = psutil.Process().children()
    monkeypatch.setattr(readers, "_COMMAND", command)
    await watched.scanner.look_in([tmp_path / "other"])
    await hanging
    assert watched.names == ["gamma"]
    psutil.wait_procs(children, timeout=PATIENCE)
    assert not any(child.is_running() for child in children)


async def test_a_second_start_shows_what_the_first_read(watched: Watched, tmp_path: Path) -> None:
    for place, _, files in os.walk(tmp_path / "models"):
        for name in (*files, "."):
            os.utime(os.path.join(place, name), (time.time() - 1000,) * 2)
    await watched.scanner.scan()
    second = Watched(tmp_path / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_COMMAND", ("/absent",))
        await second.scanner.scan()
    assert second.scanner.models == watched.scanner.models
