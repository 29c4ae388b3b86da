"""Folders for models are checked before they are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantchat.errors import UsageError
from quantchat.services.folders import check_folder, known_folders


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("mine", "hub", "given"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")


def test_a_folder_is_kept_as_it_was_written_but_not_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_folder(" ~/mine ", []) == "~/mine"
    assert check_folder("$HOME/mine", []) == "$HOME/mine"
    monkeypatch.chdir(tmp_path)
    assert check_folder("mine", []) == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "Type its path"),
        ("~/absent", "there is no such folder"),
        ("~/file", "this is a file"),
        ("~/hub", "in the list already"),
        ("~/mine/", "in the list already"),
        ("~/given/../given", "in the list already"),
        ("~/link", "in the list already"),
        ("\x1b[31m~", "there is no such folder"),
    ],
)
def test_what_is_no_new_folder_is_refused(tmp_path: Path, written: str, words: str) -> None:
    (tmp_path / "link").symlink_to("mine")
    known = known_folders(["~/mine"], [tmp_path / "given"])
    with pytest.raises(UsageError) as caught:
        check_folder(written, known)
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").chmod(0)
    with pytest.raises(UsageError, match="may not read"):
        check_folder("~/mine", [])


def test_all_places_are_told_and_what_is_wrong_with_ones_own(tmp_path: Path) -> None:
    known = known_folders(["~/mine", "~/gone"], [tmp_path / "given"])
    assert [(folder.written, folder.label, folder.own) for folder in known] == [
        ("~/mine", "", True),
        ("~/gone", "there is no such folder", True),
        (str(tmp_path / "given"), "--models-dir", False),
        (str(tmp_path / "hub"), "hub cache", False),
    ]


def test_what_is_written_twice_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lmstudio" / "models").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / ".lmstudio" / "models"))
    known = known_folders(["~/mine", "~/mine", "~nobody-here/x"], [tmp_path / "given"] * 2)
    assert [folder.written for folder in known] == [
        "~/mine", "~nobody-here/x", str(tmp_path / "given"), str(tmp_path / ".lmstudio" / "models")
    ]  # fmt: skip
