"""Export and import for a running program: off the event loop, with the latest state of what is open here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.chat import Session
from quantchat.services.background import in_background
from quantchat.store.exchange.exporting import Exporter, Load, stored
from quantchat.store.exchange.formats import Format
from quantchat.store.exchange.importing import Import
from quantchat.store.exchange.progress import Progress
from quantchat.store.schema import decode_session, encode_session

if TYPE_CHECKING:
    from quantchat.services.desk import Desk


def loader(desk: Desk, session_ids: Sequence[str], shown: Session) -> Load:
    """Return what reads sessions on another thread: those that are open here as they are now, others from the disk."""
    held = {session.id: session for session in (*desk.archive.opened(), shown)}
    now = {name: encode_session(_as_it_is(desk, held[name])) for name in session_ids if name in held}
    on_disk = stored(desk.archive.store)
    return lambda session_id: decode_session(now[session_id]) if session_id in now else on_disk(session_id)


def _as_it_is(desk: Desk, session: Session) -> Session:
    """Return a session with what its running answer has said so far."""
    turn = desk.conversation.turn_of(session.id)
    if turn is None or turn.message.id not in session.messages:
        return session
    running = msgspec.structs.replace(turn.message, text=turn.text, thinking=turn.thinking)
    return msgspec.structs.replace(session, messages=session.messages | {running.id: running})


async def export(
    load: Load, session_ids: Sequence[str], target: Path, kind: Format, *, replace: bool, progress: Progress
) -> Exporter:
    """Write sessions to a file or folder.

    Raises:
        StorageError: if the disk refuses, or there is such a file that is not to be replaced.
        Cancelled: if the user said stop.
    """
    exporter = Exporter(kind, load, replace=replace, progress=progress)
    await in_background(exporter.write, session_ids, target)
    return exporter


async def read(incoming: Import, path: Path) -> None:
    """Read a file whose sessions are to come in.

    Raises:
        StorageError: if it cannot be read, or the disk refuses.
        Cancelled: if the user said stop.
    """
    await in_background(incoming.read, path)


async def admit(incoming: Import) -> int:
    """Let sessions come in, to the end even if the program is being left; return how many.

    Raises:
        StorageError: if the disk refuses; then none came in.
        Cancelled: if the user said stop before.
    """
    return await asyncio.to_thread(incoming.commit)
