"""What the model said, as the tokens that it sampled: text that is tokenized again often gives other ids."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from quantchat.domain.chat import ChatMessage
from quantchat.engine.protocol import Partial

SESSIONS = 64
TOKENS = 1_000_000
"""Ids that are remembered in all, 4 bytes each; the session that was used longest ago leaves first."""
ANCHOR = 4
"""Tokens before an answer that are decoded with it: how a token reads depends on what stands before it."""
SURPLUS = 16
"""Most tokens at the end of an answer that its text does not show: an end token, a stop string, trimmed space."""

Ids = Sequence[int]
Begun = tuple[Partial, str]
"""The beginning of an answer, and the template that it was asked with: that may have written a tag of its thinking."""
_Answers = dict[str | Begun, "array[int]"]


class Spoken:
    """The sampled ids of answers, per session; all are dropped with their model."""

    def __init__(self, sessions: int = SESSIONS, tokens: int = TOKENS) -> None:
        self._limits = sessions, tokens
        self._sessions: OrderedDict[str, _Answers] = OrderedDict()
        self._held = 0

    def remember(self, session: str, text: str, ids: Ids) -> None:
        """Note an answer that was not preceded by thinking, from its first token on."""
        self._note(session, text, ids)

    def remember_partial(self, session: str, partial: Partial, ids: Ids, template: str = "") -> None:
        """Note the beginning of an answer that may go on, its thinking and their tags included."""
        self._note(session, (partial, template), ids)

    def _note(self, session: str, key: str | Begun, ids: Ids) -> None:
        if not session or not ids:
            return
        self._drop(session, key)
        answers = self._sessions.setdefault(session, {})
        self._sessions.move_to_end(session)
        answers[key] = array("I", ids)
        self._held += len(ids)
        self._shrink()

    def _of(self, session: str) -> _Answers:
        return self._sessions.get(session, {})

    def _drop(self, session: str, key: str | Begun) -> None:
        self._held -= len(self._of(session).pop(key, ()))

    def _shrink(self) -> None:
        sessions, tokens = self._limits
        while len(self._sessions) > max(1, sessions) or (self._held > tokens and len(self._sessions) > 1):
            self.forget(next(iter(self._sessions)))
        for session, answers in self._sessions.items():
            while self._held > tokens and answers:
                self._drop(session, next(iter(answers)))

    def answer(self, session: str, text: str) -> list[int]:
        """Return the ids of an answer, with what its text may not show at their end; empty if they are not known."""
        return list(self._of(session).get(text, ()))

    def partial(self, session: str, partial: Partial, template: str = "") -> list[int]:
        """Return the ids of an answer's beginning; empty if they are not known."""
        return list(self._of(session).get((partial, template), ()))

    def forget(self, session: str) -> None:
        """Drop a session; unknown ones are ignored."""
        self._held -= sum(len(ids) for ids in self._sessions.pop(session, {}).values())


def splice(tokenizer: Any, text: str, messages: Sequence[ChatMessage], sampled_ids: Callable[[str], Ids]) -> list[int]:
    """Tokenize a rendered conversation, with the sampled ids of its answers wherever they stand for the same text.

    The ids decode to the text; at most the space is added that a SentencePiece vocabulary hides where a stream begins.
    """
    # The template writes the special tokens itself; adding them again would double the start token.
    encoded = tokenizer(
        text, add_special_tokens=False, return_token_type_ids=False, return_offsets_mapping=True, verbose=False
    )
    ids = [int(token) for token in encoded["input_ids"]]
    starts, ends = ([int(edges[side]) for edges in encoded["offset_mapping"]] for side in (0, 1))
    # From the last to the first: what stands before a place keeps its index.
    for content, start, end in reversed(list(_answers(text, messages))):
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        if first < last and (sampled := sampled_ids(content)):
            place = _Place(tokenizer, ids, first, last, follows_space=text[:start].endswith(" "))
            ids[:last] = place.filled(sampled)
    return ids


def _answers(text: str, messages: Sequence[ChatMessage]) -> Iterator[tuple[str, int, int]]:
    """Find the answers in the rendered text; passes over all messages in order, as one may quote another."""
    cursor = 0
    for message, following in zip(messages, [*messages[1:], None], strict=True):
        start, shown = _find(text, message.content, cursor)
        if message.role == "system" and (start < 0 or _stands_before(text, following, cursor, start)):
            continue
        if start < 0:
            # The template has rewritten it: where the later ones stand is no longer certain.
            return
        cursor = start + len(shown)
        if message.role == "assistant" and shown:
            yield message.content, start, cursor


def _stands_before(text: str, message: ChatMessage | None, cursor: int, place: int) -> bool:
    return message is not None and 0 <= _find(text, message.content, cursor)[0] < place


def _find(text: str, content: str, cursor: int) -> tuple[int, str]:
    """Find a content as it is, else without the white space around it that many templates trim."""
    start = text.find(content, cursor)
    if start >= 0:
        return start, content
    return text.find(content.strip(), cursor), content.strip()


class _Place(NamedTuple):
    """Where an answer stands in the ids of a conversation."""

    tokenizer: Any
    ids: list[int]
    first: int
    last: int
    follows_space: bool

    def filled(self, sampled: Ids) -> list[int]:
        """Return all ids up to the answer's end: with the sampled ones if they read the same, else as they are."""
        words = self._same(sampled)
        if words is None and self.follows_space and self.first and self._read(self.ids[self.first - 1 :][:1]) == "":
            # The template's space is a token of its own, and what was sampled has it too.
            return self._replace(first=self.first - 1, follows_space=False).filled(sampled)
        return self.ids[: self.first] + (self.ids[self.first : self.last] if words is None else list(words))

    def _same(self, sampled: Ids) -> Ids | None:
        """Return the sampled ids, less what the text does not show at their end, if they read as the answer does."""
        before = self.ids[max(0, self.first - ANCHOR) : self.first]
        shown = self._read([*before, *self.ids[self.first : self.last]])
        for size in range(len(sampled), max(0, len(sampled) - SURPLUS), -1):
            said = self._read([*before, *sampled[:size]])
            if said == shown or self._hides_space(before, shown, said, sampled[:size]):
                return sampled[:size]
            if len(said) <= len(shown):
                break
        return None

    def _hides_space(self, before: Ids, shown: str, said: str, sampled: Ids) -> bool:
        base = self._read(before)
        words = shown[len(base) :]
        return not self.follows_space and said == f"{base} {words}" and self._read(sampled) == words

    def _read(self, ids: Ids) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
