"""Removing models from real hub caches: what is shared stays, what nobody needs goes, also after an interruption."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import HubServer, Repository, serving
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError
from quantchat.services.removal import plan_removal, remove
from unit.catalog.model_folders import make_gptq
from unit.services.removal_rig import disk_bytes, everything, removed

NAME = "acme/tiny"


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
    repository = snapshot.parent.parent
    (repository / "blobs" / "0123.incomplete").write_bytes(b"x" * 10)
    plan = removed(found(cache)[str(snapshot)], cache)
    assert plan.folders == (str(repository),)
    assert plan.freed >= 5000 + 2 + 600 + 10
    assert any("1 unfinished download" in note for note in plan.notes)
    assert not repository.exists()
    assert everything(fork.parent.parent) == kept


def test_blobs_that_another_snapshot_needs_stay(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    old = download(hub, cache)
    hub.repositories[NAME].files["config.json"] = b'{"model_type": "llama"}'
    new = download(hub, cache)
    repository = new.parent.parent
    tree = repository / "trees" / f"{new.name}.json"
    assert tree.is_file()
    about = len(new.name) + tree.stat().st_size
    (repository / ".no_exist" / new.name).mkdir(parents=True)
    (repository / ".no_exist" / new.name / "adapter_config.json").touch()
    (repository / ".no_exist" / old.name).mkdir()
    plan = removed(found(cache)[str(new)], cache)
    assert plan.freed == len(b'{"model_type": "llama"}') + about
    assert not tree.exists()
    assert plan.kept == 5600
    assert str(repository / "refs" / "main") in plan.files
    assert any("1 other snapshot" in note for note in plan.notes)
    assert not new.exists()
    assert {path.name: path.read_bytes()[:2] for path in old.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"ww",
        "tokenizer.json": b"{}",
    }
    assert len(list((repository / "blobs").iterdir())) == 3
    assert [path.name for path in (repository / ".no_exist").iterdir()] == [old.name]


def test_a_damaged_repository_can_be_removed_too(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    old = download(hub, cache)
    hub.repositories[NAME].files["config.json"] = b'{"model_type": "llama"}'
    new = download(hub, cache)
    repository = new.parent.parent
    (new / "lost.safetensors").symlink_to("../../blobs/gone")
    before = everything(old)
    plan = removed(found(cache)[str(new)], cache)
    assert plan.folders == (str(new),)
    assert plan.kept == 5600
    assert everything(old) == before
    assert [path.name for path in (repository / "snapshots").iterdir()] == [old.name]
    assert len(list((repository / "blobs").iterdir())) == 3
    assert not (repository / "refs" / "main").exists()
    (old / "lost.safetensors").symlink_to("../../blobs/gone")
    (repository / "refs" / "main").write_text("f" * 40)
    last = removed(found(cache)[str(old)], cache)
    assert last.folders == (str(repository),)
    assert list(cache.glob("models--acme--tiny")) == []


def test_one_gguf_of_a_snapshot_goes_with_its_blob_alone(tmp_path: Path, hub: HubServer) -> None:
    hub.repositories[NAME].files |= {"a.Q4.gguf": b"GGUF" * 100, "a.Q8.gguf": b"GGUF" * 200, "b.gguf": b"GGUF" * 200}
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    removed(ModelInfo(path=str(snapshot / "a.Q4.gguf"), name="acme/tiny a.Q4"), cache)
    assert sorted(path.name for path in snapshot.glob("*.gguf")) == ["a.Q8.gguf", "b.gguf"]
    assert all(path.resolve().exists() for path in snapshot.iterdir())
    plan = removed(ModelInfo(path=str(snapshot / "a.Q8.gguf"), name="twin"), cache)
    assert (plan.freed, plan.kept) == (0, 800)
    assert (snapshot / "b.gguf").read_bytes() == b"GGUF" * 200
    inside = [ModelInfo(path=str(snapshot / "b.gguf"), name="b")]
    with pytest.raises(ModelError, match="other models lie in it: b"):
        plan_removal(ModelInfo(path=str(snapshot), name=NAME), inside, [cache])


def test_the_last_file_of_a_repository_takes_it_along(tmp_path: Path, hub: HubServer) -> None:
    hub.repositories[NAME] = Repository({"a.gguf": b"GGUF" * 100})
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    removed(ModelInfo(path=str(snapshot / "a.gguf"), name="a"), cache)
    assert not snapshot.parent.parent.exists()


def test_a_model_in_a_folder_of_a_snapshot_goes_with_its_blobs_alone(tmp_path: Path, hub: HubServer) -> None:
    config = b'{"model_type": "llama"}'
    hub.repositories[NAME] = Repository(
        {"README.md": b"x" * 50}
        | {f"{bits}/{name}": content for bits in ("int4", "int8") for name, content in {"config.json": config}.items()}
        | {"int4/model.safetensors": b"4" * 4000, "int8/model.safetensors": b"8" * 8000}
    )
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    plan = removed(found(cache)[str(snapshot / "int4")], cache)
    assert (plan.freed, plan.kept) == (4000, len(config))
    assert sorted(path.name for path in snapshot.iterdir()) == ["README.md", "int8"]
    assert (snapshot / "int8" / "model.safetensors").read_bytes() == b"8" * 8000
    assert (snapshot / "int8" / "config.json").read_bytes() == config
    removed(found(cache)[str(snapshot / "int8")], cache)
    assert [path.name for path in snapshot.iterdir()] == ["README.md"]


def test_a_folder_of_a_snapshot_that_is_a_link_is_refused(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    mine = make_gptq(cache / "mine" / "deep").parent
    (snapshot / "link").symlink_to(mine)
    for path in (snapshot / "link", snapshot / "link" / "deep"):
        with pytest.raises(ModelError, match="link is a link to"):
            plan_removal(ModelInfo(path=str(path), name="x"), [], [cache])


def test_a_repository_of_which_a_part_is_searched_for_models_is_refused(tmp_path: Path, hub: HubServer) -> None:
    snapshot = download(hub, tmp_path / "hub")
    model = ModelInfo(path=str(snapshot), name=NAME)
    for root in (snapshot.parent, snapshot.parent.parent):
        with pytest.raises(ModelError, match="searched for models"):
            plan_removal(model, [], [root])


def test_links_of_other_folders_to_files_of_a_cache_are_told(tmp_path: Path, hub: HubServer) -> None:
    hub.repositories[NAME] = Repository({"a.gguf": b"GGUF" * 100})
    cache, other = tmp_path / "hub", tmp_path / "other"
    snapshot = download(hub, cache)
    other.mkdir()
    (other / "a.gguf").symlink_to(snapshot / "a.gguf")
    (model,) = scan([Root(cache, "hub cache"), Root(other, "other")]).models
    (note,) = plan_removal(model, [model], [cache, other]).notes
    assert note == f"What is at {other / 'a.gguf'} are links to it, which lead nowhere then."


def share(cache: Path, snapshot: Path, name: str) -> Path:
    """Let huggingface_hub move a file into the store that all repositories of a cache share; return its place there."""
    from huggingface_hub.utils import _shared_blobs

    blob = Path(os.path.abspath(snapshot / os.readlink(snapshot / name)))
    size = blob.stat().st_size
    key = hashlib.sha256(blob.read_bytes()).hexdigest()
    assert _shared_blobs.publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash=key, cache_dir=cache, expected_size=size
    )
    assert blob.is_symlink()
    return blob.resolve()


@pytest.mark.parametrize("damaged", [False, True])
def test_what_all_repositories_share_goes_with_the_last_that_needs_it(
    tmp_path: Path, hub: HubServer, damaged: bool
) -> None:
    cache = tmp_path / "hub"
    first, second = download(hub, cache), download(hub, cache, "acme/fork")
    stored = share(cache, first, "model.safetensors")
    assert share(cache, second, "model.safetensors") == stored
    for snapshot in (first, second) if damaged else ():
        (snapshot / "lost").symlink_to("nowhere")
    models = [ModelInfo(path=str(snapshot), name=snapshot.name) for snapshot in (first, second)]
    plan = plan_removal(models[0], [], [cache])
    assert plan.freed < plan.kept == 5000
    remove(plan, models[0], [], [cache])
    assert (second / "model.safetensors").read_bytes() == b"w" * 5000
    last = plan_removal(models[1], [], [cache])
    assert last.freed == plan.freed + 5000
    before = disk_bytes(cache)
    remove(last, models[1], [], [cache])
    assert not stored.exists()
    # Besides, the store's own list of who needs the file.
    assert last.freed <= before - disk_bytes(cache) < last.freed + 200


def test_a_shared_gguf_is_really_gone(tmp_path: Path, hub: HubServer) -> None:
    hub.repositories[NAME].files |= {"a.gguf": b"GGUF" * 1000}
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    stored = share(cache, snapshot, "a.gguf")
    model = ModelInfo(path=str(snapshot / "a.gguf"), name="a")
    plan = plan_removal(model, [], [cache])
    assert plan.freed == 4000
    remove(plan, model, [], [cache])
    assert not stored.exists()
    assert not (snapshot / "a.gguf").is_symlink()
    assert (snapshot / "model.safetensors").exists()


def test_a_snapshot_that_leads_out_of_the_cache_is_refused(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    away = tmp_path / "away"
    snapshot.rename(away)
    snapshot.symlink_to(away)
    with pytest.raises(ModelError, match="is a link to"):
        plan_removal(ModelInfo(path=str(snapshot), name=NAME), [], [cache])
    assert away.is_dir()


def test_blobs_on_another_disk_are_not_reached_through_a_link(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(tmp_path / "blobs")
    blobs.symlink_to(tmp_path / "blobs")
    with pytest.raises(ModelError, match="blobs is a link to"):
        plan_removal(ModelInfo(path=str(snapshot), name=NAME), [], [cache])


def test_a_download_under_way_into_the_repository_stops_a_removal(tmp_path: Path, hub: HubServer) -> None:
    from filelock import FileLock

    cache = tmp_path / "hub"
    snapshot = download(hub, cache)
    model = ModelInfo(path=str(snapshot), name=NAME)
    plan = plan_removal(model, [], [cache])
    locks = cache / ".locks" / snapshot.parent.parent.name
    with FileLock(locks / "0123.lock"):
        for attempt in (lambda: plan_removal(model, [], [cache]), lambda: remove(plan, model, [], [cache])):
            with pytest.raises(ModelError, match="a download into it is under way"):
                attempt()
    remove(plan, model, [], [cache])


def test_a_snapshot_that_arrives_after_the_question_stays(tmp_path: Path, hub: HubServer) -> None:
    cache = tmp_path / "hub"
    old = download(hub, cache)
    model = ModelInfo(path=str(old), name=NAME)
    plan = plan_removal(model, [], [cache])
    hub.repositories[NAME].files["config.json"] = b'{"model_type": "llama"}'
    new = download(hub, cache)
    with pytest.raises(ModelError, match="changed since"):
        remove(plan, model, [], [cache])
    assert (new / "model.safetensors").read_bytes() == (old / "model.safetensors").read_bytes()


# Interruptions


CUT = """
import os, signal, sys
number, left = int(sys.argv[1]), int(sys.argv[2])
# A test run in the background of a shell has handed down that it ignores this one.
signal.signal(signal.SIGINT, signal.default_int_handler)
def hook(event, arguments):
    global left
    if event == "os.remove":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), number)
from quantchat.cli import main
sys.addaudithook(hook)
main(sys.argv[3:])
"""


def cut_off(signal_number: int, after: int, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `quantchat` with a signal to itself before it deletes a further file."""
    own = {"QUANTCHAT_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HOME": str(home / "user")}
    command = [sys.executable, "-c", CUT, str(signal_number), str(after), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | own, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["folder", "snapshot", "repository"])
def test_what_an_interruption_leaves_is_found_and_removed_by_the_same_command(
    tmp_path: Path, hub: HubServer, kind: str, number: signal.Signals
) -> None:
    cache = tmp_path / "hub"
    hub.repositories[NAME].files["config.json"] = b'{"model_type": "llama"}'
    model = make_gptq(tmp_path / "models" / "tiny") if kind == "folder" else download(hub, cache)
    small = disk_bytes(cache / "models--acme--tiny")
    if kind == "snapshot":
        hub.repositories[NAME].files["config.json"] = b'{"model_type": "mistral"}'
        hub.repositories[NAME].files["model.safetensors"] = b"v" * 4000
        model = download(hub, cache)
    top = tmp_path / "models" if kind == "folder" else cache / "models--acme--tiny"
    arguments = ("--models-dir", str(tmp_path / "models"), "models", "rm", "tiny", "--yes")
    before = disk_bytes(top)
    stopped = cut_off(number, 2, tmp_path, *arguments)
    assert disk_bytes(top) < before
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert "was stopped" in stopped.stderr
        assert "Traceback" not in stopped.stderr
    again = cut_off(number, 1000, tmp_path, *arguments)
    assert again.returncode == 0, again.stderr
    assert not model.exists()
    # The older snapshot stays as it was; the branch's name meant the newer one.
    assert disk_bytes(top) == (small - len(model.name) if kind == "snapshot" else 0)
