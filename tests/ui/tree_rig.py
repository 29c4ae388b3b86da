"""What the tests of versions, branches and changes stand on."""

from __future__ import annotations

from quantchat.domain.chat import Message
from quantchat.ui.screens.edit import EditArea, EditScreen
from ui.rig import Rig


def shown(rig: Rig) -> list[str]:
    return [message.text for message in rig.chat.session.branch()]


def find(rig: Rig, text: str) -> Message:
    return next(message for message in rig.chat.session.messages.values() if message.text == text)


def notices(rig: Rig) -> str:
    return "\n".join(str(notice.message) for notice in rig.app._notifications)


def add(rig: Rig, text: str, *, parent: str, role: str = "assistant") -> Message:
    """Put a version into the session that is shown, and show it."""
    message = rig.chat.session.append(role, text, parent=parent)  # type: ignore[arg-type]
    message.finish = "stop" if role == "assistant" else None
    rig.chat.sync_transcript()
    return message


async def focus(rig: Rig, text: str) -> None:
    """Give the transcript the keyboard and a message the focus."""
    rig.chat.action_transcript()
    rig.chat.transcript.bring(find(rig, text).id)
    await rig.pilot.pause()


async def editing(rig: Rig) -> EditArea:
    await rig.until(lambda: isinstance(rig.app.screen, EditScreen) and rig.app.screen.query(EditArea), "the dialog")
    await rig.until(lambda: isinstance(rig.app.focused, EditArea), "its text")
    return rig.app.screen.query_one(EditArea)


async def closed(rig: Rig) -> None:
    await rig.until(lambda: rig.app.screen is rig.chat, "the dialog to close")


def screen_of(rig: Rig) -> str:
    """What the dialog in front shows."""
    return "\n".join(strip.text for strip in rig.app.screen._compositor.render_strips())
