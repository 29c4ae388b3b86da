"""A prompt taken apart: which tokens are special, which message each belongs to, and what is wrong with it.

Any kind of engine can use it: it needs the text and its ids, a `Vocabulary`, and at best a way to render.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from quantchat.domain.chat import ChatMessage
from quantchat.engine.context import Fitted
from quantchat.engine.placing import Place, Places, Render, places
from quantchat.engine.prompt import render_text
from quantchat.engine.promptfaults import Examined, faults
from quantchat.engine.protocol import PromptPiece, PromptWarning, RenderedPrompt, RenderPrompt
from quantchat.engine.vocabulary import HubVocabulary as HubVocabulary
from quantchat.engine.vocabulary import PieceVocabulary as PieceVocabulary
from quantchat.engine.vocabulary import Vocabulary


class Inspection(NamedTuple):
    """What `RenderedPrompt` tells of a prompt; without ids there are no pieces."""

    pieces: tuple[PromptPiece, ...]
    warnings: tuple[PromptWarning, ...]


def inspect(
    text: str,
    ids: Sequence[int],
    messages: Sequence[ChatMessage],
    vocabulary: Vocabulary | None = None,
    *,
    render: Render | None = None,
    dropped: int = 0,
    window: int = 0,
    changed_by: str = "/template",
) -> Inspection:
    """Cut a prompt into pieces and look for what makes answers worse. The work grows with the prompt's length alone.

    Args:
        text: The exact prompt.
        ids: Its tokens; empty if they are not known.
        messages: All of the conversation, those without room in the window included.
        vocabulary: Of the model; without one only the text is looked at.
        render: The way that the prompt was made, so that the template's share is known for certain.
        dropped: Messages, oldest first and system prompts not counted, that found no room.
        window: The context window, tokens; 0 if unknown.
        changed_by: How the user gives the model another chat template.
    """
    tokens = _tokens(text, ids, vocabulary)
    kept = _kept(messages, dropped)
    specials = [(token.start, token.end) for token in tokens if token.special]
    found: Places = [None] * len(messages)
    for index, place in zip(kept, places(text, [messages[i] for i in kept], render, specials), strict=True):
        found[index] = place
    pieces = tuple(_pieces(text, tokens, found))
    examined = Examined(text, ids, messages, frozenset(kept), found, pieces, vocabulary, render, window, changed_by)
    return Inspection(pieces, tuple(faults(examined)))


def _kept(messages: Sequence[ChatMessage], dropped: int) -> list[int]:
    gone = [index for index, message in enumerate(messages) if message.role != "system"][:dropped]
    return sorted(set(range(len(messages))) - set(gone))


def rendered_prompt(
    command: RenderPrompt, fitted: Fitted, tokenizer: Any, window: int, vocabulary: Vocabulary | None = None
) -> RenderedPrompt:
    """Answer a `RenderPrompt` with a prompt that a tokenizer made; `vocabulary` of one that is not transformers'."""

    def render(messages: Sequence[ChatMessage], generation_prompt: bool) -> str:
        return render_text(tokenizer, messages, command.template, generation_prompt=generation_prompt)

    prompt = fitted.prompt
    pieces, warnings = inspect(
        prompt.text,
        prompt.ids,
        command.messages,
        HubVocabulary(tokenizer) if vocabulary is None else vocabulary,
        render=render,
        dropped=fitted.dropped,
        window=window,
    )
    return RenderedPrompt(
        request=command.request,
        text=prompt.text,
        tokens=len(prompt.ids),
        window=window,
        pieces=pieces,
        warnings=warnings,
    )


class _Token(NamedTuple):
    start: int
    end: int
    special: bool


def _tokens(text: str, ids: Sequence[int], vocabulary: Vocabulary | None) -> list[_Token]:
    if vocabulary is None or not ids:
        return []
    ends = [*vocabulary.ends(text, ids)]
    ends[-1] = len(text)
    names = (vocabulary.specials.get(token) for token in ids)
    edges = zip([0, *ends], ends, names, strict=False)
    # The token of unknown characters is a special one too, but stands for text.
    return [_Token(start, end, name is not None and name in text[start:end]) for start, end, name in edges]


def _pieces(text: str, tokens: Sequence[_Token], found: Places) -> Iterator[PromptPiece]:
    """Join neighbours of one message; special tokens stand alone."""
    owners = _owners(tokens, found)
    alone = enumerate(zip(tokens, owners, strict=True))
    for (_, message, special), group in groupby(alone, key=_kind):
        run = [token for _, (token, _) in group]
        yield PromptPiece(text=text[run[0].start : run[-1].end], tokens=len(run), special=special, message=message)


def _kind(item: tuple[int, tuple[_Token, int | None]]) -> tuple[int, int | None, bool]:
    number, (token, message) = item
    return (number if token.special else -1, message, token.special)


def _owners(tokens: Sequence[_Token], found: Places) -> Iterator[int | None]:
    """Tell the message of each token: the first whose words it holds a part of."""
    order = sorted((place, index) for index, place in enumerate(found) if place is not None and place.end > place.start)
    rest = iter([*order, (Place(1 << 62, 1 << 62), -1)])
    place, index = next(rest)
    last: int | None = None
    for token in tokens:
        if token.end > token.start:
            while place.end <= token.start:
                place, index = next(rest)
            last = index if token.end > place.start else None
        # A token without a character of its own is the rest of the one before.
        yield last
