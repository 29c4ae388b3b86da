"""What a stranger found by using the program: each test is one fault that was there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from textual import events
from textual.widgets._toast import Toast, ToastRack

from quantchat.cli import main
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore
from quantchat.ui.screens.dialogs import ConfirmScreen
from quantchat.ui.status import status_line
from quantchat.ui.widgets.sessions import SessionList
from ui.rig import SIZES, SLOW, Rig, running
from unit.catalog.model_folders import make_gptq

Patch = pytest.MonkeyPatch


def packet(rig: Rig, *keys: str) -> None:
    """Keys that arrive at once, as a paste or a slow line delivers them; nothing waits between them."""
    for key in keys:
        rig.app.post_message(events.Key(key, {"enter": "\r"}.get(key, key if len(key) == 1 else None)))


async def test_keys_of_one_packet_behind_enter_stay_in_the_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        packet(rig, *"one", "enter", *"two")
        await rig.answered()
        assert rig.chat.session.branch()[0].text == "one"
        assert rig.chat.prompt.text == "two"


async def test_a_prompt_goes_to_the_session_in_which_it_was_sent(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("first")
        await rig.answered()
        first = rig.chat.session
        packet(rig, *"more", "enter", "ctrl+n")
        await rig.until(lambda: rig.chat.session is not first)
        assert [message.text for message in first.branch() if message.role == "user"] == ["first", "more"]
        assert not rig.chat.session.messages
        assert not first.draft


async def test_a_paste_keeps_its_lines(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        rig.app.post_message(events.Paste("one\rtwo\r\nthree\nfour"))
        await rig.until(lambda: rig.chat.prompt.text == "one\ntwo\nthree\nfour")


HOST = (
    "no NVIDIA GPU  RAM ████░░░░ 1.6/23.5 GiB engine 1.1",
    "no NVIDIA GPU  RAM ████░░░░ 1.6/23.5 GiB",
    "no NVIDIA GPU  RAM 1.6/23.5 GiB",
    "RAM 1.6/23.5 GiB",
)


@pytest.mark.parametrize(
    ("width", "left", "right"),
    [
        (120, HOST[0], "aten cpu  40.5 tok/s  TTFT 0.12 s  ctx 46/8192"),
        (95, HOST[0], "40.5 tok/s  TTFT 0.12 s  ctx 46/8192"),
        (80, HOST[0], "40.5 tok/s  ctx 46/8192"),
        (70, HOST[1], "40.5 tok/s  ctx 46/8192"),
        (60, HOST[2], "40.5 tok/s  ctx 46/8192"),
        (45, HOST[3], "40.5 tok/s  ctx 46/8192"),
        (40, HOST[3], "ctx 46/8192"),
    ],
)
def test_a_narrow_status_bar_drops_one_figure_at_a_time(width: int, left: str, right: str) -> None:
    line = status_line(HOST, "aten cpu", "40.5 tok/s  TTFT 0.12 s  ctx 46/8192", width).plain
    assert line.split("  ")[0] == f" {left}".split("  ")[0]
    assert line.removeprefix(f" {left}").strip() == right
    assert len(line) == width


async def test_a_mistyped_command_is_not_sent(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        for typed in ("/sytem Be brief.", "/unlaod"):
            rig.chat.prompt.load("")
            await rig.ask(typed)
            assert rig.chat.prompt.text == typed
        await rig.ask("/etc/hosts is what?")
        await rig.answered()
        assert rig.chat.session.branch()[0].text == "/etc/hosts is what?"


def test_the_models_folder_may_stand_before_the_command(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    make_gptq(tmp_path / "models" / "alpha-GPTQ")
    result = CliRunner().invoke(main, ["--models-dir", str(tmp_path / "models"), "models"])
    assert "alpha-GPTQ" in result.output


async def test_the_delete_key_in_the_session_list_asks(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("hello")
        await rig.answered()
        await rig.pilot.press("f3", "delete")
        assert isinstance(rig.app.screen, ConfirmScreen)


async def test_a_new_session_that_waits_stands_in_the_list(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.pilot.press("ctrl+n")
        await rig.ask("second")
        waiting = rig.chat.session.id
        await rig.until(lambda: waiting in [summary.id for summary in rig.chat.summaries])


@pytest.mark.parametrize("size", SIZES)
async def test_a_notice_leaves_the_prompt_free_and_esc_takes_it_away(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        rig.app._disable_notifications = False
        await rig.chat.mount(ToastRack())  # Textual leaves it out of tests.
        await rig.ask("no model")
        await rig.until(lambda: rig.app.screen.query(Toast), "a notice")
        await rig.pilot.pause()
        assert rig.app.screen.query_one(Toast).region.bottom <= rig.chat.prompt.region.y
        await rig.pilot.press("escape")
        await rig.until(lambda: not rig.app.screen.query(Toast), "no notice")
        assert rig.chat.prompt.text == "no model"


def shown(rig: Rig) -> list[str]:
    return [view.text for view in rig.chat._views]


@pytest.mark.parametrize("way", ["send", "choose"])
async def test_a_session_that_another_program_gave_free_is_shown_and_kept_with_what_that_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        session = rig.chat.session.id
    holder = SessionLocks().acquire(session)
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.load()
        await rig.until(lambda: rig.chat.session.id == session and "one" in shown(rig))
        store = SessionStore()
        theirs = store.load(session)
        theirs.append("user", "two of theirs")
        store.save(theirs)
        holder.release()
        if way == "send":
            await rig.ask("three of mine")
            await rig.answered()
            await rig.until(lambda: "three of mine" in shown(rig))
        else:
            rig.chat.prompt.load("a draft of mine")
            rig.chat.choose_session(session)
        await rig.until(lambda: "two of theirs" in shown(rig))
        await rig.pilot.press("ctrl+q")
        await rig.until(lambda: rig.app._exit)
    kept = SessionStore().load(session)
    assert {"one", "two of theirs"} <= {message.text for message in kept.messages.values()}
    assert any(message.text == "three of mine" for message in kept.messages.values()) == (way == "send")
    drafts = [SessionStore().load(found.id).draft for found in SessionStore().list()]
    assert sorted(drafts) == ([""] if way == "send" else ["", "a draft of mine"])


async def test_a_draft_in_a_session_that_another_program_holds_is_kept_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        session = rig.chat.session.id
    holder = SessionLocks().acquire(session)
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.until(lambda: rig.chat.session.id == session)
        rig.chat.prompt.load("words of the second program")
        await rig.pilot.press("ctrl+q")
        await rig.until(lambda: rig.app._exit)
        assert rig.app.return_code == 0
    holder.release()
    kept = [path.read_text() for path in (tmp_path / "home" / "data" / "sessions").glob("*.json")]
    assert sum("words of the second program" in text for text in kept) == 1


@pytest.mark.parametrize("is_shown", [True, False])
async def test_a_session_that_another_program_holds_is_not_deleted_and_keeps_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shown: bool
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        session = rig.chat.session.id
    holder = SessionLocks().acquire(session)
    async with running(tmp_path, monkeypatch, resume=is_shown) as rig:
        await rig.until(lambda: any(summary.id == session for summary in rig.chat.summaries))
        await rig.until(lambda: (rig.chat.session.id == session) == is_shown)
        rig.chat.prompt.load("words of mine")
        rig.chat.query_one(SessionList).focus()
        await rig.pilot.press("f10")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        assert "open elsewhere" in await rig.dialog()
        assert any(summary.id == session for summary in rig.chat.summaries)
        assert (rig.chat.session.id == session) == is_shown
        assert rig.chat.prompt.text == "words of mine"
    holder.release()
