"""Every action of the screen, as one table: keys, palette, slash commands and help are all read from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One action.

    Attributes:
        action: Name of the screen's `action_` method.
        keys: Comma-separated Textual key names.
        slash: What to type after `/`; further names after a comma.
    """

    id: str
    title: str
    help: str
    action: str
    keys: str
    slash: str = ""

    @property
    def slashes(self) -> tuple[str, ...]:
        return tuple(name for name in self.slash.split(",") if name)


COMMANDS: tuple[Command, ...] = (
    Command(
        "stop", "Stop", "Stop the answer and keep its text, or take back a waiting prompt", "stop", "escape", "stop"
    ),
    Command("new", "New session", "Start an empty session", "new_session", "ctrl+n", "new"),
    Command(
        "regenerate",
        "Regenerate",
        "Answer the last question again; both versions stay",
        "regenerate",
        "ctrl+r",
        "regenerate",
    ),
    Command("models", "Models", "Choose a model to load", "models", "ctrl+l,f4", "models"),
    Command("sessions", "Sessions", "Choose a session", "sessions", "f3", "sessions"),
    Command("rename", "Rename session", "Give this session another title", "rename", "f2", "rename"),
    Command("delete", "Delete session", "Move this session to the trash folder", "delete", "f10", "delete"),
    Command("unload", "Unload model", "Give back the model's memory, or break off its load", "unload", "f7", "unload"),
    Command("rescan", "Scan for models", "Look for models again", "rescan", "f5", "rescan"),
    Command(
        "copy", "Copy last answer", "Send the last answer to the terminal's clipboard", "copy_answer", "ctrl+o", "copy"
    ),
    Command(
        "reading",
        "Read the chat",
        "Move to the transcript: j, k, Page Up, Page Down, g, G; Tab comes back",
        "transcript",
        "f6",
        "read",
    ),
    Command("sidebar", "Hide or show the sidebar", "Give the chat the whole width", "toggle_sidebar", "f8", "sidebar"),
    Command("theme", "Next theme", "Change the colours", "next_theme", "f9", "theme"),
    Command("palette", "Command palette", "Find an action by its name", "palette", "ctrl+p", ""),
    Command("help", "Help", "Keys and commands", "help", "f1", "help"),
    Command("quit", "Quit", "Save everything and leave; exit and bye do too", "quit", "ctrl+q", "quit,exit,bye"),
)
QUIT_WORDS = frozenset({"exit", "quit", "bye"})
"""Typed alone as a prompt, these leave the program."""

PROMPT_KEYS = (
    ("enter", "send"),
    ("ctrl+j", "new line (also Shift+Enter where the terminal sends it)"),
    ("up", "recall the last prompt, in an empty prompt"),
    ("ctrl+c", "copy selected text, else stop the answer"),
    ("tab", "go to the next part of the screen"),
)
LIST_KEYS = (
    ("j k g G, arrows", "move in a list"),
    ("enter", "load the model, open the session"),
    ("delete", "delete the session under the cursor"),
)


def find_slash(text: str) -> Command | None:
    """Return the command that a prompt such as `/new` names."""
    name = text.strip().removeprefix("/").lower()
    return next((command for command in COMMANDS if name in command.slashes), None)


def is_mistyped(text: str) -> bool:
    """Whether a prompt is one word that looks like a command and is none, such as `/unlaod`; `/etc/hosts` is not."""
    return text.startswith("/") and text[1:].isalpha() and find_slash(text) is None


def show_keys(keys: str) -> str:
    """Write key names as people say them: `ctrl+l,f4` becomes `Ctrl+L / F4`."""
    names = {"escape": "Esc"}
    return " / ".join(
        names.get(key) or "+".join(part.capitalize() for part in key.split("+")) for key in keys.split(",") if key
    )
