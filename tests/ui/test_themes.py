"""Themes on the screen: readable, chosen with a preview, followed as their files change; NO_COLOR means none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomlkit
from rich.color import Color as RichColor
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from quantchat import paths
from quantchat.store.themes import COLOURS, load_themes, read_theme
from quantchat.ui.nocolour import NoColour
from quantchat.ui.screens.dialogs import ErrorScreen
from quantchat.ui.screens.themes import ThemeScreen
from quantchat.ui.theming import TERMINAL_THEME, textual_theme
from quantchat.ui.widgets.rows import RowList
from scripted_run import ScriptedHome, scripted
from ui.rig import Rig, running
from unit.store.test_themes import contrast

__all__ = ["scripted"]

Patch = pytest.MonkeyPatch

SHIPPED = load_themes(paths.shipped_themes_dir())[0]
COLOURED = sorted(name for name, theme in SHIPPED.items() if not theme.native)
WORDS = ("primary", "secondary", "accent", "error", "warning", "success")
SMALL = [(80, 24), (40, 15)]
COLOUR_CODES = re.compile(rb"\x1b\[([0-9;:]*)m")


def colour_of(value: str, paper: Color) -> str:
    """What a colour of a style sheet looks like on a background."""
    if value.startswith("auto"):
        return (paper + paper.get_contrast_text(int(value[5:-1]) / 100)).hex6
    return (paper + Color.parse(value)).hex6


# Readable


@pytest.mark.parametrize("name", COLOURED)
def test_what_style_sheets_make_of_a_theme_can_be_read(name: str) -> None:
    theme = textual_theme(SHIPPED[name])
    variables = theme.to_color_system().generate() | theme.variables
    bars = {f"text-{word}": 4.5 for word in WORDS} | {"foreground-muted": 3.0, "text-muted": 3.0}
    weak = {}
    for surface in ("background", "surface"):
        paper = Color.parse(variables[surface])
        for ink, bar in bars.items():
            found = contrast(colour_of(variables[ink], paper), paper.hex6)
            if found < bar:
                weak[ink, surface] = round(found, 2)
    assert weak == {}


@pytest.mark.parametrize("name", COLOURED)
def test_words_stay_apart_from_their_background_in_16_colours(name: str) -> None:
    theme = SHIPPED[name]

    def nearest(colour: str) -> int | None:
        return RichColor.parse(colour).downgrade(ColorSystem.STANDARD).number

    papers = {nearest(theme.background), nearest(theme.surface)}
    assert not {nearest(getattr(theme, ink)) for ink in ("foreground", "primary", "accent", "error")} & papers
    cursor = theme.variables["block-cursor-foreground"], theme.variables["block-cursor-background"]
    assert nearest(cursor[0]) != nearest(cursor[1])


@pytest.mark.parametrize("kind", ["native", "coloured"])
async def test_no_variable_that_a_theme_may_set_breaks_the_style_sheets(
    tmp_path: Path, monkeypatch: Patch, kind: str
) -> None:
    theme = TERMINAL_THEME if kind == "native" else "quantchat-dark"
    async with running(tmp_path, monkeypatch, theme=theme) as rig:
        for key in ("f9", "f1", "ctrl+p", "f2", "f10"):
            await rig.pilot.press(key)
            await rig.until(lambda: rig.app.screen is not rig.chat)
            await rig.pilot.press("escape")
            await rig.until(lambda: rig.app.screen is rig.chat)
        variables = rig.app.get_css_variables()
        for value in ("#fff 40%", "ansi_red", "auto 60%", "bold underline"):
            may = {name: value for name in variables if is_allowed(tmp_path, name, value)}
            assert may
            sheet = rig.app.stylesheet.copy()
            sheet.set_variables(variables | may)
            sheet.parse()


def is_allowed(folder: Path, name: str, value: str) -> bool:
    """Whether a theme file may give a variable this value."""
    path = folder / "x.toml"
    path.write_text(theme_text("x", variables={name: value}))
    return read_theme(path)[0] is not None


# Chosen


async def open_chooser(rig: Rig) -> RowList:
    await rig.until(lambda: len(rig.app.themes.files) >= 8)
    await rig.pilot.press("f9")
    await rig.until(lambda: isinstance(rig.app.screen, ThemeScreen) and rig.app.focused is not None)
    return rig.app.screen.query_one(RowList)


@pytest.mark.parametrize("size", SMALL)
async def test_a_theme_is_seen_while_choosing_and_goes_with_escape(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        rows = await open_chooser(rig)
        assert rows.highlighted_id == rig.app.theme == "quantchat-dark"
        for name in ("quantchat-light", "catppuccin-latte"):
            await rig.pilot.press("j")
            await rig.until(lambda name=name: rig.app.theme == name)  # type: ignore[misc]
            paper = Color.parse(SHIPPED[name].background)
            await rig.until(lambda paper=paper: rig.chat.styles.background == paper)  # type: ignore[misc]
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat and rig.app.theme == "quantchat-dark")
        assert not (tmp_path / "home" / "config").exists()


async def test_a_chosen_theme_stays_after_the_next_start_and_comments_do_too(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    config = tmp_path / "home" / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('# mine\n[keys]\nhelp = "f11"  # not f1\n')
    async with running(tmp_path, monkeypatch) as rig:
        rows = await open_chooser(rig)
        rows.go_to("nord")
        await rig.pilot.press("enter")
        await rig.until(lambda: 'theme = "nord"' in config.read_text())
        assert "# mine" in config.read_text()
        assert 'help = "f11"  # not f1' in config.read_text()
    async with running(tmp_path, monkeypatch) as rig:
        assert rig.app.theme == "nord"


async def test_a_choice_that_cannot_be_stored_is_used_and_told(tmp_path: Path, monkeypatch: Patch) -> None:
    config = tmp_path / "home" / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    async with running(tmp_path, monkeypatch) as rig:
        config.write_text("theme = ")
        rows = await open_chooser(rig)
        rows.go_to("dracula")
        await rig.pilot.press("enter")
        await rig.until(lambda: any("does not parse" in note.message for note in rig.app._notifications))
        assert rig.app.theme == "dracula"
        assert config.read_text() == "theme = "


@pytest.mark.parametrize(("setting", "shown"), [("", TERMINAL_THEME), ('theme = "nord"\n', "nord")])
async def test_sixteen_colours_are_the_terminals_own_unless_another_theme_was_asked_for(
    tmp_path: Path, monkeypatch: Patch, setting: str, shown: str
) -> None:
    config = tmp_path / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(setting)
    monkeypatch.setattr("rich.console.Console.color_system", "standard")
    async with running(tmp_path, monkeypatch) as rig:
        assert rig.app.theme == shown
        assert len(rig.app.screen_stack) == 1
    async with running(tmp_path, monkeypatch, theme="quantchat-dark") as rig:
        assert rig.app.theme == "quantchat-dark"


def test_a_slow_link_shows_the_terminals_own_colours(scripted: ScriptedHome) -> None:
    terminal = scripted.start("--slow-link", columns=80, lines=24)
    terminal.wait_for("Ask something")
    terminal.press("f9")
    terminal.wait_for("● terminal")
    assert b"[38;2;" not in terminal.raw


# Reloaded


def theme_text(name: str, **changes: object) -> str:
    return tomlkit.dumps({"name": name, "dark": True} | dict.fromkeys(COLOURS, "#abcdef") | changes)


async def test_a_theme_follows_its_file_and_a_broken_one_is_told_once(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "home" / "config" / "themes" / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(theme_text("mine", background="#101010"))
    async with running(tmp_path, monkeypatch, theme="mine") as rig:

        def paper(colour: str) -> bool:
            return rig.chat.styles.background == Color.parse(colour)

        assert rig.app.theme == "mine"
        await rig.until(lambda: paper("#101010"))
        path.write_text(theme_text("mine", background="#102030"))
        await rig.until(lambda: paper("#102030"), "the new background")
        path.write_text("background = ")
        await rig.until(lambda: rig.app._notifications)
        told = next(iter(rig.app._notifications)).message
        assert "mine" in told
        for _ in range(3):
            await rig.app._look()
        assert len(rig.app._notifications) == 1
        assert paper("#102030")
        path.write_text(theme_text("mine", background="#405060"))
        await rig.until(lambda: paper("#405060"), "the mended background")
        assert len(rig.app._notifications) == 1
        path.unlink()
        await rig.until(lambda: len(rig.app._notifications) == 2)
        assert "no theme 'mine' any more. Its colours stay" in list(rig.app._notifications)[-1].message
        assert paper("#405060")


async def test_a_users_file_wins_over_a_shipped_theme_until_it_goes(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "home" / "config" / "themes" / "n.toml"
    path.parent.mkdir(parents=True)
    path.write_text(theme_text("nord", background="#010203"))
    async with running(tmp_path, monkeypatch, theme="nord") as rig:
        assert rig.app.current_theme.background == "#010203"
        await rig.until(lambda: len(rig.app.themes.files) >= 8)
        path.unlink()
        await rig.until(lambda: rig.app.current_theme.background == SHIPPED["nord"].background)
        assert not rig.app._notifications


async def test_a_theme_that_appears_later_is_used_if_it_was_asked_for(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "home" / "config" / "themes" / "late.toml"
    path.parent.mkdir(parents=True)
    async with running(tmp_path, monkeypatch, theme="late") as rig:
        await rig.until(lambda: any("There is no theme 'late'" in note.message for note in rig.app._notifications))
        assert rig.app.theme == "quantchat-dark"
        path.write_text(theme_text("late"))
        await rig.until(lambda: rig.app.theme == "late")


# Without colour


@pytest.mark.parametrize(
    ("style", "reverse"),
    [
        ("bold #d9dee7 on #11151c", False),
        ("#d9dee7 on #171c26", False),
        ("#11151c on #7fb2e5", True),
        ("#d9dee7 on #35507a", True),
        ("red", False),
        ("reverse #d9dee7 on #11151c", True),
        ("black on cyan", True),
    ],
)
def test_what_only_a_colour_showed_is_reversed(style: str, reverse: bool) -> None:
    wanted = Style.parse(style)
    background = Color(0, 0, 0, ansi=-1) if "cyan" in style else Color.parse("#11151c")
    (segment,) = NoColour().apply([Segment("x", wanted)], background)
    assert segment.style is not None
    assert segment.style.color is segment.style.bgcolor is None
    assert bool(segment.style.reverse) == reverse
    assert segment.style.bold == wanted.bold


def test_what_a_click_means_is_kept() -> None:
    (segment,) = NoColour().apply([Segment("x", Style.from_meta({"option": 3}))], Color.parse("#000"))
    assert segment.style is not None
    assert segment.style.meta == {"option": 3}


@pytest.mark.parametrize("theme", ["quantchat-dark", "catppuccin-latte", TERMINAL_THEME])
def test_not_one_colour_reaches_the_terminal_with_no_color(scripted: ScriptedHome, theme: str) -> None:
    answer = "# A heading\n\nWords, `code`, **bold**.\n\n```python\ndef f():\n    return 1\n```\n"
    terminal = scripted.start_loaded(
        "--theme", theme, answers=[{"text": answer}], columns=80, lines=24, NO_COLOR="1", COLORTERM="truecolor"
    )

    def reversed_cells(row: int) -> int:
        return sum(terminal.screen.buffer[row][x].reverse for x in range(80))

    terminal.type("hello")
    terminal.press("enter")
    terminal.wait_for("return 1")
    terminal.press("ctrl+l")
    terminal.wait_for("beta-GPTQ")
    terminal.wait_for(lambda text: any(reversed_cells(row) > 20 for row in range(1, 8)))
    terminal.press("esc")
    terminal.wait_for(lambda text: "beta-GPTQ" not in text)
    terminal.press("f9")
    terminal.wait_for("catppuccin-mocha")
    terminal.type("j")
    terminal.wait_for(lambda text: any(reversed_cells(row) > 20 for row in range(1, 20)))
    terminal.press("esc")
    terminal.wait_for(lambda text: "catppuccin-mocha" not in text)
    terminal.type("seen")
    terminal.wait_for("seen")
    terminal.wait_for(lambda text: any(c.reverse for c in terminal.screen.buffer[21].values()), 5)
    terminal.press("ctrl+q")
    terminal.wait_exit()
    found = COLOUR_CODES.finditer(bytes(terminal.raw))
    codes = {int(code) for sequence in found for code in re.split(rb"[;:]", sequence[1]) if code}
    assert {1, 7} <= codes
    assert [code for code in codes if 30 <= code <= 49 or code >= 90] == []


async def test_a_broken_theme_that_is_wanted_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "home" / "config" / "themes"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('name = "mine"\ndark = "perhaps"\n')
    async with running(tmp_path, monkeypatch, theme="mine") as rig:
        await rig.until(lambda: rig.app._notifications, "a notice")
        assert [notice.message.count("mine cannot be used") for notice in rig.app._notifications] == [1]
        assert not isinstance(rig.app.screen, ErrorScreen)
