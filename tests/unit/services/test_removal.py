"""Removing models: what goes and what stays, of folders and GGUF sets; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quantchat.catalog.reader import read_model
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError, StorageError
from quantchat.services.removal import plan_removal, remove, require_free
from unit.catalog.model_folders import make_gptq
from unit.services.removal_rig import disk_bytes, everything, freeing, planned, removed

# Folders


def test_a_folder_goes_with_all_that_is_in_it_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x" * 1000)
    model = make_gptq(tmp_path / "models" / "mine")
    beside = make_gptq(tmp_path / "models" / "other")
    (model / "link").symlink_to(outside)
    (model / "weights.bin").symlink_to(outside / "precious")
    (model / "deep" / "er").mkdir(parents=True)
    (model / "deep" / "er" / "notes").write_text("x" * 5000)
    kept = everything(outside), everything(beside)
    plan = planned(model, tmp_path / "models")
    assert plan.folders == (str(model),)
    assert plan.freed == disk_bytes(model)
    assert any("2 links go" in note for note in plan.notes)
    assert model.is_dir()
    removed(read_model(model), tmp_path / "models")
    assert not model.exists()
    assert (everything(outside), everything(beside)) == kept


def test_a_file_with_a_second_name_frees_nothing(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "models" / "mine")
    weights = model / "model.safetensors"
    (tmp_path / "elsewhere").mkdir()
    os.link(weights, tmp_path / "elsewhere" / "second")
    plan = planned(model, tmp_path / "models")
    assert plan.kept == weights.stat().st_size
    assert plan.freed == disk_bytes(model) - plan.kept
    os.link(model / "config.json", model / "again.json")
    assert planned(model, tmp_path / "models").freed == plan.freed
    with freeing(plan, tmp_path):
        remove(planned(model, tmp_path / "models"), read_model(model), [], [tmp_path / "models"])


def test_holes_of_a_half_download_free_nothing(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "models" / "mine")
    with (model / "half.safetensors").open("wb") as file:
        file.truncate(10**9)
    assert removed(read_model(model), tmp_path / "models").freed < 10**6


def test_all_parts_of_a_split_gguf_go_and_no_other_file(tmp_path: Path) -> None:
    names = [f"big-Q4-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in (*names, "big-Q8-00001-of-00003.gguf", "mmproj.gguf", "big-Q4-00001-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF" * 10)
    first = ModelInfo(path=str(tmp_path / names[0]), name="big")
    plan = plan_removal(first, [], [tmp_path.parent])
    assert [Path(file).name for file in plan.files] == names[::-1]
    assert plan.freed == 120
    remove(plan, first, [], [tmp_path.parent])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "big-Q4-00001-of-00002.gguf",
        "big-Q8-00001-of-00003.gguf",
        "mmproj.gguf",
    ]


def test_copies_of_a_model_are_told_and_stay(tmp_path: Path) -> None:
    model = read_model(make_gptq(tmp_path / "models" / "mine"))
    twin = make_gptq(tmp_path / "models" / "twin")
    plan = removed(msgspec.structs.replace(model, copies=(str(twin),)), tmp_path / "models")
    assert any(str(twin) in note for note in plan.notes)
    assert (twin / "model.safetensors").exists()


def test_copies_that_are_links_to_it_are_not_said_to_stay(tmp_path: Path) -> None:
    models = tmp_path / "models"
    mine, linked, twin = (make_gptq(models / name) for name in ("mine", "of-links", "twin"))
    for name, target in ((linked, models / "hop"), (models / "hop", mine / "model.safetensors")):
        place = name / "model.safetensors" if name.is_dir() else name
        place.unlink(missing_ok=True)
        place.symlink_to(target)
    (twin / "model.safetensors").unlink()
    os.link(mine / "model.safetensors", twin / "model.safetensors")
    (models / "way").symlink_to(mine)
    (model,) = scan([Root(models, "here")]).models
    notes = plan_removal(model, [model], [models]).notes
    for copy, words in ((linked, "lead nowhere then"), (models / "way", "lead nowhere then"), (twin, "stays there")):
        assert [words in note for note in notes if str(copy) in note] == [True], notes


def test_folders_in_a_model_are_named(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "models" / "mine")
    (model / "runs" / "monday").mkdir(parents=True)
    (model / "runs" / "monday" / "notes").write_text("x")
    assert planned(model, tmp_path / "models").notes == ("Folders in it go too: runs.",)


# What keeps a model from being removed


def test_a_disk_that_is_mounted_in_a_model_stops_its_removal(tmp_path: Path, small_disk: Path) -> None:
    model = make_gptq(tmp_path)
    (small_disk / "precious").write_text("x")
    with pytest.raises(ModelError, match="another disk is mounted in it"):
        planned(model, tmp_path.parent)


def test_a_folder_of_the_same_disk_that_is_bound_into_a_model_stops_its_removal(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "models" / "mine")
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    place = model / "a place"
    place.mkdir()
    if subprocess.run(["mount", "--bind", str(other), str(place)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(ModelError, match="mounted in it, at"):
            planned(model, tmp_path / "models")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    assert (other / "precious").exists()


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A folder that others than root can reach, in which this process has no rights of root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        shutil.chown(folder, 65534)
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o555, 0o000])
@pytest.mark.parametrize("place", ["models", "models/mine", "models/mine/deep"])
def test_nothing_is_deleted_where_not_all_could_be(common_folder: Path, place: str, mode: int) -> None:
    model = make_gptq(common_folder / "models" / "mine")
    (model / "deep").mkdir()
    (model / "deep" / "notes").write_text("x")
    info, before = read_model(model), everything(model)
    (common_folder / place).chmod(mode)
    with pytest.raises(StorageError, match="Nothing was deleted"):
        plan_removal(info, [], [common_folder / "models"])
    (common_folder / place).chmod(0o755)
    assert everything(model) == before


def test_what_another_user_put_into_a_folder_of_all_is_left_to_them(common_folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can play two users")
    shared = common_folder / "models"
    shared.mkdir()
    model = make_gptq(shared / "mine")
    os.seteuid(0)
    os.chown(shared, 0, 0)
    shared.chmod(0o1777)
    os.chown(model, 65533, -1)
    model.chmod(0o777)
    os.seteuid(65534)
    with pytest.raises(StorageError, match="may not be changed by you but by root"):
        planned(model, shared)


# What changes between the question and the answer


def test_what_changed_since_the_plan_is_not_removed(tmp_path: Path) -> None:
    model = make_gptq(tmp_path / "models" / "mine")
    plan = planned(model, tmp_path / "models")
    (model / "notes.txt").write_text("the only copy")
    with pytest.raises(ModelError, match="changed since"):
        remove(plan, read_model(model), [], [tmp_path / "models"])
    shutil.rmtree(model)
    model.symlink_to(make_gptq(tmp_path / "other"))
    with pytest.raises(ModelError, match="is a link to"):
        remove(plan, ModelInfo(path=str(model), name="mine"), [], [tmp_path / "models"])
    assert (tmp_path / "other" / "model.safetensors").exists()


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
    (tmp_path / "me").symlink_to(home)
    for name in (home, tmp_path / "me"):
        monkeypatch.setenv("HOME", str(name))
        with pytest.raises(ModelError, match="no folder of a model alone"):
            planned(home, tmp_path / "users")


def test_a_folder_that_holds_another_model_is_refused(tmp_path: Path) -> None:
    outer = make_gptq(tmp_path / "models" / "outer")
    inner = read_model(make_gptq(outer / "checkpoint-100"))
    with pytest.raises(ModelError, match="checkpoint-100"):
        planned(outer, tmp_path / "models", models=[read_model(outer), inner])
    assert planned(Path(inner.path), tmp_path / "models", models=[inner]).folders == (inner.path,)


@pytest.mark.parametrize("name", ["model.safetensors", "small.gguf"])
def test_a_folder_that_holds_a_model_that_no_scan_finds_is_refused(tmp_path: Path, name: str) -> None:
    outer = make_gptq(tmp_path / "models" / "outer")
    inner = make_gptq(outer / "runs" / "checkpoint-100")
    (inner / "model.safetensors").rename(inner / name)
    if name.endswith(".gguf"):
        (inner / "config.json").unlink()
    (model,) = scan([Root(tmp_path / "models", "here")]).models
    with pytest.raises(ModelError, match="other models lie in it: runs/checkpoint-100"):
        plan_removal(model, [model], [tmp_path / "models"])


def test_a_model_whose_weights_another_one_is_linked_to_is_refused(tmp_path: Path) -> None:
    models = tmp_path / "models"
    mine, other = make_gptq(models / "mine"), make_gptq(models / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 999}))
    (other / "model.safetensors").unlink()
    (other / "model.safetensors").symlink_to("../mine/model.safetensors")
    found = {model.name: model for model in scan([Root(models, "here")]).models}
    with pytest.raises(ModelError, match="files of other models are links to it: other"):
        plan_removal(found["mine"], found.values(), [models])
    remove(plan_removal(found["other"], found.values(), [models]), found["other"], found.values(), [models])
    assert (mine / "model.safetensors").exists()
    assert plan_removal(found["mine"], [found["mine"]], [models]).folders == (str(mine),)


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
    info = read_model(model)
    for attempt in (lambda: require_free(model), lambda: remove(plan, info, [], [tmp_path / "models"])):
        with pytest.raises(ModelError, match=f"loaded.*{holder.pid}") as caught:
            attempt()
        assert "Unload it" in caught.value.report.remedy
    assert (model / "model.safetensors").exists()
    holder.kill()
    holder.wait()
    require_free(model)
    remove(plan, info, [], [tmp_path / "models"])
    assert not model.exists()
