"""A session's own chat template, and a system prompt that changes: the text is that of a fresh start, at any time."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import templates, tiny, words, zoo
from engine.rig import Rig, asking
from engine.words import Bench, text
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine.endings import Ends, asked_with, ends_of
from quantchat.engine.prompt import render
from quantchat.engine.spoken import Spoken
from quantchat.errors import GenerationError

pytestmark = pytest.mark.engine
GREEDY = SamplingSettings(temperature=0, max_new_tokens=12)
OTHER = (
    "<s> {% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }} <end> "
    "{% else %}<{{ m['role'] }}> w200 {{ m['content'] }} w201 {% endif %}{% endfor %}"
)
LATE = words.TEMPLATE.replace("<assistant>{% endif %}", "w5 <assistant>{% endif %}")
USER = ChatMessage("user", "Why?")
KINDS = ("llama", "gemma3", "qwen3_next", "mamba2")
"""Full attention, a sliding window, a recurrent state beside attention, and alone."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ids_of(model, messages: list[ChatMessage], template: str) -> list[int]:
    return render(model.tokenizer, messages, template=template).ids


def answered(model, warm: Bench, messages: list[ChatMessage], template: str) -> tuple[list[int], p.Finished]:
    """Ask with whatever the session holds; the answer must be the one of an engine that knows nothing of it."""
    tokens = model.tokenizer
    said, end = warm.answer(messages, GREEDY, session="s", template=template)
    fresh, _ = Bench(model).answer(messages, GREEDY, template=template)
    prompt = ids_of(model, messages, template)
    assert end.statistics.prompt_tokens == len(prompt)
    assert end.statistics.reused_tokens < len(prompt)
    warm_ids, fresh_ids = (tokens(words_, add_special_tokens=False)["input_ids"] for words_ in (said, fresh))
    assert zoo.same_text(model.model, prompt, warm_ids, fresh_ids)
    return prompt, end


@pytest.mark.parametrize("kind", KINDS)
def test_the_template_changes_in_the_middle_of_a_session(kind: str) -> None:
    model = words.loaded(kind)
    warm = Bench(model)
    messages = [ChatMessage("user", text(*range(30)))]
    before, _ = answered(model, warm, messages, "")
    for template in (OTHER, "", LATE):
        said, _ = Bench(model).answer(messages, GREEDY, template=template)
        messages += [ChatMessage("assistant", said), ChatMessage("user", text(len(messages)))]
        prompt, end = answered(model, warm, messages, template)
        shared = next((n for n, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), len(before))
        if kind == "llama" and template == OTHER:
            assert end.statistics.reused_tokens <= shared
        before = prompt


@pytest.mark.parametrize("kind", KINDS)
def test_the_system_prompt_changes_in_the_middle_of_a_session(kind: str) -> None:
    model = words.loaded(kind)
    warm, talk = Bench(model), [ChatMessage("user", text(*range(30)))]
    for number, system in enumerate((text(90, 91), text(90, 92), "", text(90, 91))):
        messages = [*([ChatMessage("system", system)] if system else []), *talk]
        _, end = answered(model, warm, messages, "")
        if number == 1 and kind == "llama":
            # The mark of the role and the first word are the same.
            assert end.statistics.reused_tokens == 2
        talk += [ChatMessage("assistant", text(7)), ChatMessage("user", text(number))]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", OTHER, LATE]), st.booleans(), st.integers(0, 3)), min_size=2, max_size=5)
)
def test_any_sequence_of_templates_has_the_text_without_reuse(steps: list[tuple[str, bool, int]]) -> None:
    model = words.loaded("llama")
    warm, talk = Bench(model), [ChatMessage("user", text(*range(20)))]
    for template, grows, system in steps:
        messages = [*([ChatMessage("system", text(100 + system))] if system else []), *talk]
        answered(model, warm, messages, template)
        if grows:
            talk = [*talk, ChatMessage("assistant", text(3, system)), ChatMessage("user", text(4, system))]


def test_an_answer_goes_on_under_another_template() -> None:
    model = words.loaded("llama")
    warm = Bench(model)
    begun, _ = warm.answer(text(1, 2), GREEDY, session="s")
    partial = p.Partial(text=begun)
    for template in (OTHER, ""):
        rest, end = warm.answer(text(1, 2), GREEDY, session="s", resume=partial, template=template)
        fresh, _ = Bench(model).answer(text(1, 2), GREEDY, resume=partial, template=template)
        assert (rest, end.statistics.new_tokens) == (fresh, 12)


def test_a_beginning_is_known_by_its_template_too() -> None:
    tokenizer, spoken = tiny.make_tokenizer(), Spoken()
    partial = p.Partial(text="So", thinking="hm")
    spoken.remember_partial("s", partial, [1, 2, 3])
    assert spoken.partial("s", partial) == [1, 2, 3]
    assert spoken.partial("s", partial, "another") == []
    opening = "{% for m in messages %}{{ m['content'] }}{% endfor %}<think>\n"
    words_ = render(tokenizer, [USER], spoken, partial, session="s", template=opening).text
    assert words_.count("<think>") == 1


# What is sent and counted


def test_the_template_reaches_the_prompt_and_what_is_counted(gptq: Rig) -> None:
    template = "Q: {{ messages[-1]['content'] }}\nA:"
    gptq.worker.submit(p.RenderPrompt(request="r", messages=asking(), template=template))
    rendered = gptq.wait(p.RenderedPrompt)
    assert rendered.text == f"Q: {asking()[0].content}\nA:"
    gptq.worker.submit(p.CountTokens(request="c", messages=asking(), session="o", reserve=4, template=template))
    counted = gptq.wait(p.TokenCount)
    _, end = gptq.answer(session="o", template=template)
    assert counted.tokens == rendered.tokens == end.statistics.prompt_tokens
    gptq.worker.submit(p.CountTokens(request="d", messages=asking(), session="o", reserve=4))
    assert gptq.wait(p.TokenCount).tokens != counted.tokens


FAULTY = (
    "{{ raise_exception('never') }}",
    "{% for %}",
    "{{ ''.__class__ }}",
    "{{ 1 / 0 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
)


def test_a_template_that_fails_ends_its_turn_with_a_reason(gptq: Rig) -> None:
    for template in FAULTY:
        _, end = gptq.answer(session="o", template=template)
        assert isinstance(end, p.Failed), template
        assert end.error.code == "template"
        assert "/template own" in end.error.remedy
    said, after = gptq.answer(session="o")
    assert isinstance(after, p.Finished)
    assert said == gptq.answer(session="fresh")[0]


# How answers end


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("chatml", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("mistral", "</s>"),
        ("gemma", "<end_of_turn>"),
    ],
)
def test_the_templates_end_token_ends_answers(template: str, end: str) -> None:
    tokenizer = templates.make_tokenizer("byte-level", "chatml")
    found = ends_of(tokenizer, templates.TEMPLATES[template])
    assert found == Ends(ids=frozenset({tokenizer.convert_tokens_to_ids(end)}))


@pytest.mark.parametrize(
    ("template", "strings"),
    [
        ("{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}", ("\nUser:",)),
        ("{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}\n\n{% endfor %}", ("\n\n### user",)),
        ("{% for m in messages %}{{ m['content'] }}[end] {% endfor %}", ("[end]",)),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", ()),
        ("{{ messages[-1]['content'] }}", ()),
        ("{{ raise_exception('never') }}", ()),
        ("<|im_end|>{% for m in messages %}{{ m['content'] }}<|other_end|>{% endfor %}", ("<|other_end|>",)),
    ],
)
def test_words_that_are_no_token_end_answers_too(template: str, strings: tuple[str, ...]) -> None:
    assert ends_of(templates.make_tokenizer("byte-level", "chatml"), template) == Ends(strings=strings)


def test_an_answer_ends_where_the_template_ends_it() -> None:
    model = words.loaded("llama")
    template = "{% for m in messages %}{{ m['content'] }} {% if m['role'] == 'assistant' %}END{% endif %}{% endfor %}"
    whole, _ = Bench(model).answer(text(1, 2), GREEDY, template=template)
    said = whole.split()
    assert len(said) == 12
    # Asked the same, and ended by what the model says anyway.
    ended, end = Bench(model).answer(text(1, 2), GREEDY, template=template.replace("END", said[4]))
    assert ended.split() == said[: said.index(said[4])]
    assert end.reason == "stop"
    assert asked_with(model, "") is model


def test_the_models_own_ends_still_count() -> None:
    model = words.loaded("llama")
    assert asked_with(model, OTHER).eos_ids >= model.eos_ids


def test_a_template_is_rendered_in_the_sandbox() -> None:
    tokenizer = tiny.make_tokenizer()
    hidden = "{% set n = namespace(__class__=1) %}{{ messages }}"
    for template in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}", hidden):
        with pytest.raises(GenerationError):
            render(tokenizer, [USER], template=template)


def test_a_template_that_writes_nothing_and_never_ends_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One came with somebody's file; the worker would hear neither Stop nor another session."""
    monkeypatch.setattr("quantchat.engine.override.CPU_SECONDS", 0.2)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% if j < 0 %}x{% endif %}{% endfor %}{% endfor %}"
    before = sys.gettrace()
    with pytest.raises(GenerationError, match="without an end"):
        render(tiny.make_tokenizer(), [USER], template=endless)
    assert sys.gettrace() is before
