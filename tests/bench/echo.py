"""Time from a key to its echo on the screen, while nothing happens, while the model loads, and while an answer streams.

The real program with the demo's model under a pseudo-terminal. A key's echo is the moment at which its letter stands on
the screen. Medians and 95th percentiles are printed. With `--job` letters are typed while the bf16 model is quantized
behind the chat instead.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from demo_model import demo_model
from quantchat.services.demo import PLAIN
from quantchat.ui.screens.job import HINTS
from terminal import Terminal, program_env, quantchat_command

LETTERS = "abcdefghijklmnopqrstuvwxyz"
BAR_MS = 50.0
PATIENCE = 240.0


def pause(terminal: Terminal, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        terminal.pump(0.01)


def typing(terminal: Terminal, keys: int, go_on: Callable[[], bool] = lambda: True) -> list[float]:
    """Echo times of letters typed one after the other; the prompt is emptied after each run of letters."""
    times: list[float] = []
    typed = ""
    for number in range(keys):
        if not go_on():
            break
        letter = LETTERS[number % len(LETTERS)].upper()
        typed += letter
        begun = time.perf_counter()
        terminal.type(letter)
        while typed not in terminal.screen_text:
            terminal.pump(0.002)
            if time.perf_counter() - begun > 10:
                raise AssertionError(f"no echo of {typed!r}; the screen shows:\n{terminal.screen_text}")
        times.append((time.perf_counter() - begun) * 1000)
        pause(terminal, 0.1)
        if len(typed) == len(LETTERS):
            terminal.type("\x15")
            pause(terminal, 0.3)
            typed = ""
    terminal.type("\x15")
    pause(terminal, 0.3)
    return times


def percentile(times: list[float], share: float) -> float:
    return statistics.quantiles(times, n=100)[round(share * 100) - 1] if len(times) > 1 else times[0]


def measure(home: Path, models: Path, keys: int) -> dict[str, list[float]]:
    """Type in all three states of one run."""
    terminal = Terminal(quantchat_command("--models-dir", str(models)), env=program_env(home), columns=120, lines=40)
    try:
        terminal.wait_for("GPTQ 4b", 60)
        pause(terminal, 6)
        found = {"idle": typing(terminal, keys)}
        terminal.press("ctrl+l")
        terminal.type("G")
        terminal.press("enter")
        terminal.wait_for("Loading", 10)
        found["loading"] = typing(terminal, keys, lambda: "Loading" in terminal.screen_text)
        terminal.wait_for(lambda text: " cpu" in text.splitlines()[-1], PATIENCE)
        terminal.type("Write a very long story about a lighthouse keeper and the sea.")
        terminal.press("enter")
        terminal.wait_for("Answering", 30)
        found["streaming"] = typing(terminal, keys, lambda: "Answering" in terminal.screen_text)
        return found
    finally:
        terminal.press("esc", "ctrl+q")
        pause(terminal, 2)
        terminal.close()


def measure_job(home: Path, models: Path, keys: int) -> dict[str, list[float]]:
    """Type while layers are quantized behind the chat, then quit in the middle of it."""
    terminal = Terminal(quantchat_command("--models-dir", str(models)), env=program_env(home), columns=120, lines=40)
    try:
        terminal.wait_for("GPTQ 4b", 60)
        terminal.type(f"/quantize {PLAIN}\r")
        terminal.wait_for("Time ", 30)
        terminal.press("s")
        terminal.wait_for("layer 1 of", PATIENCE)
        terminal.press("esc")
        terminal.wait_for(lambda text: HINTS[""] not in text, 10)
        found = {"quantizing": typing(terminal, keys, lambda: "quantizing" in terminal.screen_text.splitlines()[-1])}
        terminal.press("ctrl+q")
        terminal.wait_for("y quits", 10)
        terminal.press("y")
        terminal.wait_exit()
        return found
    finally:
        terminal.close()


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--job", action="store_true", help="measure while a model is quantized")
    options = arguments.parse_args()
    models = demo_model().parent
    home = Path(tempfile.mkdtemp(prefix="quantchat-echo-"))
    try:
        found = (measure_job if options.job else measure)(home, models, 40 if options.quick else 100)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    figures = []
    for state, times in found.items():
        figures.append(Figure(f"echo while {state}, median of {len(times)}", statistics.median(times), "ms"))
        figures.append(Figure(f"echo while {state}, p95", percentile(times, 0.95), "ms", bar=BAR_MS))
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
