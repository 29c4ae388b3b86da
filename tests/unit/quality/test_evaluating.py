"""Measuring models over the scripted engine: what is compared, kept and told, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from quantchat import paths
from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from quantchat.engine.protocol import Evaluate, JobFailed
from quantchat.errors import ErrorReport, JobError, ModelError, QuantchatError, StorageError
from quantchat.services.evaluating import BUNDLED_TEXT, Progress, Result, Wish, evaluate
from quantchat.services.headless import Headless
from quantchat.store.quality import FILE, load_quality
from scripted_quality import DIVERGENCE, PERPLEXITY, TOKENS
from unit.catalog.model_folders import make_dense, make_gptq

FAST = {"tokens_per_second": 400, "text": "word " * 100}
ERROR = {"code": "kernel", "title": "The kernel broke", "detail": "It cannot be built", "remedy": ""}


class Lab:
    """A reference and two quantizations of it, and scripted engines."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "models"
        make_dense(self.folder / "alpha")
        make_gptq(self.folder / "alpha-4bit")
        make_gptq(self.folder / "alpha-8bit", bits=8)
        self.steps: list[Progress] = []
        self._script = folder / "script.json"
        self.script()
        monkeypatch.setenv("QUANTCHAT_HOME", str(folder / "home"))
        monkeypatch.setenv("QUANTCHAT_ENGINE_COMMAND", shlex.join([sys.executable, str(SCRIPTED_ENGINE)]))
        monkeypatch.setenv("QUANTCHAT_SCRIPT", str(self._script))

    def script(self, **script: object) -> None:
        self._script.write_text(json.dumps({"answers": [FAST], **script}))

    def model(self, name: str) -> ModelInfo:
        return read_model(self.folder / name)

    async def run(self, *names: str, reference: str = "", wish: Wish | None = None) -> list[Result]:
        against = self.model(reference) if reference else None
        models = [self.model(name) for name in names]
        return await evaluate(models, against, wish or Wish(), self.steps.append)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    yield Lab(tmp_path, monkeypatch)
    assert not children(str(SCRIPTED_ENGINE))
    assert not list(paths.cache_dir().glob("reference-logits/.*"))


async def test_models_are_measured_against_their_reference(lab: Lab) -> None:
    reference, four, eight = await lab.run("alpha-4bit", "alpha-8bit", reference="alpha")
    assert reference.quality.divergence is None
    assert reference.quality.perplexity == PERPLEXITY
    for result, bits in ((four, 4), (eight, 8)):
        quality = result.quality
        assert (quality.divergence, quality.reference) == (DIVERGENCE[bits], "alpha")
        assert quality.reference_path == lab.model("alpha").path
        assert quality.agreement == 1 - DIVERGENCE[bits] / 2
        assert (quality.tokens, quality.window, quality.text) == (TOKENS, 512, BUNDLED_TEXT)
        assert quality.tokens_per_second > 50
        assert quality.device_bytes > 0
        assert quality.disk_bytes == result.model.weight_bytes
        assert {"torch", "quantchat"} <= set(quality.versions)
        assert load_quality(result.model.path) == (quality,)
    assert 4 < four.quality.bits < 5


async def test_the_share_rises_over_all_models_to_one(lab: Lab) -> None:
    await lab.run("alpha-4bit", "alpha-8bit", reference="alpha")
    shares = [step.share for step in lab.steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert list(dict.fromkeys(step.number for step in lab.steps)) == [1, 2, 3]
    assert {step.models for step in lab.steps} == {3}


async def test_without_a_reference_only_perplexity_is_told(lab: Lab) -> None:
    (result,) = await lab.run("alpha-4bit", wish=Wish(tokens=100, speed=False))
    quality = result.quality
    assert (quality.divergence, quality.reference, quality.tokens_per_second) == (None, "", 0.0)
    assert quality.tokens == 100


async def test_a_reference_among_the_models_is_measured_once(lab: Lab) -> None:
    results = await lab.run("alpha", "alpha-4bit", reference="alpha", wish=Wish(speed=False))
    assert [result.model.name for result in results] == ["alpha", "alpha-4bit"]


async def test_one_that_fails_does_not_keep_others_from_being_measured(lab: Lab) -> None:
    (lab.folder / "alpha-4bit" / "model.safetensors").unlink()
    _, broken, sound = await lab.run("alpha-4bit", "alpha-8bit", reference="alpha", wish=Wish(speed=False))
    assert isinstance(broken.error, ModelError)
    assert broken.quality is None
    assert sound.quality is not None


async def test_a_load_that_fails_ends_it_and_leaves_no_engine(lab: Lab) -> None:
    lab.script(load={"fail": ERROR})
    with pytest.raises(QuantchatError, match="The kernel broke"):
        await lab.run("alpha-4bit", reference="alpha")


async def test_a_text_that_is_not_there_is_told_before_anything_starts(lab: Lab) -> None:
    with pytest.raises(JobError, match="cannot be read"):
        await lab.run("alpha-4bit", wish=Wish(text=lab.folder / "none.txt"))
    assert lab.steps == []


async def test_a_text_that_can_be_read_only_once_or_never_ends_is_refused(lab: Lab) -> None:
    pipe = lab.folder / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), lab.folder):
        with pytest.raises(JobError, match="no ordinary file"):
            await lab.run("alpha-4bit", wish=Wish(text=path))
    assert lab.steps == []


@pytest.mark.parametrize("when", ["starting", "working", "decoding"])
async def test_a_stop_ends_the_engine_and_keeps_what_was_measured(lab: Lab, when: str) -> None:
    lab.script(load={"seconds": 0.1}, answers=[{"text": "word " * 400, "tokens_per_second": 100}])
    work = asyncio.create_task(lab.run("alpha-4bit", "alpha-8bit", reference="alpha"))
    while not any(step.number == 2 and step.stage.startswith(when) for step in lab.steps):
        assert not work.done()
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert load_quality(lab.model("alpha").path)
    assert not (lab.folder / "alpha-4bit" / FILE).exists()


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


async def test_logits_that_a_killed_process_left_are_removed(lab: Lab) -> None:
    left = paths.cache_dir() / "reference-logits" / f".0123.partial-{ended_process()}"
    ours = left.with_name(f".4567.partial-{os.getppid()}")
    for folder in (left, ours):
        folder.mkdir(parents=True)
    await lab.run("alpha-4bit", reference="alpha", wish=Wish(speed=False))
    assert not left.exists()
    ours.rmdir()


async def test_a_model_that_says_nothing_has_no_speed(lab: Lab) -> None:
    lab.script(answers=[{"text": ""}])
    (result,) = await lab.run("alpha-4bit")
    assert result.quality.tokens_per_second == 0.0


async def test_a_full_disk_in_the_engine_is_a_full_disk_here(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Headless()
    report = ErrorReport(code="disk-full", title="There is no room for the logits")
    monkeypatch.setattr(engine._library, "send", lambda sent: engine._receive(JobFailed(job=sent.job, error=report)))
    with pytest.raises(StorageError, match="no room") as caught:
        await engine.evaluate(Evaluate(job="j", keep="/cache/logits"), lambda _step: None)
    assert caught.value.exit_code == 3
