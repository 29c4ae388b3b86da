"""Hubs, networks and machines that are not as they should be: what still arrives, and what is said of the rest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Fault
from pull_rig import NAME, WEIGHTS, PullRig, gptq_repository, rig
from quantchat.errors import ErrorReport, FetchError, QuantchatError
from quantchat.services.pull import client, xet
from quantchat.services.pull.client import search
from quantchat.services.pull.refusals import Retry
from quantchat.services.pull.words import Moved, Search

__all__ = ["rig"]
Patch = pytest.MonkeyPatch
HALF = 500_000
SECRET = "hf_verysecret"


async def refusal(rig: PullRig, name: str = NAME) -> ErrorReport:
    """What is said instead of a plan."""
    with pytest.raises(QuantchatError) as failure:
        await rig.look_up(name=name)
    return failure.value.report


# Addresses and ways to them


def test_a_mirror_below_a_folder_of_its_host(rig: PullRig) -> None:
    rig.hub.prefix = "/mirror/hf"
    env = {"HF_ENDPOINT": f"{rig.hub.url}/mirror/hf/"}
    done = rig.run(f"{rig.hub.url}/mirror/hf/{NAME}/tree/main", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    rig.whole()


@pytest.mark.parametrize(
    ("env", "code", "words"),
    [
        ({"HF_ENDPOINT": "hub.example/x"}, "fetch", "Set HF_ENDPOINT to one like https://"),
        ({"HF_ENDPOINT": "http://hub.example:99999"}, "", ""),
        ({"HF_TOKEN": f"\x1b[200~{SECRET}"}, "unauthorized", "Your token is damaged"),
        ({"HF_TOKEN": f"\u201c{SECRET}\u201d"}, "unauthorized", "Your token is damaged"),
        ({"HF_TOKEN": "", "HF_TOKEN_PATH": "/"}, "unauthorized", "Your token cannot be read. /: Is a directory"),
        ({"HF_TOKEN": "", "HF_TOKEN_PATH": sys.executable}, "unauthorized", "it holds no text"),
        ({"ALL_PROXY": "socks5://localhost:1", "NO_PROXY": ""}, "proxy", "SOCKS"),
        ({"HTTP_PROXY": "nonsense://localhost:1", "NO_PROXY": ""}, "proxy", "Look at HTTPS_PROXY"),
        ({"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": ""}, "offline", "Unset both"),
        ({"SSL_CERT_FILE": "/not/there.pem"}, "certificate", "SSL_CERT_FILE"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "long"}, "usage", "HF_HUB_DOWNLOAD_TIMEOUT"),
    ],
)
async def test_settings_that_rule_a_download_out(
    rig: PullRig, monkeypatch: Patch, env: dict[str, str], code: str, words: str
) -> None:
    rig.use(monkeypatch, **env)
    report = await refusal(rig)
    assert words in report.sentence()
    assert not code or report.code == code
    assert SECRET not in report.sentence()
    assert report.remedy
    assert len(report.sentence()) < 500


async def test_a_proxy_that_wants_to_know_who_asks(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=rig.hub.url, http_proxy=rig.hub.url, NO_PROXY="")
    rig.hub.api_faults.append(Fault(status=407))
    assert (await refusal(rig)).code == "proxy"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback that nobody has signed, with its key."""
    place = tmp_path / "hub.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    try:
        subprocess.run([*make, *names, "-keyout", place, "-out", f"{place}.crt"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here to make a certificate with")
    place.write_text(place.read_text() + Path(f"{place}.crt").read_text())
    return place


async def test_a_certificate_of_ones_own_network(rig: PullRig, monkeypatch: Patch, certificate: Path) -> None:
    rig.hub.speak_tls(certificate)
    rig.use(monkeypatch, HF_ENDPOINT=rig.hub.url)
    report = await refusal(rig)
    assert report.code == "certificate"
    assert "SSL_CERT_FILE" in report.remedy
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    await rig.fetch(await rig.look_up())
    rig.whole()


# Secrets


def test_nothing_that_is_written_or_printed_holds_the_token(rig: PullRig, tmp_path: Path) -> None:
    rig.hub.token = SECRET
    rig.hub.fault(WEIGHTS, Fault(), Fault(drop_after=HALF), Fault(status=500))
    done = rig.run(NAME, "--json", env={"HF_TOKEN": SECRET})
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


async def test_a_password_in_the_address_of_a_mirror_is_not_shown(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch, HF_ENDPOINT=rig.hub.url.replace("//", f"//me:{SECRET}@"))
    rig.repository.gated = True
    report = await refusal(rig)
    assert report.code == "gated"
    assert f"{rig.hub.url}/{NAME}" in report.remedy
    assert SECRET not in report.sentence()


async def test_a_search_takes_the_token_to_no_further_page(rig: PullRig, monkeypatch: Patch) -> None:
    rig.hub.token = ""
    rig.use(monkeypatch, HF_TOKEN=SECRET)
    rig.hub.next_page = f"{rig.hub.far}/api/models?page=2"
    found = await search(Search(words="tiny"))
    assert [hit.repository for hit in found.hits] == [NAME]
    assert [bool(request.token) for request in rig.hub.requests] == [True]


# Answers that are not what was asked for


async def test_a_circle_of_redirects(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch)
    place = f"/far/{NAME.replace('/', '--')}/{WEIGHTS}?commit={rig.repository.commit}"
    rig.hub.fault(WEIGHTS, *[Fault(status=302, headers={"Location": place}) for _ in range(40)])
    assert (await refusal(rig)).code == "redirects"
    assert not rig.folder.exists()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault(drop_after=HALF), Fault(wrong_range=True)], id="another part"),
        pytest.param([Fault(more_promised=1000)], id="more promised than comes"),
        pytest.param([Fault(more_promised=-HALF)], id="less promised than there is"),
        pytest.param([Fault(drop_after=HALF), Fault(status=429, headers={"RateLimit": '"a";r=0;t=1'})], id="window"),
        pytest.param([Fault(drop_after=HALF), Fault(status=416)], id="range refused"),
    ],
)
async def test_what_a_server_sends_wrongly_is_sent_again(rig: PullRig, monkeypatch: Patch, faults: list[Fault]) -> None:
    rig.use(monkeypatch)
    plan = await rig.look_up()
    rig.hub.fault(WEIGHTS, *faults)
    events = await rig.fetch(plan)
    rig.whole()
    assert not rig.hub.faults[WEIGHTS], "all of it happened"
    notes = {file.note for event in events if isinstance(event, Moved) for file in event.files}
    assert "it arrived corrupt: fetching it again" not in notes


async def test_a_file_that_is_longer_than_listed(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch)
    rig.repository.listed[WEIGHTS] = rig.repository.files[WEIGHTS][:HALF] + b"x"
    plan = await rig.look_up()
    with pytest.raises(FetchError, match="arrives corrupt"):
        await rig.fetch(plan)
    assert not list((rig.folder / "blobs").glob(f"{rig.repository.etag(WEIGHTS)}*"))


async def test_a_file_that_is_shorter_than_listed(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch)
    rig.repository.listed[WEIGHTS] = rig.repository.files[WEIGHTS] + bytes(10)
    plan = await rig.look_up()
    with pytest.raises(FetchError, match="shorter than the hub says"):
        await rig.fetch(plan, retries=2)
    assert len(rig.far()) < 12, "it is not fetched over and over"


async def test_a_busy_hub_is_waited_for_and_that_is_told(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch)
    told: list[str] = []
    rig.hub.api_faults += [Fault(status=429, headers={"Retry-After": "1"})]
    await rig.look_up(told.append)
    assert any("fewer requests; trying again" in note for note in told)


# Names


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "a/../../evil", "a//b", "./a", "a/", "", "a\0b", "\ud800"])
async def test_a_file_that_cannot_be_stored_under_its_name(rig: PullRig, monkeypatch: Patch, path: str) -> None:
    rig.use(monkeypatch)
    rig.repository.files[path] = b"evil"
    report = await refusal(rig)
    assert report.code == "senseless"
    assert "\ud800" not in report.sentence()
    assert not rig.folder.exists()


def test_odd_names_are_stored_as_they_are_and_shown_harmlessly(rig: PullRig) -> None:
    odd = {"模型/説明.json": b"{}", "a\nb\x1b]0;x\x07.txt": b"1", "-rf.txt": b"2", "é" * 125 + ".json": b"[]"}
    rig.repository.files |= odd
    done = rig.run(NAME, "--yes")
    assert done.returncode == 0, done.stderr
    rig.whole(*odd)
    assert "\x1b" not in done.stdout + done.stderr
    assert "  模型/説明.json" + " " * 6 in done.stdout


def test_a_name_that_no_disk_takes_can_be_left_out(rig: PullRig) -> None:
    rig.repository.files["x" * 300 + ".json"] = b"{}"
    done = rig.run(NAME, "--yes")
    assert done.returncode == 3
    assert "--exclude" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("quantchat: Cannot write into"), done.stderr
    assert rig.run(NAME, "--yes", "--exclude", "xxx*").returncode == 0
    rig.whole()


def test_thousands_of_files(rig: PullRig) -> None:
    rig.repository.files |= {
        f"data/{number:05}.{'txt' if number % 100 == 0 else 'png'}": b"x" for number in range(10_000)
    }
    done = rig.run(NAME, "--yes")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 60
    assert "more files" in done.stdout
    assert len(list((rig.snapshot / "data").iterdir())) == 100


# What changes meanwhile


async def test_a_branch_that_moves_between_plan_and_download(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch)
    plan, files, snapshot = await rig.look_up(), rig.repository.files, rig.snapshot
    rig.repository.change({"config.json": b"{}", WEIGHTS: b"other"})
    await rig.fetch(plan)
    assert (snapshot / "config.json").read_bytes() == files["config.json"]
    assert (snapshot / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (rig.folder / "refs" / "main").read_text() == snapshot.name != rig.repository.commit
    await rig.fetch(await rig.look_up())
    assert (rig.folder / "refs" / "main").read_text() == rig.repository.commit
    assert (rig.snapshot / WEIGHTS).read_bytes() == b"other"
    assert (snapshot / WEIGHTS).read_bytes() == files[WEIGHTS]


async def test_a_commit_that_is_gone_when_the_download_begins(rig: PullRig, monkeypatch: Patch) -> None:
    rig.use(monkeypatch)
    plan = await rig.look_up()
    rig.repository.change({"config.json": b"{}"})
    rig.repository.past.clear()
    with pytest.raises(FetchError, match="is not on the hub any more"):
        await rig.fetch(plan)


def test_two_programs_that_fetch_the_same_share_the_work(rig: PullRig) -> None:
    stall = Fault(stall_after=HALF)
    rig.hub.fault(WEIGHTS, Fault(), stall)
    first = rig.start(NAME, "--yes")
    assert stall.reached.wait(30)
    second = rig.start(NAME, "--json")
    assert second.stdout is not None
    while True:
        event = json.loads(second.stdout.readline())
        if any(file["note"] == "another program fetches it" for file in event.get("active", ())):
            break
    stall.released.set()
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    rig.whole()
    bodies = [request for request in rig.far() if not request.range.startswith("bytes=0-")]
    assert sum(request.sent for request in bodies) == len(rig.repository.files[WEIGHTS])


# This machine


def test_a_cache_on_a_disk_that_is_read_only(rig: PullRig, small_disk: Path) -> None:
    rig.hub.repositories[NAME] = gptq_repository(rows=16)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = rig.run(NAME, "--yes", env={"HF_HUB_CACHE": str(small_disk)})
    assert done.returncode == 3, done.stderr
    assert "Read-only file system. Let yourself write there" in done.stderr


@pytest.mark.parametrize("steps", range(5))
async def test_stopping_is_heard_while_a_report_comes_in(steps: int) -> None:
    stream = asyncio.StreamReader()

    async def listen() -> None:
        while True:
            await client._next_line(stream)

    task = asyncio.create_task(listen())
    await asyncio.sleep(0.01)
    stream.feed_data(b"report\n")
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


async def test_a_line_beyond_all_bounds_is_said() -> None:
    stream = asyncio.StreamReader(limit=10)
    stream.feed_data(b"x" * 100)
    with pytest.raises(FetchError, match="said something senseless"):
        await client._next_line(stream)


# The chunk store


class Stream:
    """Brings one piece, and then nothing until it is cancelled."""

    def __init__(self, ends: str) -> None:
        self.ends = ends
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield b"piece"
        if self.ends == "fails":
            raise OSError("no such chunk")
        assert self.cancelled.wait(30)
        raise OSError("cancelled")

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.mark.parametrize("ends", ["fails", "stalls"])
def test_a_chunk_store_that_breaks_off_is_not_asked_again(monkeypatch: Patch, ends: str) -> None:
    monkeypatch.setattr(xet.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    monkeypatch.setattr(xet.constants, "HF_HUB_DISABLE_XET", False)
    xet._failed.clear()
    stream, pieces = Stream(ends), []
    try:
        with pytest.raises(Retry, match="the chunk store failed"):
            pieces += list(xet._pieces(stream))
        assert not xet.is_wanted()
    finally:
        xet._failed.clear()
    assert stream.cancelled.is_set()
