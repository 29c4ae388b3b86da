"""Measurements lie beside their models, newest first; what is there is never lost."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.quality import Quality
from quantchat.errors import StorageError
from quantchat.store.quality import FILE, KEPT, add_quality, apart, load_quality


def quality(**changes: object) -> Quality:
    values = {"perplexity": 20.0, "tokens": 100, "text": "t", "text_sha256": "00", "window": 512} | changes
    return Quality(**values)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir(mode=0o755)
    return folder


def test_measurements_come_back_newest_first(model: Path) -> None:
    old = quality(kernel="a", measured="2026-01-01T00:00:00Z")
    new = quality(kernel="b", measured="2026-01-02T00:00:00Z", divergence=0.01, reference="x")
    add_quality(str(model), old)
    assert add_quality(str(model), new) == model / FILE
    assert load_quality(str(model)) == (new, old)
    assert [path.name for path in model.iterdir()] == [FILE]


def test_a_measurement_takes_the_place_of_one_in_the_same_circumstances(model: Path) -> None:
    add_quality(str(model), quality(perplexity=20.0))
    add_quality(str(model), quality(perplexity=21.0, tokens_per_second=9.0))
    add_quality(str(model), quality(perplexity=22.0, window=256))
    assert sorted(found.perplexity for found in load_quality(str(model))) == [21.0, 22.0]


def test_only_so_many_are_kept(model: Path) -> None:
    for number in range(KEPT + 3):
        add_quality(str(model), quality(tokens=number + 1, measured=f"{number:04}"))
    found = load_quality(str(model))
    assert len(found) == KEPT
    assert found[0].tokens == KEPT + 3


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600), (0o750, 0o640)])
def test_who_may_read_the_folder_may_read_the_file(model: Path, folder: int, file: int) -> None:
    model.chmod(folder)
    assert add_quality(str(model), quality()).stat().st_mode & 0o777 == file


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{not json", b'{"version": 2, "measurements": [{"new": 1}]}', b"\xff"]
)
def test_what_cannot_be_read_is_passed_over_and_never_lost(model: Path, content: bytes) -> None:
    (model / FILE).write_bytes(content)
    assert load_quality(str(model)) == ()
    add_quality(str(model), quality())
    assert load_quality(str(model)) == (quality(),)
    assert content in [path.read_bytes() for path in model.iterdir()]


def test_a_folder_that_cannot_be_written_has_its_file_elsewhere(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    path = add_quality(str(model), quality())
    assert path == apart(str(model))
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_quality(str(model)) == (quality(),)
    assert list(model.iterdir()) == []


def test_nothing_is_written_into_a_hub_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    add_quality(str(snapshot), quality())
    assert list(snapshot.iterdir()) == []
    assert load_quality(str(snapshot)) == (quality(),)


def test_a_full_disk_is_told_and_loses_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_quality(str(model), quality())
    before = (model / FILE).read_bytes()

    def full(path: Path, _data: bytes) -> None:
        raise StorageError("The disk is full", code="disk-full")

    monkeypatch.setattr("quantchat.store.quality.write_atomic", full)
    with pytest.raises(StorageError):
        add_quality(str(model), quality(tokens=7))
    assert (model / FILE).read_bytes() == before


def test_the_file_of_a_gguf_model_lies_elsewhere(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    add_quality(str(model), quality())
    assert load_quality(str(model)) == (quality(),)
    assert [path.name for path in tmp_path.glob("*.gguf*")] == ["model.gguf"]


def test_later_fields_do_not_keep_a_file_from_being_read(model: Path) -> None:
    add_quality(str(model), quality())
    stored = msgspec.json.decode((model / FILE).read_bytes())
    stored["measurements"][0]["later"] = 1
    (model / FILE).write_bytes(msgspec.json.encode(stored))
    assert load_quality(str(model)) == (quality(),)


def test_no_link_in_a_models_folder_is_written_through(model: Path) -> None:
    mine = model.parent / "mine"
    (model / FILE).symlink_to(mine)
    path = add_quality(str(model), quality())
    assert path == apart(str(model))
    assert not mine.exists()
    assert load_quality(str(model)) == (quality(),)


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(model: Path) -> None:
    os.mkfifo(model / FILE)
    assert load_quality(str(model)) == ()
    add_quality(str(model), quality())
    assert load_quality(str(model)) == (quality(),)
