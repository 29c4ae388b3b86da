"""The command table: nothing in it is out of reach, nothing is hidden from it, and its keys can be moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, Static

from quantchat.store.settings import load_settings
from quantchat.ui.commands import COMMANDS, Command, commands, find_slash
from quantchat.ui.keys import bindings, clashes, is_key, key_map, show_keys, textual_keymap
from quantchat.ui.screens.actions import ChatActions
from quantchat.ui.screens.chat import ChatScreen
from quantchat.ui.screens.dialogs import ConfirmScreen, Panel
from quantchat.ui.screens.help import HelpScreen, help_text
from quantchat.ui.screens.palette import PaletteScreen, entries, search
from quantchat.ui.screens.themes import ThemeScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.prompt import Prompt
from quantchat.ui.widgets.rows import RowList
from quantchat.ui.widgets.sessions import SessionList
from quantchat.ui.widgets.transcript import Transcript
from ui.rig import Rig, running

Patch = pytest.MonkeyPatch

OWNERS: Mapping[str, type] = {
    "everywhere": ChatScreen,
    "prompt": Prompt,
    "reading": Transcript,
    "list": RowList,
    "session": SessionList,
}
DEFAULTS = {command.id: command.keys for command in COMMANDS}
SMALL = [(80, 24), (40, 15)]


def settings_with(folder: Path, text: str) -> None:
    config = folder / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(text)


# The table


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.id)
def test_every_command_has_an_action_where_its_keys_are_bound(command: Command) -> None:
    owner = OWNERS[command.scope]
    assert callable(getattr(owner, f"action_{command.action}", None))
    bound = {key for key, held in owner._merge_bindings().key_to_bindings.items() for b in held if b.id == command.id}
    assert bound == {key for binding in bindings(command.scope) if binding.id == command.id for key in _keys(binding)}


def _keys(binding: object) -> list[str]:
    from textual.binding import Binding

    assert isinstance(binding, Binding)
    return [made.key for made in Binding.make_bindings([binding])]


def test_every_action_of_the_screen_is_in_the_table() -> None:
    actions = {name.removeprefix("action_") for name in dir(ChatActions) if name.startswith("action_")}
    # Tab and Esc in the transcript go back to writing, as the help of `reading` says.
    assert actions - {"write"} == {command.action for command in commands("everywhere")}


def test_every_command_is_in_the_palette_and_has_a_name_to_type() -> None:
    offered = {entry.name for entry in entries(DEFAULTS, []) if entry.kind == "command"}
    wanted = {command.id for command in commands("everywhere")} - {"palette", "interrupt"}
    assert offered == wanted
    for name in wanted:
        command = next(c for c in COMMANDS if c.id == name)
        assert command.slashes
        assert [find_slash(f"/{slash}") for slash in command.slashes] == [command] * len(command.slashes)
    typed = [slash for command in COMMANDS for slash in command.slashes]
    assert len(typed) == len(set(typed))


@pytest.mark.parametrize("text", ["/rename a b", "/rename\ta b", "/RENAME\u3000題", "  /rename"])
def test_a_slash_name_ends_at_any_space(text: str) -> None:
    command = find_slash(text)
    assert command is not None
    assert command.id == "rename"


@pytest.mark.parametrize("text", ["", " ", "/", "//", "/\t", "/\u3000", "/ rename", "/etc/rename"])
def test_what_names_no_command(text: str) -> None:
    assert find_slash(text) is None


def test_ids_are_unique_and_no_default_keys_collide() -> None:
    assert len(DEFAULTS) == len(COMMANDS)
    assert {name: found for name in DEFAULTS if (found := list(clashes(DEFAULTS, name)))} == {}


def test_the_defaults_pass_the_rules_for_the_users_own_keys() -> None:
    assert key_map(DEFAULTS)[1] == []


def test_nothing_lives_only_on_keys_that_terminals_and_multiplexers_keep() -> None:
    kept = {"ctrl+s", "ctrl+q", "ctrl+a", "ctrl+b"}
    only = [c.id for c in COMMANDS if c.keys and set(c.keys.split(",")) <= kept and not c.slashes]
    assert only == []


def test_the_help_shows_every_command_with_the_keys_as_they_are_now() -> None:
    keys = DEFAULTS | {"help": "f11", "read.next": "x", "list.down": ""}
    text = help_text(keys, 200).plain
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for command in COMMANDS:
        if keys[command.id]:
            assert f"{show_keys(keys[command.id])} {command.help}" in lines
        for slash in command.slashes[:1]:
            assert " ".join(f"/{slash} {command.argument} {command.help}".split()) in lines
        assert f"{command.id} {command.title}" in lines
    assert "F11 Keys and commands" in lines
    assert "F1 Keys and commands" not in lines


@pytest.mark.parametrize("width", [10, 32, 76, 190])
def test_help_fits_its_width(width: int) -> None:
    assert max(line.cell_length for line in help_text(DEFAULTS, width).split("\n")) <= max(width, 36)


# The user's own keys


@pytest.mark.parametrize(
    ("own", "name", "words"),
    [
        ({"hepl": "f11"}, "hepl", "did you mean 'help'?"),
        ({"help": "crtl+x"}, "help", "did you mean 'ctrl+x'?"),
        ({"help": "pagedwon"}, "help", "did you mean 'pagedown'?"),
        ({"help": "f3"}, "help", "F3 belongs to 'sessions'"),
        ({"help": "f11", "new": "f11"}, "new", "F11 belongs to 'help'"),
        ({"help": "x"}, "help", "could not be typed any more"),
        *(({"help": key}, "help", f"{key} could not be typed any more") for key in "?/+-_@\\é"),
        ({"prompt.recall": "x"}, "prompt.recall", "could not be typed any more"),
        ({"help": "enter"}, "help", "Enter has a meaning of its own"),
        ({"help": "tab"}, "help", "Tab has a meaning of its own"),
        ({"list.down": "enter"}, "list.down", "Enter has a meaning of its own"),
        ({"help": "ctrl+m"}, "help", "send Ctrl+M as Enter"),
        ({"help": "alt+1"}, "help", "many terminals do not send Alt+1"),
        ({"read": {"next": "n"}}, "read.next", "n belongs to 'read.next-hit'"),
        ({"read.next": "f3"}, "read.next", "F3 belongs to 'sessions'"),
        ({"help": "j", "read": {"nxet": "x"}}, "read.nxet", "did you mean 'read.next'?"),
        ({"help": ","}, "help", "is not the name of a key"),
    ],
)
def test_a_wrong_key_is_named_and_its_command_keeps_the_default(
    own: dict[str, str | dict[str, str]], name: str, words: str
) -> None:
    keys, problems = key_map(own)
    told = {problem.title: problem.detail for problem in problems}
    assert words in told[f"The key setting for {name!r} is ignored"]
    assert keys.get(name) == DEFAULTS.get(name)


def test_keys_may_be_moved_swapped_doubled_and_taken_away() -> None:
    own: dict[str, str | dict[str, str]] = {
        "help": "F3, Ctrl+Shift+X",
        "sessions": "f1",
        "redraw": "",
        "attach": "alt+a",
        "read.next": "shift+x",
        "list": {"down": "J", "page-down": "ctrl+d,pgdn"},
    }
    keys, problems = key_map(own)
    assert problems == []
    changed = {name: used for name, used in keys.items() if used != DEFAULTS[name]}
    assert changed == {
        "help": "f3,ctrl+shift+x",
        "sessions": "f1",
        "redraw": "",
        "attach": "alt+a",
        "read.next": "X",
        "list.down": "J",
        "list.page-down": "ctrl+d,pagedown",
    }
    assert set(textual_keymap(keys)) == set(changed)


def test_a_key_that_a_refused_setting_left_free_is_not_free() -> None:
    keys, problems = key_map({"help": "f3", "new": "f1"})
    assert keys == DEFAULTS
    assert len(problems) == 2


@given(st.dictionaries(st.sampled_from([*DEFAULTS, "nope"]), st.text(max_size=12), max_size=6))
def test_no_setting_leads_to_a_clash_or_an_unknown_key(own: dict[str, str]) -> None:
    keys, _ = key_map(own)
    assert keys.keys() == DEFAULTS.keys()
    assert [name for name in keys if list(clashes(keys, name))] == []
    assert all(is_key(key) for used in keys.values() for key in used.split(",") if key)


def test_keys_may_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[keys]\nhelp = "f11"\n"read.next" = "x"\nread.copy = "Y"\n[keys.list]\ndown = "J"\n')
    settings, problems = load_settings(path)
    keys, wrong = key_map(settings.keys)
    assert problems == wrong == []
    changed = {name: used for name, used in keys.items() if used != DEFAULTS[name]}
    assert changed == {"help": "f11", "read.next": "x", "read.copy": "Y", "list.down": "J"}


@pytest.mark.parametrize(
    ("keys", "shown"),
    [("ctrl+l,f4", "Ctrl+L / F4"), ("escape", "Esc"), ("slash", "/"), ("g,home", "g / Home"), ("G", "G"), ("", "")],
)
def test_keys_are_shown_as_people_say_them(keys: str, shown: str) -> None:
    assert show_keys(keys) == shown


async def test_moved_keys_work_in_every_part_of_the_screen(tmp_path: Path, monkeypatch: Patch) -> None:
    settings_with(
        tmp_path,
        '[keys]\nhelp = "f3"\nsessions = "f1"\nredraw = ""\nquit = "ctrl+x"\n[keys.list]\ndown = "d"\n'
        '[keys.read]\nfold = "x"\n',
    )
    async with running(tmp_path, monkeypatch) as rig:
        assert len(rig.app.screen_stack) == 1
        await rig.pilot.press("f3")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen))
        await rig.pilot.press("escape")
        await rig.pilot.press("ctrl+l")
        models = rig.chat.query_one("#models", RowList)
        await rig.until(lambda: models.has_focus)
        assert models.highlighted == 0
        await rig.pilot.press("down")
        assert models.highlighted == 0
        await rig.pilot.press("d")
        assert models.highlighted == 1
        await rig.pilot.press("f1")
        await rig.until(lambda: rig.chat.query_one("#sessions").has_focus)
        rig.chat.set_focus(rig.chat.transcript)
        reading = {binding.id: key for key, (_, binding, *_) in rig.chat.active_bindings.items()}
        assert reading["read.fold"] == "x"
        await rig.pilot.press("ctrl+q")
        assert not rig.app._exit
        await rig.pilot.press("ctrl+x")
        await rig.until(lambda: rig.app._exit)


# Lists, palette, help


@pytest.mark.parametrize("size", SMALL)
async def test_lists_take_the_keys_of_vi(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.pilot.press("f9")
        await rig.until(lambda: isinstance(rig.app.screen, ThemeScreen))
        rows = rig.app.screen.query_one(RowList)
        last = rows.option_count - 1
        for key, place in (("G", last), ("g", 0), ("j", 1), ("down", 2), ("k", 1), ("end", last), ("up", last - 1)):
            await rig.pilot.press(key)
            assert rows.highlighted == place, key
        await rig.pilot.press("home", "pagedown")
        assert (rows.highlighted or 0) > 2
        await rig.pilot.press("pageup")
        assert rows.highlighted == 0


async def test_delete_in_the_session_list_asks_first(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.pilot.press("ctrl+l", "delete")
        assert rig.app.screen is rig.chat
        await rig.pilot.press("f3", "delete")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("n")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.summaries


async def open_palette(rig: Rig, query: str) -> PaletteScreen:
    await rig.pilot.press("ctrl+p")
    await rig.until(lambda: isinstance(rig.app.screen, PaletteScreen) and rig.app.screen.query(Input))
    screen = rig.app.screen
    assert isinstance(screen, PaletteScreen)
    await rig.until(lambda: rig.app.focused is screen.query_one(Input))
    screen.query_one(Input).value = query
    await rig.pilot.pause()
    return screen


@pytest.mark.parametrize("size", [*SMALL, (200, 50)])
async def test_the_palette_finds_and_runs_commands_and_themes(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        screen = await open_palette(rig, "")
        rows = screen.query_one(RowList)
        presets = dict.fromkeys(rig.app.desk.presets, "")
        assert rows.option_count == len(entries(rig.app.key_map, (f.name for f in rig.app.themes.files), presets))
        await rig.pilot.press("pagedown", "down", "up")
        assert (rows.highlighted or 0) > 1
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
        await open_palette(rig, "hel")
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen))
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
        await open_palette(rig, "theme nord")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.app.theme == "nord")
        await open_palette(rig, "zzz")
        await rig.pilot.press("enter")
        assert isinstance(rig.app.screen, PaletteScreen)


def test_the_palette_puts_the_likeliest_first() -> None:
    offered = entries(DEFAULTS, ["nord"])
    assert search(offered, "") == offered
    for query, name in (("sess", "sessions"), ("ren", "rename"), ("thm", "theme"), ("quit", "quit"), ("bye", "quit")):
        assert search(offered, query)[0].name == name
    assert search(offered, "nord")[0].name == "nord"
    assert search(offered, "qqq") == []


@pytest.mark.parametrize("size", SMALL)
async def test_help_scrolls_and_filters(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.pilot.press("f1")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen) and rig.app.screen.query(Panel))
        screen = rig.app.screen
        panel = screen.query_one(Panel)
        await rig.until(lambda: panel.max_scroll_y > 10)
        for key, moved in (("j", 1), ("j", 2), ("k", 1), ("G", panel.max_scroll_y), ("g", 0)):
            await rig.pilot.press(key)
            await rig.until(lambda moved=moved: panel.scroll_y == moved, key)  # type: ignore[misc]
        await rig.pilot.press("pagedown")
        await rig.until(lambda: panel.scroll_y > 3)
        await rig.pilot.press(*"/quit")
        words = screen.query_one("#help", Static)
        await rig.until(lambda: "leave" in str(words.content) and "Rename" not in str(words.content))
        await rig.pilot.press("escape")
        await rig.until(lambda: "Find a text" in str(words.content))
        assert rig.app.screen is screen
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)


# Arguments


async def test_rename_and_theme_take_what_is_typed_behind_them(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.ask("/rename  A title with words ")
        await rig.until(lambda: rig.chat.session.title == "A title with words")
        await rig.ask("/theme dracula")
        await rig.until(lambda: rig.app.theme == "dracula")
        await rig.ask("/theme gruv")
        await rig.until(lambda: any("gruvbox-dark" in note.message for note in rig.app._notifications))
        assert rig.app.theme == "dracula"


@pytest.mark.parametrize("key", ["ctrl+p", "f2", "f1"])
async def test_no_line_of_a_dialog_blinks(tmp_path: Path, monkeypatch: Patch, key: str) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.pilot.press(key)
        await rig.until(lambda: rig.app.screen is not rig.chat and rig.app.screen.query(Field))
        assert not rig.app.screen.query_one(Field).cursor_blink
