"""Disks and folders that are really full, read-only, noexec, or somebody else's."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import disks
from doctor.rig import Seen, clean_env, doctor, only
from quantchat.services.doctor.findings import Finding, Report

NOBODY = 65534
AS_NOBODY = """
import asyncio, os
import msgspec.json
import quantchat.catalog.scan, quantchat.cli.stoppable, quantchat.services.doctor.checks, quantchat.store.settings
from quantchat.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main()
"""


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own with the options that the test names."""
    with disks.mounted(tmp_path / "mounted", request.param):
        yield tmp_path / "mounted"


def test_a_disk_that_is_nearly_full(small_disk: Path) -> None:
    seen = doctor(*only("disks"), env=clean_env(small_disk))
    assert seen.status == 1
    assert seen["disk.sessions"].level == "red"
    assert "64 KiB free for" in seen["disk.sessions"].found
    assert seen["disk.models"].level == "yellow"
    shown = subprocess.run(["sh", "-c", seen["disk.sessions"].fix], capture_output=True, text=True, check=True)
    assert str(small_disk) in shown.stdout
    assert seen["disk.hub"].fix.splitlines()[0].endswith("/hf cache prune")


@pytest.mark.parametrize("mounted", ["size=1g,nr_inodes=100"], indirect=True)
def test_a_disk_that_takes_no_more_files(mounted: Path) -> None:
    found = doctor(*only("disks"), env=clean_env(mounted))["disk.sessions"]
    assert found.level == "red"
    assert "more files fit" in found.found


@pytest.mark.parametrize("mounted", ["size=1m,ro"], indirect=True)
def test_a_disk_that_is_mounted_read_only(mounted: Path) -> None:
    found = doctor(*only("folders"), env=clean_env(mounted))["folder.sessions"]
    assert found.level == "red"
    assert "mounted read-only" in found.found
    assert found.fix == f"sudo mount -o remount,rw $(stat -c %m {mounted})"


@pytest.mark.parametrize("mounted", ["size=1m,noexec"], indirect=True)
def test_disks_from_which_nothing_is_run(mounted: Path, tmp_path: Path) -> None:
    env = clean_env(tmp_path / "home", TMPDIR=str(mounted), GPTQMODEL_TORCH_EXTENSIONS_DIR=str(mounted / "kernels"))
    seen = doctor(*only("folders"), env=env)
    assert seen["tmp.noexec"].level == "yellow"
    assert seen.status == 0
    assert "export TMPDIR=" in seen["tmp.noexec"].fix


def as_nobody(env: dict[str, str]) -> dict[str, Finding]:
    """Run in a process that is not root, since root may write everywhere."""
    words = ["doctor", "--json", *only("folders")]
    done = subprocess.run([sys.executable, "-P", "-c", AS_NOBODY, *words], env=env, capture_output=True, text=True)
    assert done.stderr == ""
    return {finding.id: finding for finding in msgspec.json.decode(done.stdout, type=Report).findings}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_folders_of_somebody_else(open_home: Path) -> None:
    sessions = open_home / "data" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "a.json").write_text("{}")
    found = as_nobody(clean_env(open_home, TMPDIR=str(open_home)))
    assert found["folder.sessions"].level == "red"
    assert "it belongs to user 0" in found["folder.sessions"].found
    assert "1 files in" in found["folder.owner"].found
    assert found["folder.owner"].fix == f"sudo chown -R {NOBODY}:{NOBODY} {sessions}"
    assert "cannot be written: the engine cannot start" in found["tmp"].found
    for path in (open_home, open_home / "data", sessions, sessions / "a.json"):
        os.chown(path, NOBODY, NOBODY)
    (open_home / "data").chmod(0o700)
    assert {finding.level for finding in as_nobody(clean_env(open_home)).values()} == {"green"}


@pytest.fixture
def open_home(tmp_path: Path) -> Path:
    """A folder that everybody may reach."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest-", "popen-", "test_")):
            folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    return home


def test_what_others_may_read(tmp_path: Path) -> None:
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    data.chmod(0o755)
    env = clean_env(tmp_path / "home")
    found = doctor(*only("folders"), env=env)["folder.private"]
    assert found.level == "yellow"
    subprocess.run(shlex.split(found.fix), check=True)
    assert "folder.private" not in doctor(*only("folders"), env=env)


def test_a_folder_of_models_that_is_not_there(tmp_path: Path, env: dict[str, str]) -> None:
    seen = doctor(*only("folders"), "--models-dir", str(tmp_path / "gone"), env=env)
    assert seen["folder.models-dir"].level == "yellow"


def test_folders_of_the_settings_are_found_from_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text('models_dirs = ["~/models", "~nobody-at-all/models"]\n')
    found = doctor(*only("folders"), env=clean_env(home)).about("Folder of models")
    assert [finding.found for finding in found] == [
        "~nobody-at-all/models is not there, though it is named as a folder of models."
    ]


def limited(env: dict[str, str], limit: str) -> Seen:
    return doctor(*only("limits"), env=env, prefix=["sh", "-c", f'ulimit {limit}; exec "$@"', "sh"])


SHELL_LIMITS = [("-n 64", "limits.files", "yellow"), ("-v 9000000", "limits.space", "red")]


@pytest.mark.parametrize(("limit", "identifier", "level"), SHELL_LIMITS)
def test_limits_of_the_shell(env: dict[str, str], limit: str, identifier: str, level: str) -> None:
    assert identifier not in limited(env, "-c 0")
    assert limited(env, limit)[identifier].level == level
