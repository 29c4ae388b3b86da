"""Thinking in whole turns: opened by the template, in special tokens, stopped, cut off."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from itertools import groupby
from unittest.mock import patch

import msgspec
import pytest

from engine import tiny
from engine.rig import GREEDY, asking
from engine.words import Bench
from quantchat.catalog.reader import read_model
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p
from quantchat.engine.forward import Forward
from quantchat.engine.thinking import Speech, marker_tokens, opened_by

pytestmark = pytest.mark.engine
HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]
OPENS = tiny.TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
CLOSES = tiny.TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n\n</think>\n\n{% endif %}")


@pytest.fixture(scope="module")
def plain(models):
    from quantchat.engine import loader, quiet

    quiet.set_environment()
    quiet.silence()
    return loader.load(p.Load(request="", model=read_model(models / "gptq"), device="cpu"), lambda _: None)


def with_tokens(loaded, *special: str, template: str = tiny.TEMPLATE):
    """The model with a tokenizer that has these special tokens and this template."""
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)}, replace_extra_special_tokens=False)
    tokenizer.chat_template = template
    return replace(loaded, tokenizer=tokenizer)


class Forced:
    """A sampler that says given ids, whatever the logits are."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = iter(ids)

    def sample(self, _logits) -> int:
        return next(self._ids)

    def accept(self, token: int) -> None: ...


def _with_known_tokens(forward, cache, tokens, keep=1, compute=Forward.__call__):
    """Added tokens have no embedding in the tiny model."""
    known = forward.model.get_input_embeddings().num_embeddings
    return compute(forward, cache, [min(token, known - 1) for token in tokens], keep)


def turn(loaded, said: str | None = None, sampling=GREEDY, cancelled=lambda _: False, messages=None):
    """Run a turn, forced to say `said` if given; return the texts by run of channel, the end, the events."""
    bench = Bench(loaded)
    with contextlib.ExitStack() as stack:
        if said is not None:
            ids = loaded.tokenizer(said, add_special_tokens=False)["input_ids"]
            stack.enter_context(patch("quantchat.engine.turn.Sampler", lambda *_, **__: Forced(ids)))
            stack.enter_context(patch.object(Forward, "__call__", _with_known_tokens))
            sampling = msgspec.structs.replace(sampling, max_new_tokens=len(ids))
        name = bench.start(messages or asking(), sampling, lambda: cancelled(bench.events))
        end = bench.run()[name]
    deltas = [event for event in bench.events if isinstance(event, p.Delta)]
    runs = [
        (channel, "".join(delta.text for delta in run)) for channel, run in groupby(deltas, key=lambda d: d.channel)
    ]
    return runs, end, bench.events


def test_a_plain_answer_is_all_answer(plain) -> None:
    runs, end, _ = turn(plain, "The cats count. <think> is a tag.\n")
    assert runs == [("answer", "The cats count. <think> is a tag.\n")]
    assert end.reason == "length"


def test_a_tag_in_ordinary_tokens(plain) -> None:
    said = "<think>\nCats and dogs.\n</think>\n\nThe fox."
    assert len(plain.tokenizer(said, add_special_tokens=False)["input_ids"]) > 20, "the tags are split over tokens"
    runs, end, events = turn(plain, said)
    assert runs == [("thinking", "Cats and dogs."), ("answer", "The fox.")]
    counts = [event.tokens for event in events if isinstance(event, p.Delta)]
    assert counts == sorted(counts)
    assert counts[-1] == end.statistics.new_tokens == len(plain.tokenizer(said, add_special_tokens=False)["input_ids"])


def test_the_template_opens_the_tag_and_the_whole_model_thinks(plain) -> None:
    opened = with_tokens(plain, template=OPENS)
    runs, end, _ = turn(opened)
    (only,) = runs
    assert only[0] == "thinking"
    assert end.reason == "length"
    assert end.statistics.new_tokens == GREEDY.max_new_tokens
    said = "Cats.\n</think>\n\nThe fox."
    assert turn(opened, said)[0] == [("thinking", "Cats."), ("answer", "The fox.")]


def test_the_same_text_comes_out_whichever_channel_it_takes(plain) -> None:
    """The ids do not depend on the channel: only the prompt's ids do, and here they are equal."""
    thought, answered = with_tokens(plain, template=OPENS), with_tokens(plain, template=CLOSES)
    said = "  The river\nruns </thin ice\n\n to the sea. "
    (first,) = turn(thought, said)[0]
    (second,) = turn(answered, said)[0]
    assert (first[0], second) == ("thinking", ("answer", said))
    assert first[1] == said.lstrip()


def test_a_template_that_closes_the_tag_leaves_the_answer(plain) -> None:
    runs, _, _ = turn(with_tokens(plain, template=CLOSES))
    assert [channel for channel, _ in runs] == ["answer"]


@pytest.mark.parametrize("tags", [("[THINK]", "[/THINK]"), ("<|inner_prefix|>", "<|inner_suffix|>")])
def test_tags_that_are_special_tokens(plain, tags) -> None:
    opener, closer = tags
    marked = with_tokens(plain, *tags, "[UNRELATED]")
    runs, _, _ = turn(marked, f"{opener}Cats.{closer}The[UNRELATED] fox.{closer[:-1]}")
    assert runs == [("thinking", "Cats."), ("answer", f"The fox.{closer[:-1]}")]


def test_harmony(plain) -> None:
    harmony = with_tokens(plain, *HARMONY)
    harmony = replace(harmony, eos_ids=frozenset({harmony.tokenizer.convert_tokens_to_ids("<|return|>")}))
    said = (
        "<|channel|>analysis<|message|>Cats.<|end|><|start|>assistant<|channel|>final<|message|>The <think> fox."
        "<|return|>"
    )
    runs, end, _ = turn(harmony, said)
    assert runs == [("thinking", "Cats."), ("answer", "The <think> fox.")]
    assert end.reason == "stop"


def test_a_slow_tokenizer_lets_tags_through_too(plain, monkeypatch) -> None:
    marked = with_tokens(plain, "[THINK]", "[/THINK]")
    monkeypatch.setattr(type(marked.tokenizer), "is_fast", False)
    assert turn(marked, "[THINK]Zwölf.[/THINK]日本語")[0] == [("thinking", "Zwölf."), ("answer", "日本語")]


def test_which_special_tokens_are_let_through(plain) -> None:
    def markers(*special: str, eos: str = "</s>") -> set[str]:
        tokenizer = with_tokens(plain, *special).tokenizer
        return set(marker_tokens(tokenizer, [tokenizer.convert_tokens_to_ids(eos)]).values())

    assert markers() == set()
    assert markers("<|end|>", "<|start|>") == set(), "they end turns where they are no part of a family"
    assert markers(*HARMONY) == set(HARMONY[:4])
    assert markers(*HARMONY, eos="<|end|>") == {"<|start|>", "<|channel|>", "<|message|>"}
    assert markers("[THINK]", "[/THINK]", "[INST]") == {"[THINK]", "[/THINK]"}


def test_stopping_while_thinking_keeps_what_was_thought(plain) -> None:
    def enough(events: list[p.Event]) -> bool:
        return any(isinstance(event, p.Delta) for event in events)

    runs, end, _ = turn(with_tokens(plain, template=OPENS), cancelled=enough)
    assert end.reason == "stopped"
    assert [channel for channel, _ in runs] == ["thinking"]
    assert runs[0][1]
    runs, end, _ = turn(plain, "<think>Cats and dogs </thi")
    assert (runs, end.reason) == ([("thinking", "Cats and dogs </thi")], "length")


def test_stop_strings_end_the_answer_not_the_thinking(plain) -> None:
    sampling = msgspec.structs.replace(GREEDY, stop=("dogs",))
    runs, end, _ = turn(plain, "<think>Cats, dogs.</think>Foxes, dogs, rivers", sampling)
    assert (runs, end.reason) == ([("thinking", "Cats, dogs."), ("answer", "Foxes, ")], "stop")


def test_a_stop_string_of_the_template_ends_both(plain) -> None:
    fallback = replace(plain, stop_strings=("<|im_end|>",))
    for said, expected in (
        ("<think>Cats<|im_end|> dogs</think>Foxes", [("thinking", "Cats")]),
        ("<think>Cats</think>Foxes<|im_end|> dogs", [("thinking", "Cats"), ("answer", "Foxes")]),
    ):
        runs, end, _ = turn(fallback, said)
        assert (runs, end.reason) == (expected, "stop")


def test_what_a_stop_string_held_back_keeps_its_channel() -> None:
    speech = Speech(None, ["never"], ["</s>"])
    pieces = speech.feed("<think>a</") + speech.feed("think>b nev") + speech.flush()
    assert pieces == [("thinking", "a"), ("answer", "b "), ("answer", "nev")]
    speech = Speech(None, [], ["</s>"])
    pieces = speech.feed("<think>a </s") + speech.feed(" ") + speech.feed("</think>b")
    assert "".join(text for channel, text in pieces if channel == "thinking") == "a </s"


@pytest.mark.parametrize(
    ("end", "last", "opened"),
    [
        ("<|assistant|>", "Hi", None),
        ("<|assistant|><think>\n", "Hi", "<think>"),
        ("<|assistant|><think>\n\n</think>\n\n", "Hi", None),
        ("<|start|>assistant", "Hi", None),
        ("<|start|>assistant<|channel|>analysis<|message|>", "Hi", "<|channel|>analysis<|message|>"),
        ("<|start|>assistant<|channel|>final<|message|>", "Hi", "<|channel|>final<|message|>"),
        ("<|turn>model\n<|channel>thought\n", "Hi", "<|channel>thought"),
        ("", "What is <think>", None),
        ("<|assistant|><think>\n", "What is <think>", "<think>"),
        ("<think>", "<think>", "<think>"),
    ],
)
def test_what_the_template_opened(end: str, last: str, opened: str | None) -> None:
    messages = [ChatMessage("system", "Use <think>."), ChatMessage("user", last)]
    tag = opened_by(f"<|system|>Use <think>.<|user|>{last}{end}", messages)
    assert (tag.text if tag else None) == opened
