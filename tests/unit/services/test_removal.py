"""Removing models: what goes and what stays, in folders, GGUF sets and real hub caches; and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import HubServer, Repository, serving
from quantchat.catalog.reader import read_model
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError, StorageError
from quantchat.services.removal import Removal, execute, plan_removal, require_free
from unit.catalog.model_folders import make_gptq

NAME = "acme/tiny"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def planned(path: Path, *roots: Path, models: list[ModelInfo] | None = None) -> Removal:
    return plan_removal(read_model(path), models or [], roots)


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """All names below a folder, with sizes and where links point."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, os.readlink(path) if path.is_symlink() else "")
        for path in folder.rglob("*")
    }


# Folders


def test_a_folder_goes_with_all_that_is_in_it_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x" * 1000)
    model = make_gptq(tmp_path / "models" / "mine")
    beside = make_gptq(tmp_path / "models" / "other")
    (model / "link").symlink_to(outside)
    (model / "weights.bin").symlink_to(outside / "precious")
    kept = everything(outside), everything(beside)
    plan = planned(model, tmp_path / "models")
    assert plan.folders == (str(model),)
    assert size_of(model) <= plan.freed < size_of(model) + 500
    assert any("2 links go" in note for note in plan.notes)
    assert model.is_dir()
    execute(plan, model)
    assert not model.exists()
    assert (everything(outside), everything(beside)) == kept


def test_a_file_with_a_second_name_frees_nothing(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "models" / "mine")
    weights = model / "model.safetensors"
    os.link(weights, tmp_path / "second")
    plan = planned(model, tmp_path / "models")
    assert plan.kept == weights.stat().st_size
    assert plan.freed == size_of(model) - plan.kept
    os.link(model / "config.json", model / "again.json")
    assert planned(model, tmp_path / "models").freed == plan.freed


def test_all_parts_of_a_split_gguf_go_and_no_other_file(tmp_path: Path) -> None:
    names = [f"big-Q4-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in (*names, "big-Q8-00001-of-00003.gguf", "mmproj.gguf", "big-Q4-00001-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF" * 10)
    first = ModelInfo(path=str(tmp_path / names[0]), name="big")
    plan = plan_removal(first, [], [tmp_path.parent])
    assert [Path(file).name for file in plan.files] == names
    assert plan.freed == 120
    execute(plan, first.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "big-Q4-00001-of-00002.gguf",
        "big-Q8-00001-of-00003.gguf",
        "mmproj.gguf",
    ]


def test_a_disk_that_is_mounted_in_a_model_stops_its_removal(tmp_path: Path, small_disk: Path) -> None:
    model = make_gptq(tmp_path)
    (small_disk / "precious").write_text("x")
    with pytest.raises(ModelError, match="another disk is mounted in it"):
        planned(model, tmp_path.parent)
    with pytest.raises(StorageError, match="not removed whole"):
        execute(Removal(name="mine", folders=(str(small_disk),)), model)


# What is refused


def test_roots_and_what_holds_them_stay(tmp_path: Path) -> None:
    root = make_gptq(tmp_path / "models")
    for roots in ([root], [root / "deeper"], [root / "a" / "b", tmp_path]):
        for folder in roots:
            folder.mkdir(parents=True, exist_ok=True)
        with pytest.raises(ModelError, match="searched for models"):
            planned(root, *roots)


def test_a_link_is_not_removed_in_place_of_what_it_points_to(tmp_path: Path) -> None:
    real = make_gptq(tmp_path / "elsewhere" / "real")
    (tmp_path / "models").mkdir()
    link = tmp_path / "models" / "link"
    link.symlink_to(real)
    with pytest.raises(ModelError, match="is a link to"):
        planned(link, tmp_path / "models")
    above = tmp_path / "models" / "above"
    above.symlink_to(real.parent)
    with pytest.raises(ModelError, match="outside the folders"):
        planned(above / "real", tmp_path / "models")
    assert (real / "config.json").exists()


def test_what_lies_outside_of_all_roots_or_is_gone_is_refused(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "a" / "mine")
    (tmp_path / "b").mkdir()
    with pytest.raises(ModelError, match="outside the folders"):
        planned(model, tmp_path / "b")
    with pytest.raises(ModelError, match="not there"):
        plan_removal(ModelInfo(path=str(tmp_path / "b" / "gone"), name="x"), [], [tmp_path])


def test_the_home_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_gptq(tmp_path / "users" / "me")
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(ModelError, match="no folder of a model alone"):
        planned(home, tmp_path / "users")


def test_a_folder_that_holds_another_model_is_refused(tmp_path: Path) -> None:
    outer = make_gptq(tmp_path / "models" / "outer")
    inner = read_model(make_gptq(outer / "checkpoint-100"))
    with pytest.raises(ModelError, match="checkpoint-100"):
        planned(outer, tmp_path / "models", models=[read_model(outer), inner])
    assert planned(Path(inner.path), tmp_path / "models", models=[inner]).folders == (inner.path,)


HOLD = "import sys; from quantchat.holding import hold; hold(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    model = make_gptq(tmp_path / "models" / "mine")
    command = [sys.executable, "-c", HOLD, str(model)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_model_that_a_process_holds_stays_until_that_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    model = tmp_path / "models" / "mine"
    plan = planned(model, tmp_path / "models")
    for attempt in (lambda: require_free(model), lambda: execute(plan, model)):
        with pytest.raises(ModelError, match=f"loaded.*{holder.pid}") as caught:
            attempt()
        assert "Unload it" in caught.value.report.remedy
    assert (model / "model.safetensors").exists()
    holder.kill()
    holder.wait()
    require_free(model)
    execute(plan, model)
    assert not model.exists()


# A real hub cache


@pytest.fixture
def hub() -> Iterator[HubServer]:
    files = {"config.json": b"{}", "model.safetensors": b"w" * 5000, "tokenizer.json": b"{}" * 300}
    with serving({NAME: Repository(files), "acme/fork": Repository(dict(files))}) as server:
        yield server


def download(hub: HubServer, cache: Path, name: str = NAME) -> Path:
    """Let huggingface_hub itself fill the cache."""
    from huggingface_hub import snapshot_download

    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    return Path(snapshot_download(name, cache_dir=cache, endpoint=hub.url, token=False))


def found(cache: Path) -> dict[str, ModelInfo]:
    return {model.path: model for model in scan([Root(cache, "hub cache")]).models}


def test_the_only_snapshot_takes_its_repository_along(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    snapshot, fork = download(hub, cache), download(hub, cache, "acme/fork")
    assert snapshot.name == fork.name
    kept = everything(fork.parent.parent)
    (snapshot.parent.parent / "blobs" / "0123.incomplete").write_bytes(b"x" * 10)
    plan = plan_removal(found(cache)[str(snapshot)], [], [cache])
    assert plan.folders == (str(snapshot.parent.parent),)
    assert plan.freed == 5000 + 2 + 600
    assert any("1 unfinished download" in note for note in plan.notes)
    execute(plan, snapshot)
    assert not snapshot.parent.parent.exists()
    assert everything(fork.parent.parent) == kept


def test_blobs_that_another_snapshot_needs_stay(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    old = download(hub, cache)
    hub.repositories[NAME].files["config.json"] = b'{"model_type": "llama"}'
    new = download(hub, cache)
    repository = new.parent.parent
    plan = plan_removal(found(cache)[str(new)], [], [cache])
    assert plan.freed == len(b'{"model_type": "llama"}')
    assert plan.kept == 5600
    assert str(repository / "refs" / "main") in plan.files
    assert any("1 other snapshot" in note for note in plan.notes)
    execute(plan, new)
    assert not new.exists()
    assert {path.name: path.read_bytes()[:2] for path in old.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"ww",
        "tokenizer.json": b"{}",
    }
    assert len(list((repository / "blobs").iterdir())) == 3


def test_a_damaged_repository_can_be_removed_too(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    old = download(hub, cache)
    hub.repositories[NAME].files["config.json"] = b'{"model_type": "llama"}'
    new = download(hub, cache)
    repository = new.parent.parent
    (new / "lost.safetensors").symlink_to("../../blobs/gone")
    before = everything(old)
    plan = plan_removal(found(cache)[str(new)], [], [cache])
    assert plan.folders == (str(new),)
    assert plan.kept == 5600
    execute(plan, new)
    assert everything(old) == before
    assert [path.name for path in (repository / "snapshots").iterdir()] == [old.name]
    assert len(list((repository / "blobs").iterdir())) == 3
    assert not (repository / "refs" / "main").exists()
    (old / "lost.safetensors").symlink_to("../../blobs/gone")
    last = plan_removal(found(cache)[str(old)], [], [cache])
    assert last.folders == (str(repository),)
    execute(last, old)
    assert list(cache.glob("models--acme--tiny")) == []


def test_one_gguf_of_a_snapshot_goes_with_its_blob_alone(tmp_path: Path, hub: HubServer) -> None:
    hub.repositories[NAME].files |= {"a.Q4.gguf": b"GGUF" * 100, "a.Q8.gguf": b"GGUF" * 200, "b.gguf": b"GGUF" * 200}
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    small = ModelInfo(path=str(snapshot / "a.Q4.gguf"), name="acme/tiny a.Q4")
    plan = plan_removal(small, [], [cache])
    assert 400 <= plan.freed < 600
    execute(plan, small.path)
    assert sorted(path.name for path in snapshot.glob("*.gguf")) == ["a.Q8.gguf", "b.gguf"]
    assert all(path.resolve().exists() for path in snapshot.iterdir())
    twin = ModelInfo(path=str(snapshot / "a.Q8.gguf"), name="twin")
    plan = plan_removal(twin, [], [cache])
    assert plan.kept == 800
    execute(plan, twin.path)
    assert (snapshot / "b.gguf").read_bytes() == b"GGUF" * 200


def test_a_snapshot_that_leads_out_of_the_cache_is_refused(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    away = tmp_path / "away"
    snapshot.rename(away)
    snapshot.symlink_to(away)
    with pytest.raises(ModelError, match="is a link to"):
        plan_removal(ModelInfo(path=str(snapshot), name=NAME), [], [cache])
    assert away.is_dir()
