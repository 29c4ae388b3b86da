from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantchat.store import segments
from quantchat.store.segments import END, SegmentReader, SegmentWriter, Spot, overwrite

texts = st.lists(st.text("ab ", max_size=30), min_size=1, max_size=12)


def write(folder: Path, written: list[str]) -> tuple[Path, list[Spot]]:
    with SegmentWriter(folder) as writer:
        spots = [(writer.add(text.encode() + END), str(number)) for number, text in enumerate(written)]
    return folder / spots[0][0].segment, spots


def search(path: Path, spots: list[Spot], needle: str) -> list[int]:
    with SegmentReader(path) as reader:
        return [int(name) for name in reader.holding(needle.encode(), spots, lambda: False)]


@settings(max_examples=200)
@given(written=texts, needle=st.text("ab ", min_size=1, max_size=3), chunk=st.integers(1, 40), data=st.data())
def test_a_search_finds_each_text_that_holds_it_once(
    tmp_path_factory: pytest.TempPathFactory, written: list[str], needle: str, chunk: int, data: st.DataObject
) -> None:
    path, spots = write(tmp_path_factory.mktemp("segments"), written)
    live = [spot for spot in spots if data.draw(st.booleans())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "CHUNK", chunk)
        found = search(path, live, needle)
    assert found == [int(name) for _, name in live if needle in written[int(name)]]


def test_what_is_damaged_is_told_and_the_rest_still_found(tmp_path: Path) -> None:
    path, spots = write(tmp_path, ["first word", "second word", "third word"])
    data = bytearray(path.read_bytes())
    data[spots[1][0].start] ^= 1
    path.write_bytes(data[:-3])
    with SegmentReader(path) as reader:
        assert reader.damaged(spots) == ["1", "2"]
        assert [reader.text(place) for place, _ in spots] == [b"first word\0", None, None]
    assert search(path, spots, "first") == [0]


def test_what_a_file_has_lost_is_not_taken_from_what_was_read_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "CHUNK", 5)
    path, spots = write(tmp_path, ["word", "word"])
    os.truncate(path, 5)
    assert search(path, spots, "word") == [0]


def test_a_text_that_was_overwritten_is_gone_and_told(tmp_path: Path) -> None:
    path, spots = write(tmp_path, ["keep", "secret", "keep too"])
    overwrite(tmp_path, [spots[1][0]])
    assert b"secret" not in path.read_bytes()
    with SegmentReader(path) as reader:
        assert reader.damaged(spots) == ["1"]
    path.unlink()
    overwrite(tmp_path, [spots[1][0]])
    assert not path.exists()


def test_a_segment_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(OSError), SegmentWriter(tmp_path) as writer:
        writer.add(b"half\0")
        raise OSError(errno.EIO, "the disk refused")
    with SegmentWriter(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_segments_are_their_owners_alone(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "cache" / "sessions", ["text"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in path.parents[:2]} == {0o700}
