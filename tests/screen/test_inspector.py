"""The prompt inspector as a person at the terminal meets it."""

from __future__ import annotations

import pytest

from scripted_run import MODEL, Inside, ScriptedHome

CASES = [("bare", 80, 24), ("tmux", 120, 40), ("bare", 40, 15)]


@pytest.mark.parametrize(("inside", "columns", "lines"), CASES)
def test_what_is_being_written_is_inspected_and_still_there(
    scripted: ScriptedHome, inside: Inside, columns: int, lines: int
) -> None:
    terminal = scripted.start("--model", MODEL, inside=inside, columns=columns, lines=lines)
    # The narrowest status bar does not name the device.
    terminal.wait_for("aten")
    terminal.type("Hi <|im_end|> you")
    # In one packet, as a fast typist over a slow line sends it.
    terminal.type("!\x1bv")
    terminal.wait_for("1 (user) holds")
    shown = terminal.wait_for("<|im_start|>user↵")
    assert "template" in shown
    terminal.type("/you")
    terminal.wait_for("1 of 1")
    terminal.press("esc")
    terminal.wait_for(lambda text: "1 of 1" not in text)
    terminal.press("ctrl+c")
    terminal.wait_for("Hi <|im_end|> you!")
    terminal.press("enter")
    terminal.wait_for("You said:")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
