"""Quantize jobs on a tiny random Llama: all recipes, what they tell, and folders that load and are kept whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import quantizing
from engine.quantizing import command, modules, of_kind, run, shares
from engine.rig import Rig
from quantchat.catalog.reader import read_model
from quantchat.domain.quantizing import CalibrationChoice
from quantchat.engine.protocol import Calibrated, Dequantize, Event, JobProgress, Loaded, Survey
from quantchat.errors import JobError, StorageError
from quantchat.quantize import jobs
from unit_demo import files_below

# torch, transformers and gptqmodel warn about themselves and each other at import and at load.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::Warning")]

LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizing.write_calibration(tmp_path_factory.mktemp("calibration"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    assert rig.worker.close(timeout=30)


RECIPES: list[dict[str, Any]] = [
    {"bits": 4},
    {"bits": 2, "group_size": 64, "damping": 0.05},
    {"bits": 3, "sym": False},
    {"bits": 8, "group_size": 128},
    {"bits": 4, "desc_act": True},
    {"bits": 4, "group_size": -1},
    {"bits": 4, "checkpoint_format": "gptq_v2"},
    {"bits": 4, "lm_head": True},
    {"method": "awq"},
    {"method": "awq", "sym": True, "group_size": 64},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_recipe_makes_a_folder_that_the_catalog_knows_and_the_engine_loads(
    recipe: dict[str, Any], models: Path, calibration: Path, tmp_path: Path, engine: Rig
) -> None:
    output = tmp_path / "made"
    events = run(command(models / "dense", output, calibration, **recipe))
    check_events(events, recipe)
    settings = json.loads((output / "config.json").read_text())["quantization_config"]
    assert {name: settings[name] for name in ("bits", "group_size")} == {"bits": 4, "group_size": 32} | {
        name: value for name, value in recipe.items() if name in ("bits", "group_size")
    }
    assert settings["desc_act"] is recipe.get("desc_act", False)
    if recipe.get("method") == "awq":
        assert settings["zero_point"] is not recipe.get("sym", False)
    else:
        assert settings["sym"] is recipe.get("sym", True)
    assert files_below(tmp_path) == sorted(["made", *(f"made/{name}" for name in files_below(output))])
    found = read_model(output)
    assert found is not None
    assert found.problems == ()
    assert isinstance(engine.load(output), Loaded)


def check_events(events: list[Event], recipe: dict[str, Any]) -> None:
    told = shares(events)
    assert told == sorted(told)
    assert told[-1] == 1.0
    steps = [event.done for event in of_kind(JobProgress, events) if event.stage == "quantizing layers"]
    assert len(steps) >= 2 * 4
    assert steps == sorted(set(steps))
    layers = {(layer, name) for layer in (0, 1) for name in LINEARS}
    found = modules(events)
    assert {(layer, name.rpartition(".")[2]) for layer, name in found} - {(-1, "lm_head")} == layers
    assert ((-1, "lm_head") in found) == recipe.get("lm_head", False)
    errors = [one.error for one in found.values() if one.error is not None]
    assert len(errors) >= 12
    assert all(math.isfinite(error) and error >= 0 for error in errors)
    assert {one.layers for one in found.values()} == {2 + recipe.get("lm_head", False)}
    [report] = of_kind(Calibrated, events)
    assert report.report.available == quantizing.SAMPLES


def test_more_bits_err_less(models: Path, calibration: Path, tmp_path: Path) -> None:
    totals = []
    for bits in (2, 8):
        events = run(command(models / "dense", tmp_path / str(bits), calibration, bits=bits))
        totals.append(sum(one.error or 0.0 for one in modules(events).values()))
    assert totals[0] > 100 * totals[1]


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_tokenizer_template_and_defaults_are_kept_byte_for_byte(
    models: Path, calibration: Path, tmp_path: Path, copy_of: Any, method: str
) -> None:
    source = copy_of("dense")
    (source / "generation_config.json").write_text('{"temperature": 0.2,\n "do_sample": true}')
    (source / "LICENSE").write_text("Do as you like.")
    output = tmp_path / "made"
    run(command(source, output, calibration, method=method))
    kept = {"generation_config.json", "LICENSE"} | {path.name for path in source.glob("token*")}
    kept |= {path.name for path in source.glob("chat_template*")}
    assert {name: (output / name).read_bytes() for name in kept} == {n: (source / n).read_bytes() for n in kept}
    assert {path.name for path in output.glob("chat_template*")} <= kept


def test_a_survey_tells_lengths_without_a_model(models: Path, calibration: Path) -> None:
    events: list[Event] = []
    jobs.run(
        Survey(job="s", source=str(models / "dense"), calibration=CalibrationChoice(path=str(calibration))),
        events.append,
        quantizing.never,
    )
    [told] = of_kind(Calibrated, events)
    assert told.report.samples == quantizing.SAMPLES
    assert 10 < told.report.shortest <= told.report.middle <= told.report.longest
    assert shares(events)[-1] == 1.0


def test_an_output_that_exists_is_kept(models: Path, calibration: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        run(command(models / "dense", tmp_path / "out", calibration))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bits": 5}, "5 bits"),
    ({"group_size": 48}, "48 does not divide 128 or 256"),
    ({"group_size": 256}, "256 does not divide 128"),
    ({"method": "awq", "lm_head": True}, "output head"),
    ({"method": "awq", "checkpoint_format": "gemv"}, "groups of 64 or 128"),
    ({"method": "awq", "checkpoint_format": "gemv_fast", "group_size": 128}, "CUDA"),
]


@pytest.mark.parametrize(("recipe", "words"), REFUSED, ids=str)
def test_a_recipe_that_does_not_fit_is_explained(
    recipe: dict[str, Any], words: str, models: Path, calibration: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=words):
        run(command(models / "dense", tmp_path / "out", calibration, **recipe))
    assert files_below(tmp_path) == []


def test_a_shared_output_head_is_not_quantized(calibration: Path, tmp_path: Path, copy_of: Any) -> None:
    source = copy_of("dense")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(JobError, match="input embedding"):
        run(command(source, tmp_path / "out", calibration, lm_head=True))


def test_the_largest_group_that_fits_is_taken_where_none_is_named(
    models: Path, calibration: Path, tmp_path: Path
) -> None:
    run(command(models / "dense", tmp_path / "out", calibration, group_size=None))
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert settings["group_size"] == 128


def test_a_damaged_gguf_file_is_a_job_error(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    job = Dequantize(job="d", source=str(tmp_path / "model.gguf"), output=str(tmp_path / "out"))
    with pytest.raises(JobError, match="Dequantizing failed"):
        jobs.run(job, lambda _: None, quantizing.never)
    assert files_below(tmp_path) == ["model.gguf"]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    job = Dequantize(job="d", source=str(tmp_path / "none.gguf"), output=str(tmp_path / "out"))
    with pytest.raises(JobError, match=r"none\.gguf is not there"):
        jobs.run(job, lambda _: None, quantizing.never)


@pytest.fixture(scope="session")
def experts(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts whose matrices stand in one tensor per layer."""
    import torch
    from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("moe") / "experts"
    tokenizer = AutoTokenizer.from_pretrained(models / "dense")
    torch.manual_seed(1)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        moe_intermediate_size=96,
        num_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.2,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_experts_of_a_mixture_are_quantized_one_by_one(
    experts: Path, calibration: Path, tmp_path: Path, engine: Rig
) -> None:
    events = run(command(experts, tmp_path / "made", calibration))
    names = {module for _, module in modules(events)}
    assert {f"mlp.experts.{number}.down_proj" for number in range(4)} < names
    assert isinstance(engine.load(tmp_path / "made"), Loaded)


def test_the_matrices_of_experts_count_for_the_group_size(experts: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="64 does not divide 96"):
        run(command(experts, tmp_path / "made", calibration, group_size=64))
