"""The program with its model loaded, as a person at the terminal sees it and as its files tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quantchat.domain.chat import Message, Session
from quantchat.store.schema import decode_session
from terminal import Terminal, program_env, quantchat_command

LOAD_SECONDS = 240
"""The first load on a machine compiles a kernel."""
HANG_SECONDS = 60
"""Nothing that is waited for here takes so long on a busy machine, unless it never comes."""
_WORKING = "Esc stops"
_READING = re.compile(r"Reading ([\d,]+) of ([\d,]+) tokens")


class Chat:
    """One running program."""

    def __init__(self, terminal: Terminal, home: Path) -> None:
        self.terminal = terminal
        self._sessions = home / "data" / "sessions"
        self._known = 0

    # At the terminal

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, and wait until the status bar stands at its foot."""
        self.terminal.resize(columns, lines)
        self.sees(lambda text: "RAM" in text.splitlines()[-1])

    def sees(self, wanted: str | Callable[[str], bool], seconds: float = HANG_SECONDS) -> str:
        """Wait until the screen shows something; return the screen."""
        return self.terminal.wait_for(wanted, seconds)

    def new(self) -> None:
        """Begin a session; `answer` waits for it from now on."""
        self._known = len(self.sessions)
        self.terminal.press("ctrl+n")
        self.sees(lambda text: " New session  " in text.splitlines()[0])

    def ask(self, text: str) -> None:
        """Type a prompt or a command, and send it."""
        self.terminal.type(text)
        self.terminal.press("enter")

    def ask_pasted(self, text: str, question: str) -> None:
        """Paste a text, type a question below it, and send both."""
        self.terminal.paste(text)
        self.ask(question)

    def streams(self) -> None:
        """Wait until the answer on the screen has begun."""
        self.sees(lambda text: "Answering" in text and "tok/s" in text)

    def rests(self) -> None:
        """Wait until nothing is written in the session on the screen."""
        self.sees(lambda text: _WORKING not in text)

    @property
    def reading(self) -> tuple[int, int] | None:
        """How many tokens of how many the screen says have been read."""
        found = _READING.search(self.terminal.screen_text)
        return (_number(found[1]), _number(found[2])) if found else None

    @property
    def transcript(self) -> list[str]:
        """The lines of the screen, without the lists at their left."""
        return [line.rpartition("│")[2] for line in self.terminal.screen_text.splitlines()]

    @property
    def rows(self) -> list[str]:
        """The session list, if it is on the screen, from the latest on: mark, title, warmth and time."""
        _, found, below = self.terminal.screen_text.partition("─ Sessions ")
        lines = [line[1:].split("│")[0] for line in below.splitlines()[1:] if line.startswith("│")]
        return [line for line in lines if line.strip()] if found else []

    # On disk

    @property
    def sessions(self) -> list[Session]:
        """All sessions on disk, in the order in which they were begun; each must parse."""
        return [decode_session(path.read_bytes()) for path in sorted(self._sessions.glob("*.json"))]

    @property
    def journals(self) -> dict[str, str]:
        """What has been said of the answers that stream, by session."""
        found = {}
        for path in self._sessions.glob("*.journal"):
            try:
                found[path.stem] = path.read_text()
            except FileNotFoundError:
                # It ended between the two looks.
                continue
        return found

    def answers(self, session: int = -1) -> list[Message]:
        """The answers of a session, by default of the one that was begun last."""
        return [message for message in self.sessions[session].messages.values() if message.role == "assistant"]

    def answer(self, number: int = 1, *, session: int = -1, where: Callable[[Message], object] = bool) -> Message:
        """Wait until a session has so many answers on disk, and the last has ended as told; return that one."""

        def found() -> Message | None:
            answers = self.answers(session) if len(self.sessions) > self._known else []
            if len(answers) != number or answers[-1].finish is None or not where(answers[-1]):
                return None
            return answers[-1]

        return self.terminal.wait_until(found, HANG_SECONDS)

    def is_settled(self) -> bool:
        """Whether every answer on disk has ended, and no journal is left."""
        answers = [
            message for session in self.sessions for message in session.messages.values() if message.role == "assistant"
        ]
        return not self.journals and all(answer.finish is not None for answer in answers)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


@contextmanager
def chatting(home: Path, model: Path, config: str) -> Iterator[Chat]:
    """Start the program on a fresh home, and load a model."""
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text(f"automatic_titles = false\n{config}")
    command = quantchat_command("--models-dir", str(model.parent), "--model", model.name)
    terminal = Terminal(command, env=program_env(home), columns=80, lines=24)
    try:
        terminal.wait_for(lambda text: " cpu" in text.splitlines()[-1], LOAD_SECONDS)
        yield Chat(terminal, home)
    finally:
        terminal.close()
