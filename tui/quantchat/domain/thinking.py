"""What a model thinks before it answers: the tags of the model families, and text cut at them piece by piece."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Channel = Literal["answer", "thinking"]
Piece = tuple[Channel, str]
GAP = "\n\n"
"""Stands between two blocks of one channel, in place of the tags that parted them."""
NEAR = 8_000
"""Characters of a stored answer within which a closing tag counts although nothing opened it."""


class Tag(NamedTuple):
    """A text that begins a block.

    Attributes:
        channel: Of the block; None where the tag only announces another one.
        closer: Ends a block of thinking.
    """

    text: str
    channel: Channel | None
    closer: str = ""


PAIRS = (
    Tag("<think>", "thinking", "</think>"),  # DeepSeek, Qwen, GLM, Nemotron, MiniMax and most others
    Tag("<thinking>", "thinking", "</thinking>"),
    Tag("<reasoning>", "thinking", "</reasoning>"),
    Tag("<reason>", "thinking", "</reason>"),
    Tag("<thought>", "thinking", "</thought>"),  # EXAONE Deep
    Tag("<Thought>", "thinking", "</Thought>"),
    Tag("<seed:think>", "thinking", "</seed:think>"),  # Seed-OSS
    Tag("<longcat_think>", "thinking", "</longcat_think>"),
    Tag("[THINK]", "thinking", "[/THINK]"),  # Magistral
    Tag("◁think▷", "thinking", "◁/think▷"),  # Kimi
    Tag("<|begin_of_thought|>", "thinking", "<|end_of_thought|>"),  # OpenThinker
    Tag("<|START_THINKING|>", "thinking", "<|END_THINKING|>"),  # Command A, R7B
    Tag("<|inner_prefix|>", "thinking", "<|inner_suffix|>"),  # Apertus
    Tag("<|channel>thought", "thinking", "<channel|>"),  # Gemma 4
)
HARMONY = (  # gpt-oss
    Tag("<|start|>assistant", None),
    Tag("<|channel|>analysis<|message|>", "thinking", "<|end|>"),
    Tag("<|channel|>commentary<|message|>", "answer"),
    Tag("<|channel|>final<|message|>", "answer"),
)
SOLAR = (
    Tag("<|begin|>assistant", None),
    Tag("<|think|>", "thinking", "<|end|>"),
    Tag("<|content|>", "answer"),
)
TAGS = (*PAIRS, *HARMONY, *SOLAR)
_STRAY = tuple(Tag(closer, None) for closer in dict.fromkeys(tag.closer for tag in TAGS if tag.closer))
_ANY = (*TAGS, *_STRAY)
_OPENERS = tuple(tag.text for tag in TAGS)
_CLOSERS = tuple(tag.closer for tag in PAIRS)
_LONE_CLOSER = re.compile(rf"^[ \t]*(?:{'|'.join(map(re.escape, _CLOSERS))})[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)


class ThinkingSplitter:
    """Cuts an answer into channels while it streams.

    A tag counts where a block starts; later in an answer the same letters are text. What may be the start of a tag is
    held back. Tags and the white space around them are dropped, every other character comes out once and in order.
    The work per piece does not grow with the answer.
    """

    def __init__(self, opened: Tag | None = None) -> None:
        """Begin at the start of an answer, or inside the block that the prompt has `opened`."""
        self._spoken: set[Channel] = set()
        self._held = ""
        self._begin(opened)
        self._drops_space = opened is not None

    def _begin(self, tag: Tag | None) -> None:
        """Start a block; without a tag the next one decides, or the answer begins."""
        self._channel: Channel = (tag and tag.channel) or "answer"
        self._closer = tag.closer if tag else ""
        # A model may write the tag once more that its prompt ended with.
        self._tags = _ANY if tag is None or tag.channel is None else (tag,) if tag.closer else ()
        self._at_start = self._drops_space = self._tag_before = True
        self._space: list[str] = []
        # Length of the control token at the start of what is held; alone it is no text.
        self._control = 0

    def feed(self, text: str) -> list[Piece]:
        """Take new text and return what can be shown, by channel."""
        if not (self._at_start or self._closer):
            return self._said(text)
        pieces: list[Piece] = []
        self._held, rest = "", self._held + text
        while rest:
            rest = self._start(rest) if self._at_start else self._body(rest, pieces)
        return pieces

    def mark(self, token: str) -> list[Piece]:
        """Take a control token, which no text can be mistaken for: its tag counts anywhere.

        One that means nothing where it stands is dropped, as other special tokens are.
        """
        pieces: list[Piece] = []
        if token != self._closer and not self._may_continue(token):
            if not any(tag.text.startswith(token) for tag in _ANY):
                return []
            pieces = self.flush()
            self._begin(None)
            self._drops_space = False
        if self._at_start and not self._held:
            self._control = len(token)
        return pieces + self.feed(token)

    def _may_continue(self, token: str) -> bool:
        return self._at_start and any(tag.text.startswith(self._held + token) for tag in self._tags)

    def flush(self) -> list[Piece]:
        """Return what was held back, when nothing follows."""
        held, self._held = self._held[self._control :], ""
        return self._said(held)

    def _start(self, text: str) -> str:
        """Look for a tag where a block starts; return what is left to look at."""
        bare = text.lstrip()
        if not self._drops_space:
            self._space.append(text[: len(text) - len(bare)])
        found = next((tag for tag in self._tags if bare.startswith(tag.text)), None)
        if found is not None:
            self._begin(found)
            return bare[len(found.text) :]
        if not bare or any(tag.text.startswith(bare) for tag in self._tags):
            self._held = bare
            return ""
        control, self._control, self._at_start = self._control, 0, False
        return bare[control:]

    def _body(self, text: str, pieces: list[Piece]) -> str:
        """Pass a block on up to its end; return what follows it."""
        if not self._closer:
            pieces += self._said(text)
            return ""
        body, closed, rest = text.partition(self._closer)
        if not closed:
            keep = _overlap(text, self._closer)
            body, self._held = text[: len(text) - keep], text[len(text) - keep :]
        bare = body.rstrip()
        if bare:
            pieces += self._said(bare)
        if closed:
            self._begin(None)
        else:
            self._space.append(body[len(bare) :])
        return rest

    def _said(self, text: str) -> list[Piece]:
        if self._space:
            text = "".join(self._space) + text
            self._space.clear()
        if not text:
            return []
        if self._tag_before and self._channel in self._spoken:
            text = GAP + text
        self._tag_before = False
        self._spoken.add(self._channel)
        return [(self._channel, text)]


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that `tag` starts with, the whole tag left out."""
    longest = min(len(text), len(tag) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(tag[:size])), 0)


def split_thinking(text: str) -> tuple[str, str]:
    """Cut a whole answer into thinking and answer, for texts that were stored with their tags.

    A tag that is never closed makes all that follows it thinking. A closing tag alone on a line near the start, outside
    of code, makes what stands before it thinking, as the opening one may have been in the prompt.
    """
    splitter = ThinkingSplitter()
    pieces = splitter.feed(text) + splitter.flush()
    answer = "".join(piece for channel, piece in pieces if channel == "answer")
    thinking = "".join(piece for channel, piece in pieces if channel == "thinking")
    return _split_at_lone_closer(text) if answer == text else (thinking, answer)


def _split_at_lone_closer(text: str) -> tuple[str, str]:
    found = _LONE_CLOSER.search(text) if any(closer in text for closer in _CLOSERS) else None
    if found is None or found.start() > NEAR:
        return "", text
    before = text[: found.start()]
    if len(_FENCE.findall(before)) % 2 or any(opener in before for opener in _OPENERS):
        return "", text
    return before.strip(), text[found.end() :].lstrip()
