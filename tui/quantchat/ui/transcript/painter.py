"""From text to lines of styled cells, at one width and in one palette."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, Markdown, MarkdownContext
from rich.segment import Segment
from rich.style import Style
from rich.text import Text, TextType
from rich.theme import Theme
from textual.strip import Strip

from quantchat.domain.text import clean
from quantchat.ui.transcript.blocks import Block, language_of
from quantchat.ui.transcript.code import highlight
from quantchat.ui.transcript.palette import Palette


class _Heading(Heading):
    LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Rule(HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment("─" * options.max_width, console.get_style("markdown.hr"))


class _Code(CodeBlock):
    def on_enter(self, context: MarkdownContext) -> None:
        super().on_enter(context)
        self.code = ""

    def on_text(self, context: MarkdownContext, text: TextType) -> None:
        self.code += str(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        base = console.get_style("markdown.code_block")
        text = highlight(self.code.rstrip("\n"), self.lexer_name, self.theme, base)
        for line in fold(text, console, options.max_width):
            yield Segment(" ", base)
            yield from _segments(line, base, console)
            yield Segment(" " * max(0, options.max_width - line.cell_len - 1), base)
            yield Segment.line()


def fold(text: Text, console: Console, width: int) -> Iterator[Text]:
    """Wrap code with one cell to spare on both sides, keeping its spaces."""
    for line in text.split("\n", allow_blank=True):
        for part in line.wrap(console, max(1, width - 2), overflow="fold", tab_size=4) or [line]:
            part.end = ""
            yield part


class _Tokens(Markdown):
    """Rich's Markdown over tokens that were parsed here, without its own parser, which drops html."""

    elements = Markdown.elements | {"heading_open": _Heading, "hr": _Rule, "fence": _Code, "code_block": _Code}
    inlines = Markdown.inlines | {"link"}

    def __init__(self, tokens: Sequence[Token], code_theme: str) -> None:
        super().__init__("", code_theme=code_theme, hyperlinks=False)
        self.parsed = [*tokens]

    def _flatten_tokens(self, tokens: Iterable[Token]) -> Iterable[Token]:
        href, inner = "", ""
        for token in super()._flatten_tokens(tokens):
            if token.type == "link_open":
                href, inner = str(token.attrs.get("href", "")), ""
                yield Token("quantchat_link", "link", 1)
            elif token.type == "link_close":
                yield Token("quantchat_link", "link", -1)
                if inner not in href:
                    yield _text(f" ({href})")
            elif token.type == "image":
                yield _text(f"[image: {token.content or 'untitled'}] ({token.attrs.get('src', '')})")
            elif token.type == "softbreak":
                # Models mean the line ends that they write, in verse and in code without a fence.
                yield Token("hardbreak", "br", 0)
            else:
                inner += token.content
                yield _cleaned(token)


def _text(content: str) -> Token:
    return Token("text", "", 0, content=clean(content, newlines=False))


def _cleaned(token: Token) -> Token:
    """Entities such as `&#x202e;` become characters only in the parser, after the text was cleaned."""
    content = clean(token.content)
    return token if content == token.content else token.copy(content=content)


class Painter:
    """Draws blocks of Markdown and plain text at one width."""

    def __init__(self, width: int, palette: Palette) -> None:
        self.width = max(1, width)
        self.palette = palette
        self._console = Console(
            file=io.StringIO(),
            width=self.width,
            color_system="truecolor",
            force_terminal=True,
            legacy_windows=False,
            theme=_theme(palette),
            markup=False,
            highlight=False,
            emoji=False,
        )
        self._options = self._console.options.update(width=self.width, height=None)

    def block(self, block: Block) -> list[Strip]:
        """Draw one top-level block of Markdown, without blank lines around it."""
        if not block.fits(self.width):
            return self._source(block)
        markdown = _Tokens(block.tokens, self.palette.code_theme)
        try:
            lines = self._console.render_lines(markdown, self._options, pad=False)
        except (ValueError, LookupError, TypeError, AssertionError, RuntimeError):
            # Rich gives up on some nestings; the words must still be seen.
            return self._source(block)
        return _trimmed([Strip(line) for line in lines])

    def _source(self, block: Block) -> list[Strip]:
        return self.plain(block.source.rstrip("\n"), self.palette.base)

    def plain(self, text: str, style: Style) -> list[Strip]:
        """Draw text as it is, wrapped at words."""
        strips: list[Strip] = []
        for line in text.split("\n"):
            parts = Text(line, style=style, end="").wrap(self._console, self.width, overflow="fold")
            strips += [Strip(_segments(part, style, self._console)) for part in parts] or [Strip([])]
        return strips

    def code(self, lines: str, language: str) -> list[Strip]:
        """Draw lines of a fence that is still open, as they would stand in a finished one."""
        base = self.palette.base + self.palette.code
        text = highlight(lines, language_of(language), self.palette.code_theme, base)
        margin = Segment(" ", base)
        return [
            Strip([margin, *_segments(part, base, self._console)]).extend_cell_length(self.width, base)
            for part in fold(text, self._console, self.width)
        ]


def _segments(line: Text, style: Style, console: Console) -> Iterable[Segment]:
    # Rich leaves out the style of a text that has no spans.
    line.end = ""
    return Segment.apply_style(line.render(console), style)


def _trimmed(strips: list[Strip]) -> list[Strip]:
    filled = [
        number
        for number, strip in enumerate(strips)
        if strip.text.strip() or any(s.style and s.style.bgcolor for s in strip)
    ]
    return strips[filled[0] : filled[-1] + 1] if filled else []


def _theme(palette: Palette) -> Theme:
    base = palette.base
    headings = {f"markdown.h{level}": palette.heading for level in range(1, 7)}
    return Theme(
        {
            "markdown.paragraph": Style(),
            "markdown.code": palette.code + Style(color=palette.link.color),
            "markdown.code_block": base + palette.code,
            "markdown.link": palette.link,
            "markdown.block_quote": palette.dim,
            "markdown.hr": palette.dim,
            "markdown.item.bullet": palette.label,
            "markdown.item.number": palette.label,
            "markdown.table.border": palette.dim,
            "markdown.table.header": Style(bold=True),
            **headings,
        }
    )
