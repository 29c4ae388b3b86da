"""The parts of the wire: styles, scrolls, the outlet, the link and the pace."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.widgets import Static

from quantchat.ui.wire import hook
from quantchat.ui.wire.cells import Row, graphemes_of, is_disputed
from quantchat.ui.wire.link import LINKS, choose_link, colors_for, erases_with_background
from quantchat.ui.wire.outlet import Outlet
from quantchat.ui.wire.pace import SLOWEST, Pace
from quantchat.ui.wire.painter import Painter
from quantchat.ui.wire.styles import UNKNOWN, StyleTable

from .rig import running

INK = Style.parse("#e0e0e0 on #101216")
BOLD = Style.parse("bold #e0e0e0 on #101216")
LINES = ["".join(Random(y).choices("abcdefghij ", k=30)).strip() for y in range(30)]


def painted(width: int = 60, height: int = 20, **options: Any) -> Painter:
    """A painter whose terminal shows numbered lines."""
    painter = Painter(**options)
    painter.resize(width, height)
    put_lines(painter, LINES[:height])
    painter.draw((0, 0))
    return painter


def put_lines(painter: Painter, lines: list[str]) -> None:
    width, _ = painter.size
    for y, line in enumerate(lines):
        painter.put(y, 0, [Segment(line.ljust(width), INK)])


def test_an_equal_frame_writes_nothing() -> None:
    painter = painted()
    put_lines(painter, LINES[:20])
    assert painter.draw((0, 0)) == ""


def test_a_moved_cursor_is_written() -> None:
    assert painted().draw((3, 4)) == "\x1b[4;5H"


def test_streamed_words_cost_little_more_than_themselves() -> None:
    painter = painted()
    painter.put(5, 0, [Segment(f"{LINES[5]} and goes on".ljust(60), INK)])
    text = painter.draw((0, 0))
    assert "and goes on" in text
    assert len(text) < len("and goes on") + 20


def test_scrolled_lines_are_not_written_again() -> None:
    painter = painted()
    put_lines(painter, LINES[2:22])
    text = painter.draw((0, 0))
    assert LINES[21] in text
    assert LINES[20] in text
    assert LINES[19] not in text
    assert len(text) < 160


def test_forgetting_writes_everything() -> None:
    painter = painted()
    painter.forget()
    text = painter.draw((0, 0))
    assert all(line in text for line in LINES[:20])


def test_style_changes_take_the_shorter_way() -> None:
    table = StyleTable()
    ink, bold, plain = table.number(INK), table.number(BOLD), table.number(Style())
    assert table.way(ink, bold) == "\x1b[1m"
    assert table.way(bold, ink) == "\x1b[22m"
    assert table.way(bold, plain) == "\x1b[m"
    assert table.way(UNKNOWN, plain) == "\x1b[m"
    assert table.way(UNKNOWN, ink) == "\x1b[0;38;2;224;224;224;48;2;16;18;22m"


def test_styles_that_look_alike_are_one() -> None:
    table = StyleTable()
    assert table.number(INK) == table.number(INK + Style.from_meta({"offset": (1, 2)}))


def test_sixteen_colors_keep_text_readable() -> None:
    table = StyleTable(ColorSystem.STANDARD)
    number = table.number(Style.parse("#14161a on #101216"))
    codes = table.way(UNKNOWN, number).removeprefix("\x1b[0;").removesuffix("m").split(";")
    assert len(codes) == 2
    assert int(codes[0]) + 10 != int(codes[1])


@pytest.mark.parametrize(
    "text", ["plain", "漢字 한국어", "e\u0301te\u0301", "👩\u200d👩\u200d👧 x", "\u2764\ufe0f", "🇩🇪 ✓ →"]
)
def test_cells_count_as_textual_measures(text: str) -> None:
    graphemes = graphemes_of(text)
    assert len(graphemes.cells) == cell_len(text)
    assert "".join(graphemes.cells) == text


@pytest.mark.parametrize("command", ["\x1b[2J", "\x9b2J", "a\x07b", "\u202egnp", "x\x00y", "line\nline", "\ud800"])
def test_nothing_that_commands_a_terminal_gets_through(command: str) -> None:
    painter = painted()
    painter.put(0, 0, [Segment(command, INK)])
    row = graphemes_of(command).cells
    assert all(char == "" or char.isprintable() for char in row)
    assert "\x1b[2J" not in painter.draw((0, 0))


def test_a_mark_in_another_style_belongs_to_the_wide_character_before_it() -> None:
    row, table = Row.blank(4), StyleTable()
    assert row.put(0, [Segment("漢", INK), Segment("\u3099x", BOLD)], table) == 3
    assert row.chars == ["漢\u3099", "", "x", " "]


def test_disputed_widths() -> None:
    assert is_disputed("e\u0301")
    assert is_disputed("🚀")
    assert not is_disputed("漢")
    assert not is_disputed("a")


def test_a_row_that_held_an_emoji_costs_no_more_for_ever() -> None:
    painter = painted(erases=True)
    painter.put(5, 0, [Segment("🚀 went up and away".ljust(59), INK)])
    painter.draw((0, 0))
    painter.put(5, 0, [Segment("what comes after it, up to the last".ljust(60), INK)])
    painter.draw((0, 0))
    painter.put(5, 0, [Segment("what came  after it, up to the last".ljust(60), INK)])
    assert "last" not in painter.draw((0, 0))


# Link


@pytest.mark.parametrize(
    ("wanted", "environ", "found"),
    [
        ("auto", {}, "local"),
        ("auto", {"SSH_CONNECTION": "10.0.0.1 22 10.0.0.2 22"}, "ssh"),
        ("auto", {"SSH_TTY": "/dev/pts/1"}, "ssh"),
        ("local", {"SSH_TTY": "/dev/pts/1"}, "local"),
        ("slow", {}, "slow"),
    ],
)
def test_link(wanted: Any, environ: dict[str, str], found: str) -> None:
    assert choose_link(wanted, environ) is LINKS[found]


@pytest.mark.parametrize(
    ("environ", "erases"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "tmux-256color"}, True),
        ({"TERM": "screen-256color"}, False),
        ({"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0"}, True),
        ({"TERM": "xterm-256color", "STY": "1.pts"}, False),
        ({}, False),
    ],
)
def test_erasing(environ: dict[str, str], erases: bool) -> None:
    assert erases_with_background(environ) is erases


@pytest.mark.parametrize(
    ("link", "environ", "colors"),
    [
        ("local", {"TERM": "xterm-256color"}, ColorSystem.TRUECOLOR),
        ("local", {"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0"}, ColorSystem.TRUECOLOR),
        ("local", {"TERM": "screen"}, ColorSystem.EIGHT_BIT),
        ("ssh", {"TERM": "xterm", "STY": "1.pts"}, ColorSystem.EIGHT_BIT),
        ("slow", {"TERM": "xterm-256color"}, ColorSystem.STANDARD),
    ],
)
def test_colors(link: str, environ: dict[str, str], colors: ColorSystem) -> None:
    assert colors_for(LINKS[link], environ, ColorSystem.TRUECOLOR) is colors


# Pace


class Clock:
    """A clock and timers that go when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, Callable[[], None], list[bool]]] = []

    def set_timer(self, seconds: float, call: Callable[[], None]) -> Any:
        stopped = [False]
        self._due.append((self.now + seconds, call, stopped))
        return type("Timer", (), {"stop": lambda _self: stopped.__setitem__(0, True)})()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((t for t in self._due if t[0] <= end), key=lambda t: t[0]):
            self._due.remove(due[0])
            self.now = max(self.now, due[0][0])
            if not due[0][2][0]:
                due[0][1]()
        self.now = end


class Stream:
    """A pace at 10 Hz and what it showed."""

    def __init__(self) -> None:
        self.clock, self.shown, self.lagging = Clock(), [], False
        self.pace: Pace[str] = Pace(
            10,
            self.clock.set_timer,
            lambda where, text: self.shown.append((where, text)),
            lambda: self.lagging,
            clock=lambda: self.clock.now,
        )
        self.shown: list[tuple[str, str]]

    def run(self, seconds: float) -> int:
        """Tokens at 50 per second; return how often something was shown."""
        before = len(self.shown)
        for _ in range(round(seconds * 50)):
            self.pace.add("m", "x")
            self.clock.advance(0.02)
        return len(self.shown) - before


def test_first_text_is_shown_at_once() -> None:
    stream = Stream()
    stream.pace.add("m", "Hello")
    assert stream.shown == [("m", "Hello")]


def test_later_text_is_gathered() -> None:
    stream = Stream()
    assert 19 <= stream.run(2) <= 22
    stream.pace.flush()
    assert sum(len(text) for _, text in stream.shown) == 100


def test_rate_halves_while_the_terminal_lags_and_comes_back() -> None:
    stream = Stream()
    stream.run(1)
    stream.lagging = True
    stream.run(10)
    assert stream.pace.interval == SLOWEST
    stream.lagging = False
    stream.run(60)
    assert stream.pace.interval == pytest.approx(0.1)
    assert 9 <= stream.run(1) <= 11


def test_text_of_two_places_stays_apart_and_in_order() -> None:
    stream = Stream()
    stream.pace.add("thinking", "a")
    for where, text in [("thinking", "b"), ("thinking", "c"), ("answer", "d"), ("thinking", "e")]:
        stream.pace.add(where, text)
    stream.pace.flush()
    assert stream.shown == [("thinking", "a"), ("thinking", "bc"), ("answer", "d"), ("thinking", "e")]


def test_dropped_text_is_not_shown() -> None:
    stream = Stream()
    stream.run(0.5)
    stream.pace.add("m", "gone")
    stream.pace.drop()
    stream.clock.advance(1)
    assert all("gone" not in text for _, text in stream.shown)


# Outlet


def test_outlet_is_busy_until_the_terminal_took_it() -> None:
    reader, writer = os.pipe()
    free = threading.Event()
    with open(writer, "w") as file, open(reader, "rb", buffering=0) as other:
        outlet = Outlet(file, free.set)
        assert outlet.is_free()
        outlet.announce()
        thread = threading.Thread(target=outlet.write, args=("x" * 300_000,))
        thread.start()
        assert not outlet.is_free()
        assert not free.is_set()
        taken = 0
        while taken < 300_000:
            taken += len(other.read(1 << 16))
        thread.join(10)
        assert free.wait(10)
        assert outlet.is_free()


def test_outlet_waits_for_a_terminal_whose_writes_do_not() -> None:
    """An editor that left the terminal that way had it taken for gone, and the screen stood still for ever."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "w") as file, open(reader, "rb", buffering=0) as other:
        outlet = Outlet(file, lambda: None)
        outlet.announce()
        thread = threading.Thread(target=outlet.write, args=("x" * 300_000,))
        thread.start()
        taken = 0
        while taken < 300_000 and (part := other.read(1 << 16)):
            taken += len(part)
        thread.join(10)
        assert taken == 300_000
        assert not outlet.broken


def test_outlet_lives_on_when_the_terminal_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as file:
        outlet = Outlet(file, lambda: None)
        for _ in range(100):
            outlet.announce()
            outlet.write("lost")
        assert outlet.broken
        assert outlet.is_free()


# Batches


class Told(hook.WireDriver):
    """A driver that keeps what it is told to write."""

    def __init__(self) -> None:
        self.outlet = Outlet(sys.stdout, lambda: None)
        self.written = ""

    def write(self, data: str) -> None:
        self.written += data


async def test_what_a_batch_held_back_is_drawn_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that lost its screen while Textual gathered changes stayed empty until something changed."""
    monkeypatch.delenv("QUANTCHAT_WIRE", raising=False)
    app: hook.WiredApp[None] = hook.WiredApp(LINKS["local"])
    async with app.run_test():
        driver = Told()
        with monkeypatch.context() as patch:
            patch.setattr(app, "_driver", driver)
            patch.setattr(app, "_painter", painted())
            with app.batch_update(), app.batch_update():
                app.redraw()
                assert driver.written == ""
            assert all(line in driver.written for line in LINES[:20])


# Sizes


async def test_a_frame_that_began_with_a_part_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a size that changed and changed back the screen stayed empty but for what went on changing."""
    monkeypatch.delenv("QUANTCHAT_WIRE", raising=False)
    app: hook.WiredApp[None] = hook.WiredApp(LINKS["local"])
    async with app.run_test(size=(60, 12)) as pilot:
        await app.screen.mount(Static("what stays", id="still"), Static("what changes", id="moving"))
        await pilot.pause()
        driver = Told()
        with monkeypatch.context() as patch:
            patch.setattr(app, "_driver", driver)
            patch.setattr(app, "_painter", painted())
            app.screen.query_one("#moving", Static).update("what changed")
            await pilot.pause()
            await pilot.pause()
        assert "what changed" in driver.written
        assert "what stays" in driver.written


# Self-check


def test_this_textual_is_known() -> None:
    assert hook.why_plain() is None


def test_a_changed_textual_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(App, "_display", lambda self, screen, renderable, more: None)
    assert hook.why_plain() == "Textual's App._display takes other arguments"
    monkeypatch.delattr(ChopsUpdate, "__init__")
    assert "other arguments" in str(hook.why_plain())


async def test_an_unknown_textual_draws_plainly_and_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "TEXTUAL", "1.2.3")
    async with running(tmp_path, monkeypatch) as rig:
        assert "not 1.2.3" in str(rig.app.plain_reason)
        said = [notification.message for notification in rig.app._notifications]
        assert sum("plain way" in message for message in said) == 1
