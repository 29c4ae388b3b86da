"""Sessions to files, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quantchat.domain.text import clean
from quantchat.errors import Cancelled, QuantchatError, StorageError
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.store.exchange.exporting import Load
    from quantchat.store.exchange.formats import Format
    from quantchat.store.exchange.importing import Import
    from quantchat.store.exchange.progress import Progress
    from quantchat.ui.screens.exchange import Choice

T = TypeVar("T")

SHOWN_AFTER = 0.3
"""Work that is done in so many seconds needs no dialog."""
PATIENCE = 0.5
"""Work that was stopped gets at least so many seconds to end."""


class ExchangeActions(ScreenPart):
    """Export and import."""

    def action_export(self, where: str = "") -> None:
        """Export this session: ask how and where, or take `[format] [file]` as it was typed."""
        if not self.session.messages and not self.session.system_prompt:
            self._app.notify("There is nothing in this session yet", severity="warning")
        elif where.strip():
            self._export_typed(where.strip())
        else:
            self.export_sessions([self.session.id])

    def export_sessions(self, session_ids: Sequence[str]) -> None:
        """Ask for a format and a place, and export sessions."""
        from quantchat.ui.screens.exchange import ExportScreen, default_path

        one = self.session if list(session_ids) == [self.session.id] else None

        def suggest(kind: Format) -> str:
            return default_path(Path.cwd(), self._file_name(session_ids, kind))

        def warn(kind: Format) -> str:
            if one is None:
                return f"Cannot hold {', '.join(kind.lacks())}"
            return f"Leaves out {', '.join(kind.losses(one)) or 'nothing of it'}"

        def export(choice: Choice | None) -> None:
            if choice is not None:
                self._begin_export(session_ids, Path(choice.path).expanduser(), choice.kind)

        what = f"“{self._title_of(session_ids[0])}”" if len(session_ids) == 1 else f"{len(session_ids):,} sessions"
        self._app.push_screen(ExportScreen(what, suggest, warn), export)

    def _export_typed(self, where: str) -> None:
        from quantchat.store.exchange.formats import FORMATS, format_of
        from quantchat.ui.screens.exchange import default_path

        name, _, rest = where.partition(" ")
        kind = next((kind for kind in FORMATS if kind.name == name.casefold()), None)
        place = where if kind is None else rest.strip()
        try:
            kind = kind or format_of(place)
        except QuantchatError as error:
            names = ", ".join(known.name for known in FORMATS)
            self._app.notify(clean(f"{error} It is one of {names}"), severity="warning", markup=False)
            return
        place = place or default_path(Path.cwd(), self._file_name([self.session.id], kind))
        self._begin_export([self.session.id], Path(place).expanduser(), kind)

    def _file_name(self, session_ids: Sequence[str], kind: Format) -> str:
        from quantchat.store.exchange.writing import file_name

        if len(session_ids) == 1:
            return file_name(self._title_of(session_ids[0]), kind)
        return f"sessions{kind.suffix}" if kind.brackets is not None else "sessions"

    def _title_of(self, session_id: str) -> str:
        known = {summary.id: summary.title for summary in self._screen.summaries}
        return self.session.title if session_id == self.session.id else known.get(session_id, "session")

    def _begin_export(self, session_ids: Sequence[str], path: Path, kind: Format) -> None:
        from quantchat.services.exchange import loader

        self.desk.run(self._export(session_ids, path, kind, loader(self.desk, session_ids, self.session)))

    async def _export(
        self, session_ids: Sequence[str], path: Path, kind: Format, load: Load, *, replace: bool = False
    ) -> None:
        from quantchat.services.exchange import export
        from quantchat.store.exchange.progress import Progress

        progress = Progress()
        work = export(load, session_ids, path, kind, replace=replace, progress=progress)
        try:
            done = await self._watched("Exporting", work, progress)
        except Cancelled:
            self._app.notify("The export was stopped", markup=False)
            return
        except StorageError as error:
            if error.report.code != "export-exists" or replace:
                raise
            if await self._sure(f"{path} is there already. Replace it?", "Replace"):
                await self._export(session_ids, path, kind, load, replace=True)
            return
        where = done.written[0] if len(done.written) == 1 else path
        left_out = f"Left out: {', '.join(done.lost)}" if done.lost else ""
        unread = f"{len(done.unread)} could not be read" if done.unread else ""
        words = ". ".join(filter(None, (f"Written to {where}", unread, left_out)))
        self._app.notify(clean(words, newlines=False), title="Export", markup=False, timeout=10)

    # Import

    def action_import_sessions(self, name: str = "") -> None:
        """Take in the sessions of a file, or begin to name one."""
        if name.strip():
            self.desk.run(self._import(Path(name.strip()).expanduser()))
        else:
            self._screen.set_focus(self._screen.prompt)
            self._screen.prompt.load("/import ")

    async def _import(self, path: Path) -> None:
        from quantchat.services.exchange import read
        from quantchat.store.exchange.importing import Import
        from quantchat.store.exchange.progress import Progress

        progress = Progress()
        with Import(self.desk.archive.store, progress) as incoming:
            try:
                await self._watched(f"Importing {path.name}", read(incoming, path), progress)
                if await self._may_come_in(incoming):
                    await self._admit(incoming, progress)
            except Cancelled:
                self._app.notify("The import was stopped; nothing came in", markup=False)

    async def _may_come_in(self, incoming: Import) -> bool:
        rows = incoming.incoming.rows
        if not incoming.bad:
            return True
        if not rows:
            raise incoming.refusal()
        told = "\n".join(fault.sentence() for fault in incoming.faults[:3])
        return await self._sure(f"{incoming.summary()}.\n{told}\nImport the {len(rows):,} that can be read?", "Import")

    async def _admit(self, incoming: Import, progress: Progress) -> None:
        from quantchat.services.exchange import admit

        summary, rows = incoming.summary(), incoming.incoming.rows
        await self._watched("Importing", admit(incoming), progress)
        self._screen.reload_sessions()
        self._app.notify(clean(summary, newlines=False), title="Import", markup=False, timeout=10)
        if len(rows) == 1:
            self._screen.choose_session(rows[0].id)

    # Both

    async def _watched(self, title: str, work: Coroutine[object, object, T], progress: Progress) -> T:
        """Wait for work; if it takes longer, with a dialog that shows how far it is and can end it."""
        from quantchat.ui.screens.exchange import TransferScreen

        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({task}, timeout=SHOWN_AFTER)
        if done:
            return task.result()
        screen = TransferScreen(title, progress)
        self._app.push_screen(screen)
        try:
            await _ended(task, progress)
            return task.result()
        finally:
            screen.finished = True

    async def _sure(self, question: str, verb: str) -> bool:
        from quantchat.ui.screens.dialogs import ConfirmScreen

        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def take(sure: bool | None) -> None:
            if not answer.done():
                answer.set_result(bool(sure))

        self._app.push_screen(ConfirmScreen(question, verb), take)
        return await answer


async def _ended(task: asyncio.Future[T], progress: Progress) -> None:
    """Wait for the end of work; one that was stopped and hangs on a disk that does not answer is left behind."""
    while not task.done():
        stopped = progress.cancelled
        await asyncio.wait({task}, timeout=PATIENCE)
        if stopped and progress.may_be_left and not task.done():
            task.cancel()
            raise Cancelled("Stopped", "nothing was changed")
