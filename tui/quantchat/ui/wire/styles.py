"""Styles as small numbers, and the shortest sequence that leads from one to another."""

from __future__ import annotations

from typing import NamedTuple

from rich.color import Color, ColorSystem
from rich.style import Style

DEFAULT = 0
UNKNOWN = -1

# Bits of rich's styles, in its order: bold, dim, italic, underline, blink, blink2, reverse, conceal, strike,
# underline2, frame, encircle, overline.
_ON = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "21", "51", "52", "53")
_OFF = {2: "23", 3: "24", 4: "25", 6: "27", 7: "28", 8: "29", 12: "55"}
_BOLD_DIM = 0b11
_REVERSE = 1 << 6
# Attributes that show on a space, or that erasing would paint on some terminals and not on others.
_VISIBLE_ON_BLANKS = sum(1 << bit for bit in (3, 4, 5, 6, 8, 9, 10, 11, 12))


class _Look(NamedTuple):
    attributes: int
    foreground: tuple[str, ...]
    background: tuple[str, ...]
    link: str | None


class StyleTable:
    """Numbers the styles of one screen; 0 is the terminal's default.

    Attributes:
        blank: Per style the number of what it looks like on a space.
        plain: Per style whether erasing with it looks like writing spaces.
    """

    def __init__(self, colors: ColorSystem = ColorSystem.TRUECOLOR) -> None:
        self._colors = colors
        self.clear()

    def clear(self) -> None:
        """Forget all styles; numbers given so far mean nothing any more."""
        self.blank: list[int] = []
        self.plain: list[bool] = []
        self._looks: list[_Look] = []
        self._numbers: dict[_Look, int] = {}
        self._known: dict[tuple[int, Color | None, Color | None, str | None], int] = {}
        self._ways: dict[tuple[int, int], str] = {}
        self._over: dict[tuple[int, int], int] = {}
        self._number(_Look(0, (), (), None))

    def __len__(self) -> int:
        return len(self._looks)

    def number(self, style: Style | None) -> int:
        """Return the number of a style; styles that look the same have the same one."""
        if style is None:
            return DEFAULT
        key = (style._attributes & style._set_attributes, style.color, style.bgcolor, style.link)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._number(self._look(*key))
        return found

    def way(self, old: int, new: int) -> str:
        """Return the sequence that changes one style into another, the shorter of a change and a reset."""
        key = (old, new)
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = self._find_way(old, new)
        return found

    def under_blank(self, current: int, wanted: int) -> int:
        """Return the style nearest to the current one that shows a space as the wanted one does."""
        if current == UNKNOWN or not (self.plain[current] and self.plain[wanted]):
            return wanted
        if self.blank[current] == self.blank[wanted]:
            return current
        key = (current, wanted)
        found = self._over.get(key)
        if found is None:
            look = self._looks[current]._replace(background=self._looks[wanted].background)
            found = self._over[key] = self._number(look)
        return found

    def _number(self, look: _Look) -> int:
        found = self._numbers.get(look)
        if found is not None:
            return found
        number = self._numbers[look] = len(self._looks)
        self._looks.append(look)
        self.plain.append(not look.attributes & _VISIBLE_ON_BLANKS and look.link is None)
        self.blank.append(number)
        if self.plain[number]:
            self.blank[number] = self._number(_Look(0, (), look.background, None))
        return number

    def _look(self, attributes: int, color: Color | None, background: Color | None, link: str | None) -> _Look:
        front = self._codes(color, foreground=True)
        back = self._codes(background, foreground=False)
        if self._colors is ColorSystem.STANDARD and not attributes & _REVERSE:
            front = _readable(front, back)
        return _Look(attributes, front, back, link)

    def _codes(self, color: Color | None, *, foreground: bool) -> tuple[str, ...]:
        if color is None or color.is_default:
            return ()
        return color.downgrade(self._colors).get_ansi_codes(foreground)

    def _find_way(self, old: int, new: int) -> str:
        to = self._looks[new]
        anew = ["0", *_on(to.attributes), *to.foreground, *to.background]
        was = self._looks[old] if old != UNKNOWN else _Look(0, (), (), None)
        change = None if old == UNKNOWN else _change(was, to)
        codes = anew if change is None or len(";".join(anew)) <= len(";".join(change)) else change
        text = "" if codes == [] else f"\x1b[{';'.join(codes)}m"
        text = "\x1b[m" if text == "\x1b[0m" else text
        return text if was.link == to.link else text + _link(to.link)


def _on(attributes: int) -> list[str]:
    return [code for bit, code in enumerate(_ON) if attributes & 1 << bit]


def _change(was: _Look, to: _Look) -> list[str] | None:
    """Return the codes that change one look to another, or None if only a reset can."""
    gone = was.attributes & ~to.attributes
    new = to.attributes & ~was.attributes
    codes: list[str] = []
    if gone & _BOLD_DIM:
        codes.append("22")
        new |= to.attributes & _BOLD_DIM
    for bit in range(2, len(_ON)):
        if gone & 1 << bit:
            if bit not in _OFF:
                return None
            codes.append(_OFF[bit])
    codes += _on(new)
    if was.foreground != to.foreground:
        codes += to.foreground or ("39",)
    if was.background != to.background:
        codes += to.background or ("49",)
    return codes


def _link(target: str | None) -> str:
    return f"\x1b]8;;{target or ''}\x1b\\"


def _readable(front: tuple[str, ...], back: tuple[str, ...]) -> tuple[str, ...]:
    """Text that sixteen colours would give the colour of its background becomes black or white."""
    if len(front) != 1 or len(back) != 1 or int(front[0]) + 10 != int(back[0]):
        return front
    dark = front[0] in ("30", "31", "34", "35", "90")
    return ("97",) if dark else ("30",)
