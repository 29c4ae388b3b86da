"""Pages stand alone: nothing is fetched or run, every word is there, and foreign text stays text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given

from quantchat.domain.chat import Message, RunCard, Session
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.domain.text import plain
from quantchat.errors import ErrorReport
from quantchat.store.exchange.html import write_html
from unit.exchange.trees import sessions

PAST = datetime(2020, 1, 1, 12, 30, tzinfo=UTC)
ELEMENTS = """
    html head meta title style body header main article footer details summary div p time dl dt dd
    h1 h2 h3 h4 h5 h6 hr br a strong em s code pre blockquote ul ol li table thead tbody tr th td
"""
KNOWN = set(re.findall(r"\w+", ELEMENTS))
ATTRIBUTES = {"class", "dir", "datetime", "href", "title", "start", "charset", "content", "name", "http-equiv", "style"}
VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def page_of(*messages: Message, **fields: object) -> Page:
    session = Session(id="x", created=PAST, updated=PAST, **fields)  # type: ignore[arg-type]
    for number, message in enumerate(messages):
        message.id, message.parent = f"m{number}", session.head
        session.messages[message.id], session.head = message, message.id
    return Page(write_html(session))


def answer(text: str, **fields: object) -> Message:
    return Message(id="", role="assistant", text=text, created=PAST, finish="stop", **fields)  # type: ignore[arg-type]


def question(text: str) -> Message:
    return Message(id="", role="user", text=text, created=PAST)


@given(sessions())
def test_whatever_is_said_the_page_is_well_formed_and_harmless(session: Session) -> None:
    page = Page(write_html(session))
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= KNOWN
    for _, attributes in page.tags:
        assert attributes.keys() <= ATTRIBUTES
        assert not re.match(r"\s*(javascript|data|vbscript|file):", attributes.get("href") or "", re.IGNORECASE)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", page.text)


@given(sessions())
def test_every_question_stands_there_as_it_was_asked(session: Session) -> None:
    text = Page(write_html(session)).text
    for message in session.branch():
        if message.role == "user":
            assert re.sub("[\u202a-\u202e\u2066-\u2069]", "", plain(message.text)) in text


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![track](https://evil.example/pixel.png)",
        "[click](javascript:alert(1))",
        "</article></main><iframe src=//evil.example>",
        "```html\n</code></pre><script>x</script>\n```",
        "<https://evil.example/\"onmouseover='x'>",
        "| a | b |\n|---|---|\n| <b>x</b> | ![i](http://e.example/i) |",
    ],
)
def test_nothing_is_run_or_fetched(hostile: str) -> None:
    page = page_of(question(hostile), answer(hostile, thinking=hostile), title=hostile, system_prompt=hostile)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "form", "video", "audio", "b"}
    assert not any("src" in attributes or "style" in attributes for _, attributes in page.tags)
    assert page.text.count(hostile.strip()) >= 2


def test_the_page_forbids_what_it_does_not_need_and_follows_the_colour_scheme() -> None:
    page = page_of(question("x"))
    policies = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    style = next(words for words in page.words if ":root" in words)
    assert "color-scheme: light dark" in style
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert "@import" not in style


def test_answers_are_rendered_and_their_run_cards_folded() -> None:
    run = RunCard(model="alpha-GPTQ", path="/home/me/models", kernel="marlin", sampling=SamplingSettings(seed=7))
    text = "# Head\n\n**bold** and `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1 < 2)\n```"
    cost = TurnStatistics(prompt_tokens=5, new_tokens=9, prefill_seconds=0.5, decode_seconds=1.0)
    page = page_of(question("q"), answer(text, thinking="Let me see", run=run, statistics=cost))
    tags = [tag for tag, _ in page.tags]
    assert {"h1", "strong", "code", "table", "pre"} <= set(tags)
    assert tags.count("details") == 2
    assert "print(1 < 2)" in page.text
    assert "Let me see" in page.text
    for known in ("alpha-GPTQ", "marlin", "Seed7"):
        assert known in page.text
    assert "/home/me/models" not in page.text


def test_errors_and_tags_are_shown() -> None:
    failed = answer("", error=ErrorReport(code="x", title="The engine stopped", detail="It ran out of memory"))
    page = page_of(question("q"), failed, title="Work & play", tags=["maths"])
    assert "The engine stopped. It ran out of memory." in page.text
    assert "Work & play" in page.text
    assert "#maths" in page.text
