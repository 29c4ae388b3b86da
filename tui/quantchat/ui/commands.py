"""Every action of the screen, as one table: keys, palette, slash commands, help and key map are read from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Scope = Literal["everywhere", "prompt", "reading", "list", "session"]
"""Where a command's keys work: in every part of the main screen, or only in the prompt, the transcript, the lists, of
which that of the sessions has more."""


@dataclass(frozen=True)
class Command:
    """One action.

    Attributes:
        action: Name of the `action_` method of the screen, or of the widget that `scope` names.
        keys: Comma-separated Textual key names.
        slash: What to type after `/`; further names after a comma.
        argument: What may follow the slash name, such as `[text]`; empty if nothing may.
        offered: Whether the palette names it; a key that means two things does not belong there.
    """

    id: str
    title: str
    help: str
    action: str
    keys: str
    slash: str = ""
    argument: str = ""
    scope: Scope = "everywhere"
    offered: bool = True

    @property
    def slashes(self) -> tuple[str, ...]:
        return tuple(name for name in self.slash.split(",") if name)


COMMANDS: tuple[Command, ...] = (
    # Turns
    Command(
        "stop", "Stop", "Stop the answer and keep its text, or take back a waiting prompt", "stop", "escape", "stop"
    ),
    Command(
        "stop-all",
        "Stop all answers",
        "Stop the answers of all sessions and take back what waits",
        "stop_all",
        "",
        "stop-all",
    ),
    Command(
        "continue",
        "Continue the answer",
        "Let the last answer go on where it was cut or stopped",
        "continue",
        "alt+r",
        "continue",
    ),
    Command(
        "regenerate",
        "Regenerate",
        "Answer the last question again; both versions stay",
        "regenerate",
        "ctrl+r",
        "regenerate",
    ),
    Command("interrupt", "Copy or stop", "Copy selected text, else stop", "interrupt", "ctrl+c", offered=False),
    Command(
        "begin",
        "Begin the answer",
        "Write how the answer to the last question begins; the model goes on from there",
        "begin",
        "",
        "begin",
        "[text]",
    ),
    # Versions and branches
    Command(
        "edit", "Change a prompt", "Change your last prompt and ask again; both versions stay", "edit", "alt+e", "edit"
    ),
    Command(
        "edit-answer",
        "Change the answer",
        "Change the last answer; /continue goes on from there",
        "edit_answer",
        "",
        "edit-answer",
    ),
    Command(
        "version",
        "Other version",
        "Show the next version of a message, or the one of a number",
        "version",
        "",
        "version",
        "[number]",
    ),
    Command("fork", "Fork session", "Start a session of its own from what was said so far", "fork", "", "fork"),
    Command(
        "delete-message",
        "Delete message",
        "Take the last message away; /undo brings it back",
        "delete_message",
        "",
        "delete-message",
    ),
    Command("undo", "Undo deletion", "Bring back what was deleted last from this session", "undo", "", "undo"),
    Command("purge", "Forget what was deleted", "Drop for good what /undo would bring back", "purge", "", "purge"),
    Command("card", "Run card", "Model, kernel, seed, sampling, speed and more of the answer", "card", "", "card"),
    # The prompt
    Command("editor", "Write in $EDITOR", "Write the prompt in your own editor", "editor", "ctrl+g", "editor"),
    Command("attach", "Attach a file", "Put a text file into the prompt", "attach", "", "attach", "file"),
    # Models and sessions
    Command(
        "models",
        "Models",
        "Choose a model to load, or load the one named",
        "models",
        "ctrl+l,f4",
        "models,model",
        "[model]",
    ),
    Command("unload", "Unload model", "Give back the model's memory, or break off its load", "unload", "f7", "unload"),
    Command(
        "previous-model", "Previous model", "Load the model that was loaded before", "previous_model", "", "previous"
    ),
    Command(
        "load-when-free",
        "Load when free",
        "Load once memory is free; again: stop waiting",
        "load_when_free",
        "",
        "whenfree",
        "[model]",
    ),
    Command("info", "Model info", "Everything that is known about a model", "info", "alt+i", "info", "[model]"),
    Command("kernels", "Kernels", "Which run, which do not, and why", "kernels", "", "kernels"),
    Command("compare", "Compare models", "One prompt, two models, in columns", "compare", "", "compare", "[model]"),
    Command("evaluate", "Evaluate a model", "What its quantization cost", "evaluate", "", "evaluate", "[model]"),
    Command("quality", "Quality of models", "What was measured, as a table and a chart", "quality", "", "quality"),
    Command("doctor", "Doctor", "Examine this machine, with what mends it", "doctor", "", "doctor", "[model]"),
    Command("pull", "Download a model", "Fetch a model, with its fit before", "pull", "", "pull", "[repo]"),
    Command(
        "quantize",
        "Quantize a model",
        "Make a GPTQ or AWQ model; the job goes on behind the chat",
        "quantize",
        "alt+q",
        "quantize",
        "[model]",
    ),
    Command("sort", "Sort models", "Sort models by name, size, fit or last use", "sort_models", "", "sort", "[order]"),
    Command(
        "folders", "Model folders", "Add and remove folders in which models are looked for", "folders", "", "folders"
    ),
    Command(
        "servers",
        "Servers",
        "Servers whose models are used: add, change, take out, ask again",
        "servers",
        "",
        "servers,server",
        "[name url]",
    ),
    Command("rescan", "Scan for models", "Look for models again", "rescan", "f5", "rescan"),
    Command("new", "New session", "Start an empty session", "new_session", "ctrl+n", "new"),
    Command("sessions", "Sessions", "Choose a session", "sessions", "f3", "sessions"),
    Command("takeover", "Take over session", "Write here what another quantchat has left", "takeover", "", "takeover"),
    Command("rename", "Rename session", "Give this session another title", "rename", "f2", "rename", "[title]"),
    Command("delete", "Delete session", "Move this session to the trash folder", "delete", "f10", "delete"),
    Command("export", "Export session", "Write this session to a file", "export", "", "export", "[file]"),
    Command("import", "Import sessions", "Take sessions in from a file", "import_sessions", "", "import", "file"),
    Command(
        "search", "Search sessions", "Find a text in all sessions, and go there", "search", "ctrl+f", "search", "[text]"
    ),
    Command("title", "Ask for a title", "Let the model give this session a title", "title", "", "title"),
    Command("pin", "Pin session", "Keep this session on top of the list, or no longer", "pin", "", "pin"),
    Command("tag", "Tag session", "Give this session tags; -word takes one away", "tag", "", "tag", "[tags]"),
    Command(
        "archive", "Archive session", "Put this session into the archive, or take it back", "archive", "", "archive"
    ),
    Command("archived", "Archive", "Show the archived sessions, or the others again", "archived", "", "archived"),
    Command(
        "sort-sessions",
        "Sort sessions",
        "Sort sessions by changed, created, title, messages",
        "sort_sessions",
        "",
        "order",
        "[order]",
    ),
    Command("temporary", "Temporary session", "Start a session that is never written", "temporary", "", "temporary"),
    Command("keep", "Keep this session", "Write a temporary session from now on", "keep", "", "keep"),
    # How a session asks
    Command("prompts", "Prompts", "Take a prompt of the library", "prompts", "alt+p", "prompts", "[prompt]"),
    Command("system", "System prompt", "What the model is told before the chat", "system", "", "system", "[text]"),
    Command("preset", "Sampling preset", "Choose how freely the model picks words", "preset", "", "preset", "[preset]"),
    Command("set", "Sampling values", "Look at single values and change them", "sampling_values", "", "set", "[value]"),
    Command("seed", "Seed", "Answer with a seed, or the last one's; alone: none", "seed", "", "seed", "[seed]"),
    Command("save-preset", "Save preset", "Keep this session's values", "save_preset", "", "save-preset", "[name]"),
    Command("template", "Chat template", "Ask with another template", "template", "", "template", "[file]"),
    Command(
        "inspect",
        "Prompt inspector",
        "The exact prompt with its tokens, and what is wrong with it",
        "inspect",
        "alt+v",
        "inspect,prompt",
        "[text]",
    ),
    # Reading
    Command(
        "reading",
        "Read the chat",
        "Move to the messages; Tab or Esc comes back",
        "transcript",
        "f6",
        "read",
    ),
    Command("find", "Find in this chat", "Mark a text where it occurs", "find", "alt+s", "find", "[text]"),
    Command("thinking", "Thinking", "Show or hide what models think first", "thinking", "ctrl+t", "thinking"),
    Command(
        "copy", "Copy last answer", "Send the last answer to the terminal's clipboard", "copy_answer", "ctrl+o", "copy"
    ),
    Command(
        "code",
        "Copy code block",
        "Send a block of code to the terminal's clipboard; again takes the one before",
        "copy_code",
        "alt+c",
        "code",
    ),
    Command(
        "previous-prompt", "Previous prompt", "Go up to your own prompt before", "previous_prompt", "alt+up", "back"
    ),
    Command("next-prompt", "Next prompt", "Go down to your own next prompt", "next_prompt", "alt+down", "forward"),
    # The screen
    Command("sidebar", "Hide or show the sidebar", "Give the chat the whole width", "toggle_sidebar", "f8", "sidebar"),
    Command("theme", "Theme", "Choose the colours, with a live preview", "theme", "f9", "theme", "[name]"),
    Command("redraw", "Redraw", "Draw the whole screen again", "redraw", "f12", "redraw"),
    Command("palette", "Command palette", "Find an action by its name", "palette", "ctrl+p", offered=False),
    Command("help", "Help", "Keys and commands", "help", "f1", "help"),
    Command("quit", "Quit", "Save everything and leave; exit and bye do too", "quit", "ctrl+q", "quit,exit,bye"),
    # In the prompt
    Command(
        "prompt.recall", "Recall", "Recall earlier prompts, in an empty prompt", "up_or_recall", "up", scope="prompt"
    ),
    # In the transcript
    Command("read.next", "Next message", "Next message", "next_message", "j", scope="reading"),
    Command("read.previous", "Previous message", "Previous message", "previous_message", "k", scope="reading"),
    Command("read.first", "First message", "First message", "scroll_home", "g,home", scope="reading"),
    Command("read.last", "Last message", "Last message, and follow", "scroll_end", "G,end", scope="reading"),
    Command("read.up", "Line up", "A line up", "scroll_up", "up", scope="reading"),
    Command("read.down", "Line down", "A line down", "scroll_down", "down", scope="reading"),
    Command("read.page-up", "Page up", "A page up", "page_up", "pageup", scope="reading"),
    Command("read.page-down", "Page down", "A page down", "page_down", "pagedown,space", scope="reading"),
    Command("read.fold", "Fold", "Fold or unfold the message's thinking or paste", "fold", "o,enter", scope="reading"),
    Command("read.copy", "Copy message", "Send the message to the clipboard", "copy_message", "y", scope="reading"),
    Command(
        "read.code", "Copy code", "Send a block of its code; again takes the next", "copy_code", "c", scope="reading"
    ),
    Command(
        "read.previous-version",
        "Version before",
        "Version before of the message",
        "previous_version",
        "less_than_sign,left",
        scope="reading",
    ),
    Command(
        "read.next-version",
        "Next version",
        "Its next version",
        "next_version",
        "greater_than_sign,right",
        scope="reading",
    ),
    Command(
        "read.edit", "Change", "Change the prompt and ask again, or change the answer", "edit", "e", scope="reading"
    ),
    Command("read.again", "Answer again", "Write another version of the answer", "again", "r", scope="reading"),
    Command("read.begin", "Begin the answer", "Write how the answer begins", "begin", "b", scope="reading"),
    Command("read.fork", "Fork", "Start a session of what was said down to here", "fork", "f", scope="reading"),
    Command("read.delete", "Delete", "Delete the message and all below it", "delete", "D", scope="reading"),
    Command("read.undo", "Undo", "Bring back what was deleted last", "undo", "u", scope="reading"),
    Command("read.card", "Run card", "Who wrote it, how, and what it cost", "card", "i", scope="reading"),
    Command("read.find", "Find", "Find a text in this chat", "find", "slash", scope="reading"),
    Command("read.next-hit", "Next hit", "Next place of the text", "next_hit", "n", scope="reading"),
    Command("read.previous-hit", "Previous hit", "Place before", "previous_hit", "N", scope="reading"),
    # In the list of sessions
    Command("session.mark", "Mark", "Mark the session for what comes next", "mark_row", "X", scope="session"),
    Command("session.mark-all", "Mark all", "Mark all that are shown, or none", "mark_all", "M", scope="session"),
    Command("session.pin", "Pin", "Keep it on top, or no longer", "pin_rows", "P", scope="session"),
    Command("session.tag", "Tags", "Change its tags", "tag_rows", "T", scope="session"),
    Command("session.archive", "Archive", "Archive it, or take it back", "archive_rows", "A", scope="session"),
    Command("session.export", "Export", "Write it to a file", "export_rows", "E", scope="session"),
    Command("session.archived", "Archive", "Show the archive, or leave it", "show_archived", "V", scope="session"),
    # In the lists
    Command("list.down", "Down", "Next row", "cursor_down", "j,down", scope="list"),
    Command("list.up", "Up", "Row before", "cursor_up", "k,up", scope="list"),
    Command("list.first", "First", "First row", "first", "g,home", scope="list"),
    Command("list.last", "Last", "Last row", "last", "G,end", scope="list"),
    Command("list.page-up", "Page up", "A page of rows up", "page_up", "pageup", scope="list"),
    Command("list.page-down", "Page down", "A page of rows down", "page_down", "pagedown", scope="list"),
    Command("list.filter", "Filter", "Show only rows that hold what is typed", "filter_rows", "slash", scope="list"),
    Command("list.sort", "Sort", "Sort the list the next way", "sort_rows", "S", scope="list"),
    Command("list.info", "Model info", "Everything about the model under the cursor", "info_row", "I", scope="list"),
    Command(
        "list.delete", "Delete", "Delete what is under the cursor, or marked", "delete_row", "delete", scope="list"
    ),
)
QUIT_WORDS = frozenset({"exit", "quit", "bye"})
"""Typed alone as a prompt, these leave the program."""
CLOSE = 0.8
"""How alike (0 to 1) a word is to the name of a command that is probably meant."""

PROMPT_KEYS = (
    ("enter", "Send"),
    ("ctrl+j", "New line (also Shift+Enter where the terminal sends it)"),
    ("tab", "Complete after / or @, else go to the next part of the screen"),
)
READING_KEYS = (
    ("tab,escape", "Back to the prompt"),
    ("any other letter", "Back to the prompt, and typed there"),
)
FIND_KEYS = (
    ("enter,down", "Next place of the text"),
    ("up", "Place before"),
    ("escape", "Take the marks away and go back"),
)
LIST_KEYS = (
    ("enter", "Load the model, open the session"),
    ("any other letter", "Show only rows that hold it, until an arrow key; Esc shows all"),
)


def commands(scope: Scope) -> Iterable[Command]:
    """The commands whose keys work in one part of the screen."""
    return (command for command in COMMANDS if command.scope == scope)


def find_command(command_id: str) -> Command:
    """The command of an id of the table."""
    return next(command for command in COMMANDS if command.id == command_id)


def find_slash(text: str) -> Command | None:
    """Return the command that a prompt such as `/new` or `/rename My title` names."""
    first, *_ = text.split(maxsplit=1) or [""]
    name = first.removeprefix("/").lower()
    return next((command for command in COMMANDS if name in command.slashes), None)


def is_mistyped(text: str) -> bool:
    """Whether a prompt is one word that looks like a command and is none, such as `/unlaod`; `/etc/hosts` is not.

    What has more words begins with nearly a command, such as `/sytem Be brief.`.
    """
    first, *rest = text.split(maxsplit=1) or [""]
    if not (first.startswith("/") and first[1:].isalpha()) or find_slash(first) is not None:
        return False
    return not rest or _is_nearly_a_command(first[1:].lower())


def _is_nearly_a_command(name: str) -> bool:
    from difflib import get_close_matches

    return bool(get_close_matches(name, [slash for command in COMMANDS for slash in command.slashes], 1, CLOSE))
