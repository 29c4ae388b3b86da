"""Which files a prompt mentions, what of them is sent, and the names in a folder."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.attachments import Attachment, Draft
from quantchat.errors import UsageError
from quantchat.services import files
from quantchat.services.attachments import FILE_BYTES, mentions, read_file, with_mentioned_files
from quantchat.services.files import Listing, list_folder, matching


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "a.py").write_text("pass\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("@a.py and @src/b.c", ["a.py", "src/b.c"]),
        ('see @"with space.md"!', ["with space.md"]),
        ("me@example.org, a@b", []),
        ("@ @\n@x", ["x"]),
        ("(@a.py)", []),
        ('@"unclosed name', []),
    ],
)
def test_mentions(text: str, found: list[str]) -> None:
    assert mentions(text) == found


@given(st.text(alphabet=st.sampled_from('@" /.a~\n\0\ud800ab'), max_size=20))
def test_any_text_is_sent_or_refused_with_words(text: str) -> None:
    refused = None
    try:
        assert with_mentioned_files(Draft(text)).text.startswith(text)
    except UsageError as error:
        refused = str(error)
    assert refused is None or "cannot be attached" in refused


@pytest.mark.parametrize("words", ["@a.py", "@a.py, please", "Is @a.py. fine?", "@a.py)", "@a.py @a.py"])
def test_a_file_is_attached_once_behind_the_text(words: str) -> None:
    assert with_mentioned_files(Draft(words)).expanded() == (
        f"{words}\n\n[file 1: a.py, 5 characters]\n```python\npass\n\n```"
    )


def test_numbers_go_on_behind_other_attachments() -> None:
    paste = Attachment(number=4, text="x\ny")
    (_, file) = with_mentioned_files(Draft(f"{paste.token} @a.py", (paste,))).attachments
    assert file.number == 5


def test_a_file_that_is_there_already_is_not_read_again(work: Path) -> None:
    draft = with_mentioned_files(Draft("@a.py"))
    (work / "a.py").write_text("changed")
    assert with_mentioned_files(Draft.folded(draft.expanded())) == draft


def test_a_home_folder_is_understood(work: Path) -> None:
    (work / "home" / "notes.txt").write_text("at home")
    (file,) = with_mentioned_files(Draft("@~/notes.txt")).attachments
    assert (file.name, file.text) == ("~/notes.txt", "at home")


def test_a_bare_word_that_happens_to_name_no_text_stays_a_word(work: Path) -> None:
    (work / "test").write_bytes(b"\x7fELF\0")
    assert with_mentioned_files(Draft("@test @src @nobody")).attachments == ()


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"\xef\xbb\xbfmarked", "marked"),
        (b"a\r\nb\tc\x1b[31m", "a\nb\tc[31m"),
        ("❤\ufe0f".encode(), "❤\ufe0f"),
        (b"", ""),
        (b"x" * FILE_BYTES, "x" * FILE_BYTES),
    ],
)
def test_what_a_file_holds(work: Path, content: bytes, kept: str) -> None:
    (work / "file.txt").write_bytes(content)
    assert read_file("file.txt").text == kept


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfea\0", "not a text file"), (b"a\0b", "not a text file"), (b"x" * (FILE_BYTES + 1), "larger than")],
)
def test_what_is_refused(work: Path, content: bytes, said: str) -> None:
    (work / "file.txt").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be attached") as refused:
        read_file("file.txt")
    assert said in str(refused.value)


def test_what_would_never_end_is_not_opened(work: Path) -> None:
    os.mkfifo(work / "pipe.txt")
    for name in ("./pipe.txt", "/dev/zero"):
        with pytest.raises(UsageError) as refused:
            with_mentioned_files(Draft(f"@{name}"))
        assert "not a regular file" in str(refused.value)


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = os.stat(work / "a.py")
    (work / "a.py").unlink()
    os.mkfifo(work / "a.py")
    with monkeypatch.context() as earlier:
        earlier.setattr(os, "stat", lambda *_, **__: looked_at)
        with pytest.raises(UsageError, match="cannot be attached") as refused:
            read_file("a.py")
    assert "not a regular file" in str(refused.value)


def test_a_file_of_unknown_size_is_read_up_to_the_limit() -> None:
    assert "Linux" in read_file("/proc/version").text


# Names


def test_folders_come_first_and_hidden_names_only_when_asked_for(work: Path) -> None:
    (work / ".git").mkdir()
    (work / "B.txt").touch()
    assert list_folder("", "").names == ("home/", "src/", "a.py", "B.txt")
    assert list_folder("", ".").names == (".git/",)
    assert list_folder("", "b").names == ("B.txt",)
    assert list_folder("~/", "").names == ()
    assert list_folder("nowhere/", "").names == ()


def test_names_that_cannot_be_typed_are_left_out(work: Path) -> None:
    for name in ("line\nend", "esc\x1b[31m", 'quo"te', "bidi\u202e"):
        (work / name).touch()
    (work / os.fsdecode(b"latin\xe9")).touch()
    assert list_folder("", "").names == ("home/", "src/", "a.py")


def test_a_huge_folder_is_cut_and_looked_at_again_for_more_letters(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        (work / "src" / f"file{number:02d}").touch()
    (work / "src" / "zebra").touch()
    monkeypatch.setattr(files, "MOST_NAMES", 20)
    whole = list_folder("src/", "")
    assert whole.cut
    assert len(whole.names) == 20
    assert not whole.serves("src/", "z")
    assert list_folder("src/", "z").names == ("zebra",)


def test_a_listing_serves_longer_prefixes_of_its_folder() -> None:
    listing = Listing("src/", "fi", ("file1", "file2", "first"))
    assert listing.serves("src/", "fil")
    assert not listing.serves("src/", "f")
    assert not listing.serves("", "fil")
    assert not Listing("", "", ("a",)).serves("", ".")
    assert matching(listing, "FIL", 1) == ["file1"]


def test_narrowing_a_full_listing_costs_less_than_reading_it(work: Path) -> None:
    for number in range(files.MOST_NAMES):
        (work / "src" / f"file{number}").touch()

    def cost(act: object) -> float:
        assert callable(act)
        spent = []
        for _ in range(5):
            start = time.perf_counter()
            act()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent)

    listing = list_folder("src/", "")
    assert cost(lambda: matching(listing, "file1999", 50)) < cost(lambda: list_folder("src/", ""))
