"""The settings of a quantization as rows, and what is said of a job: plain functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.models import ModelInfo, Problem
from quantchat.domain.quality import Quality
from quantchat.domain.quantizing import BITS, CalibrationReport, Recipe, refusals
from quantchat.engine.protocol import JobModule
from quantchat.errors import ErrorReport, UsageError
from quantchat.services.quantizing.plan import JobState, Outcome, Plan, Preflight, Smoke
from quantchat.ui import jobs
from quantchat.ui.recipe import SETTINGS, Setting, find_setting, source_name
from quantchat.ui.status import status_line
from quantchat.ui.workshop import with_text

PLAN = Plan(source="/models/base")
CHOSEN = [setting for setting in SETTINGS if setting.choices(PLAN)]
HOSTILE = "a\x1b[2Jb\u202ec\nd"


def named(name: str) -> Setting:
    setting = find_setting(name)
    assert setting is not None
    return setting


def value(plan: Plan, name: str) -> str:
    return named(name).shown(plan)


def typed(plan: Plan, name: str, text: str) -> Plan:
    take = named(name).typed
    assert take is not None
    return take(plan, text)


# The form


@pytest.mark.parametrize("setting", CHOSEN, ids=lambda setting: setting.name)
@pytest.mark.parametrize("step", [1, -1])
def test_the_values_of_a_setting_come_around(setting: Setting, step: int) -> None:
    seen, plan = [], PLAN
    for _ in setting.choices(PLAN):
        seen.append(setting.shown(plan))
        plan = setting.moved(plan, step)
    assert plan == PLAN
    assert sorted(seen) == sorted(word for word, _ in setting.choices(PLAN))


@given(st.lists(st.tuples(st.sampled_from(CHOSEN), st.sampled_from([1, -1])), max_size=30))
def test_no_chosen_value_is_refused_for_its_method(steps: list[tuple[Setting, int]]) -> None:
    plan = PLAN
    for setting, step in steps:
        plan = setting.moved(plan, step)
        assert plan.recipe.bits in BITS[plan.recipe.method]
        # AWQ's gemv knows two group sizes; the form says so beside it.
        possible = {"format"} if plan.recipe.packing == "gemv" else set()
        assert {refusal.code for refusal in refusals(plan.recipe)} <= possible


def test_what_the_other_method_does_not_know_is_left_out() -> None:
    plan = Plan(
        source="x", recipe=Recipe(bits=3, desc_act=True, damping=0.1, lm_head=True, checkpoint_format="gptq_v2")
    )
    plan = named("method").moved(plan, 1)
    assert plan.recipe == Recipe(method="awq")
    act_order = named("act-order")
    assert not act_order.row(plan, 40).enabled
    assert act_order.moved(plan, 1) == plan


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("group-size", "48", "48"),
        ("group-size", "-1", "whole column"),
        ("group-size", "", "automatic"),
        ("damping", "0,05", "0.05"),
        ("damping", "", "0.01, the default"),
        ("samples", "1,000", "1,000"),
        ("samples", "all", "all"),
        ("length", "300", "300 tokens"),
        ("output", "/x/y", "/x/y"),
        ("output", " ", "automatic"),
        ("adapter", "/a", "/a"),
    ],
)
def test_values_are_typed(name: str, text: str, shown: str) -> None:
    assert value(typed(PLAN, name, text), name) == shown


@pytest.mark.parametrize(
    ("name", "text"), [("group-size", "many"), ("damping", "much"), ("samples", "-3"), ("length", "0"), ("length", "")]
)
def test_what_is_no_value_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError):
        typed(PLAN, name, text)


def test_a_typed_value_is_followed_by_those_to_choose() -> None:
    setting = named("group-size")
    plan = typed(PLAN, "group-size", "48")
    assert setting.shown(setting.moved(plan, 1)) == "automatic"
    assert setting.shown(setting.moved(plan, -1)) == "whole column"


def test_models_of_the_hub_are_called_by_their_repository() -> None:
    assert source_name("/cache/hub/models--owner--name/snapshots/0a1b") == "owner/name"
    assert source_name("/models/mine") == "mine"
    assert source_name("") == ""


def test_calibration_is_a_set_sessions_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("{}\n")
    assert value(with_text(PLAN, "bundled"), "calibration") == "bundled set"
    assert value(with_text(PLAN, "last 20 #work"), "calibration") == "own sessions: #work last 20"
    plan = with_text(PLAN, "sessions:all")
    assert value(plan, "calibration") == "own sessions: all"
    plan = with_text(plan, str(file))
    assert plan.sessions is None
    assert plan.calibration.path == str(file)
    assert with_text(plan, "bundled") == PLAN
    with pytest.raises(UsageError):
        with_text(PLAN, "/no/such/file.jsonl")


# A preflight


def preflight(*problems: Problem, **changes: object) -> Preflight:
    model = ModelInfo(path="/m", name=HOSTILE, architecture="LlamaForCausalLM", parameters=134_515_008)
    made: dict[str, object] = {"memory": 100, "free": 1000, "matrices": 210, "seconds": 130.0, "result": 93 * 1024**2}
    plan = Plan(source="/m", output=Path("/models/out"), recipe=Recipe(group_size=64))
    return Preflight(plan=plan, model=model, problems=problems, **(made | changes))  # type: ignore[arg-type]


def test_a_preflight_says_what_it_takes() -> None:
    text = jobs.preflight_content(preflight(), 80).plain
    for words in ("134.5M parameters", "GPTQ 4b g64, 93 MiB in 210 matrices", "100 B of 1000 B free", "about 2 min"):
        assert words in text
    assert "Nothing stands against it" in text
    assert "on the CPU, then a question" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_problems_stand_in_a_preflight_the_errors_first() -> None:
    warning = Problem(code="w", severity="warning", cause="It is slow", remedy="Wait")
    error = Problem(code="e", severity="error", cause="Too big", remedy="Unload the other")
    text = jobs.preflight_content(preflight(warning, error, memory=2000), 80).plain
    assert text.index("✗ Too big") < text.index("Unload the other") < text.index("! It is slow")
    assert "Nothing stands" not in text


# A job


def module(layer: int, error: float | None, name: str = "mlp.down_proj") -> JobModule:
    return JobModule(job="j", layer=layer, layers=30, module=name, error=error)


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0%"), (0.4399, "43%"), (0.9999, "99%"), (1.0, "100%"), (1.2, "100%")]
)
def test_less_than_all_is_never_shown_as_all(share: float, shown: str) -> None:
    assert jobs.percent(share) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (129.7, "2:10"), (3730, "1:02:10")])
def test_time_is_written_as_a_clock(seconds: float, shown: str) -> None:
    assert jobs.clock(seconds) == shown


@given(st.integers(16, 200), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1e6)))
def test_the_status_bar_has_room_for_the_job(width: int, share: float, left: float | None) -> None:
    memories = ("no NVIDIA GPU  RAM ████░░░░ 3.1/24.0 GiB engine 1.2", "RAM 3.1/24.0 GiB")
    job = jobs.job_texts(JobState(share=share, seconds_left=left))
    line = status_line(memories, "avx512 cpu", "38.2 tok/s  TTFT 0.52 s  ctx 300/2048", width, job).plain
    assert width < 28 or jobs.percent(share) in line
    assert len(line) <= max(width, 18)


def test_the_status_bar_says_what_is_left() -> None:
    job = jobs.job_texts(JobState(share=0.43, seconds_left=130))
    line = status_line(("RAM 3.1/24.0 GiB",), "avx512 cpu", "38.2 tok/s", 80, job).plain
    assert line.endswith("38.2 tok/s  quantizing 43% 2:10 left ")


def test_the_worst_module_is_named() -> None:
    state = JobState(modules=(module(0, 0.5), module(3, 0.7, HOSTILE), module(4, None)))
    assert jobs.worst_content(state).plain == "Largest error 7.00e-01 at layer 4 a[2Jbc d"
    assert jobs.worst_content(JobState()).plain == ""


def test_a_calibration_is_told() -> None:
    report = CalibrationReport(samples=240, cut=3, tokens=40_100, shortest=12, longest=512)
    assert jobs.calibration_content(report).plain == f"Calibration: {report.summary()}"
    assert jobs.calibration_content(None).plain == ""


def test_an_ending_says_what_was_made() -> None:
    quality = Quality(
        perplexity=20.125, tokens=9, text="t", text_sha256="0", window=512, reference="base", divergence=0.1612
    )
    smoke = Smoke(question="Name three?", answer=f"One {HOSTILE} two", tokens_per_second=40.0, warning="It repeats")
    note = ErrorReport(code="n", title="The card was not written")
    outcome = Outcome(
        folder=Path("/out"), weight_bytes=93 * 1024**2, seconds=120, smoke=smoke, quality=quality, notes=(note,)
    )
    state = JobState(ended="done", outcome=outcome)
    text = jobs.ending_content(state).plain
    for words in (
        "Made /out",
        "93 MiB",
        "One a[2Jbc d two",
        "It repeats",
        "20.12",
        "0.1612",
        "The card was not written",
    ):
        assert words in text
    assert "\x1b" not in text


def test_an_ending_says_what_failed() -> None:
    report = ErrorReport(code="disk", title="The disk is full", detail="4 GiB are missing", remedy="Free some")
    lines = jobs.ending_content(JobState(ended="failed", error=report)).plain.splitlines()
    assert lines == ["The disk is full", "4 GiB are missing", "Free some"]
