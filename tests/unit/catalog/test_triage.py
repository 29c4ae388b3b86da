"""A model that is being written is called so, and no longer once the writing ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantchat.catalog import architectures
from quantchat.catalog.reader import read_model
from unit.catalog.model_folders import make_dense, make_hub_repository, make_sharded

PATIENCE = 30.0
SHARD = "model-00002-of-00002.safetensors"


def codes(folder: Path) -> list[str]:
    return [problem.code for problem in read_model(folder).errors]


@pytest.fixture
def copying(tmp_path: Path) -> Iterator[Path]:
    """A model whose weights another thread is writing, a few bytes at a time."""
    folder = make_dense(tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()
    stop = threading.Event()

    def write() -> None:
        with open(folder / "model.safetensors", "wb", buffering=0) as file:
            file.write(whole[:1000])
            while not stop.is_set():
                file.write(b"\0")
                os.ftruncate(file.fileno(), min(file.tell(), len(whole) - 1))
            file.seek(0)
            file.write(whole)
            file.truncate()

    writer = threading.Thread(target=write)
    writer.start()
    yield folder
    stop.set()
    writer.join()


def test_a_file_that_grows_is_being_copied(copying: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while codes(copying) != ["being-copied"]:
        assert time.monotonic() < deadline


def test_a_shard_under_the_name_of_rsync_is_being_copied(tmp_path: Path) -> None:
    folder = make_sharded(tmp_path / "m")
    (folder / SHARD).rename(folder / f".{SHARD}.a8Xq2Z")
    model = read_model(folder)
    assert [problem.cause for problem in model.errors] == [
        f"The model is still being copied: .{SHARD}.a8Xq2Z changed a moment ago."
    ]
    (folder / f".{SHARD}.a8Xq2Z").rename(folder / SHARD)
    assert read_model(folder).loadable


def test_a_download_into_the_hub_cache(tmp_path: Path) -> None:
    repository = make_hub_repository(tmp_path, "owner/name", "aaa", main="aaa")
    snapshot = repository / "snapshots" / "aaa"
    blob = (snapshot / "model.safetensors").resolve()
    partial = blob.with_name("4f1c.incomplete")
    blob.rename(partial)
    (snapshot / "model.safetensors").unlink()
    assert codes(snapshot) == ["being-copied"]
    os.utime(partial, (1e9, 1e9))
    assert codes(snapshot) == ["download-unfinished", "weights-missing"]
    partial.rename(blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert read_model(snapshot).loadable


def test_without_transformers_no_type_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = make_dense(tmp_path / "m", model_type="llama9")
    assert codes(folder) == ["architecture-unknown"]
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    architectures.chat_types.cache_clear()
    try:
        assert read_model(folder).loadable
    finally:
        architectures.chat_types.cache_clear()
