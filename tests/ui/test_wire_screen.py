"""The real program in a terminal: what it drew piece by piece is what it draws when asked to draw everything anew."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from scripted_run import INSIDE, SIZES, Inside, ScriptedHome, scripted
from scripted_shell import scripted_engine_env
from terminal import Terminal, program_env
from tmux import Tmux

__all__ = ["scripted"]

PROSE = "The keeper counted the ships, `lamp` by **lamp**, and wrote each one down before the wind turned north. " * 6
MIXED = "\n\n".join(
    [
        f"## Ships\n\n{PROSE}",
        "```python\n" + "".join(f"def ship_{n}(lamp: int) -> str:\n    return f'{{lamp}} {n}'\n\n" for n in range(25)),
        "".join(f"- **harbour {n}** 漢字とかな, 한국어, naïve café {n}\n" for n in range(20)),
        "| ship | lamp |\n|---|---|\n" + "".join(f"| ship {n} | 船{n} |\n" for n in range(15)),
        "Rockets 🚀🚀 and a family 👩\u200d👩\u200d👧, a heart \u2764\ufe0f, e\u0301te\u0301 " * 5,
        PROSE,
    ]
)
ANSWERS: list[dict[str, object]] = [{"match": "ships", "text": MIXED, "tokens_per_second": 250}]
MORE = "[sampling]\nmax_new_tokens = 100000\n"


def cells(terminal: Terminal) -> list[object]:
    """What can be seen of each cell, but for the status bar and its figures."""
    if isinstance(terminal, Tmux):
        # What was erased at the end of a line is left out there; its colour is what the attached client shows.
        lines = terminal.tmux("capture-pane", "-e", "-p").split("\n")[:-2]
        backs = [
            [cell[1] for cell in row if cell[0] == " "][-1:] if "\u200d" not in line else []
            for line, row in zip(lines, grid(terminal.client), strict=False)
        ]
        codes: dict[str, str] = {}
        return [*(words(line, codes) for line in lines), *backs]
    return list(grid(terminal)[:-1])


def words(line: str, codes: dict[str, str]) -> list[tuple[str, frozenset[str]]]:
    found = list(captured(line, codes))
    while found and found[-1][0] == " ":
        found.pop()
    return found


def grid(terminal: Terminal) -> list[list[tuple[object, ...]]]:
    terminal.pump(0)
    rows = terminal.screen.buffer
    return [_row([rows[y][x] for x in range(terminal.screen.columns)]) for y in range(terminal.screen.lines)]


def captured(line: str, codes: dict[str, str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Read a line of `capture-pane -e`, whose codes go on from line to line: characters and what is seen of them."""
    for sequence, char in re.findall(r"\x1b\[([\d;]*)m|(.)", line):
        if char:
            seen = {code for part, code in codes.items() if char != " " or part in ("back", "4", "7", "9")}
            yield char, frozenset(seen)
            continue
        for code in re.findall(r"[34]8;2;\d+;\d+;\d+|[34]8;5;\d+|\d+", sequence) or ["0"]:
            _set(codes, code)


def _set(codes: dict[str, str], code: str) -> None:
    if code == "0":
        codes.clear()
    elif code.startswith(("3", "4", "9", "10")) and len(code) > 1:
        codes["back" if code.startswith(("4", "10")) else "front"] = "" if code in ("39", "49") else code
    else:
        codes[code] = code


def _row(row: list[object]) -> list[tuple[object, ...]]:
    return [(c.data, c.bg, c.reverse) if c.data == " " else tuple(c) for c in row]  # type: ignore[attr-defined]


def wreck(terminal: Terminal) -> None:
    """Take from the terminal what it shows."""
    if isinstance(terminal, Tmux):
        terminal.tmux("send-keys", "-R")
    else:
        terminal.pump(0)
        terminal.screen.erase_in_display(2)


def check_redraw(terminal: Terminal) -> None:
    """Wait until nothing moves, then compare with a whole new drawing."""
    shown = still(terminal)
    wreck(terminal)
    assert cells(terminal) != shown
    terminal.press("f12")
    try:
        terminal.wait_until(lambda: cells(terminal) == shown, 15)
    except AssertionError:
        for y, (before, after) in enumerate(zip(shown, cells(terminal), strict=False)):
            assert after == before, f"row {y}"
        raise


def still(terminal: Terminal) -> list[object]:
    """Return the cells when many looks in a row found the same."""
    looks = [cells(terminal)]

    def settled() -> bool:
        looks.append(cells(terminal))
        if looks[-1] != looks[-2]:
            del looks[:-1]
        return len(looks) > 12

    terminal.wait_until(settled, 20)
    return looks[-1]


def ask(terminal: Terminal) -> None:
    terminal.type("ships")
    terminal.press("enter")
    terminal.wait_for("Answering")
    terminal.wait_for(lambda text: "Answering" not in text, 60)


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_streamed_and_scrolled_equals_drawn_anew(
    scripted: ScriptedHome, inside: Inside, columns: int, lines: int
) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, inside=inside, columns=columns, lines=lines, config=MORE)
    ask(terminal)
    check_redraw(terminal)
    for key in ("pageup", "pageup", "pagedown", "pageup"):
        terminal.press("shift+tab", key)
    check_redraw(terminal)
    terminal.press("f1")
    terminal.wait_for("Ctrl+L")
    terminal.press("esc")
    terminal.wait_for(lambda text: "Ctrl+L" not in text or columns > 80)
    check_redraw(terminal)


def test_without_sidebar_the_terminal_scrolls(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, columns=120, lines=40, config=MORE)
    terminal.press("f8")
    terminal.wait_for(lambda text: "Models" not in text)
    ask(terminal)
    assert b"r\x1b[" in terminal.raw
    assert any(f"\x1b[2;{bottom}r".encode() in terminal.raw for bottom in range(30, 40))
    check_redraw(terminal)


@pytest.mark.parametrize("inside", INSIDE)
def test_resizes_leave_no_trace(scripted: ScriptedHome, inside: Inside) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, inside=inside, columns=120, lines=40, config=MORE)
    ask(terminal)
    for columns, lines in [(80, 24), (200, 50), (60, 20), (3, 40), (1, 1), (90, 30), (120, 40), (100, 30)]:
        terminal.resize(columns, lines)
    check_redraw(terminal)


def test_drawn_anew_after_suspend(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, columns=100, lines=30, config=MORE)
    ask(terminal)
    shown = still(terminal)
    os.kill(terminal.pid, signal.SIGTSTP)
    terminal.wait_until(lambda: psutil.Process(terminal.pid).status() == psutil.STATUS_STOPPED)
    terminal.wait_until(lambda: b"\x1b[?1049l" in terminal.raw)
    assert terminal.raw.rindex(b"\x1b[m") > terminal.raw.rindex(b"\x1b[?2004l") - 200
    wreck(terminal)
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.wait_until(lambda: cells(terminal) == shown)


def test_slow_link_sends_sixteen_colors(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded("--slow-link", answers=ANSWERS, columns=100, lines=30, config=MORE)
    ask(terminal)
    assert b"8;2;" not in terminal.raw
    check_redraw(terminal)


def test_the_setting_says_what_the_link_is(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(columns=100, lines=30, config='link = "slow"\n')
    assert b"8;2;" not in terminal.raw


def test_right_after_tmux_was_left_and_entered_again(scripted: ScriptedHome) -> None:
    """tmux draws a new terminal from its own copy; another size is a resize for the program."""
    terminal = scripted.start_loaded(answers=ANSWERS, inside="tmux", columns=120, lines=40, config=MORE)
    assert isinstance(terminal, Tmux)
    ask(terminal)
    shown = still(terminal)
    terminal.detach()
    terminal.attach(120, 40)
    terminal.wait_until(lambda: cells(terminal) == shown, 20)
    terminal.detach()
    terminal.attach(100, 30)
    check_redraw(terminal)


def test_a_terminal_that_does_not_read_gets_the_newest_screen_only(scripted: ScriptedHome) -> None:
    answers = [{"match": "ships", "text": PROSE * 120, "tokens_per_second": 2000}]
    terminal = scripted.start_loaded(answers=answers, columns=120, lines=40, config=MORE)
    terminal.type("ships")
    terminal.press("enter")
    end = time.monotonic() + 60
    while not finished(scripted):
        assert time.monotonic() < end
        time.sleep(0.05)
    before = terminal.bytes_read
    check_redraw(terminal)
    assert terminal.bytes_read - before < 100_000


def finished(scripted: ScriptedHome) -> bool:
    for path in (scripted.home / "data" / "sessions").glob("*.json"):
        messages = json.loads(path.read_bytes()).get("messages", {}).values()
        if any(message.get("finish") for message in messages):
            return True
    return False


def test_textual_draws_when_the_difference_fails(scripted: ScriptedHome) -> None:
    scripted.start()
    broken = (
        "from quantchat.ui.wire.painter import Painter; draw = Painter.draw; left = [6]\n"
        "def failing(self, cursor):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: raise ValueError('lost count')\n"
        "    return draw(self, cursor)\n"
        "Painter.draw = failing\n"
        "from quantchat.cli import main; main()"
    )
    env = program_env(scripted.home, **scripted_engine_env(scripted.folder))
    terminal = Terminal([sys.executable, "-c", broken], env=env, columns=100, lines=30)
    try:
        terminal.wait_for("Ask something")
        for letter in "abcdefghijklmnopqrstuvwxyz":
            terminal.type(letter)
            terminal.wait_for(lambda text, letter=letter: f"{letter}" in text)
        terminal.wait_for("abcdefghijklmnopqrstuvwxyz")
        terminal.wait_for("lost count")
    finally:
        terminal.close()
