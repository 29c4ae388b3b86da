"""What makes a prompt worse than its model deserves: one small check per fault, the gravest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from quantchat.domain.chat import ChatMessage
from quantchat.domain.thinking import PAIRS, TAGS, Tag
from quantchat.engine.placing import Places, Render
from quantchat.engine.protocol import PromptPiece, PromptWarning
from quantchat.engine.vocabulary import Vocabulary
from quantchat.errors import QuantchatError

_MARK = "qzxanswerxzq"
_QUESTION, _ANSWER = ChatMessage("user", "Why?"), ChatMessage("assistant", _MARK)
_TAG_TEXTS = frozenset(text for tag in PAIRS for text in (tag.text, tag.closer))
_NAMED = 3
"""So many messages or tokens are named in a sentence."""


class Examined(NamedTuple):
    """A prompt and what is known about it.

    Attributes:
        kept: The messages that found room.
        found: Where all of them stand.
        changed_by: How the user gives the model another chat template.
    """

    text: str
    ids: Sequence[int]
    messages: Sequence[ChatMessage]
    kept: frozenset[int]
    found: Places
    pieces: Sequence[PromptPiece]
    vocabulary: Vocabulary | None
    render: Render | None
    window: int
    changed_by: str

    @property
    def by_template(self) -> str:
        """What to do about a fault of the template."""
        return f"Change the chat template ({self.changed_by}), or tell those who made the model."


def faults(prompt: Examined) -> Iterator[PromptWarning]:
    """Look for everything that is known to go wrong."""
    for check in _CHECKS:
        yield from check(prompt)


def _bos(prompt: Examined) -> Iterator[PromptWarning]:
    vocabulary, ids = prompt.vocabulary, prompt.ids
    if vocabulary is None or vocabulary.bos is None or not ids:
        return
    name = vocabulary.specials.get(vocabulary.bos, "the start token")
    if list(ids[:2]) == [vocabulary.bos] * 2:
        cause = f"The prompt begins with {name} twice; models are trained with one."
        yield PromptWarning(code="doubled-bos", cause=cause, remedy=_whose(prompt))
    elif vocabulary.adds_bos and ids[0] != vocabulary.bos:
        cause = f"The prompt does not begin with {name}, as this tokenizer's texts do."
        yield PromptWarning(
            code="missing-bos",
            cause=cause,
            remedy=f"Begin the chat template with {{{{ bos_token }}}}: {prompt.changed_by}.",
        )


def _whose(prompt: Examined) -> str:
    """Say where the second of two start tokens comes from."""
    second = next((p.message for p in prompt.pieces[:2] if p.message is not None), None)
    if second is not None:
        return f"Take it out of {_name(prompt.messages, second)}; the chat template writes it."
    return prompt.by_template


def _generation_prompt(prompt: Examined) -> Iterator[PromptWarning]:
    missing = _missing_start(prompt.render) if prompt.render is not None else ""
    if missing:
        cause = f"The template does not begin the answer: {_quoted(missing)} is missing at the end."
        remedy = f"Write it into the chat template where add_generation_prompt is set: {prompt.changed_by}."
        yield PromptWarning(code="no-generation-prompt", cause=cause, remedy=remedy)


def _missing_start(render: Render) -> str:
    """Return what stands before an answer, but not where one is asked for; empty if nothing is missing."""
    try:
        asked, bare = render([_QUESTION], True), render([_QUESTION], False)
        # Servers take an answer that stands last for one to go on with.
        before, answered, _ = render([_QUESTION, _ANSWER, _QUESTION], False).partition(_MARK)
    except QuantchatError:
        return ""
    if asked != bare or not answered or not before.startswith(asked):
        return ""
    rest = before[len(asked) :]
    # What some templates write before old answers only, such as an empty thought, a model writes itself.
    for tag in TAGS:
        rest = rest.replace(tag.text, "").replace(tag.closer or tag.text, "")
    return rest.strip()


def _thinking(prompt: Examined) -> Iterator[PromptWarning]:
    for index, message in enumerate(prompt.messages):
        tag = _open_tag(message.content, _tags_for(prompt, message)) if index in prompt.kept else None
        if tag is not None:
            cause = f"{_capital(_name(prompt.messages, index))} opens {tag.text} and does not close it."
            remedy = f"Close it with {tag.closer}, or take it out: what follows may be read as a thought."
            yield PromptWarning(code="unclosed-thinking", cause=cause, remedy=remedy)
    tag = _open_between(prompt)
    if tag is not None:
        cause = f"The template opens {tag.text} before an earlier answer and does not close it."
        yield PromptWarning(code="unclosed-thinking", cause=cause, remedy=prompt.by_template)


def _tags_for(prompt: Examined, message: ChatMessage) -> Iterable[Tag]:
    """The user's words may speak of a tag that means nothing to the model."""
    known = frozenset(prompt.vocabulary.specials.values()) if prompt.vocabulary is not None else frozenset()
    return [tag for tag in PAIRS if message.role == "assistant" or tag.text in known]


def _open_tag(text: str, tags: Iterable[Tag]) -> Tag | None:
    return next((tag for tag in tags if text.rfind(tag.text) > text.rfind(tag.closer)), None)


def _open_between(prompt: Examined) -> Tag | None:
    """The end of the prompt is left out: there the template opens the thought of the answer that is asked for."""
    cursor = 0
    for message, place in zip(prompt.messages, prompt.found, strict=True):
        if place is None or place.start < cursor:
            continue
        before, cursor = prompt.text[cursor : place.start], place.end
        tag = _open_tag(before, PAIRS) if message.role == "assistant" else None
        if tag is not None and tag.closer not in prompt.text[place.start : place.end]:
            return tag
    return None


def _injected(prompt: Examined) -> Iterator[PromptWarning]:
    held: dict[int, dict[str, None]] = {}
    for piece in prompt.pieces:
        if piece.special and piece.message is not None and not _belongs(prompt.messages[piece.message], piece.text):
            held.setdefault(piece.message, {})[piece.text.strip()] = None
    for index, names in sorted(held.items()):
        message = _capital(_name(prompt.messages, index))
        cause = f"{message} holds {_listed([*names])}, which the model takes as control tokens, not as text."
        yield PromptWarning(
            code="special-in-message",
            cause=cause,
            remedy="Take it out, or break it with a space, if it is to be read as text.",
        )


def _belongs(message: ChatMessage, token: str) -> bool:
    return message.role == "assistant" and token.strip() in _TAG_TEXTS


def _overflow(prompt: Examined) -> Iterator[PromptWarning]:
    gone = len(prompt.messages) - len(prompt.kept)
    if gone:
        oldest = "The oldest message has" if gone == 1 else f"The {gone} oldest messages have"
        window = f" of {prompt.window:,} tokens" if prompt.window else ""
        cause = f"{oldest} no room in the context window{window}: the model does not see what is said there."
        remedy = "Begin a new session, shorten the conversation, or load a model with a larger window."
        yield PromptWarning(code="context-overflow", cause=cause, remedy=remedy)


def _lost(prompt: Examined) -> Iterator[PromptWarning]:
    lost, changed, indented = [], [], []
    for index in sorted(prompt.kept):
        place, content = prompt.found[index], prompt.messages[index].content
        if place is None:
            lost += [index] if content.strip() else []
        elif place.changed:
            changed.append(index)
        elif _indented(content) and not prompt.text[place.start : place.end].startswith(content):
            indented.append(index)
    yield from _about(prompt, lost, "message-missing", "The template leaves out {}.")
    yield from _about(prompt, changed, "message-changed", "The template changes the words of {}.")
    yield from _about(prompt, indented, "message-trimmed", "The template cuts the white space at the start of {}.")


def _indented(content: str) -> bool:
    """Whether white space at the start means something, as in code."""
    return content[:1] in (" ", "\t") and bool(content.strip())


def _about(prompt: Examined, which: Sequence[int], code: str, cause: str) -> Iterator[PromptWarning]:
    if which:
        names = _listed([_name(prompt.messages, index) for index in which], "and")
        yield PromptWarning(code=code, cause=cause.format(names), remedy=prompt.by_template)


def _merged(prompt: Examined) -> Iterator[PromptWarning]:
    """The template, or what it was given after it had refused, puts two messages into one."""
    stand = sorted((place, index) for index, place in enumerate(prompt.found) if place is not None)
    for (place, index), (following, other) in pairwise(stand):
        if not prompt.text[place.end : following.start].strip() and place.end < following.start:
            one, two = _name(prompt.messages, index), _name(prompt.messages, other)
            cause = f"The template makes one message of {one} and {two}."
            remedy = "Nothing is lost. A system prompt weighs less in the words of a user."
            yield PromptWarning(code="messages-merged", cause=cause, remedy=remedy)


def _empty_system(prompt: Examined) -> Iterator[PromptWarning]:
    if any(message.role == "system" and not message.content.strip() for message in prompt.messages):
        cause = "The system prompt is empty, which is not the same as none: some templates then leave out their own."
        yield PromptWarning(code="empty-system", cause=cause, remedy="Remove it, or say something in it: /system.")


_CHECKS = (_bos, _generation_prompt, _overflow, _injected, _thinking, _lost, _merged, _empty_system)


def _name(messages: Sequence[ChatMessage], index: int) -> str:
    role = messages[index].role
    if role == "system" and sum(message.role == "system" for message in messages) == 1:
        return "the system prompt"
    return f"message {index + 1} ({role})"


def _listed(names: Sequence[str], last: str = "and") -> str:
    if len(names) > _NAMED:
        return f"{', '.join(names[:_NAMED])} {last} {len(names) - _NAMED} more"
    return f" {last} ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _quoted(text: str) -> str:
    return f"“{' '.join(text.split())[:60]}”"
