"""What a quantized model is measured against is found by what was measured before, its card, and its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from quantchat.domain.quality import Quality, bits_per_weight
from quantchat.services.references import base_model, candidates, guess_reference
from quantchat.store.quality import add_quality
from unit.catalog.model_folders import make_dense, make_gptq


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelInfo]:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    for name in ("Alpha-135M-bf16", "Alpha-135M-Instruct-bf16", "Beta"):
        make_dense(tmp_path / name)
    make_gptq(tmp_path / "Alpha-135M-Instruct-GPTQ-4bit")
    make_gptq(tmp_path / "Gamma-4bit")
    return {folder.name: read_model(folder) for folder in tmp_path.iterdir() if folder.name != "home"}


def guessed(models: dict[str, ModelInfo], name: str) -> str | None:
    found = guess_reference(models[name], list(models.values()))
    return found.name if found is not None else None


def test_the_name_that_begins_most_alike_wins(models: dict[str, ModelInfo]) -> None:
    assert guessed(models, "Alpha-135M-Instruct-GPTQ-4bit") == "Alpha-135M-Instruct-bf16"
    assert guessed(models, "Gamma-4bit") is None
    assert guessed(models, "Beta") is None


@pytest.mark.parametrize("line", ["base_model: someone/Beta", "base_model:\n- someone/Beta", 'base_model: "Beta"'])
def test_the_card_comes_before_the_name(models: dict[str, ModelInfo], line: str) -> None:
    card = Path(models["Alpha-135M-Instruct-GPTQ-4bit"].path, "README.md")
    card.write_text(f"---\nlicense: mit\n{line}\ntags: [gptq]\n---\n# base_model: no\n")
    assert guessed(models, "Alpha-135M-Instruct-GPTQ-4bit") == "Beta"


def test_what_was_measured_against_before_comes_first(models: dict[str, ModelInfo]) -> None:
    measured = Quality(
        perplexity=1, tokens=1, text="t", text_sha256="0", window=9, reference_path=models["Alpha-135M-bf16"].path
    )
    add_quality(models["Alpha-135M-Instruct-GPTQ-4bit"].path, measured)
    assert guessed(models, "Alpha-135M-Instruct-GPTQ-4bit") == "Alpha-135M-bf16"


def test_only_unquantized_models_of_the_same_network_are_offered(models: dict[str, ModelInfo], tmp_path: Path) -> None:
    wider = read_model(make_dense(tmp_path / "Alpha-wide", hidden_size=128))
    offered = candidates(models["Gamma-4bit"], [*models.values(), wider])
    assert {model.name for model in offered} == {"Alpha-135M-bf16", "Alpha-135M-Instruct-bf16", "Beta"}


@pytest.mark.parametrize("card", ["", "# none", "---\nbase_model:\n---\n", "---\nlicense: mit\n---\nbase_model: x"])
def test_a_card_without_a_base_names_none(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert base_model(tmp_path) == ""
    assert base_model(tmp_path / "nowhere") == ""


def test_bits_per_weight_count_scales_zero_points_and_order(models: dict[str, ModelInfo]) -> None:
    # 64 x 128 weights of 4 bits, one scale of 16 bits and one zero point of 4 per column, 64 indices of 32 bits.
    bits = 4 + (128 * 16 + 128 * 4 + 64 * 32) / (64 * 128)
    assert bits_per_weight(models["Gamma-4bit"]) == pytest.approx(bits)
    assert bits_per_weight(models["Beta"]) == 16.0
