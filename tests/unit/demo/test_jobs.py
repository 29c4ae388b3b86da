"""The jobs on a tiny random Llama: perplexity is exact, a stop leaves nothing, a finished folder loads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantchat.domain.models import ModelInfo
from quantchat.engine.protocol import Dequantize, Evaluate, Quantize
from quantchat.errors import Cancelled, JobError, StorageError
from quantchat.quantize import jobs
from quantchat.quantize.watch import Watch
from unit_demo import files_below

# torch, transformers and gptqmodel warn about themselves and each other at import and at load.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::Warning")]

Progress = Callable[[str, int, int], None]
WORDS = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(253))]


def ignore(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def never() -> bool:
    return False


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights, and a tokenizer of 256 words."""
    from quantchat.engine import quiet

    quiet.set_environment()
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dozen rows of words that the tiny model knows."""
    path = tmp_path_factory.mktemp("calibration") / "set.jsonl"
    rows = [" ".join(WORDS[3 + (row * 7 + column * 5) % 253] for column in range(40)) for row in range(24)]
    path.write_text("".join(json.dumps({"messages": [{"role": "user", "content": row}]}) + "\n" for row in rows))
    return path


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}, dtype="float32")


def test_perplexity_equals_the_loss_of_transformers(tiny: Path) -> None:
    import torch

    from quantchat.quantize.perplexity import measure

    model, ids = load(tiny), [(number * 31) % 253 + 3 for number in range(150)]
    losses, tokens = 0.0, 0
    for start in range(0, 150, 64):
        piece = torch.tensor([ids[start : start + 64]])
        with torch.no_grad():
            losses += float(model(piece, labels=piece).loss) * (piece.shape[1] - 1)
        tokens += piece.shape[1] - 1
    result = measure(model, ids, Watch(ignore, never), window=64)
    assert result.tokens == tokens == 147
    assert result.perplexity == pytest.approx(math.exp(losses / tokens), rel=1e-4)


def test_evaluate_measures_a_folder(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(WORDS[3:203]))
    command = Evaluate(job="e", model=ModelInfo(path=str(tiny), name="tiny"), text=str(tmp_path / "text.txt"))
    output, figures = jobs.run(command, ignore, never)
    assert output == ""
    assert figures["tokens"] == 199
    # Random weights know nothing: every word of the 256 is about as likely.
    assert 180 < figures["perplexity"] < 360


def quantize(tiny: Path, calibration: Path, output: Path, progress: Progress, cancelled: Callable[[], bool]) -> None:
    command = Quantize(
        job="q", source=str(tiny), output=str(output), group_size=32, calibration=str(calibration), damping=0.01
    )
    jobs.run(command, progress, cancelled)


def test_quantize_reports_rising_steps_and_leaves_a_folder_that_loads(
    tiny: Path, calibration: Path, tmp_path: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    output = tmp_path / "tiny-gptq"
    quantize(tiny, calibration, output, lambda *step: steps.append(step), never)
    layers = [(done, total) for stage, done, total in steps if stage == "quantizing layers"]
    assert layers == sorted(set(layers))
    assert layers[-1] == (8, 8)
    settings = json.loads((output / "config.json").read_text())["quantization_config"]
    assert (settings["bits"], settings["group_size"], settings["sym"]) == (4, 32, True)
    assert files_below(tmp_path) == sorted(["tiny-gptq", *(f"tiny-gptq/{name}" for name in files_below(output))])
    command = Evaluate(job="e", model=ModelInfo(path=str(output), name="tiny"))
    assert jobs.run(command, ignore, never)[1]["perplexity"] > 0


@pytest.mark.parametrize("step", [0, 3, 7])
def test_a_stop_while_quantizing_leaves_nothing(tiny: Path, calibration: Path, tmp_path: Path, step: int) -> None:
    reached: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "quantizing layers" and done >= step:
            reached.append(done)

    with pytest.raises(Cancelled):
        quantize(tiny, calibration, tmp_path / "out", progress, lambda: bool(reached))
    assert reached
    assert files_below(tmp_path) == []


def test_a_stop_before_the_start_does_nothing(tiny: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        quantize(tiny, calibration, tmp_path / "out", ignore, lambda: True)
    assert files_below(tmp_path) == []


def test_an_output_that_exists_is_kept(tiny: Path, calibration: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        quantize(tiny, calibration, tmp_path / "out", ignore, never)


@pytest.mark.parametrize(("bits", "group_size", "words"), [(5, 32, "5 bits"), (4, 128, "Groups of 128")])
def test_a_recipe_that_does_not_fit_is_explained(
    tiny: Path, tmp_path: Path, bits: int, group_size: int, words: str
) -> None:
    command = Quantize(job="q", source=str(tiny), output=str(tmp_path / "out"), bits=bits, group_size=group_size)
    with pytest.raises(JobError, match=words):
        jobs.run(command, ignore, never)
    assert files_below(tmp_path) == []


def test_a_damaged_gguf_file_is_a_job_error(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    command = Dequantize(job="d", source=str(tmp_path / "model.gguf"), output=str(tmp_path / "out"))
    with pytest.raises(JobError, match="Dequantizing failed"):
        jobs.run(command, ignore, never)
    assert files_below(tmp_path) == ["model.gguf"]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    command = Dequantize(job="d", source=str(tmp_path / "none.gguf"), output=str(tmp_path / "out"))
    with pytest.raises(JobError, match=r"none\.gguf is not there"):
        jobs.run(command, ignore, never)
