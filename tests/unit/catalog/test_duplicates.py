"""What lies on the disk once is shown once, with the other ways to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from quantchat.catalog.index import Index
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan
from quantchat.domain.models import ModelInfo
from unit.catalog.model_folders import make_gptq, make_hub_repository, write_json


def scanned(*folders: Path, index: Index | None = None) -> list[ModelInfo]:
    return list(scan([Root(folder, "test") for folder in folders], index=index).models)


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["links", "hard links"])
def test_a_folder_of_links_to_the_files_of_another(tmp_path: Path, link: object) -> None:
    original = make_gptq(tmp_path / "original")
    copy = tmp_path / "second"
    copy.mkdir()
    for file in original.iterdir():
        link(file, copy / file.name)  # type: ignore[operator]
    (model,) = scanned(tmp_path)
    assert (model.path, model.copies) == (str(original), (str(copy),))


def test_a_linked_folder(tmp_path: Path) -> None:
    original = make_gptq(tmp_path / "z-original")
    (tmp_path / "a-link").symlink_to(original)
    (model,) = scanned(tmp_path)
    assert (model.path, model.copies) == (str(original), (str(tmp_path / "a-link"),))


def test_the_same_weights_with_another_config_are_another_model(tmp_path: Path) -> None:
    original = make_gptq(tmp_path / "original")
    variant = tmp_path / "longer"
    variant.mkdir()
    for file in original.iterdir():
        (variant / file.name).symlink_to(file)
    (variant / "config.json").unlink()
    changed = (original / "config.json").read_text().replace('"max_position_embeddings": 2048', '"n_ctx": 9')
    (variant / "config.json").write_text(changed)
    assert [model.name for model in scanned(tmp_path)] == ["longer", "original"]


def test_a_real_copy_is_a_model_of_its_own(tmp_path: Path) -> None:
    shutil.copytree(make_gptq(tmp_path / "a"), tmp_path / "b")
    assert [model.copies for model in scanned(tmp_path)] == [(), ()]


def newer_snapshot(repository: Path, old: str, new: str) -> Path:
    """A commit that changed only the README: its other files are links to the same blobs."""
    snapshot = repository / "snapshots" / new
    shutil.copytree(repository / "snapshots" / old, snapshot, symlinks=True)
    (snapshot / "README.md").write_text("changed")
    return snapshot


def test_an_earlier_snapshot_with_the_same_blobs_is_a_copy(tmp_path: Path) -> None:
    repository = make_hub_repository(tmp_path, "owner/name", "old", main="new")
    snapshot = newer_snapshot(repository, "old", "new")
    (model,) = scanned(tmp_path)
    assert (model.path, model.revision) == (str(snapshot), "new")
    assert model.copies == (str(repository / "snapshots" / "old"),)


def test_an_earlier_snapshot_with_other_blobs_is_not_shown(tmp_path: Path) -> None:
    make_hub_repository(tmp_path, "owner/name", "new", "old", main="new")
    (model,) = scanned(tmp_path)
    assert (model.revision, model.copies) == ("new", ())


def test_other_branches_are_models_of_their_own(tmp_path: Path) -> None:
    repository = make_hub_repository(tmp_path, "owner/name", "aaa", "bbb", "ccc", main="aaa")
    newer_snapshot(repository, "aaa", "ddd")
    for branch, commit in (("gptq-4bit-32g", "bbb"), ("same", "ddd"), ("pr/1", "ccc"), ("gone", "eee")):
        ref = repository / "refs" / branch
        ref.parent.mkdir(exist_ok=True)
        ref.write_text(commit)
    names = {model.name: (model.revision, len(model.copies)) for model in scanned(tmp_path)}
    assert names == {
        "owner/name": ("aaa", 1),
        "owner/name@gptq-4bit-32g": ("bbb", 0),
        "owner/name@pr/1": ("ccc", 0),
    }


def test_a_model_of_the_hub_cache_that_another_root_links_to(tmp_path: Path) -> None:
    repository = make_hub_repository(tmp_path / "hub", "owner/name", "aaa", main="aaa")
    linked = tmp_path / "mine" / "short-name"
    linked.parent.mkdir()
    linked.symlink_to(repository / "snapshots" / "aaa")
    (model,) = scanned(tmp_path / "hub", tmp_path / "mine")
    assert (model.name, model.copies) == ("owner/name", (str(linked),))
    (model,) = scanned(tmp_path / "mine", tmp_path / "hub")
    assert model.name == "short-name"


def test_copies_are_known_from_the_index_too(tmp_path: Path) -> None:
    repository = make_hub_repository(tmp_path / "hub", "owner/name", "old", main="new")
    newer_snapshot(repository, "old", "new")
    index = Index()
    assert scanned(tmp_path / "hub", index=index) == scanned(tmp_path / "hub", index=index)


def test_folders_without_weights_are_not_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "config.json", {"model_type": "llama"})
    assert [model.copies for model in scanned(tmp_path)] == [(), ()]
