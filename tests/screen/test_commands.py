"""Palette, help, themes and moved keys in a real terminal and in tmux."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted_run import INSIDE, SIZES, Inside, ScriptedHome

CONFIG = '# kept\n[keys]\nsessions = "f1"\nhelp = "f3"\n[keys.list]\ndown = "d"\n'

pytestmark = [
    pytest.mark.parametrize("inside", INSIDE),
    pytest.mark.parametrize(("columns", "lines"), [*SIZES, (40, 15)]),
]


def config_of(scripted: ScriptedHome) -> Path:
    return scripted.home / "config" / "config.toml"


def test_the_palette_runs_what_was_found(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start(inside=inside, columns=columns, lines=lines)
    terminal.wait_for("Ask something")
    terminal.press("ctrl+p")
    terminal.wait_for("Type a part of its name")
    terminal.type("hel")
    terminal.wait_for("Keys and commands")
    terminal.press("enter")
    terminal.wait_for("In the prompt")
    terminal.type("G")
    terminal.wait_for("list.delete")
    terminal.type("/dracula")
    terminal.wait_for("Nothing of that name")
    terminal.press("esc")
    terminal.wait_for("In the prompt")
    terminal.press("esc")
    terminal.wait_for("Ask something")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_a_theme_is_previewed_and_kept(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start(inside=inside, columns=columns, lines=lines, config="# kept\n")
    terminal.wait_for("Ask something")
    terminal.press("f9")
    terminal.wait_for("● quantchat-dark")
    terminal.type("jjj")
    terminal.press("enter")
    terminal.wait_for("Ask something")
    terminal.wait_for(lambda text: "theme =" in config_of(scripted).read_text())
    assert config_of(scripted).read_text() == '# kept\ntheme = "catppuccin-mocha"\n'
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_moved_keys_work(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start(inside=inside, columns=columns, lines=lines, config=CONFIG)
    terminal.wait_for("Ask something")
    terminal.press("f3")
    terminal.wait_for("In the prompt")
    terminal.press("esc")
    terminal.wait_for("Ask something")
    terminal.press("ctrl+l")
    terminal.wait_for("beta-GPTQ")
    terminal.type("d")
    terminal.press("enter")
    terminal.wait_for(lambda text: "beta-GPTQ" in text.splitlines()[0])
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
