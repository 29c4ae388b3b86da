"""`quantchat pull` against a real server on loopback: what arrives, what goes on, what is refused, in which words."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hub_server import Fault, OnDisk, Repository
from processes import is_running
from pull_rig import NAME, WEIGHTS, PullRig, gptq_repository, rig, until
from quantchat.catalog.reader import read_model
from quantchat.errors import FetchError
from unit.catalog.corpus import build

__all__ = ["rig"]
HALF = 500_000
HUB = """
import json, sys
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
name = sys.argv[1]
report = scan_cache_dir()
print(json.dumps({
    "snapshot": snapshot_download(name, local_files_only=True),
    "file": hf_hub_download(name, "config.json", local_files_only=True),
    "warnings": [str(warning) for warning in report.warnings],
    "repositories": [repo.repo_id for repo in report.repos],
    "refs": [sorted(revision.refs) for repo in report.repos for revision in repo.revisions],
}))
"""


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def blobs(rig: PullRig) -> set[str]:
    return {path.name for path in (rig.folder / "blobs").iterdir()}


# What arrives


def test_what_arrives_is_found_by_the_hubs_own_library(rig: PullRig) -> None:
    done = rig.run(NAME, "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(rig.snapshot)
    rig.whole()
    assert {path.name for path in rig.snapshot.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        WEIGHTS,
    }, "no pickles, no GGUF, no pictures"
    found = subprocess.run([sys.executable, "-c", HUB, NAME], env=rig.env, capture_output=True, text=True, check=True)
    told = json.loads(found.stdout)
    assert told == {
        "snapshot": str(rig.snapshot),
        "file": str(rig.snapshot / "config.json"),
        "warnings": [],
        "repositories": [NAME],
        "refs": [["main"]],
    }


def test_the_prediction_is_what_the_model_turns_out_to_be(rig: PullRig) -> None:
    dry = rig.run(NAME, "--dry-run", "--json")
    (plan,) = events(dry)
    assert not rig.folder.exists(), "a dry run leaves nothing"
    assert rig.hub.sent(WEIGHTS) <= 100_001, "of the weights only the header is read"
    assert rig.run(NAME, "--json").returncode == 0
    model = read_model(rig.snapshot)
    for name in ("weight_bytes", "parameters", "context_window", "architecture"):
        assert plan["model"][name] == getattr(model, name), name
    assert plan["model"]["quant"]["method"] == "gptq"
    assert plan["model"]["path"] == str(rig.snapshot)
    taken = {file["path"]: file["size"] for file in plan["files"] if file["taken"]}
    assert sum(taken.values()) == plan["bytes"] == plan["missing"]
    reasons = {file["path"]: file.get("reason", "") for file in plan["files"]}
    assert "pickle" in reasons["pytorch_model.bin"]
    assert "GGUF" in reasons["tiny.Q4_K_M.gguf"]


@pytest.mark.parametrize(
    "case",
    [
        "gptq-qwen2.5-7b-int4-sharded",
        "awq-llama3.1-8b-gemm-64",
        "dense-llama3.1-8b-sharded",
        "mxfp4-gpt-oss-20b",
        "gguf-llama3.1-q4-k-m",
        "gguf-split",
        "lora-adapter",
        "exl2-mistral-4.65bpw",
    ],
)
def test_models_of_gigabytes_are_predicted_from_some_kilobytes(rig: PullRig, tmp_path: Path, case: str) -> None:
    place = build(case, tmp_path)
    folder = place if place.is_dir() else place.parent
    large = Repository({path.name: OnDisk(path) for path in folder.iterdir()})
    rig.hub.repositories[f"acme/{case}"] = large
    done = rig.run(f"acme/{case}", "--dry-run", "--json", *(["--include", "*.gguf"] if "gguf" in case else []))
    assert done.returncode in (0, 3), done.stderr
    plan = events(done)[0]
    want = json.loads(msgspec.json.encode(read_model(place)))
    for name in ("weight_bytes", "parameters", "context_window", "kind", "quant", "shape", "verdict", "problems"):
        assert plan["model"].get(name) == want.get(name), name
    assert rig.hub.sent() < 20_000_000


def test_a_second_pull_checks_and_fetches_nothing(rig: PullRig) -> None:
    assert rig.run(NAME, "--yes").returncode == 0
    before = rig.hub.sent(WEIGHTS)
    done = rig.run(NAME, "--yes")
    assert done.returncode == 0
    assert "all here" in done.stdout
    assert rig.hub.sent(WEIGHTS) - before <= 100_001, "the header again, and no more"


def test_what_was_damaged_on_the_disk_is_fetched_again(rig: PullRig) -> None:
    assert rig.run(NAME, "--yes").returncode == 0
    with open(rig.snapshot / WEIGHTS, "r+b") as weights:
        weights.seek(HALF)
        weights.write(b"damaged!")
    fetched = len(rig.hub.fetches("far/" + NAME.replace("/", "--") + "/tokenizer.json"))
    assert rig.run(NAME, "--yes").returncode == 0
    rig.whole()
    assert len(rig.hub.fetches("/tokenizer.json")) >= fetched
    assert len(rig.hub.fetches("far/" + NAME.replace("/", "--") + "/tokenizer.json")) == fetched


async def test_a_revision_gets_its_own_name(rig: PullRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.use(monkeypatch)
    rig.repository.revisions = ("main", "v1", "refs/pr/3")
    for revision in ("v1", "refs/pr/3", rig.repository.commit):
        await rig.fetch(await rig.look_up(name=f"{NAME}@{revision}"))
    refs = rig.folder / "refs"
    assert {str(path.relative_to(refs)) for path in refs.rglob("*") if path.is_file()} == {"v1", "refs/pr/3"}
    assert (refs / "v1").read_text() == rig.repository.commit


def test_where_links_are_not_allowed_the_files_themselves_lie_in_the_snapshot(rig: PullRig) -> None:
    env = {"HF_HUB_DISABLE_SYMLINKS": "1"}
    assert rig.run(NAME, "--yes", env=env).returncode == 0
    rig.whole()
    assert not any(path.is_symlink() for path in rig.snapshot.iterdir())
    before = rig.hub.sent(WEIGHTS)
    done = rig.run(NAME, "--yes", env=env)
    assert "all here" in done.stdout
    assert rig.hub.sent(WEIGHTS) - before <= 100_001
    with open(rig.snapshot / WEIGHTS, "r+b") as weights:
        weights.write(b"damaged!")
    assert rig.run(NAME, "--yes", env=env).returncode == 0
    rig.whole()


def test_gguf_comes_when_it_is_asked_for(rig: PullRig) -> None:
    done = rig.run(NAME, "--yes", "--include", "*.gguf", "--exclude", "*.safetensors")
    assert done.returncode == 0, done.stderr
    rig.whole("tiny.Q4_K_M.gguf", "config.json")
    assert not (rig.snapshot / WEIGHTS).exists()


# Going on


def assert_gone_on(rig: PullRig, before: int, have: int) -> None:
    """The next run fetches the rest of the weights and nothing else of them."""
    size = len(rig.repository.files[WEIGHTS])
    done = rig.run(NAME, "--yes")
    assert done.returncode == 0, done.stderr
    fetches = [request for request in rig.hub.requests[before:] if request.path.startswith("/far") and request.sent]
    rest = [request for request in fetches if request.path.endswith(WEIGHTS) and request.range == f"bytes={have}-"]
    assert [request.sent for request in rest] == [size - have]
    header = sum(request.sent for request in fetches if request.path.endswith(WEIGHTS)) - (size - have)
    assert header <= 100_001, "beside the rest only the header came again"
    rig.whole()


@pytest.mark.parametrize("victim", ["command", "download process"])
def test_a_killed_download_goes_on_where_it_was(rig: PullRig, victim: str) -> None:
    rig.hub.fault(WEIGHTS, Fault(), Fault(stall_after=HALF))
    process = rig.start(NAME, "--yes")
    until(lambda: rig.partial.exists() and rig.partial.stat().st_size == HALF, "half of the weights")
    (worker,) = children(process)
    (process if victim == "command" else worker).send_signal(signal.SIGKILL)
    until(lambda: not is_running(worker.pid), "the end of the child")
    _, err = process.communicate(timeout=30)
    if victim == "download process":
        assert process.returncode == 6
        assert "what has arrived is kept" in err
    assert_gone_on(rig, len(rig.hub.requests), HALF)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_keeps_what_has_arrived(rig: PullRig, number: signal.Signals) -> None:
    rig.hub.fault(WEIGHTS, Fault(), Fault(stall_after=HALF))
    process = rig.start(NAME, "--yes")
    until(lambda: rig.partial.exists() and rig.partial.stat().st_size == HALF, "half of the weights")
    workers = children(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Run the same command again to go on" in err
    assert not [worker for worker in workers if worker.is_running()]
    assert_gone_on(rig, len(rig.hub.requests), HALF)


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        pytest.param([Fault(drop_after=HALF), Fault(drop_after=3)], "the connection", id="drops"),
        pytest.param([Fault(stall_after=HALF)], "no byte came for 1 s", id="stall"),
        pytest.param([Fault(status=503), Fault(status=500)], "the hub answers 50", id="server errors"),
        pytest.param([Fault(status=429, headers={"Retry-After": "1"})], "fewer requests", id="rate limit"),
        pytest.param([Fault(drop_after=HALF), Fault(ignore_range=True)], "the connection", id="ranges not heeded"),
    ],
)
def test_a_bad_connection_costs_only_time(rig: PullRig, faults: list[Fault], said: str) -> None:
    rig.hub.fault(WEIGHTS, Fault(), *faults)
    done = rig.run(NAME, "--json", env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"})
    assert done.returncode == 0, done.stderr
    rig.whole()
    notes = [file["note"] for event in events(done) if event["event"] == "progress" for file in event["active"]]
    assert any(said in note for note in notes), set(notes)
    if not any(fault.ignore_range for fault in faults):
        size = len(rig.repository.files[WEIGHTS])
        assert size <= rig.hub.sent(f"/far/{NAME.replace('/', '--')}/{WEIGHTS}") <= size + 200_000


async def test_a_connection_that_stays_stalled_ends_with_an_error(
    rig: PullRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.use(monkeypatch, HF_HUB_DOWNLOAD_TIMEOUT="1")
    plan = await rig.look_up()
    rig.hub.fault(WEIGHTS, Fault(stall_after=HALF), *[Fault(stall_after=0) for _ in range(9)])
    with pytest.raises(FetchError) as failure:
        await rig.fetch(plan, retries=1)
    assert failure.value.report.code == "stalled"
    assert "no byte came for 1 s" in str(failure.value)
    assert "what has arrived is kept" in str(failure.value)
    rig.hub.faults.clear()
    assert_gone_on(rig, len(rig.hub.requests), HALF)


def test_a_partial_file_that_is_too_long_begins_anew(rig: PullRig) -> None:
    rig.partial.parent.mkdir(parents=True)
    rig.partial.write_bytes(bytes(len(rig.repository.files[WEIGHTS]) + 10))
    assert rig.run(NAME, "--yes").returncode == 0
    rig.whole()


def test_what_the_hubs_library_left_half_done_is_gone_on_with(rig: PullRig) -> None:
    left = rig.partial.with_name(f"{rig.repository.etag(WEIGHTS)}.0a1b2c3d.incomplete")
    left.parent.mkdir(parents=True)
    left.write_bytes(rig.repository.files[WEIGHTS][:HALF])
    os.utime(left, (0, 0))
    assert_gone_on(rig, len(rig.hub.requests), HALF)


def test_a_file_that_another_program_fetches_is_waited_for(rig: PullRig) -> None:
    locks = rig.cache / ".locks" / rig.folder.name
    locks.mkdir(parents=True)
    with open(locks / f"{rig.repository.etag(WEIGHTS)}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = rig.start(NAME, "--yes")
        until(lambda: (rig.snapshot / "config.json").exists(), "the other files")
        assert not rig.partial.exists()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    rig.whole()


# Corruption


def test_a_corrupt_file_is_fetched_again_and_no_other(rig: PullRig) -> None:
    rig.hub.fault(WEIGHTS, Fault(), Fault(corrupt_at=HALF))
    done = rig.run(NAME, "--json")
    assert done.returncode == 0, done.stderr
    rig.whole()
    far = f"/far/{NAME.replace('/', '--')}/"
    bodies = [request for request in rig.hub.fetches(far + WEIGHTS) if not request.range]
    assert len(bodies) == 2
    assert len(rig.hub.fetches(far + "tokenizer.json")) == 1


@pytest.mark.parametrize("path", [WEIGHTS, "config.json"], ids=["by sha256", "by git's sha1"])
def test_a_file_that_stays_corrupt_is_named_and_deleted(rig: PullRig, path: str) -> None:
    rig.hub.fault(path, Fault(), Fault(corrupt_at=100), Fault(corrupt_at=100))
    done = rig.run(NAME, "--json")
    assert done.returncode == 6
    assert f"{path} arrives corrupt" in done.stderr
    last = events(done)[-1]
    assert (last["event"], last["code"]) == ("error", "corrupt")
    assert not (rig.snapshot / path).exists()
    assert not any(name.startswith(rig.repository.etag(path)) for name in blobs(rig))
    assert not (rig.folder / "refs" / "main").exists()
    assert rig.run(NAME, "--yes").returncode == 0
    rig.whole()


# Refusals


def refused(
    rig: PullRig, *words: str, name: str = NAME, code: int = 6, env: Mapping[str, str] | None = None, told: int = 1
) -> None:
    done = rig.run(name, "--yes", env=env)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stderr.count("\n") == told, "one paragraph"
    assert "Traceback" not in done.stderr


def test_a_missing_repository(rig: PullRig) -> None:
    refused(rig, "acme/none was not found", "Check the name", "HF_TOKEN", name="acme/none")


def test_a_missing_revision(rig: PullRig) -> None:
    refused(rig, f"{NAME} has no revision v9", "Leave the revision out", name=f"{NAME}@v9")


def test_who_is_not_known_to_the_hub(rig: PullRig) -> None:
    rig.hub.token = "hf_right"
    refused(rig, "was not found", "HF_TOKEN", "hf auth login")
    assert rig.run(NAME, "--yes", env={"HF_TOKEN": "hf_right"}).returncode == 0


def test_a_wrong_token(rig: PullRig) -> None:
    rig.hub.token = "hf_right"
    refused(rig, "The hub refuses your token", "Unset HF_TOKEN", env={"HF_TOKEN": "hf_wrong"})


def test_a_gated_repository(rig: PullRig) -> None:
    rig.repository.gated = True
    refused(rig, f"{NAME} is gated", f"Open {rig.hub.url}/{NAME}", "accept", "HF_TOKEN")
    assert not rig.folder.exists()


def test_the_token_is_not_sent_to_other_hosts(rig: PullRig) -> None:
    rig.hub.token = "hf_secret"
    assert rig.run(NAME, "--yes", env={"HF_TOKEN": "hf_secret"}).returncode == 0
    far = [request for request in rig.hub.requests if request.path.startswith("/far")]
    assert len(far) > 1
    assert not any(request.token for request in far)
    assert all(request.token for request in rig.hub.requests if request not in far)


def test_offline(rig: PullRig) -> None:
    refused(rig, "HF_HUB_OFFLINE is set", "Unset both", env={"HF_HUB_OFFLINE": "1"})
    assert not rig.hub.requests


def test_something_else_at_the_endpoint(rig: PullRig) -> None:
    rig.hub.api_faults += [Fault(status=200)]
    refused(rig, "makes no sense", "HF_ENDPOINT")


def test_a_proxy_is_used(rig: PullRig) -> None:
    env = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": rig.hub.url, "http_proxy": rig.hub.url}
    done = rig.run(NAME, "--dry-run", env=env | {"NO_PROXY": "", "no_proxy": ""})
    assert done.returncode == 0, done.stderr


def test_a_connection_that_stays_dead_ends_with_an_error(rig: PullRig) -> None:
    rig.hub.close()
    refused(rig, "could not be fetched", "the connection failed", "HF_ENDPOINT", told=2)


# The disk


def test_a_disk_that_is_too_small_is_known_before(rig: PullRig, small_disk: Path) -> None:
    refused(rig, "has no room for this", "Free 1.", "MiB there", code=3, env={"HF_HUB_CACHE": str(small_disk)})
    assert not list(small_disk.iterdir())


def test_a_disk_that_fills_up_is_said(rig: PullRig, small_disk: Path, fill_disk: Callable[[Path], Path]) -> None:
    rig.hub.repositories[NAME] = rig.repository = small = gptq_repository(rows=128)
    stall = Fault(stall_after=8192)
    rig.hub.fault(WEIGHTS, Fault(), stall)
    process = rig.start(NAME, "--yes", env={"HF_HUB_CACHE": str(small_disk)})
    partial = small_disk / rig.folder.name / "blobs" / f"{small.etag(WEIGHTS)}.incomplete"
    until(lambda: partial.exists() and partial.stat().st_size == 8192, "the first bytes")
    ballast = fill_disk(small_disk)
    stall.released.set()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert "the disk is full" in err
    assert "HF_HUB_CACHE" in err
    assert partial.stat().st_size >= 8192
    ballast.unlink()
    assert rig.run(NAME, "--yes", env={"HF_HUB_CACHE": str(small_disk)}).returncode == 0


def test_a_limit_of_the_system_is_said(rig: PullRig) -> None:
    done = rig.run(NAME, "--yes", largest_file=HALF)
    assert done.returncode == 3, done.stderr
    assert "files may not be larger" in done.stderr
    assert rig.partial.stat().st_size == HALF
    assert_gone_on(rig, len(rig.hub.requests), HALF)


def test_a_cache_that_may_not_be_written_to(rig: PullRig, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    refused(rig, "Cannot write into", "HF_HUB_CACHE", code=3, env={"HF_HUB_CACHE": str(place)})


# The chunk store


def test_a_chunk_store_that_fails_gives_way_to_http(rig: PullRig) -> None:
    rig.repository.xet = True
    done = rig.run(NAME, "--json")
    assert done.returncode == 0, done.stderr
    rig.whole()
    assert any("xet-token" in request.path for request in rig.hub.requests)


# The command line


def test_searching(rig: PullRig) -> None:
    rig.hub.repositories["acme/tiny-AWQ"] = Repository({"config.json": b"{}"}, downloads=9000, tags=("awq",))
    rig.hub.repositories["evil/tiny\x1b]0;x\x07"] = Repository({"config.json": b"{}"})
    done = rig.run("--search", "TINY")
    assert [line.split()[0] for line in done.stdout.splitlines()][:2] == ["acme/tiny-AWQ", NAME]
    assert "9,000 downloads" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(rig.run("--search", "tiny-awq", "--json").stdout)[0]["tags"] == ["awq"]
    assert "Nothing was found" in rig.run("--search", "nothing").stderr


def test_nobody_is_asked_where_nobody_is(rig: PullRig) -> None:
    done = rig.run(NAME)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert not rig.folder.exists()


@pytest.mark.parametrize("arguments", [(), (NAME, "--search", "x"), ("../x",)])
def test_wrong_command_lines(rig: PullRig, arguments: tuple[str, ...]) -> None:
    done = rig.run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_nothing_of_the_models_libraries_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, quantchat.services.pull.jobs, quantchat.cli.pulling; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "gptqmodel", "huggingface_hub", "textual", "numpy"}
    worker = "import sys, quantchat.services.pull.transfer, quantchat.services.pull.preview; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", worker], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "gptqmodel", "textual"}
