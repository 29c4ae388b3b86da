"""Answers that go on where they broke off: the prompt ends inside them, and nothing is said twice."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.templates import SPECIALS, VOCABULARIES, make_tokenizer
from quantchat.domain.chat import ChatMessage
from quantchat.domain.thinking import HARMONY, PAIRS, SOLAR
from quantchat.engine.decode import text_decoder
from quantchat.engine.prompt import render
from quantchat.engine.protocol import Partial
from quantchat.engine.spoken import Spoken
from quantchat.engine.thinking import Speech, marker_tokens, opened_by

pytestmark = pytest.mark.engine
tokenizer_of = cache(make_tokenizer)
ASKED = [ChatMessage("user", "Why?")]
THINK, SQUARE, CHANNEL = PAIRS[0], PAIRS[8], HARMONY[1]
OPENING = "[{{ messages[-1]['content'] }}]{% if add_generation_prompt %}<think>\n{% endif %}"
PLAIN = "[{{ messages[-1]['content'] }}]"


def resumed(template: str, partial: Partial, **options):
    return render(tokenizer_of("byte-level", template, **options), ASKED, resume=partial)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_known_beginning_goes_on_from_its_own_tokens(vocabulary: str) -> None:
    tokenizer, spoken = tokenizer_of(vocabulary, "chatml"), Spoken()
    partial = Partial(text="The dog", thinking="Hm")
    spoken.remember_partial("s", partial, [7, 8, 9])
    first = render(tokenizer, ASKED, spoken, session="s")
    again = render(tokenizer, ASKED, spoken, partial, session="s")
    assert (again.ids, again.begun) == ([*first.ids, 7, 8, 9], 3)
    assert render(tokenizer, ASKED, spoken, partial, session="other").ids != again.ids


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_an_unknown_beginning_is_tokenized_and_reads_as_it_did(vocabulary: str) -> None:
    tokenizer = tokenizer_of(vocabulary, "chatml")
    prompt = render(tokenizer, ASKED, resume=Partial(text="The dog runs 🙂 and"))
    begun = prompt.ids[-prompt.begun :]
    decoder = text_decoder(tokenizer)
    assert "".join(map(decoder.step, begun)) == "The dog runs 🙂 and"
    word = tokenizer.convert_tokens_to_ids("▁the" if vocabulary.startswith("metaspace") else "Ġthe")
    assert decoder.step(word) == " the"
    assert prompt.ids[: -prompt.begun] == render(tokenizer, ASKED).ids


@pytest.mark.parametrize(
    ("template", "partial", "end"),
    [
        (PLAIN, Partial(text="So"), "[Why?]So"),
        (PLAIN, Partial(thinking="Hm"), "[Why?]<think>\nHm"),
        (PLAIN, Partial(thinking="Hm", text="So"), "[Why?]<think>\nHm\n</think>\n\nSo"),
        (OPENING, Partial(thinking="Hm"), "[Why?]<think>\nHm"),
        (OPENING, Partial(thinking="Hm", text="So"), "[Why?]<think>\nHm\n</think>\n\nSo"),
        (OPENING, Partial(text="So"), "[Why?]<think>\n\n</think>\n\nSo"),
        (OPENING, Partial(), "[Why?]<think>\n"),
        (PLAIN + "{# [THINK] [/THINK] #}", Partial(thinking="Hm", text="So"), "[Why?][THINK]Hm[/THINK]So"),
        (
            PLAIN + "<|start|>assistant{# <|channel|>analysis<|message|> <|end|> #}",
            Partial(thinking="Hm", text="So"),
            "[Why?]<|start|>assistant<|channel|>analysis<|message|>Hm"
            "<|end|><|start|>assistant<|channel|>final<|message|>So",
        ),
        (
            PLAIN + "<|start|>assistant{# <|channel|>analysis<|message|> <|end|> #}",
            Partial(text="So"),
            "[Why?]<|start|>assistant<|channel|>final<|message|>So",
        ),
        (
            PLAIN + "<|begin|>assistant{# <|think|> <|end|> #}",
            Partial(thinking="Hm", text="So"),
            "[Why?]<|begin|>assistant<|think|>Hm<|end|><|begin|>assistant<|content|>So",
        ),
    ],
)
def test_a_beginning_is_written_in_the_models_own_form(template: str, partial: Partial, end: str) -> None:
    assert resumed(template, partial).text == end


def test_tags_that_only_the_vocabulary_knows_are_found_there() -> None:
    specials = (*SPECIALS, "[THINK]", "[/THINK]")
    assert resumed(PLAIN, Partial(thinking="Hm"), specials=specials).text == "[Why?][THINK]Hm"


@pytest.mark.parametrize("template", [PLAIN, OPENING])
@pytest.mark.parametrize("partial", [Partial(thinking="Hm, a dog"), Partial(thinking="Hm", text="The dog")])
def test_what_goes_on_comes_out_where_it_broke_off(template: str, partial: Partial) -> None:
    tokenizer = tokenizer_of("byte-level", template)
    prompt = render(tokenizer, ASKED, resume=partial)
    speech, decoder = Speech(prompt.opened, [], []), text_decoder(tokenizer)
    speech.prime(decoder, marker_tokens(tokenizer, []), prompt.ids[-prompt.begun :])
    words = tokenizer(" runs", add_special_tokens=False)["input_ids"]
    pieces = [piece for token in words for piece in speech.feed(decoder.step(token))] + speech.flush()
    channel = "answer" if partial.text else "thinking"
    assert "".join(text for _, text in pieces) == " runs"
    assert {where for where, _ in pieces} == {channel}
    assert (prompt.opened is None) == (template == PLAIN)
    assert prompt.opened == opened_by(render(tokenizer, ASKED).text, ASKED)


class Letters:
    """Decodes a token to the text that it is the index of."""

    def __init__(self, texts) -> None:
        self._texts = texts

    def step(self, token: int) -> str:
        return self._texts[token]


def by_channel(pieces) -> dict[str, str]:
    return {name: "".join(text for channel, text in pieces if channel == name) for name in ("answer", "thinking")}


FRAGMENTS = st.sampled_from(["a", "b", " ", "\n", "<think>", "</think>", "<", "thi", "</", "think>", "#", "##", "END"])
MARKS = ("<|channel|>", "analysis", "<|message|>", "final", "<|end|>", "<|start|>", "assistant")


@given(st.lists(st.one_of(FRAGMENTS, st.sampled_from(MARKS)), max_size=20), st.data())
def test_an_answer_in_two_parts_says_what_it_says_in_one(texts: list[str], data) -> None:
    opened = data.draw(st.sampled_from([None, THINK, SQUARE, CHANNEL]))
    cut = data.draw(st.integers(0, len(texts)))
    markers = {index: text for index, text in enumerate(texts) if text.startswith("<|")}
    stops, ends = ["###"], ["END"]

    def step(speech: Speech, token: int):
        marker = markers.get(token)
        return speech.feed(texts[token]) if marker is None else speech.mark(marker)

    whole, before, after = (Speech(opened, stops, ends) for _ in range(3))
    expected = [piece for token in range(len(texts)) for piece in step(whole, token)] + whole.flush()
    first = [piece for token in range(cut) for piece in step(before, token)]
    if before.hit:
        return
    held = before.flush()
    after.prime(Letters(texts), markers, range(cut))
    second = [piece for token in range(cut, len(texts)) for piece in step(after, token)] + after.flush()
    assert after.hit == whole.hit
    for channel, all_of_it in by_channel(expected).items():
        sure, shown, came = (by_channel(pieces)[channel] for pieces in (first, held, second))
        # What was held back and shown, although it began a tag or a stop string, stays on the screen.
        assert sure + shown + came in (all_of_it, sure + shown + all_of_it[len(sure) :])


def test_a_stop_string_is_found_across_the_break_and_one_before_it_does_not_count() -> None:
    speech = Speech(None, ["STOP"], [])
    speech.prime(Letters(["a STOP", " b ST"]), {}, [0, 1])
    assert not speech.hit
    assert speech.feed("OP c") == []
    assert speech.hit
    speech = Speech(None, ["STOP"], [])
    speech.prime(Letters(["b ST"]), {}, [0])
    assert speech.feed("AY") == [("answer", "AY")]


def test_the_solar_form_comes_out_as_it_was_written() -> None:
    speech = Speech(None, [], [])
    texts = ["<|think|>", "Hm", "<|end|>", "<|begin|>", "assistant", "<|content|>", "So"]
    speech.prime(Letters(texts), {index: text for index, text in enumerate(texts) if "<" in text}, range(7))
    assert speech.feed(" it is") == [("answer", " it is")]
    assert SOLAR[1].text == texts[0]
