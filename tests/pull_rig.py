"""Small repositories for the hub on loopback, and running the real command line against it."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from hub_server import HubServer, Repository, Request, hub_env, serving
from quantchat.services.pull.client import describe, events_of
from quantchat.services.pull.names import parse_name
from quantchat.services.pull.plan import Plan, make_plan
from quantchat.services.pull.words import Describe, Event, Limits
from unit.catalog.model_folders import GPTQ_CONFIG, GPTQ_LAYER, LLAMA, make_model

NAME = "acme/tiny-GPTQ"
WEIGHTS = "model.safetensors"


def until(test: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def folder_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder as a repository has them."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gptq_repository(rows: int = 8192, seed: int = 1) -> Repository:
    """A GPTQ model with random weights (`rows` × 128 bytes), and much that nobody needs."""
    config = LLAMA | {"quantization_config": GPTQ_CONFIG, "vocab_size": rows}
    tensors = {"model.embed_tokens.weight": ("F16", (rows, 64))} | GPTQ_LAYER
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch) / "model", tensors=tensors, files={"config.json": config})
        files = folder_files(Path(scratch) / "model")
    noise = random.Random(seed).randbytes(rows * 128)
    head = len(files[WEIGHTS]) - sum(
        _bytes(shape, size) for shape, size in ((s, _SIZES[d]) for d, s in tensors.values())
    )
    files[WEIGHTS] = files[WEIGHTS][:head] + noise + files[WEIGHTS][head + len(noise) :]
    files |= {
        "pytorch_model.bin": b"\x80\x02pickle" * 100,
        "tiny.Q4_K_M.gguf": b"GGUF" + bytes(2000),
        "README.md": b"# Tiny\n",
        ".gitattributes": b"*.bin filter=lfs\n",
        "picture.png": bytes(500),
    }
    return Repository(files, downloads=7, tags=("gptq", "4-bit"))


_SIZES = {"F16": 2, "I32": 4}


def _bytes(shape: tuple[int, ...], size: int) -> int:
    total = size
    for extent in shape:
        total *= extent
    return total


class PullRig:
    """A hub, a home with its own cache, and the installed command."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub = hub
        self.home = folder / "home"
        self.env = os.environ | {"QUANTCHAT_HOME": str(self.home)} | hub_env(hub, str(folder / "hf"))
        self.cache = folder / "hf" / "hub"
        self.repository = hub.repositories[NAME]
        self._started: list[subprocess.Popen[str]] = []

    @property
    def folder(self) -> Path:
        """Of the repository in the cache."""
        return self.cache / f"models--{NAME.replace('/', '--')}"

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / self.repository.commit

    @property
    def partial(self) -> Path:
        return self.folder / "blobs" / f"{self.repository.etag(WEIGHTS)}.incomplete"

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, largest_file: int = 0
    ) -> subprocess.Popen[str]:
        """Run `quantchat pull`; with `largest_file`, the system lets it write no larger ones."""
        limit = (largest_file, largest_file)
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env | dict(env or {}),
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)) if largest_file else None,
        )
        self._started.append(process)
        return process

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, largest_file: int = 0
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, env=env, largest_file=largest_file)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(Path(sys.executable).parent / "quantchat"), "pull", *arguments]

    def use(self, patch: pytest.MonkeyPatch, **env: str) -> None:
        """Let download processes of this process have the environment of the command."""
        for name, value in (self.env | env).items():
            patch.setenv(name, value)

    async def look_up(self, tell: Callable[[str], None] | None = None, name: str = NAME) -> Plan:
        return make_plan(await describe(Describe(wanted=parse_name(name)), tell))

    async def fetch(self, plan: Plan, **limits: float) -> list[Event]:
        """Download in this process's own child; return all that it said."""
        async with aclosing(events_of(plan.task(Limits(**{"tick": 0.02, "pause": 0.01} | limits)))) as events:  # type: ignore[arg-type]
            return [event async for event in events]

    def whole(self, *paths: str) -> None:
        """Assert that the files are there, as the hub has them, and nothing half done."""
        for path in paths or ("config.json", "tokenizer.json", "tokenizer_config.json", "README.md", WEIGHTS):
            assert (self.snapshot / path).read_bytes() == self.repository.files[path], path
        assert not list((self.folder / "blobs").glob("*.incomplete"))

    def far(self, path: str = WEIGHTS) -> list[Request]:
        """The requests that brought bytes of a large file."""
        return self.hub.fetches(f"/far/{NAME.replace('/', '--')}/{path}")

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[PullRig]:
    """A hub with one model, and nothing fetched yet."""
    with serving({NAME: gptq_repository()}) as hub:
        rig = PullRig(hub, tmp_path)
        yield rig
        rig.close()
