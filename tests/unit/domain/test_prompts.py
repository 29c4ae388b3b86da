"""Prompt templates: which fields they have, and what becomes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.attachments import Attachment, Draft
from quantchat.domain.prompts import PromptTemplate


def template(text: str) -> PromptTemplate:
    return PromptTemplate("t", text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("Say {what} to {whom}, {what}!", ("what", "whom")),
        ("{target language}, {two-part}, {größe}, {_x1}", ("target language", "two-part", "größe", "_x1")),
        ('{"a": 1} { } {} {1} {a.b} { a } {a b c d e f g h}', ()),
        ("{{kept}} {{ x }} {{{both}}}", ()),
        ("f{a}{b}", ("a", "b")),
        ("{line\nend}", ()),
        ("{" + "x" * 60 + "}", ()),
    ],
)
def test_fields_are_names_in_braces_and_nothing_else(text: str, fields: tuple[str, ...]) -> None:
    assert template(text).fields == fields


def test_a_filled_template_holds_the_values_and_keeps_other_braces() -> None:
    made = template("Translate into {language}:\n{{language}} {text} {x: 1}").filled(
        {"language": Draft("French"), "text": Draft("{language} stays, two\nlines")}
    )
    assert made == Draft("Translate into French:\n{language} {language} stays, two\nlines {x: 1}")


def test_what_is_not_given_stays_as_it_is_written() -> None:
    assert template("{a} {b}").filled({"b": Draft("")}).text == "{a} "


def test_pastes_of_several_fields_are_told_apart() -> None:
    one, other = (Attachment(number=1, text=f"{word}\n{word}") for word in ("x", "y"))
    assert one.token == other.token
    made = template("{a} and {b}, see [paste 1: 2 lines]").filled(
        {"a": Draft(one.token, (one,)), "b": Draft(f"so {other.token}", (other,))}
    )
    assert len({attachment.token for attachment in made.attachments} | {one.token}) == 3
    assert "x\nx" in made.expanded()
    assert "y\ny" in made.expanded()
    assert "see [paste 1: 2 lines]" in made.expanded()


@given(st.text(), st.dictionaries(st.sampled_from(["a", "b c", "d"]), st.text()))
def test_filling_changes_nothing_but_fields(text: str, values: dict[str, str]) -> None:
    one = template(text)
    made = one.filled({name: Draft(value) for name, value in values.items()})
    if not one.fields and "{{" not in text:
        assert made.text == text
    assert not made.attachments


@given(st.lists(st.text(alphabet="xyz \n", max_size=5), min_size=3, max_size=3))
def test_values_stand_where_their_fields_stood(words: list[str]) -> None:
    before, value, behind = words
    assert template(f"{before}{{f}}{behind}").filled({"f": Draft(value)}).text == before + value + behind


def test_the_summary_is_the_first_line_with_words() -> None:
    assert template("\n  \n  Review this:  \n{code}").summary == "Review this:"
    assert template("").summary == ""
