"""What becomes of calibration text with real tokenizers and templates of all kinds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from calibration_rig import QUIET, conversations
from engine import templates, tiny
from quantchat.domain.quantizing import SHORTEST_SAMPLE, CalibrationChoice
from quantchat.engine.protocol import JobProgress
from quantchat.errors import Cancelled, JobError
from quantchat.paths import calibration_file
from quantchat.quantize import calibration, examples
from quantchat.quantize.calibration import check, described, packed, padding, prepare, within
from quantchat.quantize.watch import Watch

NAMED = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)
ONLY_QUESTIONS_FIRST = (
    "{% if messages[0]['role'] != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}" + templates.MISTRAL
)


@pytest.fixture
def tokenizer() -> Any:
    return tiny.make_tokenizer()


def said(*contents: str, first: str = "user") -> str:
    """A line of messages from the first role and the other in turn."""
    roles = {"user": "assistant", "assistant": "user", "system": "user", "tool": "user"}
    rows, role = [], first
    for content in contents:
        rows.append({"role": role, "content": content})
        role = roles[role]
    return json.dumps({"messages": rows})


def written(folder: Path, lines: Iterable[str]) -> str:
    path = folder / "set.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def texts(tokenizer: Any, choice: CalibrationChoice) -> list[str]:
    return [tokenizer.decode(row) for row in prepare(tokenizer, choice, QUIET)[0]]


def long(number: int, words: int = 12) -> str:
    return f"number {number}: " + " ".join(["fox", "dog", "river", "sea"][n % 4] for n in range(words))


def test_the_template_is_the_models_own_without_a_prompt_for_an_answer(tokenizer: Any, tmp_path: Path) -> None:
    path = written(tmp_path, [said("Why does the river run?", "Because of the sea.")])
    assert texts(tokenizer, CalibrationChoice(path=path)) == [
        "<s><|user|>Why does the river run?</s><|assistant|>Because of the sea.</s>"
    ]
    row = prepare(tokenizer, CalibrationChoice(path=path), QUIET)[0][0]
    assert row.count(tokenizer.bos_token_id) == 1


def test_without_a_template_the_texts_are_joined_and_the_report_says_so(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = None
    choice = CalibrationChoice(path=written(tmp_path, [said("Why does the river run?", "Because of the sea.")]))
    assert texts(tokenizer, choice) == ["Why does the river run?\n\nBecause of the sea."]
    assert prepare(tokenizer, choice, QUIET)[1].template == "none"


@pytest.mark.parametrize(
    ("template", "line", "expected"),
    [
        (templates.GEMMA, said("Be brief.", "Why the sea?", first="system"), "user\nBe brief.\n\nWhy the sea?"),
        (
            templates.MISTRAL,
            said("Be brief.", "Why the sea?", first="system"),
            "[INST] Be brief.\n\nWhy the sea? [/INST]",
        ),
        (templates.MISTRAL, said("result: 42 rivers", "And the sea?", first="tool"), "[INST] result: 42 rivers"),
        (
            ONLY_QUESTIONS_FIRST,
            said("Hello, I am here.", "Why the sea?", "So.", first="assistant"),
            "[INST] Why the sea?",
        ),
        (templates.CHATML, said("result: 42 rivers", "And the sea?", first="tool"), "<|im_start|>tool\nresult: 42"),
    ],
)
def test_a_refused_role_is_rendered_in_the_accepted_form(
    tokenizer: Any, tmp_path: Path, template: str, line: str, expected: str
) -> None:
    tokenizer.chat_template = template
    assert expected in texts(tokenizer, CalibrationChoice(path=written(tmp_path, [line])))[0]


@pytest.mark.parametrize("fault", ["1 / 0", "messages[9].content.x", "'a' + 1", "cycler.__init__.__globals__"])
def test_a_template_that_fails_by_itself_names_the_line(tokenizer: Any, tmp_path: Path, fault: str) -> None:
    tokenizer.chat_template = "{{ " + fault + " }}"
    with pytest.raises(JobError, match="line 1: "):
        prepare(tokenizer, CalibrationChoice(path=written(tmp_path, [said(long(1), "ok")])), QUIET)


def test_turns_are_joined_for_a_template_that_demands_alternation(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = ALTERNATING
    roles = ["system", "system", "user", "user", "tool", "assistant", "assistant", "user"]
    row = {"messages": [{"role": role, "content": f"word{place}"} for place, role in enumerate(roles)]}
    assert texts(tokenizer, CalibrationChoice(path=written(tmp_path, [json.dumps(row)]))) == [
        "[user]word0\n\nword1\n\nword2\n\nword3\n\nword4[assistant]word5\n\nword6[user]word7"
    ]


def test_a_template_that_takes_nothing_names_the_line(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = (
        "{% if 'bad' in messages[0]['content'] %}{{ raise_exception('never') }}{% endif %}" + NAMED
    )
    tokenizer.chat_template = tokenizer.chat_template.replace("m['", "messages[0]['")
    path = written(tmp_path, ["", said(long(1), "ok"), "", said("a bad one", "ok")])
    with pytest.raises(JobError, match="line 4: never") as caught:
        prepare(tokenizer, CalibrationChoice(path=path), QUIET)
    assert caught.value.report.code == "calibration-template"


def test_the_report_counts_what_became_of_each_sample(tokenizer: Any, tmp_path: Path) -> None:
    lines = [said("x", "y"), *(said(long(n, words=n), "ok") for n in (8, 16, 400, 24)), said(long(8, words=8), "ok")]
    path = written(tmp_path, lines)
    whole = {len(tokenizer(text)["input_ids"]) for text in texts(tokenizer, CalibrationChoice(path=path, length=9999))}
    rows, report = prepare(tokenizer, CalibrationChoice(path=path, length=100), QUIET)
    lengths = [len(row) for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    assert (report.longest, report.cut) == (100, sum(length > 100 for length in whole)) == (lengths[0], 1)
    assert (report.samples, report.available, report.dropped, report.duplicates) == (4, 5, 1, 1)
    assert (report.shortest, report.middle) == (lengths[-1], round((lengths[1] + lengths[2]) / 2))
    assert report.tokens == sum(lengths)
    assert report.padding == padding(lengths) == 4 * 100 - sum(lengths)
    assert prepare(tokenizer, CalibrationChoice(path=path, length=100), QUIET, batch=1)[1].padding == 0
    assert report.summary() == (
        f"4 samples of {lengths[-1]} to 100 tokens, {sum(lengths)} in all; 1 cut; 1 too short; 1 twice; "
        f"{round(100 * report.padding / 400)} % padding"
    )


def test_samples_that_are_alike_up_to_where_they_are_cut_count_once(tokenizer: Any, tmp_path: Path) -> None:
    path = written(tmp_path, [said(long(1, 90) + end, "ok") for end in ("this", "that")])
    report = prepare(tokenizer, CalibrationChoice(path=path, length=50), QUIET)[1]
    assert (report.samples, report.duplicates, report.cut) == (1, 1, 1)


def test_samples_are_spread_evenly_over_the_distinct_ones(tokenizer: Any, tmp_path: Path) -> None:
    lines = [said(long(n), "ok") for n in range(100) for _ in range(1 + (n < 10) * 50)]
    choice = CalibrationChoice(path=written(tmp_path, lines), samples=10)
    rows, report = prepare(tokenizer, choice, QUIET)
    numbers = sorted(int(tokenizer.decode(row).split("number ")[1].split(":")[0]) for row in rows)
    assert numbers == list(range(0, 100, 10))
    assert (report.available, report.duplicates) == (100, 500)


def test_more_samples_than_there_are_takes_all(tokenizer: Any, tmp_path: Path) -> None:
    path = written(tmp_path, [said(long(n), "ok") for n in range(7)])
    assert prepare(tokenizer, CalibrationChoice(path=path, samples=50), QUIET)[1].samples == 7


def test_of_very_many_samples_some_are_taken(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "ENOUGH_SAMPLES", 5)
    path = written(tmp_path, [said(long(n), "ok") for n in range(20)])
    report = prepare(tokenizer, CalibrationChoice(path=path), QUIET)[1]
    assert (report.samples, report.available) == (5, 20)
    assert prepare(tokenizer, CalibrationChoice(path=path, samples=12), QUIET)[1].samples == 12


def test_a_sample_is_no_longer_than_the_models_window(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.model_max_length = 60
    path = written(tmp_path, [said(long(1, 300), "ok")])
    assert prepare(tokenizer, CalibrationChoice(path=path), QUIET)[1].longest == 60
    for unknown in (int(1e30), 0):
        tokenizer.model_max_length = unknown
        assert prepare(tokenizer, CalibrationChoice(path=path, length=200), QUIET)[1].longest == 200


def test_gptqmodel_takes_just_what_is_not_called_too_short(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = None
    words = ["a" * n for n in range(1, 20)]
    ids = [tokenizer(word)["input_ids"] for word in words]
    fitting = [word for word, row in zip(words, ids, strict=True) if len(row) >= SHORTEST_SAMPLE]
    path = written(tmp_path, [said(word) for word in words])
    assert sorted(texts(tokenizer, CalibrationChoice(path=path))) == sorted(fitting)


def test_text_that_is_all_too_short_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"no sample of set.jsonl has {SHORTEST_SAMPLE} tokens or more"):
        prepare(tokenizer, CalibrationChoice(path=written(tmp_path, [said("x")])), QUIET)


@pytest.mark.parametrize(("field", "value"), [("length", SHORTEST_SAMPLE - 1), ("length", -5), ("samples", -1)])
def test_numbers_that_make_no_sense_are_refused(tokenizer: Any, field: str, value: int) -> None:
    with pytest.raises(JobError, match="cannot be made"):
        prepare(tokenizer, CalibrationChoice(**{field: value}), QUIET)


def test_the_bundled_set_is_what_no_file_means(tokenizer: Any) -> None:
    rows, report = prepare(tokenizer, CalibrationChoice(samples=12), QUIET)
    assert len(rows) == report.samples == 12
    assert report.available == len(conversations(calibration_file()))


def test_progress_rises_to_the_end_and_a_stop_is_obeyed_in_both_stages(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "STEP", 256)
    path = written(tmp_path, [said(long(n), "ok") for n in range(60)])
    events: list[JobProgress] = []
    for last in (examples.READING, calibration.TOKENIZING):
        events.clear()
        stopped = Watch(events.append, lambda stage=last: [event.stage for event in events].count(stage) == 5)
        with pytest.raises(Cancelled):
            prepare(tokenizer, CalibrationChoice(path=path), stopped)
        assert events[-1].stage == last
    events.clear()
    prepare(tokenizer, CalibrationChoice(path=path), Watch(events.append, lambda: False))
    for stage in (examples.READING, calibration.TOKENIZING):
        done = [event.done for event in events if event.stage == stage]
        assert done == sorted(set(done))
    assert events[-1].done == events[-1].total == 60


@pytest.mark.parametrize("lengths", [[5], [7, 7, 7], [100, 3, 50], [512] * 9, [30, 20, 11] * 40, [511, 2], [1]])
def test_packed_rows_have_one_length_and_lose_next_to_nothing(lengths: list[int]) -> None:
    stream = list(range(sum(lengths)))
    rows = [stream[sum(lengths[:n]) : sum(lengths[: n + 1])] for n in range(len(lengths))]
    made = packed(rows, 512)
    joined = [token for row in made for token in row]
    assert len({len(row) for row in made}) == 1
    assert joined == stream[: len(joined)]
    assert len(made[0]) <= 512
    assert len(stream) - len(joined) < len(made) == -(-len(stream) // 512)


def test_the_report_of_packed_rows_tells_their_lengths(tokenizer: Any) -> None:
    rows, report = prepare(tokenizer, CalibrationChoice(samples=20), QUIET, batch=1)
    made = packed(rows, 256)
    told = described(report, made, batch=8)
    assert (told.samples, told.shortest, told.middle, told.longest) == (len(made), *[len(made[0])] * 3)
    assert (told.tokens, told.padding) == (len(made) * len(made[0]), 0)
    assert (told.available, told.dropped, told.cut, told.template) == (
        *(report.available, report.dropped),
        *(report.cut, "model"),
    )


@pytest.mark.parametrize(("window", "length"), [(256, 256), (4096, 512), (0, 512), (None, 512), (10, 512)])
def test_samples_are_within_a_known_window(window: int | None, length: int) -> None:
    assert within(CalibrationChoice(), window).length == length


def test_a_file_is_checked_without_a_tokenizer(tmp_path: Path) -> None:
    check(CalibrationChoice(), QUIET)
    check(CalibrationChoice(path=written(tmp_path, [said("x")])), QUIET)
    with pytest.raises(JobError, match="line 2"):
        check(CalibrationChoice(path=written(tmp_path, [said("x"), "{}"])), QUIET)
    with pytest.raises(JobError, match="cannot be read"):
        check(CalibrationChoice(path=str(tmp_path)), QUIET)
    with pytest.raises(JobError, match="number of samples"):
        check(CalibrationChoice(samples=-2), QUIET)
    text = tmp_path / "a.txt"
    text.write_text("{ no conversation")
    check(CalibrationChoice(path=str(text)), QUIET)
    with pytest.raises(Cancelled):
        check(CalibrationChoice(), Watch(lambda _event: None, lambda: True))


def test_nothing_packs_into_nothing() -> None:
    assert packed([], 512) == packed([[]], 512) == []
