"""Copies arrive where the notice says: in tmux's buffer, in the terminal's clipboard, in a file; byte for byte."""

from __future__ import annotations

import re
import stat
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.ui import clipboard
from quantchat.ui.clipboard import LIMIT, SCREEN_CHUNK, Ways, as_bytes, sequence, ways
from screen.copies import sent_to
from scripted_run import ScriptedHome
from terminal import Terminal
from tmux import Tmux

ANSWER = (
    "# Héllo\n\n"
    "Some *prose* with `code`, 漢字, e\u0301, ✔\ufe0f and \x1b[31mcolour\x1b[0m.\n\n"
    "```python\nif x:\n\treturn [\"a\", 'b']  # $HOME `tick`\n```\n\n"
    "- last; words\\\n"
)
# Its end is short lines, which leave the corner of the toast empty.
BIG = ("0123456789" * 40 + "\n") * (LIMIT // 400 + 1) + "\n\n.\n" * 30
FRIENDLY = {"TERM_PROGRAM": "WezTerm"}


def ask_for(terminal: Terminal) -> None:
    """Get the one answer that the script holds."""
    terminal.type("go")
    terminal.press("enter")
    terminal.wait_for("tok/s", 30)
    terminal.wait_for(lambda text: "Answering" not in text and "END" in text)


def answer(text: str) -> list[dict[str, object]]:
    return [{"text": text, "tokens_per_second": 0}]


def says(wanted: str) -> Callable[[str], bool]:
    """Whether a toast says something; it breaks its lines where it likes, in words too."""

    def test(shown: str) -> bool:
        said = "".join(line.rpartition("▌")[2] for line in shown.splitlines() if "▌" in line)
        return _squeezed(wanted) in _squeezed(said)

    return test


def _squeezed(text: str) -> str:
    return "".join(text.split())


# Sequences


@given(st.text())
def test_the_sequence_decodes_to_the_text(text: str) -> None:
    found = re.fullmatch(r"\x1b\]52;c;(.*)\x07", sequence(as_bytes(text), {}))
    assert found is not None
    assert b64decode(found[1], validate=True) == as_bytes(text)


@given(st.integers(0, 3 * SCREEN_CHUNK))
def test_screen_gets_pieces_that_it_can_hold_and_the_terminal_the_whole(size: int) -> None:
    data = b"x" * size
    wrapped = sequence(data, {"STY": "1.pts-0"})
    pieces = re.findall(r"\x1bP(.*?)\x1b\\", wrapped, re.S)
    assert "".join(f"\x1bP{piece}\x1b\\" for piece in pieces) == wrapped
    assert all(0 < len(piece) <= SCREEN_CHUNK for piece in pieces)
    assert "".join(pieces) == sequence(data, {})


def test_tmux_inside_screen_gets_the_plain_sequence() -> None:
    assert sequence(b"x", {"STY": "1.pts-0", "TMUX": "/tmp/t,1,0"}) == sequence(b"x", {})


def test_only_what_no_clipboard_can_hold_is_lost() -> None:
    assert as_bytes("a\0b\x1b[31m\x9b\u202e\t\r\n") == "ab\x1b[31m\x9b\u202e\t\r\n".encode()
    assert as_bytes("a\ud800b") == b"a?b"


@pytest.mark.parametrize(
    ("setting", "env", "size", "expected"),
    [
        ("auto", {"TERM": "xterm-kitty"}, 5, Ways(terminal=True, file=False)),
        ("auto", {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, 5, Ways(terminal=True, file=False)),
        ("auto", {"TERM": "xterm-256color"}, 5, Ways(terminal=True, file=True)),
        ("auto", {}, 5, Ways(terminal=True, file=True)),
        # What the outer terminal is, its environment tells no more.
        ("auto", {"TERM": "screen", "TERM_PROGRAM": "WezTerm", "STY": "1"}, 5, Ways(terminal=True, file=True)),
        ("auto", {"TERM": "linux"}, 5, Ways(terminal=False, file=True)),
        ("auto", {"TERM": "xterm-kitty"}, LIMIT + 1, Ways(terminal=False, file=True)),
        ("auto", {"TERM": "xterm-kitty"}, LIMIT, Ways(terminal=True, file=False)),
        ("tmux", {"TERM": "tmux-256color"}, 5, Ways(terminal=True, file=True)),
        ("osc52", {"TERM": "linux"}, 5, Ways(terminal=True, file=False)),
        ("osc52", {}, LIMIT + 1, Ways(terminal=False, file=True)),
        ("file", {"TERM": "xterm-kitty"}, 5, Ways(terminal=False, file=True)),
    ],
)
def test_where_a_text_goes(setting: str, env: dict[str, str], size: int, expected: Ways) -> None:
    assert ways(setting, env, size) == expected  # type: ignore[arg-type]


def test_the_largest_text_stays_below_what_terminals_take() -> None:
    assert len(sequence(b"x" * LIMIT, {})) <= 100_000


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("path", [None, Path("/home/clipboard.txt")])
@pytest.mark.parametrize("size", [5, LIMIT + 1])
def test_no_words_claim_that_something_was_copied(size: int, path: Path | None, terminal: bool) -> None:
    said = clipboard.words("the last answer (5 characters)", size, "auto", path, terminal=terminal)
    assert "copied" not in said.lower()
    assert "the last answer (5 characters)" in said
    assert path is None or str(path) in said


# In tmux


@pytest.mark.parametrize("options", [(), ("set -s set-clipboard on",), ("set -s set-clipboard off",)])
def test_tmux_has_the_answer_in_its_buffer(scripted: ScriptedHome, options: Sequence[str]) -> None:
    text = ANSWER + "END"
    terminal = scripted.start_loaded(answers=answer(text), inside="tmux", options=options)
    assert isinstance(terminal, Tmux)
    ask_for(terminal)
    terminal.press("ctrl+o")
    through = "" if options and "off" in options[0] else " and, through it, to the terminal"
    wanted = f"Sent the last answer ({len(text)} characters) to tmux's buffer{through}"
    terminal.wait_for(says(wanted))
    assert terminal.buffer == text
    if through:
        terminal.wait_until(lambda: sent_to(terminal) == [text])
    assert not (scripted.home / "state" / "clipboard.txt").exists()


def test_tmux_takes_what_is_too_large_for_the_terminal(scripted: ScriptedHome) -> None:
    text = BIG + "END"
    terminal = scripted.start_loaded(answers=answer(text), inside="tmux")
    assert isinstance(terminal, Tmux)
    ask_for(terminal)
    terminal.press("ctrl+o")
    terminal.wait_for(says("to tmux's buffer alone"))
    assert terminal.buffer == text
    assert sent_to(terminal) == []


def test_a_tmux_that_does_not_answer_is_gone_round(scripted: ScriptedHome) -> None:
    text = ANSWER + "END"
    terminal = scripted.start_loaded(answers=answer(text), TMUX="/nowhere/socket,1,0", TMUX_TMPDIR=str(scripted.folder))
    ask_for(terminal)
    terminal.press("ctrl+o")
    terminal.wait_for(says("to the terminal (OSC 52); if it does not arrive"))
    assert sent_to(terminal) == [text]
    assert (scripted.home / "state" / "clipboard.txt").read_bytes() == text.encode()


# In a bare terminal


def test_a_terminal_that_takes_text_gets_it_by_osc_52(scripted: ScriptedHome) -> None:
    text = ANSWER + "END"
    terminal = scripted.start_loaded(answers=answer(text), **FRIENDLY)
    ask_for(terminal)
    terminal.press("ctrl+o")
    wanted = f"Sent the last answer ({len(text)} characters) to the terminal (OSC 52)"
    terminal.wait_for(says(wanted))
    assert sent_to(terminal) == [text]
    assert not (scripted.home / "state" / "clipboard.txt").exists()


def test_screen_passes_the_wrapped_sequence_on(scripted: ScriptedHome) -> None:
    text = ANSWER * 3 + "END"
    terminal = scripted.start_loaded(answers=answer(text), STY="1.pts-0", TERM="screen-256color")
    ask_for(terminal)
    terminal.press("ctrl+o")
    terminal.wait_for(says("(OSC 52); if it does not arrive"))
    # What screen does with device control strings.
    unwrapped = re.sub(rb"\x1bP(.*?)\x1b\\", rb"\1", bytes(terminal.raw), flags=re.S)
    terminal.raw[:] = unwrapped
    assert sent_to(terminal) == [text]


def test_what_is_too_large_is_written_to_a_private_file(scripted: ScriptedHome) -> None:
    text = BIG + "END"
    terminal = scripted.start_loaded(answers=answer(text), **FRIENDLY)
    ask_for(terminal)
    terminal.press("ctrl+o")
    terminal.wait_for(says("Too large for the terminal"))
    assert sent_to(terminal) == []
    file = scripted.home / "state" / "clipboard.txt"
    assert file.read_text() == text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_setting_wins_over_what_the_terminal_can(scripted: ScriptedHome) -> None:
    text = ANSWER + "END"
    config = 'clipboard = "file"\n'
    terminal = scripted.start_loaded(answers=answer(text), inside="tmux", config=config)
    assert isinstance(terminal, Tmux)
    ask_for(terminal)
    terminal.press("ctrl+o")
    terminal.wait_for(says("Written to"))
    assert terminal.buffer == ""
    assert (scripted.home / "state" / "clipboard.txt").read_text() == text


def test_what_is_cut_from_the_prompt_goes_the_same_way(scripted: ScriptedHome) -> None:
    terminal = scripted.start(inside="tmux")
    assert isinstance(terminal, Tmux)
    terminal.wait_for("Ask something")
    terminal.type("keep this")
    terminal.press(*["shift+left"] * 4, "ctrl+x")
    terminal.wait_for(says("Sent the selection (4 characters) to tmux's buffer"))
    assert terminal.buffer == "this"


def test_the_text_of_an_error_can_be_taken_along(scripted: ScriptedHome) -> None:
    terminal = scripted.start("--model", "no-such-model", **FRIENDLY)
    terminal.wait_for("c copies the text")
    terminal.press("c")
    terminal.wait_for(says("Sent the message"))
    (sent,) = sent_to(terminal)
    assert "no-such-model" in sent
