"""Perplexity, KL divergence and agreement of loaded models, against plain float64 arithmetic and transformers' loss."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine import tiny
from engine.rig import Rig
from quantchat.engine import protocol as p
from quantchat.errors import ErrorReport, JobError
from quantchat.paths import held_out_file
from quantchat.store.quality import FILE

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::Warning")]

WINDOW = 64
SMOL = pytest.mark.skipif("QUANTCHAT_TEST_QUALITY" not in os.environ, reason="set QUANTCHAT_TEST_QUALITY to a folder")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(tiny.TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def gptq(models: Path) -> Iterator[Rig]:
    """A rig of this module's own, so that the model is loaded once."""
    rig = Rig()
    assert isinstance(rig.load(models / "gptq", device="cpu"), p.Loaded)
    yield rig
    assert rig.worker.close(timeout=30)


def evaluate(rig: Rig, **options: object) -> p.JobFinished | p.JobFailed:
    rig.worker.submit(p.Evaluate(job=rig.name(), **options))
    return rig.wait(p.JobFinished, p.JobFailed)


def figures(rig: Rig, model: Path, **options: object) -> dict[str, float]:
    assert isinstance(rig.load(model, device="cpu"), p.Loaded)
    rig.events.clear()
    event = evaluate(rig, **options)
    assert isinstance(event, p.JobFinished), event
    return event.figures


def plain(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}, dtype="bfloat16")
    return model, AutoTokenizer.from_pretrained(folder)


def loss_of_transformers(folder: Path, text: str, window: int) -> tuple[float, int]:
    """exp of the mean of the losses that the model itself computes, window by window; and the predicted tokens."""
    import torch

    model, tokenizer = plain(folder)
    ids = tokenizer(text)["input_ids"]
    total, tokens = 0.0, 0
    for start in range(0, len(ids), window):
        piece = torch.tensor([ids[start : start + window]])
        if piece.shape[1] > 1:
            with torch.no_grad():
                total += float(model(piece, labels=piece).loss) * (piece.shape[1] - 1)
            tokens += piece.shape[1] - 1
    return math.exp(total / tokens), tokens


def distributions(folder: Path, text: str, window: int) -> np.ndarray:
    """Logarithms of all next-token distributions, in float64."""
    import torch

    model, tokenizer = plain(folder)
    ids = tokenizer(text)["input_ids"]
    rows = []
    for start in range(0, len(ids), window):
        with torch.no_grad():
            logits = model(torch.tensor([ids[start : start + window]])).logits[0, :-1].double().numpy()
        rows.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    return np.concatenate(rows)


def test_perplexity_is_the_loss_of_transformers(rig: Rig, models: Path, text: Path) -> None:
    expected, tokens = loss_of_transformers(models / "dense", text.read_text(encoding="utf-8"), WINDOW)
    found = figures(rig, models / "dense", text=str(text), window=WINDOW)
    assert found["tokens"] == tokens
    assert found["perplexity"] == pytest.approx(expected, rel=1e-4)


def test_divergence_and_agreement_are_those_of_float64(rig: Rig, models: Path, text: Path, other: Path) -> None:
    logits = text.with_name("logits")
    words = text.read_text(encoding="utf-8")
    first = figures(rig, models / "dense", text=str(text), window=WINDOW, keep=str(logits))
    second = figures(rig, other, text=str(text), window=WINDOW, against=str(logits))
    reference, model = distributions(models / "dense", words, WINDOW), distributions(other, words, WINDOW)
    divergence = (np.exp(reference) * (reference - model)).sum(-1).mean()
    assert divergence > 0.001
    assert second["divergence"] == pytest.approx(divergence, rel=1e-4)
    assert second["agreement"] == pytest.approx((reference.argmax(-1) == model.argmax(-1)).mean(), abs=1e-9)
    assert 0 < second["agreement"] < 1
    assert second["reference_perplexity"] == pytest.approx(first["perplexity"], rel=1e-6)
    assert list(text.parent.glob(".logits*")) == []
    assert logits.stat().st_mode & 0o077 == 0


@pytest.fixture
def other(copy_of) -> Path:
    """The dense model with its weights a little moved."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = copy_of("dense")
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    moved = {name: (w + 0.02 * torch.randn_like(w, dtype=torch.float32)).to(w.dtype) for name, w in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_model_does_not_diverge_from_itself(gptq: Rig, models: Path, text: Path) -> None:
    logits = str(text.with_name("logits"))
    evaluate(gptq, text=str(text), window=WINDOW, keep=logits)
    again = evaluate(gptq, text=str(text), window=WINDOW, against=logits)
    assert (again.figures["divergence"], again.figures["agreement"]) == (0.0, 1.0)


def test_the_share_rises_to_one(gptq: Rig, text: Path) -> None:
    gptq.events.clear()
    evaluate(gptq, text=str(text), window=16)
    shares = [event.share for event in gptq.events if isinstance(event, p.JobProgress)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(set(shares)) > 4


def test_what_begins_every_text_begins_every_window(copy_of, rig: Rig, text: Path) -> None:
    from quantchat.quantize.heldout import pieces_of, prefix_of

    folder = copy_of("dense")
    tokenizer = tiny.make_tokenizer()
    beginning = tokenizer.bos_token_id
    assert prefix_of(tokenizer) == []
    plain_pieces = pieces_of(tokenizer, text.read_text(encoding="utf-8"), 15)
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", beginning)]
    )
    tokenizer.save_pretrained(folder)
    assert prefix_of(tokenizer) == [beginning]
    pieces = pieces_of(tokenizer, text.read_text(encoding="utf-8"), 16)
    assert pieces == [[beginning, *piece] for piece in plain_pieces]
    # All tokens of the text are predicted then, the first of each window too.
    assert figures(rig, folder, text=str(text), window=16)["tokens"] == sum(map(len, plain_pieces))


@pytest.mark.parametrize("tokens", [20, 100])
def test_only_so_many_tokens_are_read(gptq: Rig, text: Path, tokens: int) -> None:
    event = evaluate(gptq, text=str(text), window=WINDOW, tokens=tokens)
    assert event.figures["tokens"] == tokens - math.ceil(tokens / WINDOW)


def test_a_stop_leaves_no_logits(gptq: Rig, text: Path) -> None:
    name = gptq.name()
    logits = text.with_name("logits")
    gptq.worker.submit(p.Evaluate(job=name, text=str(text), window=16, keep=str(logits)))
    gptq.wait(p.JobProgress)
    gptq.worker.submit(p.Stop(turn=name))
    event = gptq.wait(p.JobFinished, p.JobFailed)
    assert isinstance(event, p.JobFailed)
    assert event.error.code == "cancelled"
    assert [path.name for path in text.parent.iterdir()] == ["text.txt"]


def test_other_tokens_are_refused(gptq: Rig, text: Path) -> None:
    logits = str(text.with_name("logits"))
    evaluate(gptq, text=str(text), window=WINDOW, keep=logits)
    text.write_text("Another text. " * 40, encoding="utf-8")
    event = evaluate(gptq, text=str(text), window=WINDOW, against=logits)
    assert isinstance(event, p.JobFailed)
    assert (event.error.code, event.error.detail) == ("other-tokenizer", "token 1 of the text differs")


def test_other_windows_are_refused(gptq: Rig, text: Path) -> None:
    logits = str(text.with_name("logits"))
    evaluate(gptq, text=str(text), window=WINDOW, keep=logits)
    event = evaluate(gptq, text=str(text), window=32, against=logits)
    assert isinstance(event, p.JobFailed)
    assert "windows of 32 and 64" in event.error.detail


@pytest.mark.parametrize("damage", ["cut", "foreign", "absent", "hostile"])
def test_damaged_logits_are_refused(gptq: Rig, text: Path, damage: str) -> None:
    logits = text.with_name("logits")
    evaluate(gptq, text=str(text), window=WINDOW, keep=str(logits))
    if damage == "cut":
        os.truncate(logits, logits.stat().st_size - 1)
    elif damage == "foreign":
        logits.write_bytes(b"GGUF" + bytes(100))
    elif damage == "hostile":
        from quantchat.quantize.logits import MAGIC

        logits.write_bytes(MAGIC + (2**62).to_bytes(8, "little"))
    else:
        logits.unlink()
    event = evaluate(gptq, text=str(text), window=WINDOW, against=str(logits))
    assert isinstance(event, p.JobFailed)
    assert event.error.title == "The reference's logits cannot be read"


def test_a_disk_without_room_is_told_before_anything_is_written(
    gptq: Rig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import _ntuple_diskusage

    from quantchat.quantize import logits

    monkeypatch.setattr(logits.shutil, "disk_usage", lambda _: _ntuple_diskusage(10**9, 10**9 - 100, 100))
    event = evaluate(gptq, text=str(text), window=WINDOW, keep=str(text.with_name("logits")))
    assert isinstance(event, p.JobFailed)
    assert event.error.code == "disk-full"
    assert [path.name for path in text.parent.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (b"", "The text is too short to measure"),
        (b"\xff\xfe\x00words", "The text cannot be read"),
        (None, "The text cannot be read"),
    ],
)
def test_a_text_that_is_none_is_refused(gptq: Rig, text: Path, content: bytes | None, title: str) -> None:
    if content is None:
        text.unlink()
    else:
        text.write_bytes(content)
    event = evaluate(gptq, text=str(text))
    assert isinstance(event, p.JobFailed)
    assert event.error.title == title
    assert event.error.remedy


@pytest.fixture
def loaded(models: Path) -> SimpleNamespace:
    """The dense model, to be broken."""
    from quantchat.engine.pace import DecodeThreads

    model, tokenizer = plain(models / "dense")
    return SimpleNamespace(model=model, tokenizer=tokenizer, device="cpu", window=256, decode_threads=DecodeThreads())


def refusal(loaded: SimpleNamespace, text: Path) -> ErrorReport:
    from quantchat.quantize import quality
    from quantchat.quantize.watch import Watch

    with pytest.raises(JobError) as caught:
        quality.evaluate(loaded, p.Evaluate(job="e", text=str(text)), Watch(lambda _event: None, lambda: False))
    return caught.value.report


def test_output_that_is_no_number_is_refused(loaded: SimpleNamespace, text: Path) -> None:
    import torch

    with torch.no_grad():
        loaded.model.model.norm.weight[3] = torch.nan
    assert refusal(loaded, text).code == "not-finite"


def test_memory_that_runs_out_is_explained(loaded: SimpleNamespace, text: Path) -> None:
    import torch

    def full(**_inputs: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    loaded.model.forward = full
    report = refusal(loaded, text)
    assert report.code == "out-of-memory"
    assert "shorter window" in report.remedy


def test_without_a_model_it_says_so(rig: Rig, text: Path) -> None:
    rig.worker.submit(p.Unload(request="u"))
    rig.wait(p.Unloaded)
    event = evaluate(rig, text=str(text))
    assert isinstance(event, p.JobFailed)
    assert event.error.code == "no-model"


@SMOL
def test_of_a_real_model_too(rig: Rig) -> None:
    folder = Path(os.environ["QUANTCHAT_TEST_QUALITY"])
    expected, tokens = loss_of_transformers(folder, held_out_file().read_text(encoding="utf-8"), 512)
    found = figures(rig, folder)
    assert found["tokens"] == tokens
    assert found["perplexity"] == pytest.approx(expected, rel=1e-4)


@SMOL
def test_the_command_line_measures_with_the_real_engine(models: Path, tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(models / kind, tmp_path / kind)) for kind in ("dense", "gptq", "awq")]
    program = Path(sys.executable).parent / "quantchat"
    command = [sys.executable, str(program), "evaluate", "--json", "--tokens", "300", *map(str, copies[1:])]
    environment = os.environ | {"QUANTCHAT_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([*command, "--against", str(copies[0])], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    reference, *others = [row["quality"] for row in json.loads(done.stdout)["models"]]
    assert reference["kernel"] == "dense"
    for quality in others:
        assert 0 < quality["divergence"] < 5
        assert quality["reference_perplexity"] == pytest.approx(reference["perplexity"], rel=1e-6)
        assert quality["tokens_per_second"] > 0
    assert all((folder / FILE).is_file() for folder in copies)
