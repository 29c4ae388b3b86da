"""Where the walk goes on: past GGUF files, into snapshots, not into disks that do not answer, and not into noise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantchat.catalog import roots
from quantchat.catalog.index import Index
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import find_model, scan
from quantchat.domain.models import ModelInfo
from unit.catalog.corpus import write_gguf
from unit.catalog.model_folders import LLAMA, make_gptq, write_json

GGUF = ["key general.architecture str llama", "key llama.block_count u32 1", "token_embd.weight F16 8x4"]
HANGING = """
import ctypes, os, sys, threading, time
from pathlib import Path
from quantchat.catalog import roots
from quantchat.catalog.index import Index
from quantchat.catalog.scan import scan

# Nobody reads what the system asks of this file system, so it never answers.
handle, silent = os.open("/dev/fuse", os.O_RDWR), sys.argv[1]
options = f"fd={handle},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None).mount(b"silent", silent.encode(), b"fuse", 0, options):
    sys.exit(77)
roots.PATIENCE = 0.2
found = scan([roots.Root(Path(silent), "x", asked_for=True), roots.Root(Path(sys.argv[2]), "y")], index=Index())
print([model.name for model in found.models], [problem.code for problem in found.problems], flush=True)
again = scan([roots.Root(Path(silent), "x")], index=Index())
print([problem.code for problem in again.problems], threading.active_count(), flush=True)
"""


def scanned(*folders: Path, index: Index | None = None) -> list[ModelInfo]:
    result = scan([Root(folder, "test", asked_for=True) for folder in folders], index=index)
    assert result.problems == ()
    return list(result.models)


def make_gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, GGUF)
    return path


def test_gguf_files_beside_folders_hide_nothing(tmp_path: Path) -> None:
    make_gptq(tmp_path / "owner" / "m")
    index = Index()
    assert [model.name for model in scanned(tmp_path, index=index)] == ["m"]
    make_gguf(tmp_path / "tiny.gguf")
    make_gguf(tmp_path / "owner" / "small.gguf")
    assert [model.name for model in scanned(tmp_path, index=index)] == ["m", "small", "tiny"]
    assert [model.name for model in scanned(tmp_path, index=index)] == ["m", "small", "tiny"]


def test_a_folder_whose_name_ends_like_a_file_is_a_folder(tmp_path: Path) -> None:
    make_gguf(tmp_path / "odd.gguf" / "inner.gguf")
    make_gguf(tmp_path / "plain.gguf")
    assert [model.path for model in scanned(tmp_path)] == [
        str(tmp_path / "odd.gguf" / "inner.gguf"), str(tmp_path / "plain.gguf")
    ]  # fmt: skip


def test_repositories_with_a_folder_for_each_quantization(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name-GGUF" / "snapshots" / "aaa"
    make_gguf(snapshot / "Q4_K_M" / "name-Q4_K_M.gguf")
    make_gguf(snapshot / "BF16" / "name-BF16.gguf")
    write_json(snapshot / "config.json", LLAMA)
    models = scanned(tmp_path)
    assert [(model.name, model.revision) for model in models] == [
        ("owner/name-GGUF/BF16/name-BF16", "aaa"), ("owner/name-GGUF/Q4_K_M/name-Q4_K_M", "aaa")
    ]  # fmt: skip
    shutil.rmtree(snapshot / "BF16")
    shutil.rmtree(snapshot / "Q4_K_M")
    (model,) = scanned(tmp_path)
    assert not model.loadable, "a config alone is told while there is nothing else"


def test_a_linked_folder_of_gguf_files_names_the_files(tmp_path: Path) -> None:
    file = make_gguf(tmp_path / "z" / "tiny.gguf")
    (tmp_path / "a-link").symlink_to("z")
    (model,) = scanned(tmp_path)
    assert (model.path, model.copies) == (str(file), (str(tmp_path / "a-link" / "tiny.gguf"),))


def test_a_file_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_gguf(tmp_path / "tiny.gguf")
    assert find_model(str(file), ()).path == str(file)
    monkeypatch.chdir(tmp_path)
    assert find_model("tiny.gguf", ()).path == str(file)
    (model,) = scanned(tmp_path)
    assert find_model("./tiny.gguf", [model]) is model


def test_what_goes_while_it_is_looked_at_is_no_problem(tmp_path: Path) -> None:
    make_gptq(tmp_path / "a" / "m")
    (tmp_path / "b").mkdir()
    told: list[int] = []

    def cancelled() -> bool:
        told.append(1)
        if len(told) == 2:
            (tmp_path / "b").rmdir()
        return False

    result = scan([Root(tmp_path, "test", asked_for=True)], cancelled)
    assert not (tmp_path / "b").exists()
    assert (len(result.models), result.problems) == (1, ())


def test_a_path_that_no_system_takes(tmp_path: Path) -> None:
    result = scan([Root(tmp_path / "a\0b", "test", asked_for=True)])
    assert [problem.code for problem in result.problems] == ["folder-unreadable"]


@pytest.mark.skipif(not os.path.exists("/dev/fuse") or os.geteuid() != 0, reason="mounting is not permitted here")
def test_a_disk_that_does_not_answer_keeps_no_other_waiting(tmp_path: Path) -> None:
    make_gptq(tmp_path / "models" / "m")
    (tmp_path / "silent").mkdir()
    script = [sys.executable, "-c", HANGING, str(tmp_path / "silent"), str(tmp_path / "models")]
    done = subprocess.run(["unshare", "-m", *script], capture_output=True, text=True, timeout=50)
    if done.returncode == 77:
        pytest.skip("mounting is not permitted here")
    first, second = done.stdout.splitlines()
    assert first == "['m'] ['folder-silent']"
    assert second == "['folder-silent'] 2", "it is asked once, by one thread, and ends with the program"


def test_two_may_ask_for_a_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, asked = threading.Event(), threading.Event()

    class Late(threading.Thread):
        """Begins to run a moment after the second one asks."""

        def start(self) -> None:
            begun.set()
            asked.wait(10)
            time.sleep(0.05)
            super().start()

    monkeypatch.setattr(roots, "threading", SimpleNamespace(Thread=Late))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(roots.answers, tmp_path)
        assert begun.wait(10)
        other = pool.submit(roots.answers, tmp_path)
        asked.set()
        assert first.result()
        assert other.result()
