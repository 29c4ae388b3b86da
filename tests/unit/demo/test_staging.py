"""Folders that appear complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.errors import StorageError
from quantchat.staging import remove_stale, scratch, staged
from unit_demo import files_below

DEAD = 4_194_305
"""Larger than any pid that Linux gives."""


def test_a_block_that_ends_well_leaves_the_folder(tmp_path: Path) -> None:
    with staged(tmp_path / "models" / "m") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "models" / "m").exists()
    assert files_below(tmp_path / "models") == ["m", "m/a"]


def fail(target: Path, error: type[BaseException]) -> None:
    with staged(target) as folder:
        (folder / "a").write_text("x")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fail(tmp_path / "m", error)
    assert files_below(tmp_path) == []


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(StorageError, match="exists already"), staged(tmp_path / "m"):
        pass
    assert files_below(tmp_path) == ["m"]


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    for pid in (DEAD, 1):
        (tmp_path / f".m.partial-{pid}").mkdir()
    remove_stale(tmp_path / "m")
    assert files_below(tmp_path) == [".m.partial-1"]


def test_leftovers_of_names_with_signs_that_mean_something_in_patterns_go_too(tmp_path: Path) -> None:
    for name in ("m[1]", "m*", "mine"):
        (tmp_path / f".{name}.partial-{DEAD}").mkdir()
    remove_stale(tmp_path / "m[1]")
    remove_stale(tmp_path / "m*")
    assert files_below(tmp_path) == [f".mine.partial-{DEAD}"]


def test_the_slower_of_two_that_make_the_same_is_told_that_it_is_there(tmp_path: Path) -> None:
    def make() -> None:
        with staged(tmp_path / "m") as folder:
            (folder / "a").write_text("slow")
            (tmp_path / "m").mkdir()
            (tmp_path / "m" / "a").write_text("quick")

    with pytest.raises(StorageError, match="exists already"):
        make()
    assert files_below(tmp_path) == ["m", "m/a"]
    assert (tmp_path / "m" / "a").read_text() == "quick"


def test_a_disk_that_refuses_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"), scratch(tmp_path / "file" / "m"):
        pass
