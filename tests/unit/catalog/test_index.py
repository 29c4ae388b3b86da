"""What was read once is taken from the index until something on the disk changes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quantchat.catalog import index as index_module
from quantchat.catalog.index import Index, open_index
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import ScanResult, scan
from unit.catalog.model_folders import make_gptq, make_hub_repository, make_sharded, write_json

LONG_AGO = time.time() - 1000


def age(folder: Path) -> None:
    """Let everything below a folder be as old as models on a disk are: what changed just now is not trusted."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            os.utime(os.path.join(place, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    make_gptq(root / "alpha")
    make_sharded(root / "owner" / "beta")
    make_hub_repository(root, "hub/gamma", "aaa", main="aaa")
    make_gptq(root / "program" / "delta")
    write_json(root / "program" / "config.json", {"theme": "dark"})
    age(root)
    return root


def look(root: Path, file: Path) -> ScanResult:
    return scan([Root(root, "test")], index=Index(file))


def test_a_second_scan_reads_nothing_and_says_the_same(models: Path, tmp_path: Path) -> None:
    first, second = look(models, tmp_path / "index"), look(models, tmp_path / "index")
    # The program's folder is read too, to see that it is none.
    assert (first.read, second.read) == (5, 0)
    assert first.models == second.models
    assert [model.name for model in second.models] == ["alpha", "beta", "delta", "hub/gamma"]


def grow(root: Path) -> None:
    with open(root / "alpha" / "model.safetensors", "ab") as file:
        file.write(b"x")


def rewrite(root: Path) -> None:
    text = (root / "alpha" / "config.json").read_bytes()
    (root / "alpha" / "config.json").write_bytes(text.replace(b'"vocab_size": 320', b'"vocab_size": 321'))


def lose_shard(root: Path) -> None:
    (root / "owner" / "beta" / "model-00002-of-00002.safetensors").unlink()


def lose_blob(root: Path) -> None:
    (root / "models--hub--gamma" / "blobs" / "aaa-model.safetensors").unlink()


def move_branch(root: Path) -> None:
    (root / "models--hub--gamma" / "refs" / "main").write_text("bbb")
    (root / "models--hub--gamma" / "snapshots" / "aaa").rename(root / "models--hub--gamma" / "snapshots" / "bbb")


@pytest.mark.parametrize("change", [grow, rewrite, lose_shard, lose_blob, move_branch])
def test_only_the_model_that_changed_is_read_again(
    models: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    before = look(models, tmp_path / "index")
    change(models)
    after = look(models, tmp_path / "index")
    assert after.read == 1
    assert after.models == scan([Root(models, "test")]).models
    assert len(set(map(repr, before.models)) - set(map(repr, after.models))) == 1


def test_models_come_go_and_move(models: Path, tmp_path: Path) -> None:
    look(models, tmp_path / "index")
    make_gptq(models / "owner" / "new")
    (models / "alpha").rename(models / "omega")
    result = look(models, tmp_path / "index")
    assert [model.name for model in result.models] == ["beta", "delta", "hub/gamma", "new", "omega"]
    assert result.read == 2


def test_what_changed_just_now_is_read_again(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "models" / "m")
    age(tmp_path / "models")
    index = Index()
    now = time.time()
    os.utime(folder / "config.json", (now, now))
    assert [scan([Root(tmp_path / "models", "test")], index=index).read for _ in range(2)] == [1, 1]
    os.utime(folder / "config.json", (LONG_AGO, LONG_AGO))
    assert [scan([Root(tmp_path / "models", "test")], index=index).read for _ in range(2)] == [1, 0]


def test_times_in_whole_seconds_are_trusted_later(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "models" / "m")
    age(tmp_path / "models")
    index = Index()
    second = int(time.time()) - 1
    os.utime(folder / "config.json", (second, second))
    assert [scan([Root(tmp_path / "models", "test")], index=index).read for _ in range(2)] == [1, 1]
    os.utime(folder / "config.json", (second + 0.5, second - 5.5))
    assert [scan([Root(tmp_path / "models", "test")], index=index).read for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("link", ["folder", "file"])
def test_a_link_that_leads_elsewhere_now(tmp_path: Path, link: str) -> None:
    old, new = make_gptq(tmp_path / "old" / "m"), make_gptq(tmp_path / "new" / "m", bits=8)
    root = tmp_path / "models"
    root.mkdir()
    place = root / "m" if link == "folder" else make_gptq(root / "m") / "config.json"
    place.unlink(missing_ok=True)
    place.symlink_to(old if link == "folder" else old / "config.json")
    age(tmp_path)
    index = Index()
    assert [model.quant.bits for model in scan([Root(root, "test")], index=index).models] == [4]
    place.unlink()
    place.symlink_to(new if link == "folder" else new / "config.json")
    assert [model.quant.bits for model in scan([Root(root, "test")], index=index).models] == [8]


def test_two_programs_at_once_leave_a_whole_index(models: Path, tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from quantchat.catalog.index import Index\n"
    script += "from quantchat.catalog.roots import Root; from quantchat.catalog.scan import scan\n"
    script += "for n in range(20):\n index = Index(Path(sys.argv[2])); index._changed = True\n"
    script += " print(scan([Root(Path(sys.argv[1]), 'test')], index=index).read)"
    command = [sys.executable, "-c", script, str(models), str(tmp_path / "cache" / "index")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [set(program.communicate(timeout=50)[0].split()[1:]) for program in running] == [{"0"}, {"0"}]
    assert os.listdir(tmp_path / "cache") == ["index"]


@pytest.mark.parametrize("place", [0, 20, 40, -1])
def test_a_damaged_file_is_passed_over(models: Path, tmp_path: Path, place: int) -> None:
    file = tmp_path / "index"
    first = look(models, file)
    data = bytearray(file.read_bytes())
    data[place] ^= 0xFF
    file.write_bytes(data)
    assert look(models, file) == first
    assert look(models, file).read == 0


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 100], ids=len)
def test_a_file_of_something_else_is_passed_over(models: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "index").write_bytes(data)
    assert look(models, tmp_path / "index").read == 5
    assert look(models, tmp_path / "index").read == 0


def test_other_code_reads_everything_again(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(models, tmp_path / "index")
    monkeypatch.setattr(index_module, "__version__", "0.0.0.other")
    assert look(models, tmp_path / "index").read == 5
    monkeypatch.syspath_prepend(tmp_path / "new" / "site-packages")
    assert look(models, tmp_path / "index").read == 5, "what is installed decides what can run"


def test_an_open_index_notices_what_is_installed(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "new" / "site-packages"
    site.mkdir(parents=True)
    monkeypatch.syspath_prepend(site)
    index = Index(tmp_path / "index")
    assert scan([Root(models, "test")], index=index).read == 5
    assert not index.outdated
    (site / "gptqmodel").mkdir()
    assert index.outdated
    assert Index(tmp_path / "index").outdated is False
    assert look(models, tmp_path / "index").read == 5


def test_what_is_gone_is_forgotten_and_other_roots_are_kept(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "index"
    make_gptq(tmp_path / "elsewhere" / "m")
    age(tmp_path / "elsewhere")
    look(tmp_path / "elsewhere", file)
    look(models, file)
    size = file.stat().st_size
    (models / "alpha").rename(tmp_path / "alpha")
    look(models, file)
    assert file.stat().st_size < size
    assert look(tmp_path / "elsewhere", file).read == 0


def test_a_cancelled_scan_forgets_nothing(models: Path, tmp_path: Path) -> None:
    look(models, tmp_path / "index")
    assert scan([Root(models, "test")], lambda: True, index=Index(tmp_path / "index")).models == ()
    assert look(models, tmp_path / "index").read == 0


def test_the_index_is_private_and_a_folder_that_takes_none_is_no_matter(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    first = scan([Root(models, "test")], index=open_index())
    (file,) = (tmp_path / "home" / "cache").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("")
    assert look(models, tmp_path / "file" / "index") == first


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "models" / os.fsdecode(b"m\xff"))
    age(tmp_path / "models")
    first, second = look(tmp_path / "models", tmp_path / "index"), look(tmp_path / "models", tmp_path / "index")
    assert first.models == second.models
    assert (len(first.models), second.read) == (1, 0)
    assert folder.exists()
