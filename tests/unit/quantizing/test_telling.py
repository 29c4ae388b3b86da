"""The words about a quantization: its card, its answer, the time that is left, its lines on a terminal."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from quantchat.catalog.reader import read_model
from quantchat.cli.quantizewords import layer_line, module_line, outcome_lines, preflight_lines
from quantchat.domain.models import ModelInfo
from quantchat.domain.quality import Quality
from quantchat.domain.quantizing import CalibrationChoice, Recipe
from quantchat.engine.protocol import JobModule
from quantchat.services.quantizing.card import Made, write
from quantchat.services.quantizing.plan import Outcome, Plan, Preflight, Smoke
from quantchat.services.quantizing.progress import seconds_left
from quantchat.services.quantizing.smoke import nonsense
from unit.catalog.model_folders import make_dense
from unit.quantizing.jobs_rig import REPORT, preflight

EVIL = "evil\x1b[2J`|<b>\nname"
QUALITY = Quality(
    perplexity=21.5,
    tokens=4000,
    text="held-out",
    text_sha256="0",
    window=512,
    reference="owner/base",
    reference_perplexity=20.1,
    divergence=0.0213,
    agreement=0.931,
)


@pytest.mark.parametrize(
    "answer",
    [
        "On a rainy day people read, cook, and watch films.",
        "Paris",
        "雨の日には、本を読んだり、料理をしたり、映画を見たりします。",
        "In einer Reihe: lesen, kochen, lesen lassen, lange schlafen und am Fenster sitzen.",
        "",
    ],
)
def test_sense(answer: str) -> None:
    assert bool(nonsense(answer)) == (answer == "")


@pytest.mark.parametrize(
    "answer",
    [
        "the the the the the the the the the the",
        "!!!!!!!! \x00\x01\x02\x03",
        "\ufffd\ufffd a \ufffd",
        "的的的的的的的的的的的的的的的的的的的的的的的的",
        "and so on " * 20,
        "   \n ",
    ],
)
def test_nonsense(answer: str) -> None:
    assert nonsense(answer)


def test_the_time_left_goes_from_the_estimate_to_the_speed() -> None:
    assert seconds_left(0, 0, 100) == 100
    assert seconds_left(250, 0, 100) == 0
    assert seconds_left(50, 0.5, 1000) == pytest.approx(50)
    early = seconds_left(10, 0.05, 1000)
    assert 10 * 0.95 / 0.05 < early < 1000
    assert seconds_left(80, 1.0, 1000) == 0


def module(layer: int, name: str, error: float | None) -> JobModule:
    return JobModule(job="j", layer=layer, layers=2, module=name, error=error, seconds=1.25)


def test_a_card_tells_how_it_was_made(tmp_path: Path) -> None:
    source = make_dense(tmp_path / "source")
    (source / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage:\n- en\ntags: [x]\nmodel_name: y\n---\n# Base\n"
    )
    named = msgspec.structs.replace(preflight(tmp_path), model=read_model(source, name="owner/base"))
    made = Made(
        choice=CalibrationChoice(path="/secret/place/mine.jsonl", length=256),
        modules=(module(0, "mlp.up_proj", 0.25), module(0, "self_attn.q_proj", 0.75), module(1, "mlp.up_proj", None)),
        calibration=REPORT,
        versions={"torch": "2.0"},
        smoke=Smoke(question="Why?", answer="So.\n```\nrm", tokens_per_second=12.34, kernel="k", warning="It is odd"),
        quality=QUALITY,
    )
    text = write(named, made)
    front = text.split("---")[1]
    assert "license: apache-2.0" in front
    assert "language" not in front
    assert "base_model: owner/base\nbase_model_relation: quantized" in front
    assert "tags: [gptq, 4-bit, quantchat]" in front
    assert "| Group size | 64 |" in text
    assert "mine.jsonl" in text
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert "| 0 | 0.5 | `self_attn.q_proj` | 0.75 |" in text
    assert "\n| 1 |" not in text
    assert "| Same likeliest next token | 93.1% |" in text
    assert text.count("```") == 2
    assert "**It is odd.**" in text


def test_nothing_foreign_changes_what_a_card_is(tmp_path: Path) -> None:
    model = ModelInfo(path="/m", name=EVIL)
    plan = preflight(tmp_path, adapter=f"/a/{EVIL}")
    text = write(msgspec.structs.replace(plan, model=model), Made(choice=CalibrationChoice(name=EVIL)))
    assert "\x1b" not in text
    assert "base_model" not in text
    assert all(line.count(" | ") == 1 for line in text.splitlines() if line.startswith("| Text"))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("mit", "mit"),
        ("'other'  # see below", "other"),
        ('"Some Licence: 2.0"', "Some Licence: 2.0"),
        ("a: b", "a: b"),
        ("https://host/LICENSE", "https://host/LICENSE"),
        ("a\u2028evil: true", "a evil: true"),
        ('"never ends', None),
        ("@x", None),
        ("- x", None),
        ("[mit]", None),
    ],
)
def test_front_matter_is_yaml_whatever_the_source_says(tmp_path: Path, value: str, kept: str | None) -> None:
    yaml = pytest.importorskip("yaml")
    source = make_dense(tmp_path / "source")
    (source / "README.md").write_text(f"---\nlicense: {value}\n---\n# Base\n")
    text = write(msgspec.structs.replace(preflight(tmp_path), model=read_model(source, name="owner/base")), Made())
    fields = yaml.safe_load(text.split("\n---\n")[0])
    assert fields.get("license") == kept
    assert fields["base_model"] == "owner/base"
    assert "evil" not in fields


def test_an_answer_commands_no_terminal_from_the_card(tmp_path: Path) -> None:
    smoke = Smoke(question="Why?", answer="So.\x1b[2J\x07\u202e\nAnd.", kernel="k")
    text = write(preflight(tmp_path), Made(smoke=smoke))
    assert "So.[2J\nAnd." in text


def test_lines_of_a_layer_name_its_worst_matrix() -> None:
    line = layer_line([module(1, "mlp.up_proj", 0.001), module(1, "mlp.down_proj", 0.003)])
    assert line.startswith("layer   2 of 2")
    assert "2.00e-03" in line
    assert line.endswith("3.00e-03 in mlp.down_proj")
    assert layer_line([module(0, "mlp.up_proj", None)]) == "layer   1 of 2  1 matrices"
    assert "1.2 s" in module_line(module(0, "mlp.up_proj", 0.1))
    assert module_line(module(-1, "lm_head", 0.1)).startswith("outside of the layers")


@pytest.mark.parametrize(
    ("smoke", "evaluate", "said"),
    [
        (True, True, "4 matrices, then a question and a measurement"),
        (False, True, "4 matrices, then a measurement"),
        (False, False, "4 matrices"),
    ],
)
def test_the_time_names_what_it_does_not_count(smoke: bool, evaluate: bool, said: str) -> None:
    plan = Plan(source="m", output=Path("/out"), smoke=smoke, evaluate=evaluate)
    lines = preflight_lines(Preflight(plan=plan, device="cpu", matrices=4, seconds=60.0))
    assert [line for line in lines if "matrices" in line and line.endswith(said)]


def test_what_is_printed_before_and_after_is_clean(tmp_path: Path) -> None:
    before = msgspec.structs.replace(
        preflight(tmp_path, recipe=Recipe(method="awq", group_size=-1)),
        model=ModelInfo(path="/m", name=EVIL),
        matrices=7,
        device="cuda:0",
        memory=1024**3,
        free=2 * 1024**3,
    )
    lines = list(preflight_lines(before))
    assert lines[0].endswith("AWQ 4b column")
    assert any("about 1.0 GiB on cuda:0, 2.0 GiB free" in line for line in lines)
    smoke = Smoke(question="Why?", answer=EVIL, warning="It said nothing")
    after = list(outcome_lines(Outcome(folder=tmp_path, seconds=200, smoke=smoke, quality=QUALITY)))
    assert "\x1b" not in "".join(lines + after)
    assert any("perplexity 21.50 (20.10 before), KL divergence 0.0213" in line for line in after)
