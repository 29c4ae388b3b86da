"""Prompts that hold what was sampled, token by token: the KV cache of an answer is worth nothing otherwise."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.templates import CHATML, LAST, TEMPLATES, VOCABULARIES, make_tokenizer
from quantchat.domain.chat import ChatMessage
from quantchat.engine.decode import text_decoder
from quantchat.engine.prompt import render
from quantchat.engine.protocol import Partial
from quantchat.engine.spoken import Spoken

pytestmark = pytest.mark.engine
SESSION = "s1"
SYSTEM = ChatMessage("system", "Be brief about numbers.")
tokenizer_of = cache(make_tokenizer)


def ask(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def said(text: str) -> ChatMessage:
    return ChatMessage("assistant", text)


def read(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def shown(tokenizer, ids) -> str:
    """The text of ids, for SentencePiece without spaces: the one it hides where a stream begins stays in a prompt."""
    text = read(tokenizer, ids)
    return text.replace(" ", "") if "▁" in tokenizer.get_vocab() else text


def streamed(tokenizer, ids) -> str:
    decoder = text_decoder(tokenizer)
    return "".join(map(decoder.step, ids))


def letter_by_letter(tokenizer, text: str) -> list[int]:
    """Tokens that no tokenizer would choose for a text, as sampling does now and then."""
    space, start = ("▁", "▁") if "▁" in tokenizer.get_vocab() else ("Ġ", "")
    ids = tokenizer.convert_tokens_to_ids([*start, *text.replace(" ", space)])
    assert streamed(tokenizer, ids) == text
    return ids


# Only SentencePiece models begin an answer with a space that no text shows, which some templates write.
PAIRS = [
    (vocabulary, template)
    for vocabulary in VOCABULARIES
    for template in TEMPLATES
    if template != "last" and (template != "spaced" or vocabulary.startswith("metaspace"))
]


@pytest.mark.parametrize(("vocabulary", "template"), PAIRS)
def test_the_next_prompt_begins_with_what_was_computed(vocabulary: str, template: str) -> None:
    tokenizer, spoken = tokenizer_of(vocabulary, template), Spoken()
    conversation, computed = [SYSTEM], []
    for question, answer in (("Why counted?", "The quick dog runs."), ("And why?", "Each token is a number.")):
        conversation.append(ask(question))
        prompt = render(tokenizer, conversation, spoken, session=SESSION)
        assert prompt.ids[: len(computed)] == computed
        sampled = letter_by_letter(tokenizer, answer)
        spoken.remember(SESSION, answer, [*sampled, tokenizer.eos_token_id])
        conversation.append(said(answer))
        computed = prompt.ids + sampled
    last = render(tokenizer, [*conversation, ask("So?")], spoken, session=SESSION)
    plain = render(tokenizer, [*conversation, ask("So?")])
    assert last.ids[: len(computed)] == computed
    assert plain.ids[: len(computed)] != computed
    assert last.text == plain.text
    assert shown(tokenizer, last.ids) == shown(tokenizer, plain.ids)


def test_other_sessions_and_no_session_know_nothing_of_it() -> None:
    tokenizer, spoken = tokenizer_of("byte-level", "chatml"), Spoken()
    spoken.remember(SESSION, "The dog.", letter_by_letter(tokenizer, "The dog."))
    conversation = [ask("Who?"), said("The dog."), ask("Why?")]
    plain = render(tokenizer, conversation)
    assert render(tokenizer, conversation, spoken, session="other").ids == plain.ids
    assert render(tokenizer, conversation, spoken).ids == plain.ids
    assert render(tokenizer, conversation, spoken, session=SESSION).ids != plain.ids


def test_an_answer_that_the_question_quotes_is_found_in_its_own_place() -> None:
    tokenizer, spoken = tokenizer_of("byte-level", "chatml"), Spoken()
    words = "The dog."
    sampled = letter_by_letter(tokenizer, words)
    spoken.remember(SESSION, words, sampled)
    conversation = [ChatMessage("system", f"Say: {words}"), ask(f"{words} {words}"), said(words), ask(words)]
    first = render(tokenizer, conversation[:2], spoken, session=SESSION)
    after = render(tokenizer, conversation, spoken, session=SESSION).ids
    plain = render(tokenizer, conversation).ids
    assert after[: len(first.ids) + len(sampled)] == first.ids + sampled
    assert after[len(first.ids) + len(sampled) :] == plain[-(len(after) - len(first.ids) - len(sampled)) :]


def test_a_system_prompt_that_stands_last_does_not_hide_the_answers() -> None:
    tokenizer, spoken = tokenizer_of("byte-level", LAST), Spoken()
    sampled = letter_by_letter(tokenizer, "The dog.")
    spoken.remember(SESSION, "The dog.", sampled)
    ids = render(tokenizer, [SYSTEM, ask("Who?"), said("The dog."), ask("Why?")], spoken, session=SESSION).ids
    assert any(ids[start : start + len(sampled)] == sampled for start in range(len(ids)))


@pytest.mark.parametrize("surplus", ["\n", " \n\n", "\n###"])
def test_what_the_text_no_longer_shows_at_the_end_is_left_out(surplus: str) -> None:
    tokenizer, spoken = tokenizer_of("byte-level", "llama3"), Spoken()
    sampled = letter_by_letter(tokenizer, "The dog.")
    extra = tokenizer(surplus, add_special_tokens=False)["input_ids"]
    text = "The dog." + surplus.replace("###", "")
    spoken.remember(SESSION, text, [*sampled, *extra])
    conversation = [ask("Who?"), said(text), ask("Why?")]
    first = render(tokenizer, conversation[:1], spoken, session=SESSION)
    after = render(tokenizer, conversation, spoken, session=SESSION)
    assert after.ids[: len(first.ids) + len(sampled)] == first.ids + sampled
    assert read(tokenizer, after.ids) == after.text


def test_ids_that_say_something_else_are_not_believed() -> None:
    tokenizer, spoken = tokenizer_of("byte-level", "chatml"), Spoken()
    conversation = [ask("Who?"), said("The dog."), ask("Why?")]
    for wrong in ("The fox.", "The dog", "A dog.", "The dog. A dog runs to the sea and nobody looks."):
        spoken.remember(SESSION, "The dog.", letter_by_letter(tokenizer, wrong))
        assert render(tokenizer, conversation, spoken, session=SESSION).ids == render(tokenizer, conversation).ids


def test_an_answer_whose_first_token_holds_the_templates_space_keeps_the_templates_ids() -> None:
    tokenizer, spoken = tokenizer_of("trimmed", CHATML.replace("{{ m['content'] }}", " {{ m['content'] }}")), Spoken()
    spoken.remember(SESSION, "The dog.", letter_by_letter(tokenizer, "The dog."))
    conversation = [ask("Who?"), said("The dog."), ask("Why?")]
    rendered = render(tokenizer, conversation, spoken, session=SESSION)
    assert read(tokenizer, rendered.ids) == rendered.text


def test_a_rewriting_template_gets_no_sampled_ids_from_there_on() -> None:
    tokenizer, spoken = tokenizer_of("byte-level", CHATML.replace("m['content']", "m['content'] | upper")), Spoken()
    spoken.remember(SESSION, "1 2", letter_by_letter(tokenizer, "1 2"))
    conversation = [ask("1 2 why"), said("1 2"), ask("So?")]
    assert render(tokenizer, conversation, spoken, session=SESSION).ids == render(tokenizer, conversation).ids


def test_a_slow_tokenizer_renders_without_sampled_ids() -> None:
    class Slow:
        is_fast = False

        def __init__(self, fast) -> None:
            self._fast = fast
            self.chat_template = fast.chat_template

        def __getattr__(self, name: str):
            return getattr(self._fast, name)

        def __call__(self, text: str, **options):
            assert "return_offsets_mapping" not in options
            return self._fast(text, **options)

    fast, spoken = tokenizer_of("byte-level", "chatml"), Spoken()
    spoken.remember(SESSION, "The dog.", letter_by_letter(fast, "The dog."))
    conversation = [ask("Who?"), said("The dog."), ask("Why?")]
    assert render(Slow(fast), conversation, spoken, session=SESSION).ids == render(fast, conversation).ids


@st.composite
def spoken_conversations(draw):
    """A vocabulary, a template, and answers sampled at random from tokens that stand for whole characters."""
    tokenizer = tokenizer_of(draw(st.sampled_from(VOCABULARIES)), draw(st.sampled_from(sorted(TEMPLATES))))
    control = set(tokenizer.all_special_ids)
    whole = [
        token
        for token in range(len(tokenizer))
        if token not in control and "\ufffd" not in tokenizer.decode([token]) and "<0x" not in str(token)
    ]
    words = st.text("abc dog.\n[]<>é🙂", min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
    turns = draw(st.lists(st.tuples(words, st.lists(st.sampled_from(whole), min_size=1, max_size=12)), max_size=4))
    return tokenizer, turns, draw(words), draw(st.booleans())


@given(spoken_conversations())
@settings(max_examples=150, deadline=None)
def test_sampled_ids_never_change_what_the_prompt_says(made) -> None:
    tokenizer, turns, last, with_system = made
    spoken, conversation = Spoken(), [SYSTEM] if with_system else []
    for question, sampled in turns:
        answer = streamed(tokenizer, sampled)
        assume(answer.strip())
        spoken.remember(SESSION, answer, sampled)
        conversation += [ask(question), said(answer)]
    plain = render(tokenizer, [*conversation, ask(last)])
    spliced = render(tokenizer, [*conversation, ask(last)], spoken, session=SESSION)
    assert spliced.text == plain.text
    assert shown(tokenizer, spliced.ids) == shown(tokenizer, plain.ids)


def test_memory_of_ids_is_bounded_and_the_oldest_leaves_first() -> None:
    spoken = Spoken(sessions=2, tokens=10)
    for session in "abc":
        spoken.remember(session, "x", [1, 2, 3])
    assert [bool(spoken.answer(session, "x")) for session in "abc"] == [False, True, True]
    spoken.remember("c", "y", [4] * 6)
    assert spoken.answer("b", "x") == []
    assert spoken.answer("c", "y") == [4] * 6
    spoken.remember("c", "z", [5] * 9)
    assert (spoken.answer("c", "x"), spoken.answer("c", "y"), spoken.answer("c", "z")) == ([], [], [5] * 9)
    spoken.remember("c", "z", [6])
    spoken.remember("c", "w", [7] * 9)
    assert spoken.answer("c", "z") == [6]
    spoken.forget("c")
    assert spoken.answer("c", "w") == []
    spoken.forget("never seen")


def test_a_beginning_and_an_answer_of_the_same_text_are_two_things() -> None:
    spoken = Spoken()
    spoken.remember_partial(SESSION, Partial(text="x", thinking="t"), [1])
    spoken.remember(SESSION, "x", [2])
    assert spoken.partial(SESSION, Partial(text="x", thinking="t")) == [1]
    assert spoken.partial(SESSION, Partial(text="x")) == []
    assert spoken.answer(SESSION, "x") == [2]
