"""Where two answers part: the first token of each that differs, found while both stream."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal, NamedTuple

from quantchat.domain.thinking import Channel

Verdict = Literal["", "differs", "equal", "cut"]
"""Nothing to say yet; they part somewhere; they are the same to the end; they are the same as far as both go."""

_TURN = "\x1e"
"""Stands in the stream where thinking ends and the answer begins, so that one never equals the other."""


class Place(NamedTuple):
    """A token of an answer.

    Attributes:
        token: Its number, from 1, counted by the engine.
        start: Of its text in the text of its channel, in characters; `end` behind it. Both are the same where the
            answer ended and the other one went on.
    """

    token: int
    channel: Channel
    start: int
    end: int


class _Piece(NamedTuple):
    begin: int
    token: int
    channel: Channel
    start: int
    text: str


class _Track:
    """One answer as a stream of characters, and which token each of them came with."""

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.rest = ""
        self.ended = False
        self.whole = False
        self.tokens = 0
        self._begins: list[int] = []
        self._length = 0
        self._said: dict[Channel, int] = {"answer": 0, "thinking": 0}

    def add(self, channel: Channel, text: str, tokens: int) -> None:
        last = self.pieces[-1].channel if self.pieces else channel
        turned = channel != last
        # Of several tokens that gave text only together the first counts; of those before it is another channel's mark.
        token = tokens if turned else min(self.tokens + 1, tokens)
        lead = _TURN if turned else ""
        self._begins.append(self._length)
        self.pieces.append(_Piece(self._length + len(lead), max(token, 1), channel, self._said[channel], text))
        self._length += len(lead) + len(text)
        self._said[channel] += len(text)
        self.rest += lead + text
        self.tokens = tokens

    def place(self, position: int) -> Place:
        """The token that a character of the stream came with; behind the last one, the end of the answer."""
        number = bisect_right(self._begins, position) - 1
        if number < 0 or position >= self._length:
            channel: Channel = self.pieces[-1].channel if self.pieces else "answer"
            return Place(self.tokens + 1, channel, self._said[channel], self._said[channel])
        piece = self.pieces[number]
        return Place(piece.token, piece.channel, piece.start, piece.start + len(piece.text))


class Divergence:
    """Compares two answers, named 0 and 1, as they stream; whichever is ahead waits for the other.

    Attributes:
        found: The first differing token of each, once there is one; it never changes then.
        common: Characters that both have said, thinking included, until they part.
    """

    def __init__(self) -> None:
        self._tracks = (_Track(), _Track())
        self.found: tuple[Place, Place] | None = None
        self.common = 0

    def add(self, side: int, channel: Channel, text: str, tokens: int) -> None:
        """Take what one side said next; `tokens` it has generated so far."""
        if text:
            self._tracks[side].add(channel, text, tokens)
            self._compare()

    def end(self, side: int, *, whole: bool, tokens: int = 0) -> None:
        """Note that a side has ended; `whole` if the model itself ended it.

        Args:
            side: 0 or 1.
            whole: An answer that was cut is no other answer.
            tokens: All that were generated, the end of sequence included.
        """
        track = self._tracks[side]
        track.ended, track.whole = True, whole
        track.tokens = max(track.tokens, tokens - 1) if whole else max(track.tokens, tokens)
        self._compare()

    def tokens(self, side: int) -> int:
        """How many tokens of a side have been compared or wait for the other."""
        return self._tracks[side].tokens

    @property
    def verdict(self) -> Verdict:
        """What can be said by now."""
        if self.found is not None:
            return "differs"
        if not all(track.ended for track in self._tracks):
            return ""
        return "equal" if all(track.whole for track in self._tracks) else "cut"

    def _compare(self) -> None:
        if self.found is not None:
            return
        left, right = self._tracks
        same = _common(left.rest, right.rest)
        self.common += same
        left.rest, right.rest = left.rest[same:], right.rest[same:]
        over = [not track.rest and track.ended and track.whole for track in self._tracks]
        if (left.rest and right.rest) or (over[0] and right.rest) or (over[1] and left.rest):
            self.found = left.place(self.common), right.place(self.common)


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(number for number in range(most) if one[number] != other[number])
