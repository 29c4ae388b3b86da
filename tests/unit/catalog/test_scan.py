"""Scan roots are walked once, without surprises, and models are found by what people type."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from quantchat import paths
from quantchat.catalog.candidates import Candidate
from quantchat.catalog.index import Entry
from quantchat.catalog.reader import read_model
from quantchat.catalog.reading import read_entry
from quantchat.catalog.roots import Root, default_roots, hub_cache
from quantchat.catalog.scan import find_model, scan
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError
from unit.catalog.model_folders import make_dense, make_gptq, make_hub_repository, write_json


def scanned(*folders: Path) -> list[str]:
    return [model.name for model in scan([Root(folder, "test", asked_for=True) for folder in folders]).models]


def test_models_are_found_at_every_usual_depth_and_sorted(tmp_path: Path) -> None:
    make_gptq(tmp_path / "flat")
    make_gptq(tmp_path / "publisher" / "Nested")
    make_gptq(tmp_path / "a" / "b" / "c" / "deepest")
    make_gptq(tmp_path / "a" / "b" / "c" / "d" / "too-deep")
    make_gptq(tmp_path / ".git" / "hidden")
    assert scanned(tmp_path) == ["deepest", "flat", "Nested"]


def test_a_model_is_not_descended(tmp_path: Path) -> None:
    make_gptq(tmp_path / "m")
    make_dense(tmp_path / "m" / "checkpoint-100")
    assert scanned(tmp_path) == ["m"]


def test_a_root_may_be_a_model(tmp_path: Path) -> None:
    assert scanned(make_gptq(tmp_path / "m")) == ["m"]


def test_folders_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"theme": "dark"})
    make_gptq(tmp_path / "m")
    make_dense(tmp_path / "diffusers" / "text_encoder")
    write_json(tmp_path / "diffusers" / "model_index.json", {})
    make_dense(tmp_path / "datasets--x" / "y")
    assert scanned(tmp_path) == ["m"]


def test_broken_models_are_listed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{")
    (model,) = scan([Root(tmp_path, "test")]).models
    assert not model.loadable


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    make_gptq(tmp_path / "data" / "m")
    (tmp_path / "data" / "again").symlink_to("m")
    (tmp_path / "data" / "up").symlink_to("..")
    (tmp_path / "data" / "self").symlink_to("self")
    (tmp_path / "data" / "m" / "loop").symlink_to("..")
    (tmp_path / "linked").symlink_to("data")
    result = scan([Root(tmp_path / "linked", "test"), Root(tmp_path, "test")])
    assert len(result.models) == 1
    assert result.problems == ()


def test_a_root_that_the_user_named_and_that_is_not_there(tmp_path: Path) -> None:
    result = scan([Root(tmp_path / "absent", "your folder", asked_for=True), Root(tmp_path / "usual", "LM Studio")])
    (report,) = result.problems
    assert report.code == "folder-unreadable"
    assert report.detail == f"{tmp_path}/absent: no such file or directory."
    assert report.remedy


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (report,) = scan([Root(tmp_path / "file", "test")]).problems
    assert report.detail.endswith(": not a directory.")


def test_a_scan_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantchat.catalog.scan.TELL_SECONDS", -1.0)
    for number in range(5):
        make_gptq(tmp_path / f"m{number}")
    told: list[int] = []
    read = 0

    def reading(candidates: Sequence[Candidate], cancelled: Callable[[], bool]) -> Iterator[Entry]:
        nonlocal read
        for candidate in candidates:
            if cancelled():
                return
            read += 1
            yield read_entry(candidate)

    models = scan(
        [Root(tmp_path, "test")], lambda: read == 2, read=reading, tell=lambda found: told.append(len(found))
    ).models
    assert [model.name for model in models] == ["m0", "m1"]
    assert told[-2:] == [0, 1]


def test_a_hub_cache_shows_the_main_snapshot(tmp_path: Path) -> None:
    make_hub_repository(tmp_path, "TheBloke/Llama-2-7B--GPTQ", "aaa", "bbb", main="aaa")
    make_hub_repository(tmp_path, "gpt2", "ccc")
    models = scan([Root(tmp_path, "test")]).models
    assert [(m.name, m.revision) for m in models] == [("gpt2", "ccc"), ("TheBloke/Llama-2-7B--GPTQ", "aaa")]


def test_a_hub_snapshot_counts_its_blobs(tmp_path: Path) -> None:
    repository = make_hub_repository(tmp_path, "owner/name", "aaa", main="aaa")
    (model,) = scan([Root(tmp_path, "test")]).models
    assert model.disk_bytes == sum(blob.stat().st_size for blob in (repository / "blobs").iterdir())
    assert model.loadable
    assert model.root == str(tmp_path)


@pytest.mark.parametrize("main", ["gone", "../../../../etc", None])
def test_without_a_usable_main_the_newest_snapshot_is_shown(tmp_path: Path, main: str | None) -> None:
    repository = make_hub_repository(tmp_path, "owner/name", "new", "old", main=main)
    os.utime(repository / "snapshots" / "old", (time.time() - 1000,) * 2)
    (model,) = scan([Root(tmp_path, "test")]).models
    assert model.revision == "new"


@pytest.mark.parametrize("spoil", ["snapshots", "blobs", "nothing downloaded"])
def test_half_deleted_hub_entries(tmp_path: Path, spoil: str) -> None:
    repository = make_hub_repository(tmp_path, "owner/name", "aaa", main="aaa")
    if spoil == "blobs":
        (repository / "blobs").rename(repository / "gone")
        (model,) = scan([Root(tmp_path, "test")]).models
        assert not model.loadable
        assert {"link-broken", "file-unreadable"} & {problem.code for problem in model.problems}
        return
    (repository / "snapshots").rename(tmp_path / ".gone")
    if spoil == "nothing downloaded":
        (repository / "snapshots").mkdir()
    assert scan([Root(tmp_path, "test")]).models == ()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HF_HUB_CACHE", "{tmp}/hub", "{tmp}/hub"),
        ("HUGGINGFACE_HUB_CACHE", "{tmp}/hub", "{tmp}/hub"),
        ("HF_HOME", "{tmp}/hf", "{tmp}/hf/hub"),
        ("XDG_CACHE_HOME", "{tmp}/cache", "{tmp}/cache/huggingface/hub"),
        ("HOME", "{tmp}", "{tmp}/.cache/huggingface/hub"),
    ],
)
def test_the_hub_cache_is_found_as_the_hub_library_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value.format(tmp=tmp_path))
    assert str(hub_cache()) == expected.format(tmp=tmp_path)


def test_default_roots_are_those_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert default_roots() == []
    for folder in ("hub", ".lmstudio/models", "text-generation-webui/user_data/models"):
        (tmp_path / folder).mkdir(parents=True)
    paths.models_dir().mkdir(parents=True)
    roots = default_roots([Path("~/mine")])
    assert [str(root.path.relative_to(tmp_path)) for root in roots] == [
        "mine",
        "home/data/models",
        "hub",
        ".lmstudio/models",
        "text-generation-webui/user_data/models",
    ]
    assert [root.asked_for for root in roots] == [True, False, False, False, False]


@pytest.fixture
def library(tmp_path: Path) -> tuple[ModelInfo, ...]:
    for name in ("Llama-3-8B-GPTQ", "Llama-3-8B-AWQ", "Qwen2-7B", "Qwen2-7B-Instruct"):
        make_gptq(tmp_path / "models" / name)
    return scan([Root(tmp_path / "models", "test")]).models


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Qwen2-7B", "Qwen2-7B"),
        ("qwen2-7b-i", "Qwen2-7B-Instruct"),
        ("awq", "Llama-3-8B-AWQ"),
        ("{models}/Llama-3-8B-GPTQ", "Llama-3-8B-GPTQ"),
        ("{models}/../models/Qwen2-7B/", "Qwen2-7B"),
    ],
)
def test_models_are_found_by_name_path_and_part(
    library: tuple[ModelInfo, ...], tmp_path: Path, typed: str, name: str
) -> None:
    assert find_model(typed.format(models=tmp_path / "models"), library).name == name


@pytest.mark.parametrize(
    ("typed", "detail"),
    [
        ("llama", "They are: Llama-3-8B-AWQ, Llama-3-8B-GPTQ."),
        ("mixtral", "Models here: Llama-3-8B-AWQ, Llama-3-8B-GPTQ, Qwen2-7B, Qwen2-7B-Instruct."),
        ("Qwen3-7B", "Models here: Qwen2-7B, Llama-3-8B-AWQ, "),
        ("", "Models here: "),
        ("~nobody/\0", "Models here: "),
        ("/absent/folder", "Models here: "),
    ],
)
def test_what_no_or_several_models_fit(library: tuple[ModelInfo, ...], typed: str, detail: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(typed, library)
    assert caught.value.report.detail.startswith(detail)
    assert caught.value.report.remedy


def test_where_there_are_no_models_none_of_these_can_be_chosen() -> None:
    with pytest.raises(ModelError) as caught:
        find_model("llama", ())
    assert "quantchat demo" in caught.value.report.remedy
    assert "of these" not in str(caught.value)


def test_a_folder_that_was_not_scanned_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_gptq(tmp_path / "elsewhere")
    assert find_model(str(folder), ()) == read_model(folder)
    monkeypatch.chdir(tmp_path)
    assert find_model("elsewhere", ()).path == str(folder)


def test_equal_names_are_told_apart_by_path(tmp_path: Path) -> None:
    make_gptq(tmp_path / "a" / "m")
    make_gptq(tmp_path / "b" / "m")
    models = scan([Root(tmp_path, "test")]).models
    with pytest.raises(ModelError, match=f"{tmp_path}/a/m, {tmp_path}/b/m"):
        find_model("m", models)
    assert find_model(str(tmp_path / "b" / "m"), models).path == str(tmp_path / "b" / "m")
