"""The prompt in real terminals: pastes, keys, the editor, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from quantchat.domain.attachments import Attachment, Draft
from quantchat.domain.chat import Session
from quantchat.store.sessions import SessionStore
from scripted_run import INSIDE, SIZES, Inside, ScriptedHome
from terminal import Terminal

LONG = "\n".join(f"\tline {number} ❤\ufe0f" for number in range(60))
SLOW = [{"match": "slow", "text": "word " * 300 + "finished", "tokens_per_second": 100}]
in_both = pytest.mark.parametrize("inside", INSIDE)
at_both_sizes = pytest.mark.parametrize(("columns", "lines"), SIZES)


def sessions(home: ScriptedHome) -> list[Session]:
    store = SessionStore(home.home / "data" / "sessions")
    return [store.load(summary.id) for summary in store.list()]


def asked(home: ScriptedHome, terminal: Terminal, count: int = 1) -> list[str]:
    """Wait until so many prompts are on the disk."""

    def found() -> list[str]:
        return [m.text for session in sessions(home) for m in session.branch() if m.role == "user"]

    return terminal.wait_until(lambda: found() if len(found()) >= count else [])


def editor(folder: Path, body: str) -> str:
    """An editor that runs some lines of Python on the file it is given."""
    script = folder / "editor.py"
    script.write_text(f"import os, sys, time\nfrom pathlib import Path\npath = Path(sys.argv[-1])\n{body}\n")
    return f"{sys.executable} {script} --wait"


@in_both
@at_both_sizes
def test_a_paste_is_folded_and_sent_exactly(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines)
    terminal.type("Look at ")
    terminal.paste(LONG)
    terminal.wait_for("Look at [paste 1: 60 lines]")
    terminal.type(" please")
    terminal.press("enter")
    assert asked(scripted, terminal) == [f"Look at\n[paste 1: 60 lines]\n```\n{LONG}\n```\nplease"]


def test_a_paste_with_sequences_in_it_presses_no_keys(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded()
    terminal.paste("one\x1b[31mred\nrm -rf\n\x1b[201~two\nthree\x1b]0;owned\x07")
    terminal.wait_for("three]0;owned")
    terminal.press("enter")
    assert asked(scripted, terminal) == ["one[31mred\nrm -rf\ntwo\nthree]0;owned"]


def test_a_megabyte_and_foreign_bytes_leave_the_prompt_alive(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded()
    terminal.write(b"caf\xe9 ")
    data = b"\x1b[200~" + b"some words \r" * 80_000 + b"\x1b[201~"
    while data:
        # The pty takes a few kilobytes at a time.
        try:
            data = data[os.write(terminal._fd, data[:4096]) :]
        except BlockingIOError:
            terminal.pump()
    terminal.wait_for("[paste 1: 80000 lines]")
    terminal.type(" and on")
    terminal.wait_for("] and on")


@pytest.mark.parametrize("key", ["\x1b[13;2u", "\x1b[27;2;13~", "\n"])
def test_keys_for_a_new_line(scripted: ScriptedHome, key: str) -> None:
    terminal = scripted.start_loaded()
    terminal.type(f"one{key}two")
    terminal.press("enter")
    assert asked(scripted, terminal) == ["one\ntwo"]


@in_both
@at_both_sizes
def test_commands_and_paths_are_completed(
    scripted: ScriptedHome, tmp_path: Path, inside: Inside, columns: int, lines: int
) -> None:
    (tmp_path / "some notes.md").write_text("a note\n")
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines)
    terminal.type("/ren")
    terminal.wait_for("/rename [title]")
    terminal.press("tab")
    terminal.type("Fresh name")
    terminal.press("enter")
    terminal.wait_for("Fresh name")
    terminal.type(f"Read @{tmp_path}/so")
    terminal.wait_for(lambda text: any(line.count("some notes.md") for line in text.splitlines()))
    terminal.press("tab")
    terminal.press("enter")
    (sent,) = asked(scripted, terminal)
    assert sent.startswith(f'Read @"{tmp_path}/some notes.md"\n\n[file 1: ')
    assert sent.endswith("```markdown\na note\n\n```")


@in_both
def test_up_recalls_what_another_run_asked(scripted: ScriptedHome, inside: Inside) -> None:
    first = scripted.start_loaded()
    first.type("earlier\nlines\r")
    asked(scripted, first)
    first.press("ctrl+q")
    assert first.wait_exit() == 0
    second = scripted.start_loaded(inside=inside)
    second.wait_for("Ask something")
    second.press("up")
    second.wait_for(lambda text: "earlier" in text and "Ask something" not in text)
    second.type("!")
    second.press("enter")
    assert sorted(asked(scripted, second, 2)) == ["earlier\nlines", "earlier\nlines!"]


@in_both
@at_both_sizes
def test_the_editor_writes_the_prompt_and_the_screen_comes_back(
    scripted: ScriptedHome, tmp_path: Path, inside: Inside, columns: int, lines: int
) -> None:
    seen = tmp_path / "seen"
    command = editor(
        tmp_path,
        f"seen = Path({str(seen)!r})\n"
        "seen.write_text(f'{oct(path.stat().st_mode)} {path.suffix} {path}\\n{path.read_text()}')\n"
        "print('x' * 5000, flush=True)\n"
        "path.write_text(path.read_text().replace('line 7 ', 'line seven ') + 'more\\n')",
    )
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines, VISUAL=command)
    before = terminal.screen_text.splitlines()[0]
    terminal.type("Fix ")
    terminal.paste(LONG)
    terminal.wait_for("[paste 1")
    terminal.press("ctrl+g")
    terminal.wait_until(seen.exists)
    terminal.wait_for(lambda text: "more" in text and text.splitlines()[0] == before and "xxx" not in text)
    head, text = seen.read_text().split("\n", 1)
    mode, suffix, path = head.split(" ", 2)
    assert (mode, suffix) == ("0o100600", ".md")
    assert text == f"Fix\n[paste 1: 60 lines]\n```\n{LONG}\n```\n"
    assert not Path(path).exists()
    terminal.press("enter")
    (sent,) = asked(scripted, terminal)
    assert sent == f"Fix\n[paste 1: 60 lines]\n```\n{LONG.replace('line 7 ', 'line seven ')}\n```\nmore"


def test_an_answer_streams_on_behind_the_editor(scripted: ScriptedHome, tmp_path: Path) -> None:
    ready, go = tmp_path / "ready", tmp_path / "go"
    command = editor(
        tmp_path,
        f"Path({str(ready)!r}).touch()\n"
        f"while not Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        "path.write_text('edited')",
    )
    terminal = scripted.start_loaded(answers=SLOW, EDITOR=command)
    terminal.type("be slow\r")
    terminal.wait_for("word word")
    terminal.press("ctrl+g")
    terminal.wait_until(ready.exists)
    # Ctrl+C in an editor that leaves it to the terminal reaches the whole foreground group.
    os.kill(terminal.pid, signal.SIGINT)
    go.touch()
    terminal.wait_for(lambda text: "edited" in text and "finished" in text)
    terminal.wait_until(lambda: sessions(scripted)[0].branch()[-1].text == SLOW[0]["text"])


@pytest.mark.parametrize(
    ("body", "said"),
    [("path.write_text('lost'); sys.exit(3)", "it ended with code 3"), ("path.unlink()", "No such file")],
)
def test_an_editor_that_fails_leaves_the_prompt(scripted: ScriptedHome, tmp_path: Path, body: str, said: str) -> None:
    terminal = scripted.start_loaded(EDITOR=editor(tmp_path, body))
    terminal.type("my words")
    terminal.press("ctrl+g")
    terminal.wait_for(lambda text: said in " ".join(text.split()) and "my words" in text)


def test_an_editor_that_cannot_be_run_gives_the_terminal_back(scripted: ScriptedHome, tmp_path: Path) -> None:
    broken = tmp_path / "editor"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    terminal = scripted.start_loaded(EDITOR=str(broken))
    terminal.type("my words")
    terminal.press("ctrl+g")
    # The notice breaks its lines by the length of the folder's path.
    terminal.wait_for(lambda text: "Exec" in text and "my words" in text)
    terminal.type(" and more")
    terminal.wait_for("my words and more")


def test_bytes_that_are_no_text_come_back_marked(scripted: ScriptedHome, tmp_path: Path) -> None:
    terminal = scripted.start_loaded(EDITOR=editor(tmp_path, "path.write_bytes(b'caf\\xe9 \\x1b[31m ok\\r\\n')"))
    terminal.type("/editor\r")
    terminal.wait_for("caf\N{REPLACEMENT CHARACTER} [31m ok")


def test_a_kill_loses_no_draft(scripted: ScriptedHome, tmp_path: Path) -> None:
    terminal = scripted.start_loaded()
    terminal.type("half a thought about ")
    terminal.paste(LONG)
    terminal.wait_until(lambda: any("line 59" in session.draft for session in sessions(scripted)))
    terminal.kill()
    again = scripted.start("--continue")
    again.wait_for("[paste 1: 60 lines]")
    draft = Draft("half a thought about [paste 1: 60 lines]", (Attachment(number=1, text=LONG),))
    assert sessions(scripted)[0].draft == draft.expanded()


def test_a_kill_while_the_editor_runs_loses_no_draft(scripted: ScriptedHome, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = editor(tmp_path, f"Path({str(ready)!r}).touch()\nwhile os.getppid() != 1: time.sleep(0.01)")
    terminal = scripted.start_loaded(EDITOR=command)
    terminal.type("not lost")
    terminal.press("ctrl+g")
    terminal.wait_until(lambda: ready.exists() and [s for s in sessions(scripted) if s.draft == "not lost"])
    terminal.kill()
