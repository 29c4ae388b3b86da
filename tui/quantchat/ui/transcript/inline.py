"""The words of a paragraph: from the parser's inline tokens to styled lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markdown_it.token import Token
from rich.segment import Segment
from rich.style import Style

from quantchat.domain.text import clean
from quantchat.ui.transcript.palette import Palette
from quantchat.ui.transcript.wrap import Line

_MARKS = {"strong_open": Style(bold=True), "em_open": Style(italic=True), "s_open": Style(strike=True)}
_SCHEMES = ("http://", "https://", "mailto:")


def written(tokens: Sequence[Token], style: Style, palette: Palette) -> list[Line]:
    """The lines of a paragraph, ended where its source lines end: models mean the line ends that they write."""
    return _Writer(style, palette).lines_of(tokens)


def one_line(tokens: Sequence[Token], style: Style, palette: Palette) -> Line:
    return [run for line in written(tokens, style, palette) for run in line]


class _Writer:
    def __init__(self, style: Style, palette: Palette) -> None:
        self._lines: list[Line] = [[]]
        self._styles = [style]
        self._palette = palette
        self._links: list[tuple[str, int, int]] = []

    def lines_of(self, tokens: Sequence[Token]) -> list[Line]:
        for token in tokens:
            _WRITERS.get(token.type, _Writer._text)(self, token)
        return self._lines

    def _put(self, text: str, style: Style | None = None) -> None:
        if text:
            self._lines[-1].append(Segment(text, style or self._styles[-1]))

    def _text(self, token: Token) -> None:
        content = token.content
        # Entities such as `&#x202e;` become characters only in the parser, after the text was cleaned.
        plain = content.isascii() and content.isprintable()
        self._put(content if plain else clean(content, newlines=False))

    def _code(self, token: Token) -> None:
        style = self._styles[-1] + self._palette.code + Style(color=self._palette.link.color)
        self._put(clean(token.content, newlines=False), style)

    def _maths(self, token: Token) -> None:
        first, *rest = token.content.split("\n")
        self._put(first)
        for line in rest:
            self._break(token)
            self._put(line)

    def _break(self, _token: Token) -> None:
        self._lines.append([])

    def _open(self, token: Token) -> None:
        self._styles.append(self._styles[-1] + _MARKS[token.type])

    def _close(self, _token: Token) -> None:
        self._styles.pop()

    def _open_link(self, token: Token) -> None:
        self._links.append((_address(token, "href"), len(self._lines) - 1, len(self._lines[-1])))
        self._styles.append(self._styles[-1] + self._palette.link)

    def _close_link(self, _token: Token) -> None:
        self._styles.pop()
        address, line, run = self._links.pop()
        begun, *rest = self._lines[line:]
        text = "".join(part.text for part in [*begun[run:], *(part for other in rest for part in other)])
        if not _says(text, address):
            self._put(f" ({address})" if text else f"({address})")

    def _image(self, token: Token) -> None:
        self._put(clean(f"[image: {token.content or 'untitled'}] ({_address(token, 'src')})", newlines=False))


_WRITERS: dict[str, Callable[[_Writer, Token], None]] = {
    "code_inline": _Writer._code,
    "math_inline": _Writer._maths,
    "softbreak": _Writer._break,
    "hardbreak": _Writer._break,
    **dict.fromkeys(_MARKS, _Writer._open),
    **dict.fromkeys((name.replace("_open", "_close") for name in _MARKS), _Writer._close),
    "link_open": _Writer._open_link,
    "link_close": _Writer._close_link,
    "image": _Writer._image,
}


def _address(token: Token, attribute: str) -> str:
    from markdown_it.common.normalize_url import normalizeLinkText

    return clean(normalizeLinkText(str(token.attrs.get(attribute, ""))), newlines=False)


def _says(text: str, address: str) -> bool:
    """Whether a link's words are its address already."""
    bare = next((address.removeprefix(scheme) for scheme in _SCHEMES if address.startswith(scheme)), address)
    return text.rstrip("/") in (address.rstrip("/"), bare.rstrip("/"))
