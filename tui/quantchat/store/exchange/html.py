"""Sessions as pages that stand alone: they fetch nothing, run nothing, and follow the reader's colour scheme."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat.domain.chat import Message, Session
from quantchat.domain.runcard import run_card
from quantchat.domain.text import plain

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_PATHS = frozenset({"Folder"})
"""Rows of a run card that tell about the writer's machine and not about the answer."""


def write_html(session: Session) -> str:
    """Return the branch that is shown as a page."""
    return "\n".join(_page(session)) + "\n"


def _page(session: Session) -> Iterator[str]:
    title = _safe(" ".join(session.title.split()))
    yield '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="referrer" content="no-referrer">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title>\n<style>\n{_style()}</style>\n</head>\n<body>"
    tags = " ".join(f"#{tag}" for tag in session.tags)
    yield f'<header><h1 dir="auto">{title}</h1><p>{_time(session)} {_safe(tags)}</p></header>\n<main>'
    if session.system_prompt:
        yield _article("system", "System prompt", _words(session.system_prompt))
    for message in session.branch():
        yield _message(message)
    yield "</main>\n<footer>Written by quantchat</footer>\n</body>\n</html>"


def _message(message: Message) -> str:
    model = message.run.model if message.run else ""
    who = {"user": "You", "system": "System"}.get(message.role, model or "Assistant")
    answer = message.role == "assistant"
    parts = []
    if message.thinking:
        parts.append(_folded("Thinking", f'<div class="words" dir="auto">{_safe(message.thinking)}</div>'))
    parts.append(_rendered(message.text) if answer else _words(message.text))
    if message.error is not None:
        parts.append(f'<p class="error">{_safe(message.error.sentence())}</p>')
    if answer:
        parts.append(_folded("Run card", _card(message)))
    when = f'<time datetime="{message.created.isoformat()}">{message.created:%Y-%m-%d %H:%M} UTC</time>'
    return _article(message.role, who, "\n".join(parts), when)


def _article(kind: str, who: str, body: str, when: str = "") -> str:
    return f'<article class="{kind}">\n<p class="who">{_safe(" ".join(who.split()))}{when}</p>\n{body}\n</article>'


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>"


def _card(message: Message) -> str:
    rows = (row for section in run_card(message) for row in section.rows if row.label not in _PATHS)
    return f'<dl class="card">{"".join(f"<dt>{_safe(row.label)}</dt><dd>{_safe(row.value)}</dd>" for row in rows)}</dl>'


def _time(session: Session) -> str:
    return f'<time datetime="{session.created.isoformat()}">{session.created:%Y-%m-%d %H:%M} UTC</time>'


def _words(text: str) -> str:
    return f'<div class="words" dir="auto">{_safe(text)}</div>'


def _rendered(text: str) -> str:
    return f'<div dir="auto">{_markdown().render(_bare(text))}</div>'


def _safe(text: str) -> str:
    return escape(_bare(text))


def _bare(text: str) -> str:
    return _REORDERING.sub("", plain(text))


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text("utf-8")


@cache
def _markdown() -> MarkdownIt:
    """Return a parser for which HTML is text and a picture, which a page would have to fetch, is a link."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
