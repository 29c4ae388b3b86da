"""Folders read in processes of their own: the same models, whatever happens to the processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from processes import children
from quantchat.catalog import readers
from quantchat.catalog.candidates import Candidate
from quantchat.catalog.index import Place
from quantchat.catalog.readers import read_in_processes
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan
from unit.catalog.model_folders import make_gptq

KILLER = """
import os, sys
from quantchat.catalog import __main__ as child, reading
read = reading.read_entry
def read_or_die(candidate):
    if candidate.place.path.endswith(b"bad"):
        os.kill(os.getpid(), 9)
    return read(candidate)
child.read_entry = read_or_die
child.main()
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for number in range(40):
        make_gptq(tmp_path / f"m{number:02}")
    return tmp_path


def test_processes_find_what_this_one_finds(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantchat.catalog.scan.TELL_SECONDS", -1.0)
    roots = [Root(many, "test")]
    told: list[int] = []
    result = scan(roots, read=read_in_processes, tell=lambda models: told.append(len(models)))
    assert result == scan(roots)
    assert told
    assert children("quantchat.catalog") == []


def test_folders_that_end_their_reader_are_named_and_the_others_are_read(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (5, 6, 7, 8, 30):
        (many / f"m{number:02}").rename(many / f"m{number:02}bad")
    monkeypatch.setattr(readers, "_COMMAND", (sys.executable, "-c", KILLER))
    models = scan([Root(many, "test")], read=read_in_processes).models
    assert len(models) == 40
    broken = {model.name: model.problems[0].cause for model in models if not model.loadable}
    assert set(broken) == {"m05bad", "m06bad", "m07bad", "m08bad", "m30bad"}
    assert "ended the process" in broken["m05bad"]


@pytest.mark.parametrize(
    "command", [(sys.executable, "-c", "print('x' * 99999)"), (sys.executable, "-c", ""), ("/absent/python",)]
)
def test_where_no_reader_can_run_every_folder_is_still_named(
    many: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(readers, "_COMMAND", command)
    models = scan([Root(many, "test")], read=read_in_processes).models
    assert len(models) == 40
    assert not any(model.loadable for model in models)


def test_a_cancelled_reading_ends_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    place = Place(os.fsencode(make_gptq(tmp_path / "m")))
    met: list[int] = []

    def cancelled() -> bool:
        met.extend(child.pid for child in children("time.sleep(600)"))
        return bool(met)

    assert list(read_in_processes([Candidate(place, b"")], cancelled)) == []
    assert met
    assert not any(psutil.pid_exists(pid) for pid in met)


def test_a_folder_may_hold_modules_of_the_same_names_as_ours(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json.py", "msgspec.py"):
        (many / name).write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(many)
    models = scan([Root(many, "test")], read=read_in_processes).models
    assert all(model.loadable for model in models)
