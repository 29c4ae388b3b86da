"""What the tests of reading stand on: the transcript alone, and the whole program over a session that is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.geometry import Region
from textual.pilot import Pilot

from quantchat.domain.chat import utc_now
from quantchat.ui.widgets.find import FindLine
from quantchat.ui.widgets.transcript import MessageView, Transcript
from ui.rig import SIZES, Rig, running
from ui.test_transcript import TranscriptApp, transcript_of, view

sizes = pytest.mark.parametrize("size", SIZES)


@asynccontextmanager
async def transcript(size: tuple[int, int]) -> AsyncIterator[tuple[Pilot[None], Transcript]]:
    async with TranscriptApp().run_test(size=size) as pilot:
        yield pilot, transcript_of(pilot)


def thinker(number: int, *, text: str = "the answer", thinking: str = "first\nthen\nso it is") -> MessageView:
    return MessageView(f"a{number}", "assistant", text, "SmolLM2", thinking=thinking)


def focused_words(pilot: Pilot[None]) -> list[str]:
    return [line[2:] for line in view(pilot) if line.startswith("█")]


def styled(pilot: Pilot[None], *kinds: str) -> list[str]:
    """The texts on the screen that are drawn in the style of a component of the transcript."""
    widget = transcript_of(pilot)
    looks = [widget.get_component_rich_style(f"transcript--{kind}") for kind in kinds]
    wanted = [(look.color, look.bgcolor, look.reverse) for look in looks]
    strips = widget.render_lines(Region(0, 0, *widget.outer_size))
    return [
        s.text
        for strip in strips
        for s in strip
        if s.style and (s.style.color, s.style.bgcolor, s.style.reverse) in wanted
    ]


@asynccontextmanager
async def chatting(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    *said: str,
    thinking: str = "",
    script: dict[str, object] | None = None,
    config: str = "",
) -> AsyncIterator[Rig]:
    """The program with a session in which questions and answers alternate."""
    async with running(folder, monkeypatch, script, size=size, config=config) as rig:
        session = rig.chat.desk.archive.new()
        for number, text in enumerate(said):
            message = session.append("assistant" if number % 2 else "user", text)
            if number % 2:
                message.finish, message.thinking = "stop", thinking
        session.updated = utc_now()
        rig.chat.open_session(session)
        await rig.until(lambda: rig.chat._find_line is not None, "the find line")
        await rig.pilot.pause()
        yield rig


def screen(rig: Rig) -> str:
    return "\n".join(strip.text for strip in rig.chat._compositor.render_strips())


async def together(rig: Rig, *keys: str) -> None:
    """Send keys as one packet: all are there before the first one is handled."""
    for key in keys:
        character = "/" if key == "slash" else key if len(key) == 1 else None
        rig.app.post_message(events.Key(key, character))
    await rig.pilot.pause()


def find_line(rig: Rig) -> FindLine:
    return rig.chat.query_one(FindLine)


def top_words(rig: Rig) -> str:
    widget = rig.chat.transcript
    return widget.render_lines(Region(0, 1, widget.outer_size.width, 1))[0].text[2:].strip()
