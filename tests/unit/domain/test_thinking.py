"""Thinking apart from the answer: every family's tags, any chunking, nothing lost."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantchat.domain.thinking import GAP, NEAR, PAIRS, TAGS, Piece, Tag, ThinkingSplitter, split_thinking

THINK = PAIRS[0]
HARMONY = (
    "<|channel|>analysis<|message|>Sum.<|end|><|start|>assistant<|channel|>analysis<|message|>Check.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Four. <think> is a tag."
)
words = st.sampled_from(["a", " b", "c ", "\n", "  ", "<", "/", "think", "[", "列", "<thi", "</th", "<|end", "|>"])
parts = words | st.sampled_from([tag.text for tag in TAGS] + [tag.closer for tag in TAGS if tag.closer])
texts = st.lists(parts, max_size=12).map("".join)


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one channel made one."""
    return [(channel, "".join(text for _, text in run)) for channel, run in groupby(pieces, key=lambda piece: piece[0])]


def split(*chunks: str, opened: Tag | None = None) -> list[Piece]:
    splitter = ThinkingSplitter(opened)
    return joined([piece for chunk in chunks for piece in splitter.feed(chunk)] + splitter.flush())


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag.closer], ids=lambda tag: tag.text)
def test_every_pair_of_tags(tag: Tag) -> None:
    text = f"\n{tag.text}\nIt sorts.\n\nThen it packs.\n{tag.closer}\n\nBy column.\n"
    expected = [("thinking", "It sorts.\n\nThen it packs."), ("answer", "By column.\n")]
    assert split(text) == split(*text) == expected
    assert split_thinking(text) == ("It sorts.\n\nThen it packs.", "By column.\n")


def test_no_tag_starts_with_another() -> None:
    names = {tag.text for tag in TAGS} | {tag.closer for tag in TAGS if tag.closer}
    assert not [pair for pair in permutations(names, 2) if pair[1].startswith(pair[0])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  \n", [("answer", "  \n")]),
        (" Hello", [("answer", " Hello")]),
        ("<thi", [("answer", "<thi")]),
        ("<thin ice", [("answer", "<thin ice")]),
        ("Write <think> first.", [("answer", "Write <think> first.")]),
        ("`<think>` opens it.", [("answer", "`<think>` opens it.")]),
        ("<think></think>Hi", [("answer", "Hi")]),
        ("<think>\n\n</think>\n\nHi", [("answer", "Hi")]),
        ("</think>\n\nHi", [("answer", "Hi")]),
        ("<think>Hm. ", [("thinking", "Hm. ")]),
        ("<think>Hm </thi", [("thinking", "Hm </thi")]),
        ("<think>a < b</think>c < d</think>", [("thinking", "a < b"), ("answer", "c < d</think>")]),
        ("<think>a</think>b <think>c</think>", [("thinking", "a"), ("answer", "b <think>c</think>")]),
        ("<think>a</think>\n<think>b</think>c", [("thinking", f"a{GAP}b"), ("answer", "c")]),
        (HARMONY, [("thinking", f"Sum.{GAP}Check."), ("answer", "Four. <think> is a tag.")]),
    ],
)
def test_where_thinking_begins_and_ends(text: str, expected: list[Piece]) -> None:
    assert split(text) == expected
    assert split(*text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nHm.\n</think>\n\nHi", [("thinking", "Hm."), ("answer", "Hi")]),
        ("<think>\nHm.</think>Hi", [("thinking", "Hm."), ("answer", "Hi")]),
        ("</think>Hi", [("answer", "Hi")]),
        ("Hm. Still", [("thinking", "Hm. Still")]),
    ],
)
def test_a_tag_that_the_prompt_opened(text: str, expected: list[Piece]) -> None:
    assert split(text, opened=THINK) == split(*text, opened=THINK) == expected


def test_a_channel_that_the_prompt_opened_for_the_answer() -> None:
    final = next(tag for tag in TAGS if "final" in tag.text)
    assert split("\n", " <think>", " is a tag", opened=final) == [("answer", "<think> is a tag")]


def test_only_what_may_become_a_tag_is_held_back() -> None:
    splitter = ThinkingSplitter(THINK)
    assert splitter.feed("one ") == [("thinking", "one")]
    assert splitter.feed("two<") == [("thinking", " two")]
    assert splitter.feed("b>") == [("thinking", "<b>")]
    assert splitter.feed("</think>") == []
    assert splitter.feed("Hi <") == [("answer", "Hi <")]


@settings(max_examples=400)
@given(texts, st.lists(st.integers(0, 80), max_size=6), st.sampled_from([None, *TAGS]))
def test_any_chunking_gives_what_one_piece_gives(text: str, cuts: list[int], opened: Tag | None) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    assert split(*chunks, opened=opened) == split(*text, opened=opened) == split(text, opened=opened)


@given(st.lists(words, max_size=12).map("".join), st.lists(words, max_size=12).map("".join), st.sampled_from(PAIRS))
def test_every_character_comes_out_once_and_in_order(thinking: str, answer: str, tag: Tag) -> None:
    names = [tag.text for tag in TAGS] + [tag.closer for tag in TAGS if tag.closer]
    assume(not any(name in thinking or name in answer for name in names))
    out = split(f"{tag.text}{thinking}{tag.closer}{answer}")
    assert "".join(text for channel, text in out if channel == "thinking") == thinking.strip()
    assert "".join(text for channel, text in out if channel == "answer") == answer.lstrip()


@given(st.text(max_size=40).filter(lambda text: not any(t.text[0] == text.lstrip()[:1] for t in TAGS)))
def test_an_answer_without_thinking_is_passed_on_unchanged(text: str) -> None:
    assert "".join(piece for _, piece in split(*text)) == text


def said(*steps: tuple[str, str]) -> list[Piece]:
    """Run `mark` and `feed` steps and join the result."""
    splitter = ThinkingSplitter()
    return joined([piece for verb, text in steps for piece in getattr(splitter, verb)(text)] + splitter.flush())


tokens = st.sampled_from(["<|channel|>", "<|message|>", "<|end|>", "<|start|>", "[THINK]", "[/THINK]", "<channel|>"])
names = st.sampled_from(["analysis", "final", "assistant", "thought", " to=x"])


@settings(max_examples=400)
@given(st.lists(st.tuples(st.just("mark"), tokens) | st.tuples(st.just("feed"), words | names), max_size=14))
def test_text_between_control_tokens_may_be_cut_anywhere(steps: list[tuple[str, str]]) -> None:
    letter_by_letter = [
        step for verb, text in steps for step in ([(verb, text)] if verb == "mark" else [(verb, c) for c in text])
    ]
    assert said(*letter_by_letter) == said(*steps)


def test_control_tokens_count_anywhere_and_their_letters_do_not() -> None:
    assert said(
        ("mark", "[THINK]"), ("feed", "a"), ("mark", "[/THINK]"), ("feed", " b [THINK]"), ("mark", "[THINK]"),
        ("feed", "c"), ("mark", "[/THINK]"), ("feed", "d"),
    ) == [("thinking", "a"), ("answer", "b [THINK]"), ("thinking", f"{GAP}c"), ("answer", f"{GAP}d")]  # fmt: skip


def test_harmony_by_tokens() -> None:
    assert said(
        ("mark", "<|channel|>"), ("feed", "ana"), ("feed", "lysis"), ("mark", "<|message|>"), ("feed", "Sum."),
        ("mark", "<|end|>"), ("mark", "<|start|>"), ("feed", "assistant"), ("mark", "<|channel|>"), ("feed", "final"),
        ("mark", "<|message|>"), ("feed", "Four"), ("feed", " <|channel|>"), ("mark", "<|end|>"),
    ) == [("thinking", "Sum."), ("answer", "Four <|channel|>")]  # fmt: skip


def test_harmony_without_the_end_of_its_thinking() -> None:
    assert said(
        ("mark", "<|channel|>"), ("feed", "analysis"), ("mark", "<|message|>"), ("feed", "Sum. "),
        ("mark", "<|start|>"), ("feed", "assistant"), ("mark", "<|channel|>"), ("feed", "final"),
        ("mark", "<|message|>"), ("feed", "Four"),
    ) == [("thinking", "Sum. "), ("answer", "Four")]  # fmt: skip


def test_control_tokens_that_lead_nowhere_stay_hidden() -> None:
    assert said(("mark", "<|channel|>"), ("feed", "poem"), ("mark", "<|message|>"), ("feed", "Ice")) == [
        ("answer", "poemIce")
    ]
    assert said(("feed", "a"), ("mark", "<|message|>"), ("feed", "b")) == [("answer", "ab")]
    assert said(("feed", "a"), ("mark", "<|channel|>")) == [("answer", "a")]


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("It sorts.\n</think>\n\nBy column.", "It sorts.", "By column."),
        ("It sorts.</think>By column.", "", None),
        ("Write\n```\n<b>\n</think>\n```\n", "", None),
        ("First <think>, then\n</think>\nto end.", "", None),
        (f"{'long ' * NEAR}\n</think>\nend", "", None),
        ("<think>never closed", "never closed", ""),
    ],
)
def test_stored_texts(text: str, thinking: str, answer: str | None) -> None:
    assert split_thinking(text) == (thinking, text if answer is None else answer)


@given(texts)
def test_a_stored_text_gains_no_letter(text: str) -> None:
    found = Counter("".join("".join(split_thinking(text)).split()))
    assert found <= Counter(text)
