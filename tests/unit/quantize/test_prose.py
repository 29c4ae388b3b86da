"""Plain text: packed into samples at even places, whatever it looks like."""

from __future__ import annotations

import codecs
import re
from itertools import pairwise
from pathlib import Path

import pytest

from calibration_rig import QUIET
from quantchat.errors import Cancelled, JobError
from quantchat.quantize.prose import Prose, is_prose
from quantchat.quantize.watch import Watch


def words(text: str) -> int:
    """A tokenizer's count, with a token at the start as many add."""
    return 1 + len(re.findall(r"\w{1,8}|[^\w\s]", text))


def paragraphs(count: int, size: int = 10) -> str:
    return "\n\n".join(" ".join(f"p{number}w{word}" for word in range(size)) for number in range(count))


def samples(path: Path, data: str | bytes, count: int = 10_000, length: int = 41, watch: Watch = QUIET) -> list[str]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with path.open("rb") as file:
        return list(Prose(file, path, words, length).samples(count, watch, "reading"))


def test_samples_are_whole_paragraphs_as_many_as_fit(tmp_path: Path) -> None:
    text = paragraphs(20)
    made = samples(tmp_path / "a.txt", text, length=45)
    assert "\n\n".join(made) == text
    assert [len(sample.split("\n\n")) for sample in made] == [4] * 5


@pytest.mark.parametrize(
    "text", [paragraphs(1, 500), "word " * 3000, "日本語の文章です。" * 900, "x" * 9000, "🙂" * 3000]
)
def test_text_without_paragraphs_is_cut_at_words_or_anywhere(tmp_path: Path, text: str) -> None:
    made = samples(tmp_path / "a.txt", text)
    assert "".join("".join(made).split()) == "".join(text.split())
    assert all(words(sample) <= 41 for sample in made)
    if " " in text.strip():
        assert set(" ".join(made).split()) == set(text.split())


def test_samples_are_spread_evenly_over_the_file(tmp_path: Path) -> None:
    made = samples(tmp_path / "a.txt", paragraphs(1000), count=10)
    starts = [int(re.match(r"p(\d+)w0 ", sample)[1]) for sample in made]
    assert len(starts) == 10
    assert starts[0] == 0
    steps = [after - before for before, after in pairwise(starts)]
    assert max(steps) <= 2 * min(steps)
    assert starts[-1] >= 800


def test_a_place_in_the_middle_of_a_character_or_a_long_paragraph_is_mended(tmp_path: Path) -> None:
    for text in ("日本語の文章です。" * 5000, "é" * 9001, "größe " * 5000):
        made = samples(tmp_path / "a.txt", text, count=7)
        assert len(made) == 7
        assert all(sample in text for sample in made)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_marks_and_line_ends_of_other_systems_are_taken(tmp_path: Path, mark: bytes) -> None:
    text = paragraphs(8)
    assert "\n\n".join(samples(tmp_path / "a.txt", mark + text.replace("\n", "\r\n").encode())) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"caf\xe9 au lait", "not UTF-8 at byte 4"),
        (b"good text\n" * 4000 + b"\xff" + b"good text\n" * 20, "not UTF-8 at byte 40001"),
        (b"abc\x00def", "byte 4 is zero"),
        (b"cut \xe2\x82", "not UTF-8 at byte 5"),
    ],
)
def test_what_is_no_text_is_named_with_its_place(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        samples(tmp_path / "a.txt", data)


@pytest.mark.parametrize("data", [" ", "\n" * 50_000, " \t\r\n" * 9000, "\x07" * 500])
def test_nothing_to_read_makes_no_samples(tmp_path: Path, data: str) -> None:
    assert samples(tmp_path / "a.txt", data) == []


def test_a_stop_is_obeyed_between_samples(tmp_path: Path) -> None:
    heard: list[object] = []
    watch = Watch(heard.append, lambda: len(heard) >= 3)
    with pytest.raises(Cancelled):
        samples(tmp_path / "a.txt", paragraphs(400), watch=watch)
    assert len(heard) == 3


@pytest.mark.parametrize(
    ("name", "data", "prose"),
    [
        ("a.txt", b'{"messages": []}', True),
        ("a.MD", b"# Title", True),
        ("a.jsonl", b"hello", False),
        ("a.JSON", b"hello", False),
        ("notes", b"hello", True),
        ("notes", codecs.BOM_UTF8 + b'\r\n {"messages"', False),
        (".calibration.jsonl.host.1.ab.tmp", b'{"messages": []}', False),
        ("array", b"[1, 2]", False),
    ],
)
def test_the_name_tells_text_from_conversations_and_else_the_beginning(
    tmp_path: Path, name: str, data: bytes, prose: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with path.open("rb") as file:
        assert is_prose(path, file) is prose
        assert file.tell() == 0
