"""How answers end under a chat template that is not the model's own: by what it writes behind them.

The model's own end tokens come from its files; another template may end turns with other words, and an answer that
nothing ends runs on into the next question.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from quantchat.domain.chat import ChatMessage
from quantchat.engine.prompt import render_text
from quantchat.errors import GenerationError

if TYPE_CHECKING:
    from quantchat.engine.voice import Voice

V = TypeVar("V", bound="Voice")
_ASKED, _SAID, _NEXT = "question.one", "answer.two", "question.three"
_CONVERSATION = (ChatMessage("user", _ASKED), ChatMessage("assistant", _SAID), ChatMessage("user", _NEXT))


class Ends(NamedTuple):
    """Tokens and texts that end an answer."""

    ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()


def asked_with(loaded: V, template: str) -> V:
    """Return the model as a turn with this template hears it; empty for its own template."""
    if not template:
        return loaded
    ends = ends_of(loaded.tokenizer, template)
    return replace(loaded, eos_ids=loaded.eos_ids | ends.ids, stop_strings=ends.strings)


def ends_of(tokenizer: Any, template: str) -> Ends:
    """Find what a template writes between an answer and the next question: a special token, else the first words."""
    try:
        text = render_text(tokenizer, _CONVERSATION, template)
    except GenerationError:
        # It will refuse the conversation too, and say why.
        return Ends()
    between = text.partition(_SAID)[2].partition(_NEXT)[0]
    special = _leading_special(tokenizer, between.strip())
    if special is not None:
        return Ends(ids=frozenset({special}))
    words = _first_words(between)
    return Ends(strings=(words,)) if words else Ends()


def _leading_special(tokenizer: Any, text: str) -> int | None:
    """The id of the special token that a text begins with; decoding hides it, so that no string is found there."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    hidden = bool(ids) and not tokenizer.decode([ids[0]], skip_special_tokens=True).strip()
    return int(ids[0]) if hidden and tokenizer.decode([ids[0]], skip_special_tokens=False).strip() else None


def _first_words(text: str) -> str:
    """The first line with anything in it, and the line ends before it: a name alone may be said in an answer, too."""
    stripped = text.strip()
    if not stripped:
        return ""
    before = text[: text.index(stripped)].replace(" ", "")
    return before + stripped.split("\n")[0].rstrip()
