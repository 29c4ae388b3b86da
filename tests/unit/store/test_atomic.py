from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantchat.errors import StorageError
from quantchat.store import atomic
from quantchat.store.atomic import move_aside, private_dir, sweep_temporaries, write_atomic

Leftovers = Callable[[Path], list[str]]


def test_writes_a_private_file_in_a_private_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in (path.parent, path.parent.parent)} == {0o700}


def test_private_dir_closes_an_open_folder(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    assert private_dir(folder).stat().st_mode & 0o777 == 0o700


def test_private_dir_leaves_a_folder_that_is_everybodys(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    assert private_dir(folder).stat().st_mode & 0o7777 == 0o1777


def test_private_dir_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="disk refused"):
        private_dir(tmp_path / "file" / "folder")


def test_a_linked_file_stays_linked(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "config.toml"
    write_atomic(real, b"old")
    (tmp_path / "config.toml").symlink_to(real)
    write_atomic(tmp_path / "config.toml", b"new")
    assert (tmp_path / "config.toml").is_symlink()
    assert real.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("number", "code", "title"),
    [
        (errno.ENOSPC, "disk-full", "The disk is full"),
        (errno.EDQUOT, "disk-full", "The disk is full"),
        (errno.EACCES, "no-permission", "No permission to write"),
        (errno.EPERM, "no-permission", "No permission to write"),
        (errno.EROFS, "no-permission", "No permission to write"),
        (errno.EIO, "storage", "The disk refused"),
    ],
)
def test_a_refused_write_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers, number: int, code: str, title: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "fsync", refuse)
        with pytest.raises(StorageError) as caught:
            write_atomic(path, b"new")
    assert (caught.value.report.code, caught.value.report.title) == (code, title)
    assert str(path) in caught.value.report.detail
    assert caught.value.report.remedy
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_size_limit_is_explained(tmp_path: Path, leftovers: Leftovers) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write_atomic(path, b"x" * 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_full_disk(small_disk: Path, fill_disk: Callable[[Path], Path], leftovers: Leftovers) -> None:
    path = small_disk / "session.json"
    write_atomic(path, b"old" * 1000)
    ballast = fill_disk(small_disk)
    with pytest.raises(StorageError) as caught:
        write_atomic(path, b"new" * 1000)
    assert caught.value.report.title == "The disk is full"
    assert path.read_bytes() == b"old" * 1000
    assert leftovers(small_disk) == []
    ballast.unlink()
    write_atomic(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents anyone may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="quantchat-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("closed", ["the folder", "a folder above"])
def test_no_permission(open_folder: Path, closed: str) -> None:
    """In a process that is not root, since root may write everywhere."""
    folder = open_folder / "theirs"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    program = """
        import os, sys
        from pathlib import Path
        from quantchat.errors import StorageError
        from quantchat.store.atomic import write_atomic
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            write_atomic(Path(sys.argv[1]), b"new")
        except StorageError as error:
            print(error.report.code)
            print(error)
    """
    shut = folder if closed == "the folder" else open_folder
    shut.chmod(0o555 if closed == "the folder" else 0o600)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(folder / "file")],
        capture_output=True,
        text=True,
        check=False,
    )
    shut.chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.startswith("no-permission\nNo permission to write")
    assert (folder / "file").read_bytes() == b"old"
    assert os.listdir(folder) == ["file"]


def test_sweeps_what_dead_writers_left_and_nothing_else(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(child.stdout)
    mine = tmp_path / atomic.temporary_name("mine.json")
    gone = tmp_path / f".gone.json.{atomic.host_label()}.{dead}.abcd.tmp"
    other_host = tmp_path / f".far.json.x{atomic.host_label()}.{dead}.abcd.tmp"
    ancient = tmp_path / f".old.json.x{atomic.host_label()}.1.abcd.tmp"
    for path in (mine, gone, other_host, ancient):
        path.write_bytes(b"")
    os.utime(ancient, (0, 0))
    assert sorted(sweep_temporaries(tmp_path)) == sorted([gone, ancient])
    assert mine.exists()
    assert other_host.exists()


def test_host_label_fits_into_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu.example.org/x" * 9)
    assert "." not in atomic.host_label()
    assert "/" not in atomic.host_label()
    assert len(atomic.host_label()) <= 40


def test_move_aside_never_overwrites(tmp_path: Path) -> None:
    places = set()
    for content in ("one", "two", "three"):
        (tmp_path / "file.json").write_text(content)
        places.add(move_aside(tmp_path / "file.json", tmp_path / "kept"))
    assert sorted(place.read_text() for place in places) == ["one", "three", "two"]


@pytest.mark.parametrize("links", [True, False])
def test_two_programs_that_move_files_of_one_name_keep_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    kept = set()
    for content in ("one", "two", "three"):
        path = tmp_path / "session.json"
        path.write_text(content)
        kept.add(move_aside(path, tmp_path / "trash"))
        assert not path.exists()
    assert {path.read_text() for path in kept} == {"one", "two", "three"}
    assert len(list((tmp_path / "trash").iterdir())) == 3
    with pytest.raises(FileNotFoundError):
        move_aside(tmp_path / "session.json", tmp_path / "trash")


def test_a_link_is_moved_and_not_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("kept")
    link = tmp_path / "session.json"
    link.symlink_to(elsewhere)
    moved = move_aside(link, tmp_path / "trash")
    assert moved.is_symlink()
    assert elsewhere.read_text() == "kept"
    assert not link.is_symlink()


def test_a_parent_that_another_process_takes_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = Path.mkdir, []

    def mkdir(path: Path, **how: Any) -> None:
        if path.name == "own" and not taken:
            taken.append(path.parent.rmdir())
        real(path, **how)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert private_dir(tmp_path / "incoming" / "own").is_dir()
    assert taken


def test_a_temporary_file_that_is_swept_away_under_the_writer_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of another program was set a day ahead."""
    real, swept = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        if not swept:
            in_two_days = time.time() + 2 * atomic.ABANDONED_SECONDS
            with monkeypatch.context() as patched:
                patched.setattr(atomic.time, "time", lambda: in_two_days)
                swept.extend(sweep_temporaries(tmp_path))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(tmp_path / "session.json", b"{}")
    assert swept
    assert os.listdir(tmp_path) == ["session.json"]
