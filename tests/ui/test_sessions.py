"""The list of sessions: filtered by typing, sorted, pinned, tagged, archived; one or many at once."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from time import process_time

import pytest
from textual.content import Content
from textual.events import Key
from textual.widgets import Input

from quantchat.domain.chat import SessionSummary
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore
from quantchat.ui.screens.dialogs import ConfirmScreen, TitleScreen
from quantchat.ui.screens.exchange import ExportScreen
from quantchat.ui.screens.tags import TagScreen
from quantchat.ui.sessionlist import Arrangement, SessionStates, Wanted, arranged, session_row
from quantchat.ui.widgets.rows import fit_row
from ui.rig import SIZES, SLOW, running
from ui.session_rig import START, drawn, in_list, keep, make_session, stored, titles

Patch = pytest.MonkeyPatch
BOTH_SIZES = pytest.mark.parametrize("size", SIZES)
MANY = 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keep(
        tmp_path,
        make_session("Rivers of France", 1, ["which?", "the Loire"], tags=["geo", "Work"]),
        make_session("Sorting in Python", 2, ["how?", "sorted()", "and down?", "reverse"], tags=["code"]),
        make_session("apple pie", 3, ["a recipe?"]),
        make_session("Zebra facts", 4, ["stripes?", "yes"]),
    )
    return tmp_path


NEWEST_FIRST = ["Zebra facts", "apple pie", "Sorting in Python", "Rivers of France"]


def summary(number: int, title: str = "", **fields: object) -> SessionSummary:
    when = START + timedelta(minutes=number)
    values = {"id": f"{number:06}", "title": title or f"Session {number}", "updated": when, "created": when}
    return SessionSummary(**(values | {"messages": number} | fields))  # type: ignore[arg-type]


# Arranging


def test_orders() -> None:
    one = summary(1, "b", messages=9, updated=START + timedelta(hours=1))
    two = summary(2, "A", messages=3)
    three = summary(3, "c", messages=5)
    rows = [two, one, three]
    assert arranged(rows) == [one, three, two]
    assert arranged(rows, "created") == [three, two, one]
    assert arranged(rows, "title") == [two, one, three]
    assert arranged(rows, "messages") == [one, three, two]


def test_pinned_sessions_stand_on_top_in_every_order() -> None:
    rows = [summary(1, "b", pinned=True), summary(2, "a"), summary(3, "c", pinned=True)]
    for order in ("changed", "created", "title", "messages"):
        assert [row.pinned for row in arranged(rows, order)] == [True, True, False]  # type: ignore[arg-type]


def test_words_are_looked_for_in_titles_and_tags() -> None:
    rows = [summary(1, "Rivers of France", tags=("geo", "Work")), summary(2, "Work in France"), summary(3, "x")]
    shelf = Arrangement()
    for words, found in (("france", 2), ("FRANCE geo", 1), ("#work", 1), ("work", 2), ("nothing", 0), (" ", 3)):
        shelf.take(rows, Wanted(words=words))
        assert len(shelf.rows) == found, words
    assert (shelf.total, shelf.archived) == (3, 0)


def test_the_archive_is_a_view_of_its_own() -> None:
    rows = [summary(1), summary(2, archived=True)]
    shelf = Arrangement()
    shelf.take(rows, Wanted())
    assert shelf.ids == ("000001",)
    shelf.take(rows, Wanted(archived=True))
    assert shelf.ids == ("000002",)
    assert (shelf.total, shelf.archived, shelf.known) == (1, 1, {"000001", "000002"})


def test_nothing_is_arranged_twice() -> None:
    shelf, rows = Arrangement(), [summary(1), summary(2)]
    shelf.take(rows, Wanted())
    before = shelf.ids
    shelf.take(rows, Wanted())
    assert shelf.ids is before
    shelf.take(list(rows), Wanted())
    assert shelf.ids is not before


@pytest.mark.parametrize("width", [20, 34, 54])
def test_tags_are_shown_where_there_is_room(width: int) -> None:
    short = session_row(summary(1, "Short", tags=("geo",)), "", SessionStates())
    assert "#geo" in fit_row(short, width).plain
    long = session_row(summary(1, "word " * 20, tags=("geo",)), "", SessionStates())
    text = fit_row(long, width)
    assert ("#geo" in text.plain) == (width > 50)
    assert text.cell_length == width


def test_what_is_foreign_is_cleaned() -> None:
    row = session_row(summary(1, "a\x1b[31m\nb\u202e", tags=("x\x07y",)), "", SessionStates())
    assert (row.name, row.note) == ("a[31m b", "#xy")


# On the screen


@BOTH_SIZES
async def test_letters_filter_the_list(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        rows = await in_list(rig, 4)
        assert titles(rig) == NEWEST_FIRST
        assert str(rows.border_title) == "Sessions 4"
        await rig.pilot.press(*"fRa")
        await rig.until(lambda: titles(rig) == ["Rivers of France"])
        assert rows._border_title == Content("Sessions: fRa▏")
        assert "1 of 4" in str(rows.border_subtitle)
        await rig.pilot.press("j")
        await rig.until(lambda: titles(rig) == [])
        assert "Esc shows all" in drawn(rows)[0]
        await rig.pilot.press("escape")
        await rig.until(lambda: titles(rig) == NEWEST_FIRST)
        await rig.pilot.press("slash", "number_sign", *"work", "enter")
        await rig.until(lambda: rig.chat.session.title == "Rivers of France", "the session that was found")
        await rig.until(lambda: titles(rig) == NEWEST_FIRST, "all sessions again")
        assert rig.chat.prompt.text == ""


async def test_what_was_found_is_handled_once_the_cursor_moves(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press(*"fra")
        await rig.until(lambda: titles(rig) == ["Rivers of France"])
        await rig.pilot.press("home")
        assert rows._border_title == Content("Sessions: fra")
        await rig.pilot.press("M")
        assert (len(rows.marked), rows.filter) == (1, "fra")
        await rig.pilot.press("n")
        await rig.until(lambda: titles(rig) == ["Rivers of France"])
        assert rows._border_title == Content("Sessions: fran▏"), "other letters go on with the filter"
        await rig.pilot.press("home", "backspace")
        assert rows._border_title == Content("Sessions: fra▏")
        await rig.pilot.press("home", "A")
        await rig.until(lambda: titles(rig) == [], "nothing that is left has it")
        await rig.pilot.press("escape")
        await rig.until(lambda: len(titles(rig)) == 3, "the others")
        assert rows._border_title == Content("Sessions 3")


async def test_the_order_is_chosen_kept_and_shown(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press("S", "S")
        await rig.until(lambda: titles(rig) == ["apple pie", "Rivers of France", "Sorting in Python", "Zebra facts"])
        assert "by title" in str(rows.border_subtitle)
        await rig.pilot.press("S")
        await rig.until(lambda: titles(rig)[0] == "Sorting in Python")
        assert "4 msgs" in drawn(rows)[0]
        rig.chat.action_sort_sessions("age")
        await rig.until(lambda: any("changed, created" in notice.message for notice in rig.app._notifications))
    assert json.loads((folder / "home" / "state" / "state.json").read_text())["sessions_order"] == "messages"
    async with running(folder, monkeypatch) as rig:
        await rig.until(lambda: titles(rig)[:1] == ["Sorting in Python"], "the order of before")


async def test_pins_stay_over_a_restart(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press("G", "P")
        await rig.until(lambda: titles(rig)[0] == "Rivers of France")
        assert drawn(rows)[0].startswith("◆ Rivers")
        assert rows.highlighted_id == rows.ids[0], "the cursor goes with its row"
        await rig.app.desk.archive.flush()
    async with running(folder, monkeypatch) as rig:
        await in_list(rig, 4)
        assert titles(rig)[0] == "Rivers of France"
        await rig.pilot.press("P")
        await rig.until(lambda: titles(rig) == NEWEST_FIRST)


@BOTH_SIZES
async def test_archiving_and_coming_back(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press("A")
        await rig.until(lambda: titles(rig) == NEWEST_FIRST[1:])
        assert rows.highlighted_id == rows.ids[0], "the neighbour has the cursor"
        await rig.pilot.press("V")
        await rig.until(lambda: titles(rig) == ["Zebra facts"])
        assert str(rows.border_title) == "Archived 1"
        await rig.pilot.press("A")
        await rig.until(lambda: titles(rig) == [])
        assert "Esc goes back" in drawn(rows)[0]
        await rig.pilot.press("escape")
        await rig.until(lambda: titles(rig) == NEWEST_FIRST)
        assert rows.has_focus


async def test_commands_are_about_the_session_that_is_shown(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press("j", "enter")
        await rig.until(lambda: rig.chat.session.title == "apple pie")
        session = rig.chat.session
        await rig.ask("/tag kitchen #sweet")
        await rig.until(lambda: session.tags == ["kitchen", "sweet"])
        await rig.ask("/tag -sweet")
        await rig.until(lambda: session.tags == ["kitchen"])
        await rig.ask("/pin")
        await rig.until(lambda: session.pinned and titles(rig)[0] == "apple pie")
        await rig.ask("/archive")
        await rig.until(lambda: session.archived and "apple pie" not in titles(rig))
        assert rig.chat.session is session
        await rig.ask("/archived")
        await rig.until(lambda: titles(rig) == ["apple pie"])
        await rig.until(lambda: rows.has_focus)
        await rig.app.desk.archive.flush()
        assert stored(folder, session).archived


async def test_tags_of_one_and_of_several(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press("G", "T")
        await rig.until(lambda: isinstance(rig.app.screen, TagScreen) and rig.app.screen.query(Input))
        field = rig.app.screen.query_one(Input)
        assert field.value == "geo Work "
        assert "code geo Work" in "".join(str(words.content) for words in rig.app.screen.query("Static.hint"))
        await rig.pilot.press(*"new", "enter")
        await rig.until(lambda: rows.rows[3].note == "#geo #Work #new")
        await rig.pilot.press("X", "g", "X", "T")
        await rig.until(lambda: isinstance(rig.app.screen, TagScreen) and rig.app.screen.query(Input))
        assert rig.app.screen.query_one(Input).value == ""
        await rig.pilot.press(*"both", "space", "minus", *"GEO", "enter")
        await rig.until(lambda: rows.rows[0].note == "#both")
        assert rows.rows[3].note == "#Work #new #both"
        await rig.app.desk.archive.flush()
        await rig.until(lambda: "both" in str(rig.chat.summaries))


@BOTH_SIZES
async def test_marks_and_what_is_done_to_all_of_them(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.press("X", "j", "X")
        assert [line[0] for line in drawn(rows)[:4]] == ["x", " ", "x", " "]
        assert "2 marked" in str(rows.border_subtitle)
        await rig.pilot.press("A")
        await rig.until(lambda: titles(rig) == ["apple pie", "Rivers of France"])
        await rig.until(lambda: any("Archived 2 sessions" in notice.message for notice in rig.app._notifications))
        assert not rows.marked
        await rig.pilot.press("M")
        assert len(rows.marked) == 2
        await rig.pilot.press("escape")
        assert not rows.marked
        await rig.pilot.press("M", "delete")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: titles(rig) == [])
        await rig.until(lambda: len(list((folder / "home" / "data" / "trash").glob("*.json"))) == 2)
        await rig.pilot.press("V")
        await rig.until(lambda: titles(rig) == ["Zebra facts", "Sorting in Python"])


async def test_deleting_many_takes_one_lock_after_the_other(folder: Path, monkeypatch: Patch) -> None:
    """Each is an open file, and a process may have about a thousand."""
    locked: list[int] = []
    delete = SessionStore.delete

    def count(store: SessionStore, session_id: str) -> None:
        locked.append(len(list(store.root.glob("*.lock"))))
        delete(store, session_id)

    monkeypatch.setattr(SessionStore, "delete", count)
    async with running(folder, monkeypatch) as rig:
        await in_list(rig, 4)
        await rig.pilot.press("M", "delete")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: len(locked) == 4)
        assert locked == [1] * 4


async def test_deleting_many_leaves_those_that_are_open_elsewhere(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        held = rows.ids[1]
        with SessionLocks().acquire(held):
            await rig.pilot.press("M", "delete")
            await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
            await rig.pilot.press("enter")
            await rig.until(lambda: any("1 of 4 sessions" in notice.message for notice in rig.app._notifications))
            await rig.until(lambda: titles(rig) == ["apple pie"])
        assert (folder / "home" / "data" / "sessions" / f"{held}.json").exists()


async def test_the_shown_session_goes_with_the_others(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch, SLOW) as rig:
        await in_list(rig, 4)
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.title == "Zebra facts")
        await rig.begin_slow()
        await rig.pilot.press("f3", "M", "delete")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: rig.chat.session.title == "New session" and not rig.chat.summaries)
        assert not rig.app.desk.conversation.busy


async def test_a_row_is_renamed_without_opening_it(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        shown, renamed = rig.chat.session, rows.ids[1]
        await rig.pilot.press("j", "f2")
        await rig.until(lambda: isinstance(rig.app.screen, TitleScreen) and rig.app.screen.query(Input))
        assert rig.app.screen.query_one(Input).value == "apple pie"
        rig.app.screen.query_one(Input).value = "Apfel[/b]kuchen"
        await rig.pilot.press("enter")
        await rig.until(lambda: titles(rig)[1] == "Apfel[/b]kuchen")
        assert rig.chat.session is shown
        assert renamed not in rig.app.desk.archive._open
        with SessionLocks().acquire(renamed):
            pass


async def test_marked_sessions_are_exported(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        await in_list(rig, 4)
        await rig.pilot.press("X", "X", "E")
        await rig.until(lambda: isinstance(rig.app.screen, ExportScreen) and rig.app.screen.query("*"))
        await rig.pilot.press("escape")


async def test_keys_in_one_packet_are_about_the_rows_that_they_were_typed_at(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        for key, character in (("j", "j"), ("P", "P"), ("j", "j"), ("A", "A"), ("k", "k")):
            rows.post_message(Key(key, character))
        await rig.until(lambda: titles(rig) == ["apple pie", "Zebra facts", "Rivers of France"])


async def test_a_click_opens_a_session(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rows = await in_list(rig, 4)
        await rig.pilot.click(rows, offset=(4, 3))
        await rig.until(lambda: rig.chat.session.title == "Sorting in Python")


# Ten thousand


async def test_a_list_of_thousands_costs_what_it_shows(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(120, 40)) as rig:
        await rig.pilot.press("f3")

        async def cost(count: int) -> float:
            """CPU seconds of going through the list."""
            rig.chat.summaries = [summary(number) for number in range(count)]
            rig.chat.draw("sessions")
            await rig.pilot.pause()
            begun = process_time()
            for _ in range(8):
                await rig.pilot.press("pagedown", "G", "g")
            return process_time() - begun

        await cost(100)
        few, many = min([await cost(100), await cost(100)]), min([await cost(MANY), await cost(MANY)])
        assert many < 2 * few + 0.02
        assert len(titles(rig)) == MANY


async def test_a_list_that_grows_stays_where_the_reader_is(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(120, 40)) as rig:
        await rig.pilot.press("f3")
        rig.chat.summaries = [summary(number) for number in range(200)]
        rig.chat.draw("sessions")
        await rig.pilot.press(*["pagedown"] * 3)
        rows = await in_list(rig, 200)
        under, top = rows.highlighted_id, drawn(rows)[0]
        assert rows.scroll_offset.y > 0
        rig.chat.summaries = [summary(number) for number in range(250)]
        rig.chat.draw("sessions")
        await rig.pilot.pause()
        assert (rows.highlighted_id, drawn(rows)[0]) == (under, top)
