"""Nothing that others wrote commands the terminal: the whole byte stream is of forms that the program itself writes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from quantchat.domain.attachments import Attachment, Draft
from quantchat.domain.chat import RunCard, Session
from quantchat.errors import ErrorReport
from quantchat.store.history import Entry, PromptHistory
from quantchat.store.sessions import SessionStore
from screen.hostile import ATTACKS, MARKUP, Hostile
from screen.stream import ForeignSequence, check_stream
from scripted_run import ScriptedHome
from terminal import Terminal, program_env, quantchat_command
from tmux import Tmux
from unit.catalog.model_folders import make_gptq

COLUMNS, LINES = 100, 40
SIZE = {"columns": COLUMNS, "lines": LINES}
# Also as Textual draws by itself: what is written last must not be all that stands between a text and the terminal.
DRAWN = pytest.mark.parametrize("drawn", ["", "plain"], ids=["cells", "plain"])
SEEDS = st.integers(0, 2**32)
# A case is a run of the program; which of its hundred texts it was, the failure says without shrinking.
few_runs = settings(
    max_examples=2,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)


@contextmanager
def fresh_home() -> Iterator[ScriptedHome]:
    folder = tempfile.mkdtemp()
    home = ScriptedHome(Path(folder))
    try:
        yield home
    finally:
        home.close()
        shutil.rmtree(folder)


def check(terminal: Terminal, *, clipboard: bool = False, ansi: bool = False) -> dict[str, int]:
    screen, raw = terminal.screen, bytes(terminal.raw)
    return check_stream(raw, columns=screen.columns, lines=screen.lines, clipboard=clipboard, ansi=ansi)


def leave(terminal: Terminal) -> None:
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def read_through(terminal: Terminal, last: str) -> None:
    """Page from the first message to the last."""
    terminal.press("f6", "g")
    terminal.wait_for(lambda text: "FIRST" in text)
    while last not in (before := terminal.screen_text):
        terminal.press("pagedown")
        terminal.wait_for(lambda text, before=before: text != before)


def hostile_session(source: Hostile, count: int) -> Session:
    """A conversation of which every stored text is hostile."""
    session = Session.new()
    session.append("user", "FIRST")
    session.title = "T" + source.text()
    for number in range(count):
        message = session.append("assistant" if number % 2 else "user", f"<{number}> " + source.text())
        if message.role == "assistant":
            message.thinking = source.text()
            message.run = RunCard(model="M" + source.text(), kernel=source.text(), device=source.text())
            message.finish = "stop"
        if number % 10 == 9:
            message.finish = "error"
            message.error = ErrorReport(code="x", title=source.text(), detail=source.text(), remedy=source.text())
    session.append("assistant", "LAST").finish = "stop"
    session.draft = "D" + source.text()
    session.queued = ["Q" + source.text()]
    return session


@DRAWN
@given(seed=SEEDS)
@few_runs
def test_stored_conversations(drawn: str, seed: int) -> None:
    source = Hostile(seed)
    with fresh_home() as home:
        store = SessionStore(home.home / "data" / "sessions")
        for _ in range(12):
            store.save(hostile_session(source, 2))
        shown = hostile_session(source, 60)
        store.save(shown)
        terminal = home.start("--session", shown.id, **SIZE, QUANTCHAT_WIRE=drawn)
        terminal.wait_for("LAST")
        read_through(terminal, "LAST")
        terminal.press("f3", "f2")
        terminal.wait_for("Title of this session")
        terminal.press("esc", "f10")
        terminal.wait_for("Delete")
        terminal.press("esc")
        leave(terminal)
        check(terminal)


@DRAWN
@given(seed=SEEDS)
@few_runs
def test_streamed_answers_thinking_and_failures(drawn: str, seed: int) -> None:
    source = Hostile(seed)
    report = {"code": "x", "title": source.text(), "detail": source.text(), "remedy": source.text()}
    answers: list[dict[str, object]] = [
        {"match": "fail", "fail": report, "text": source.text(), "tokens_per_second": 0},
        {"match": "long", "text": source.text(60), "thinking": source.text(20), "tokens_per_second": 200},
    ]
    with fresh_home() as home:
        terminal = home.start_loaded(answers=answers, **SIZE, QUANTCHAT_WIRE=drawn)
        # Not a word of the answer: in code it may be cut by the end of a line.
        for prompt, shown in (("long", " tokens · "), ("fail", "failed")):
            terminal.type(prompt)
            terminal.press("enter")
            terminal.wait_for(lambda text, shown=shown: shown in text and "Answering" not in text)
        terminal.press("ctrl+t", "f6", "g")
        terminal.wait_for("long")
        leave(terminal)
        check(terminal)


@DRAWN
def test_a_load_that_fails_with_anything(drawn: str) -> None:
    with fresh_home() as home:
        report = {"code": "x", "title": "T".join(ATTACKS), "detail": "\n".join(ATTACKS), "remedy": " ".join(ATTACKS)}
        load = {"fail": report, "stages": [*ATTACKS], "seconds": 1.0}
        terminal = home.start(
            "--model", "alpha", script={"load": load, "noise": "".join(ATTACKS)}, **SIZE, QUANTCHAT_WIRE=drawn
        )
        terminal.wait_for("c copies the text")
        terminal.press("c")
        terminal.wait_for("Sent the message")
        leave_dialog(terminal)
        leave(terminal)
        assert check(terminal, clipboard=True)["clipboard"] == 1


def leave_dialog(terminal: Terminal) -> None:
    terminal.wait_for("c copies the text")
    terminal.press("esc")
    terminal.wait_for(lambda text: "c copies the text" not in text)


def hostile_names() -> list[bytes]:
    """Names that a file system takes: anything but a slash and NUL, not even UTF-8."""
    names = [text.replace("/", "").replace("\0", "").encode() for text in ATTACKS]
    return [name[:200] for name in names if name.strip(b". ")] + [b"latin-\xe9\xff", b"\xed\xa0\x80surrogate"]


def make_hostile_folders(models: Path) -> None:
    pattern = make_gptq(models / "pattern")
    for name in hostile_names():
        shutil.copytree(os.fsencode(pattern), os.path.join(os.fsencode(models), name))
    # A model that cannot be loaded, whose config is hostile as well.
    broken = make_gptq(models / "broken \x1b]0;x\x07")
    config = json.loads((broken / "config.json").read_text())
    config |= {"architectures": ["\x1b[31mArch"], "model_type": "".join(ATTACKS)}
    config["quantization_config"]["quant_method"] = "\x1b[31mmethod"
    (broken / "config.json").write_text(json.dumps(config))


@DRAWN
def test_names_of_models(drawn: str) -> None:
    with fresh_home() as home:
        make_hostile_folders(home.models)
        terminal = home.start(**SIZE, QUANTCHAT_WIRE=drawn)
        terminal.wait_for("GPTQ 4b")
        terminal.press("ctrl+l", "g")
        for _ in hostile_names():
            terminal.press("j")
        terminal.press("G")
        terminal.press("enter")
        terminal.wait_for(lambda text: "cpu" in text.splitlines()[-1] or "copies the text" in text)
        terminal.press("esc")
        leave(terminal)
        check(terminal)


def test_names_of_models_on_the_command_line() -> None:
    with fresh_home() as home:
        make_hostile_folders(home.models)
        command = quantchat_command("--models-dir", str(home.models), "models")
        terminal = Terminal(command, env=program_env(home.home), **SIZE)
        assert terminal.wait_exit() == 0
        terminal.close()
        seen = check(terminal)
        assert set(seen) == {"text", "line"}
        assert "pattern" in terminal.raw.decode()


@DRAWN
def test_settings_and_themes(drawn: str) -> None:
    with fresh_home() as home:
        attack = "".join(ATTACKS).replace("\0", "")
        themes = home.home / "config" / "themes"
        themes.mkdir(parents=True)
        for name in hostile_names()[:30]:
            with open(os.path.join(os.fsencode(themes), name + b".toml"), "wb") as file:
                file.write(b'dark = true\n[colors]\nprimary = "#123456"\n')
        quoted = json.dumps(attack).replace("\\ufffe", "").replace("\\uffff", "")
        config = f"theme = {quoted}\n{quoted} = 1\n[keys]\n{quoted} = {quoted}\nnew = {quoted}\n"
        terminal = home.start("--theme", attack, config=config, **SIZE, QUANTCHAT_WIRE=drawn)
        leave_dialog(terminal)
        terminal.press("f9")
        terminal.wait_for(lambda text: "quantchat-" in text)
        terminal.press(*["down"] * 30)
        terminal.press("esc")
        leave(terminal)
        # On a busy machine one of the ANSI themes on the way down is tried on.
        check(terminal, ansi=True)


@DRAWN
def test_names_of_files_to_attach(drawn: str) -> None:
    with fresh_home() as home:
        files = home.folder / "files"
        files.mkdir()
        for name in hostile_names():
            Path(os.fsdecode(os.path.join(os.fsencode(files), b"n" + name))).write_text(name.decode("utf-8", "replace"))
        terminal = home.start_loaded(cwd=files, **SIZE, QUANTCHAT_WIRE=drawn)
        terminal.type("@n")
        before = terminal.wait_for("n[bold red]x")
        for _ in hostile_names():
            terminal.press("down")
        terminal.wait_for(lambda text: text != before)
        terminal.press("tab")
        terminal.type(" MARK")
        terminal.wait_for("MARK")
        terminal.press("enter")
        terminal.wait_for("tok/s")
        leave(terminal)
        check(terminal)


@DRAWN
@pytest.mark.parametrize("argument", ["--model", "--session"])
def test_arguments(drawn: str, argument: str) -> None:
    with fresh_home() as home:
        terminal = home.start(argument, "".join(ATTACKS).replace("\0", ""), **SIZE, QUANTCHAT_WIRE=drawn)
        leave_dialog(terminal)
        leave(terminal)
        check(terminal)


@DRAWN
def test_what_is_pasted_into_the_prompt(drawn: str) -> None:
    with fresh_home() as home:
        answers: list[dict[str, object]] = [{"text": "DONE", "tokens_per_second": 0}]
        terminal = home.start_loaded(answers=answers, **SIZE, QUANTCHAT_WIRE=drawn)
        for number, place in enumerate(["", "/rename ", "/find ", "/theme ", "/new ", "@", "read "]):
            terminal.type(place)
            for attack in ATTACKS:
                terminal.paste(attack)
            terminal.type(f"MARK{number}")
            terminal.wait_for(f"MARK{number}")
            terminal.press("esc", "enter")
            terminal.wait_for("Ask something")
            terminal.press("esc", "up")
            terminal.wait_for(f"MARK{number}")
            terminal.press("down")
            terminal.wait_for("Ask something")
        leave(terminal)
        check(terminal)


@DRAWN
@given(seed=SEEDS)
@few_runs
def test_what_is_recalled_and_drafts_with_attachments(drawn: str, seed: int) -> None:
    source = Hostile(seed)
    attachments = tuple(Attachment(number=n, name=f"N{source.text()}", text=source.text(60)) for n in range(3))
    words = source.text().join(attachment.token for attachment in attachments)
    with fresh_home() as home:
        history = PromptHistory(home.home / "state" / "history.jsonl")
        history.append(Entry.of(Draft(f"{words}\nRECALLED", attachments)))
        session = Session.new()
        session.draft, session.draft_words = f"{attachments[0].block()}\nDRAFT", words
        SessionStore(home.home / "data" / "sessions").save(session)
        terminal = home.start("--session", session.id, **SIZE, QUANTCHAT_WIRE=drawn)
        terminal.wait_for("DRAFT")
        leave(terminal)
        check(terminal)
        terminal = home.start(**SIZE, QUANTCHAT_WIRE=drawn)
        terminal.wait_for("Ask something")
        terminal.press("up")
        terminal.wait_for("RECALLED")
        leave(terminal)
        check(terminal)


LINES_TO_TYPE_IN = (
    ("f2", "Title of this session"),
    ("ctrl+p", "Type a part"),
    ("alt+s", " Find "),
    ("f1", "In the prompt"),
)


@DRAWN
def test_what_is_pasted_into_a_line(drawn: str) -> None:
    with fresh_home() as home:
        terminal = home.start_loaded(**SIZE, QUANTCHAT_WIRE=drawn)
        for opening, shown in LINES_TO_TYPE_IN:
            terminal.press(opening)
            terminal.wait_for(shown)
            terminal.type("/" if opening == "f1" else "")
            for attack in ATTACKS:
                terminal.type("MARK")
                terminal.paste(attack)
                terminal.press("home")
                terminal.wait_for("MARK")
                terminal.press("ctrl+k")
            terminal.press("esc", "esc")
            terminal.wait_for(lambda text, shown=shown: shown not in text)
        leave(terminal)
        check(terminal)


def test_an_end_of_a_paste_inside_it_is_part_of_it() -> None:
    with fresh_home() as home:
        terminal = home.start(**SIZE)
        terminal.wait_for("Ask something")
        terminal.write(b"\x1b[200~one\x1b[201~two\x1b[31mthree\x1b[201~ four")
        terminal.wait_for("onetwo[31mthree four")
        leave(terminal)
        check(terminal)


def marked_up_session(markup: str) -> Session:
    session = Session.new()
    session.append("user", f"FIRST {markup}")
    answer = session.append("assistant", "```\n" + markup + "\n```\nLAST")
    answer.finish = "error"
    answer.error = ErrorReport(code="x", title=f"title {markup}", detail=f"detail {markup}")
    session.title = f"T {markup}"
    return session


@DRAWN
def test_markup_is_text(drawn: str) -> None:
    with fresh_home() as home:
        store = SessionStore(home.home / "data" / "sessions")
        sessions = [marked_up_session(markup) for markup in MARKUP]
        for session in sessions:
            store.save(session)
        terminal = home.start("--session", sessions[-1].id, columns=200, lines=50, QUANTCHAT_WIRE=drawn)
        for markup in reversed(MARKUP):
            wanted = (f"FIRST {markup}", f"title {markup}", f"detail {markup}", f"T {markup}")
            terminal.wait_for(lambda text, wanted=wanted: all(words in text for words in wanted))
            terminal.press("f3", "down", "enter")
        leave(terminal)
        check(terminal)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_reader_refuses_every_attack_that_is_a_sequence(attack: str) -> None:
    harmless = not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0x2028 <= ord(char) < 0x2070 for char in attack)
    if harmless or attack.isspace():
        return
    with pytest.raises(ForeignSequence):
        check_stream(f"word{attack}word".encode(), **SIZE)


def test_a_session_with_lone_surrogates_is_shown_or_named() -> None:
    with fresh_home() as home:
        store = SessionStore(home.home / "data" / "sessions")
        session = Session.new()
        session.append("user", "FIRST LONE")
        store.save(session)
        path = store.path(session.id)
        path.write_text(path.read_text().replace("LONE", "\\ud800\\udc00\\udfff"))
        terminal = home.start("--session", session.id, **SIZE)
        terminal.wait_for(lambda text: "FIRST" in text or "copies the text" in text)
        terminal.press("esc")
        leave(terminal)
        check(terminal)


def test_tmux_takes_no_orders_from_texts() -> None:
    with fresh_home() as home:
        store = SessionStore(home.home / "data" / "sessions")
        session = hostile_session(Hostile(7), 4)
        store.save(session)
        terminal = home.start("--session", session.id, inside="tmux", **SIZE)
        assert isinstance(terminal, Tmux)
        terminal.wait_for("LAST")
        title = terminal.tmux("display-message", "-p", "#{pane_title} #{window_name}")
        assert "owned" not in title
        assert terminal.buffer == ""
        leave(terminal)
