"""Run cards: all that is known of an answer is said, and nothing that is not."""

from __future__ import annotations

from quantchat.domain.chat import Message, RunCard, utc_now
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.domain.runcard import run_card
from quantchat.domain.sections import Section, as_text
from quantchat.errors import ErrorReport

RUN = RunCard(
    model="Qwen",
    path="/models/q",
    revision="abc",
    quantization="GPTQ 4b g128",
    kernel="gptq_marlin",
    device="cuda:0",
    decoding="graph",
    sampling=SamplingSettings(temperature=0.7, min_p=0.05, stop=("###",), logit_bias={"no": -5.0}),
    versions={"torch": "2.15", "gptqmodel": "7.7"},
)
COST = TurnStatistics(
    prompt_tokens=1200,
    new_tokens=101,
    prefill_seconds=0.25,
    decode_seconds=2.0,
    seed=77,
    reused_tokens=1100,
    drafted=10,
    accepted=4,
)


def answer(**fields: object) -> Message:
    made = {"id": "a", "role": "assistant", "text": "hello", "created": utc_now(), "finish": "stop"}
    return Message(**made | fields)  # type: ignore[arg-type]


def facts(parts: tuple[Section, ...]) -> dict[str, str]:
    return {f"{part.title}: {row.label}": row.value for part in parts for row in part.rows}


def test_everything_that_is_known_of_an_answer_is_said() -> None:
    found = facts(run_card(answer(run=RUN, statistics=COST, thinking="hm", given="he"), 2, 3))
    assert found["Message: Version"] == "2 of 3"
    assert found["Message: Begun by you"] == "he"
    assert found["Message: Ended"] == "complete"
    assert found["Message: Length"] == "5 characters and 2 of thinking"
    assert [found[f"Model: {name}"] for name in ("Name", "Folder", "Revision", "Quantization")] == [
        "Qwen",
        "/models/q",
        "abc",
        "GPTQ 4b g128",
    ]
    assert [found[f"Model: {name}"] for name in ("Kernel", "Device", "Decoding")] == ["gptq_marlin", "cuda:0", "graph"]
    assert found["Sampling: Seed"] == "77"
    assert found["Sampling: Temperature"] == "0.7"
    assert found["Sampling: Min-p"] == "0.05"
    assert found["Sampling: Stop strings"] == "'###'"
    assert found["Sampling: Logit bias"] == "'no' -5"
    assert found["Sampling: Longest answer"] == "1,024 tokens"
    assert "Sampling: Typical-p" not in found
    assert found["Cost: Prompt"] == "1,200 tokens, 1,100 of them reused"
    assert found["Cost: Answer"] == "101 tokens"
    assert found["Cost: First token"] == "after 0.25 s"
    assert found["Cost: Speed"] == "50.0 tokens per second, 2.0 s in all"
    assert found["Cost: Guessed ahead"] == "4 of 10 tokens were right"
    assert (found["Libraries: torch"], found["Libraries: gptqmodel"]) == ("2.15", "7.7")


def test_greedy_answers_name_no_seed_and_nothing_that_has_no_effect() -> None:
    found = facts(run_card(answer(run=RunCard(model="m", sampling=SamplingSettings(temperature=0.0)))))
    assert found["Sampling: Seed"].startswith("none")
    assert "Sampling: Top-p" not in found


def test_of_a_prompt_only_the_message_is_known() -> None:
    parts = run_card(Message(id="q", role="user", text="why", created=utc_now(), edited_from="p"))
    assert [part.title for part in parts] == ["Message"]
    assert "Message: Changed" in facts(parts)


def test_a_failure_and_an_odd_ending_are_marked() -> None:
    report = ErrorReport(code="x", title="No luck")
    rows = run_card(answer(finish="error", error=report))[0].rows
    tones = {row.label: row.tone for row in rows if row.tone}
    assert tones == {"Ended": "warning", "Error": "error"}


def test_nothing_of_a_model_reaches_the_terminal_raw() -> None:
    text = as_text(run_card(answer(run=RunCard(model="m\x1b[2J", path="/a\nb"))))
    assert "\x1b" not in text
    assert "/a b" in text
