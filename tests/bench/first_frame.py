"""Time to the first full frame, beside a Textual app with a header, a scroll area, a TextArea and a footer only.

Both run under the same pseudo-terminal, in turn, from the same interpreter; a frame is full when the last line of the
screen is drawn. Medians and their ratio are printed.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from terminal import Terminal, program_env, quantchat_command

BARE = """
from textual.app import App
from textual.containers import VerticalScroll
from textual.widgets import Footer, Header, Static, TextArea

class Bare(App):
    BINDINGS = [("ctrl+q", "quit", "Quit")]
    def compose(self):
        yield Header()
        with VerticalScroll():
            yield Static("bare")
        yield TextArea()
        yield Footer()

Bare().run()
"""


def first_frame(command: list[str], env: dict[str, str], marks: tuple[str, ...]) -> float:
    """Seconds from exec until every mark stands on the screen."""
    begun = time.perf_counter()
    terminal = Terminal(command, env=env, columns=120, lines=40)
    try:
        terminal.wait_for(lambda text: all(mark in text for mark in marks), timeout=20)
        return time.perf_counter() - begun
    finally:
        terminal.press("ctrl+q")
        try:
            terminal.wait_exit(8)
        finally:
            terminal.close()


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    rounds = 5 if options.quick else 15
    home = Path(tempfile.mkdtemp(prefix="quantchat-bench-"))
    bare = home / "bare.py"
    bare.write_text(BARE)
    # Both from compiled files, as they are installed; a developer's environment may forbid to write them.
    env = program_env(home / "home") | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(home / "compiled")}
    ours: list[float] = []
    theirs: list[float] = []
    try:
        for _ in range(rounds + 1):
            theirs.append(first_frame([sys.executable, str(bare)], env, ("bare", "Quit")))
            ours.append(first_frame(quantchat_command(), env, ("New session", "Models", "Sessions", "memory")))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    # The first round of each only fills the caches of the file system.
    mine, other = statistics.median(ours[1:]), statistics.median(theirs[1:])
    report(
        [
            Figure("quantchat first frame", mine, "s"),
            Figure("bare Textual app", other, "s"),
            Figure("first frame ratio", mine / other, "x", bar=1.3),
        ],
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
