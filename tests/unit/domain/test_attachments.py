from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.attachments import Attachment, Draft, next_number, parts
from quantchat.domain.chat import title_from
from quantchat.domain.text import plain

CONTENTS = st.text(alphabet=st.sampled_from("ab`\n\t ]❤\ufe0f\u202e[:1"), max_size=40)
NAMES = st.text(min_size=1, max_size=12)
WORDS = st.text(alphabet=st.sampled_from("ab \n@`"), max_size=12)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """A text with the tokens of some attachments in it."""
    attachments = tuple(
        Attachment(number=number, text=text) if name is None else Attachment.file(number, name, text)
        for number, (name, text) in enumerate(draw(st.lists(st.tuples(st.none() | NAMES, CONTENTS), max_size=4)), 1)
    )
    return Draft("".join(draw(WORDS) + a.token for a in attachments) + draw(WORDS), attachments)


@given(drafts())
def test_every_attachment_comes_back_exactly(draft: Draft) -> None:
    assert Draft.folded(draft.expanded()).attachments == draft.attachments


@given(drafts())
def test_folding_loses_nothing_of_what_was_sent(draft: Draft) -> None:
    sent = draft.expanded()
    assert Draft.folded(sent).expanded() == sent
    assert Draft.folded(sent).text.split() == draft.text.split() or draft.attachments


@given(st.text(alphabet=st.sampled_from("[paste 1: file,23]`\nlines\t"), max_size=80))
def test_folding_takes_any_text(text: str) -> None:
    assert Draft.folded(text).expanded() == text


@given(st.text())
def test_parts_make_up_the_text(text: str) -> None:
    sent = Draft(f"{text}\n[paste 1: 3 characters]", (Attachment(number=1, text="one"),)).expanded()
    assert "".join(part.block() if isinstance(part, Attachment) else part for part in parts(sent)) == sent


def test_a_block_names_its_size_and_language() -> None:
    file = Attachment.file(2, "notes.py", "import this\nprint('```')\n")
    assert file.token == "[file 2: notes.py, 2 lines]"
    assert file.block() == "[file 2: notes.py, 2 lines]\n````python\nimport this\nprint('```')\n\n````"
    assert Attachment(number=1, text="x").token == "[paste 1: 1 character]"


def test_a_token_in_a_sentence_becomes_lines_of_its_own() -> None:
    paste = Attachment(number=1, text="a\nb")
    draft = Draft(f"Look at {paste.token} and say why", (paste,))
    assert draft.expanded() == "Look at\n[paste 1: 2 lines]\n```\na\nb\n```\nand say why"


def test_only_the_first_of_two_equal_tokens_is_replaced() -> None:
    paste = Attachment(number=1, text="a\nb")
    sent = Draft(f"{paste.token}\nagain {paste.token}", (paste,)).expanded()
    assert sent.count("a\nb") == 1
    assert Draft.folded(sent).expanded() == sent


def test_an_attachment_without_its_token_is_not_sent() -> None:
    assert Draft("words", (Attachment(number=1, text="secret"),)).expanded() == "words"


def test_joined_drafts_keep_both_attachments() -> None:
    one = Draft("[paste 1: 2 lines]", (Attachment(number=1, text="a\nb"),))
    two = Draft("[paste 1: 2 lines] too", (Attachment(number=1, text="c\nd"),))
    both = one.joined(two)
    assert [a.text for a in both.attachments] == ["a\nb", "c\nd"]
    assert [a.number for a in both.attachments] == [1, 2]
    assert one.joined(Draft()) == Draft().joined(one) == one


def test_a_number_is_never_given_twice() -> None:
    assert next_number("[paste 3: 2 lines] [file 7: a, b, 1 character]") == 8
    between_files = "[file 1: a, 2 lines] [paste 2: 3 lines] [file 1: a, 2 lines]"
    assert next_number(between_files) == 3


def test_a_number_that_no_attachment_has_stays_words() -> None:
    """Python refuses to read that many digits."""
    text = f"[paste {'9' * 5000}: 1 line]\n```\nx\n```"
    assert Draft.folded(text) == Draft(text)


def test_a_long_name_of_a_session_shows_no_pasted_text() -> None:
    assert title_from(Draft("[paste 1: 2 lines]", (Attachment(number=1, text="a\nb"),)).expanded()) == (
        "[paste 1: 2 lines]"
    )


@pytest.mark.parametrize("name", ["a\nb.py", "\x1b[31mred", "]", "a, 2 lines]"])
def test_odd_file_names_come_back_as_they_were_shown(name: str) -> None:
    file = Attachment.file(1, name, "text")
    assert Draft.folded(file.block()).attachments == (file,)


def test_plain_text_keeps_what_is_not_a_control_character() -> None:
    assert (
        plain("a\tb\r\nc\rd\x1b[31m\x9be\x00 ❤\ufe0f \u202e \ud800")
        == "a\tb\nc\nd[31me ❤\ufe0f \u202e \N{REPLACEMENT CHARACTER}"
    )
