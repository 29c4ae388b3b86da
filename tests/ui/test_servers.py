"""Servers on the screen: their models in the sidebar, what is said of them, and the form that adds one."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.widgets import Input, Static

from quantchat.domain.chat import Message, Session
from quantchat.domain.generation import TurnStatistics
from quantchat.domain.memory import GIB
from quantchat.engine.protocol import ServerState
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot
from quantchat.hardware.host import HostMemory
from quantchat.services import serverlist
from quantchat.services.memory import MemoryView
from quantchat.services.turns import Turn
from quantchat.store.keys import keep_key, load_keys
from quantchat.ui.screens.dialogs import ConfirmScreen, Frame
from quantchat.ui.screens.info import InfoScreen
from quantchat.ui.screens.serverform import ServerForm
from quantchat.ui.screens.servers import ServersScreen
from quantchat.ui.status import is_here, server_texts, turn_text
from quantchat.ui.widgets.models import ModelList
from quantchat.ui.widgets.rows import Row, RowList
from servers_rig import OTHER, URL, Listings
from ui.rig import SIZES, SLOW, Rig, running

Patch = pytest.MonkeyPatch
CONFIG = f'[servers.box]\nurl = "{URL}"\n'
HEALTHY = ServerState(healthy=True, latency=0.01, running=2, waiting=1, cache_used=0.43, prefix_hits=0.67)


@pytest.fixture
def listings(tmp_path: Path, monkeypatch: Patch) -> Listings:
    monkeypatch.setattr(serverlist, "RETRY_SECONDS", 0.05)
    return Listings(tmp_path).use(monkeypatch)


def rows(rig: Rig) -> list[Row]:
    return list(rig.chat.query_one(ModelList)._rows)


def row(rig: Rig, name: str) -> Row | None:
    return next((row for row in rows(rig) if row.name == name), None)


def silent(rig: Rig, name: str) -> Row | None:
    """The row of a server that gives no models."""
    return next((row for row in rows(rig) if row.id == f"server:{name}/"), None)


def kept(folder: Path) -> dict[str, Any]:
    path = folder / "home" / "config" / "config.toml"
    return tomllib.loads(path.read_text()).get("servers", {}) if path.exists() else {}


def notes(rig: Rig) -> str:
    return " ".join(note.message for note in rig.app._notifications)


async def served(rig: Rig, name: str = "org/large") -> Row:
    await rig.until(lambda: row(rig, name), "the server's models")
    found = row(rig, name)
    assert found is not None
    return found


def script(state: ServerState) -> dict[str, object]:
    return {"load": {"server": msgspec.to_builtins(state)}}


@pytest.mark.parametrize("size", SIZES)
async def test_models_of_a_server_stand_in_the_sidebar_and_answer(
    tmp_path: Path, monkeypatch: Patch, listings: Listings, size: tuple[int, int]
) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch, config=CONFIG, size=size) as rig:
        large = await served(rig)
        assert (large.detail, large.mark, large.id) == ("box 32k", " ", "server:box/org/large")
        await rig.until(lambda: len([row for row in rows(rig) if not row.enabled]) == 2, "the models of this machine")
        headings = [row.name for row in rows(rig) if not row.enabled]
        assert headings[-1] == "box · 127.0.0.1:8000", "below what is on this machine"
        await rig.load("large")
        await rig.ask("Hello there")
        assert "Hello there" in (await rig.answered())[0].text
        run = rig.answers[0].run
        assert run is not None
        assert (run.model, run.path, run.quantization) == ("org/large", "server:box/org/large", "served")
        assert rig.chat.session.model == "server:box/org/large"
        assert rig.line("status").strip().startswith("127.0.0.1:8000")
        await rig.until(lambda: (row(rig, "org/large") or large).mark == "●", "the mark of the loaded model")


async def test_the_engine_that_the_last_model_needs_is_started(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await served(rig)
        assert rig.app.desk.library._spec.backend == "torch"
        await rig.load("large")
        assert rig.app.desk.library._spec.backend == "server"
        await rig.pilot.press("f7")
        await rig.until(lambda: rig.app.desk.library.ready and not rig.app.desk.library.loaded, "another engine")
        assert rig.app.desk.library._spec.backend == "server"
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.app.desk.library.ready, "an engine")
        assert rig.app.desk.library._spec.backend == "server"
        # Before the server has answered: what was used last is taken for there.
        await rig.ask("hello")
        assert "hello" in (await rig.answered())[0].text


async def test_a_silent_server_is_a_row_with_its_reason_and_comes_back(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await rig.until(lambda: silent(rig, "box"), "the row of the server")
        await rig.until(lambda: (silent(rig, "box") or rows(rig)[0]).detail == "no answer", "the reason")
        rig.chat.choose_model("server:box/")
        await rig.until(lambda: "connection refused" in notes(rig), "the whole reason")
        listings.tell()
        await served(rig)
        await rig.until(lambda: silent(rig, "box") is None, "no reason any more")
        listings.end()
        await rig.pilot.press("f5")
        await rig.until(lambda: silent(rig, "box"), "the reason again")
        left = await served(rig)
        assert left.mark == "!", "what it had can still be tried"
        listings.tell()
        await rig.until(lambda: (row(rig, "org/large") or left).mark == " ", "its models by itself")


async def test_a_server_without_models_says_so(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    listings.tell(models={})
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await rig.until(lambda: silent(rig, "box"), "the row of the server")
        assert (silent(rig, "box") or rows(rig)[0]).detail == "no models"
        await rig.pilot.press("ctrl+l")
        rig.chat.query_one(ModelList).go_to("server:box/")
        await rig.pilot.press("I")
        await rig.until(lambda: isinstance(rig.app.screen, ServersScreen), "the list of servers")


async def test_a_server_is_asked_again_when_the_user_asks(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    listings.tell(models={"one": 0})
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await served(rig, "one")
        listings.tell(models={"two": 0})
        await rig.pilot.press("f5")
        await served(rig, "two")
        assert row(rig, "one") is None


@pytest.mark.parametrize("size", SIZES)
async def test_the_status_bar_tells_of_the_server(
    tmp_path: Path, monkeypatch: Patch, listings: Listings, size: tuple[int, int]
) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch, script(HEALTHY), config=CONFIG, size=size) as rig:
        await served(rig)
        await rig.load("large")
        await rig.until(lambda: "2 running" in rig.line("status"), "the server's figures")
        line = rig.line("status")
        assert "1 waiting" in line
        assert "43%" in line
        assert ("prefix hits 67%" in line) is (size[0] > 100)
        assert "NVIDIA" not in line


async def test_a_server_that_went_silent_is_told_above_the_prompt(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    gone = ServerState(healthy=False, detail="connection refused; trying again")
    listings.tell()
    async with running(tmp_path, monkeypatch, script(gone), config=CONFIG) as rig:
        await served(rig)
        await rig.load("large")
        await rig.until(lambda: "reconnecting" in rig.line("status"))
        await rig.until(lambda: "box does not answer: connection refused" in rig.line("activity"))
        await rig.load("alpha")
        await rig.until(lambda: "reconnecting" not in rig.line("status") and "box" not in rig.line("activity"))


async def test_what_a_turn_waits_for_at_the_server_is_told_beside_it(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    waits = ServerState(healthy=True, detail="it asks to wait 3 s")
    listings.tell()
    async with running(tmp_path, monkeypatch, SLOW | script(waits), config=CONFIG) as rig:
        await served(rig)
        await rig.load("large")
        await rig.until(lambda: rig.line("activity").strip() == "box: it asks to wait 3 s")
        await rig.ask("be slow")
        await rig.until(lambda: "Answering  Esc stops  box: it asks to wait 3 s" in rig.line("activity"))
        await rig.pilot.press("escape")


async def test_a_server_whose_key_is_missing_says_which_variable(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    listings.tell()
    config = CONFIG + 'key_env = "NO_SUCH_KEY"\n'
    async with running(tmp_path, monkeypatch, config=config) as rig:
        await rig.until(lambda: silent(rig, "box"), "the row of the server")
        assert (silent(rig, "box") or rows(rig)[0]).detail == "key missing"
        rig.chat.choose_model("server:box/")
        await rig.until(lambda: "NO_SUCH_KEY" in notes(rig), "the whole reason")
        assert listings.asked == [], "it is not asked without its key"


async def test_what_needs_files_refuses_by_name(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await served(rig)
        for command, words in (("evaluate", "cannot be measured"), ("quantize", "cannot be quantized")):
            await rig.ask(f"/{command} org/large")
            await rig.until(lambda words=words: words in notes(rig), words)
        assert "It is on the server box" in notes(rig)
        await rig.ask("/whenfree org/large")
        await rig.until(lambda: rig.app.desk.library.loaded, "it needs no memory here")


async def test_a_model_is_loaded_by_its_name(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await served(rig)
        await rig.ask("/model box/org/small")
        await rig.until(lambda: rig.app.desk.library.loaded, "the model")
        assert rig.app.desk.library.model is not None
        assert rig.app.desk.library.model.name == "org/small"


async def test_the_info_panel_says_where_a_model_is(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await served(rig)
        await rig.ask("/info org/large")
        await rig.until(lambda: isinstance(rig.app.screen, InfoScreen) and rig.app.screen.complete, "the panel")
        screen = rig.app.screen
        assert isinstance(screen, InfoScreen)
        text = str(screen.query_one("#info", Static).content)
        for words in ("org/large", URL, "32,768 tokens", "vLLM", "2 models", "none", "its weights are not here"):
            assert words in text


# The list and the form


async def form(rig: Rig) -> ServerForm:
    await rig.until(lambda: isinstance(rig.app.screen, ServerForm) and rig.app.screen.query("#url"), "the form")
    screen = rig.app.screen
    assert isinstance(screen, ServerForm)
    return screen


def result(screen: ServerForm) -> str:
    return str(screen.query_one("#result", Static).content)


@pytest.mark.parametrize("size", SIZES)
async def test_a_server_is_tested_before_it_is_kept(
    tmp_path: Path, monkeypatch: Patch, listings: Listings, size: tuple[int, int]
) -> None:
    listings.tell(key="sk-secret")
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.ask("/servers")
        await rig.until(lambda: isinstance(rig.app.screen, ServersScreen) and rig.app.screen.query(RowList))
        await rig.pilot.press("a")
        screen = await form(rig)
        await rig.pilot.press(*"127.0.0.1:8000", "enter")
        await rig.until(lambda: "refuses the key" in result(screen), "what came back")
        assert screen.query_one("#name", Input).value == "local"
        assert kept(tmp_path) == {}
        await rig.pilot.press("tab", "tab", "tab", *"sk-secret")
        assert "Enter tests it" in str(screen.query_one(Frame).border_subtitle)
        await rig.pilot.press("enter")
        await rig.until(lambda: "2 models" in result(screen), "its models")
        assert "org/small, org/large" in result(screen)
        assert kept(tmp_path) == {}
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, ServersScreen), "the list")
        assert kept(tmp_path) == {"local": {"url": URL}}
        assert load_keys() == {"local": "sk-secret"}
        await rig.until(lambda: "2 models" in str(rig.app.screen.query_one(RowList)._rows), "the row")
        await rig.pilot.press("escape")
        await served(rig)
        files = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.name != "keys.toml"]
        assert not [path for path in files if b"sk-secret" in path.read_bytes()]


async def test_a_server_that_does_not_answer_can_be_kept_all_the_same(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(f"/server lab {OTHER}")
        screen = await form(rig)
        await rig.until(lambda: "does not answer" in result(screen), "what came back")
        await rig.pilot.press("enter")
        await rig.until(lambda: len(listings.asked) == 2 and "does not answer" in result(screen), "another test")
        assert kept(tmp_path) == {}
        await rig.pilot.press("ctrl+k")
        await rig.until(lambda: kept(tmp_path) == {"lab": {"url": OTHER}}, "the server")
        await rig.until(lambda: silent(rig, "lab"), "its row")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("", "No URL was given"),
        ("http://me:pass@box/v1", "holds more than a place"),
        ("ftp://box/v1", "is no URL"),
    ],
)
async def test_what_cannot_be_is_told_at_once(
    tmp_path: Path, monkeypatch: Patch, listings: Listings, keys: str, words: str
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.action_servers("lab")
        screen = await form(rig)
        screen.query_one("#url", Input).value = keys
        await rig.pilot.press("enter")
        await rig.until(lambda: words in result(screen), words)
        assert listings.asked == []


async def test_what_was_changed_after_the_test_is_tested_again(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    listings.tell()
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.action_servers(f"lab {URL}")
        screen = await form(rig)
        # While the answer is on its way.
        screen.query_one("#url", Input).value = OTHER
        await rig.until(lambda: "2 models" in result(screen))
        await rig.pilot.press("ctrl+k", "enter")
        await rig.until(lambda: "does not answer" in result(screen), "another test")
        assert [asked["url"] for asked in listings.asked] == [URL, OTHER]
        assert kept(tmp_path) == {}


async def test_a_key_comes_from_one_place(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    monkeypatch.setenv("BOX_KEY", "sk-secret")
    listings.tell(key="sk-secret")
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.action_servers("lab")
        screen = await form(rig)
        for field, value in (("url", URL), ("variable", "BOX_KEY"), ("key", "sk-other")):
            screen.query_one(f"#{field}", Input).value = value
        await rig.pilot.press("enter")
        await rig.until(lambda: "two places" in result(screen))
        screen.query_one("#key", Input).value = ""
        await rig.pilot.press("enter")
        await rig.until(lambda: "2 models" in result(screen))
        await rig.pilot.press("enter")
        await rig.until(lambda: kept(tmp_path) == {"lab": {"url": URL, "key_env": "BOX_KEY"}})
        assert load_keys() == {}


async def test_a_key_is_not_sent_to_another_place(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    listings.tell(key="sk-secret")
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        keep_key("box", "sk-secret")
        rig.chat.action_servers(f"box {OTHER}")
        screen = await form(rig)
        await rig.until(lambda: "was given for 127.0.0.1:8000" in result(screen))
        assert not [asked for asked in listings.asked if asked["url"] == OTHER]
        screen.query_one("#url", Input).value = URL
        await rig.pilot.press("enter")
        await rig.until(lambda: "2 models" in result(screen), "the same place with the same key")


async def test_a_server_is_changed_and_taken_out(tmp_path: Path, monkeypatch: Patch, listings: Listings) -> None:
    listings.tell(OTHER, {"three": 0})
    config = f'[servers.box]\nurl = "{URL}"\ncontext_window = 2048\n'
    async with running(tmp_path, monkeypatch, config=config) as rig:
        rig.chat.action_servers()
        await rig.until(lambda: isinstance(rig.app.screen, ServersScreen) and rig.app.screen.query(RowList))
        await rig.pilot.press("enter")
        screen = await form(rig)
        assert screen.query_one("#url", Input).value == URL
        screen.query_one("#url", Input).value = OTHER
        await rig.pilot.press("enter")
        await rig.until(lambda: "1 model" in result(screen))
        await rig.pilot.press("enter")
        await rig.until(lambda: kept(tmp_path) == {"box": {"url": OTHER, "context_window": 2048}}, "the change")
        await served(rig, "three")
        await rig.until(lambda: isinstance(rig.app.screen, ServersScreen))
        await rig.pilot.press("delete")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: kept(tmp_path) == {}, "no server")
        await rig.until(lambda: row(rig, "three") is None, "no model of it")


async def test_names_of_a_server_cannot_command_the_screen(
    tmp_path: Path, monkeypatch: Patch, listings: Listings
) -> None:
    evil = "[red]x[/]\x1b]0;owned\x07\u202e"
    listings.tell(models={evil: 4096, "[/nonsense]": 0})
    async with running(tmp_path, monkeypatch, config=CONFIG) as rig:
        await rig.until(lambda: any("[red]x[/]" in one.name for one in rows(rig)), "the model")
        assert not any(mark in one.name for one in rows(rig) for mark in "\x1b\x07\u202e")
        rig.chat.action_servers("lab " + URL)
        screen = await form(rig)
        await rig.until(lambda: "[red]x[/]" in result(screen), "the names")
        assert "\x1b" not in result(screen)


# Words


def test_the_status_bar_loses_the_least_telling_first() -> None:
    full, short, host = server_texts("box:8000", HEALTHY, None)
    assert full == "box:8000  2 running  1 waiting  KV ███░░░░░ 43%  prefix hits 67%"
    assert short == "box:8000  2 running  1 waiting  KV 43%"
    assert host == "box:8000"


@pytest.mark.parametrize(
    ("state", "first"),
    [
        (None, "box:8000"),
        (ServerState(healthy=True), "box:8000"),
        (ServerState(healthy=True, running=0, waiting=0), "box:8000  idle"),
        (ServerState(healthy=True, running=0, waiting=2), "box:8000  2 waiting"),
        (ServerState(healthy=False, running=2), "box:8000  reconnecting …"),
    ],
)
def test_what_is_not_known_is_not_said(state: ServerState | None, first: str) -> None:
    assert server_texts("box:8000", state, None)[0] == first


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1:80", True), ("localhost", True), ("[::1]:80", True), ("box:80", False)]
)
def test_gpus_stand_beside_a_server_of_this_machine(host: str, here: bool) -> None:
    assert is_here(host) is here
    card = GpuDevice(index=0, name="A", total=8 * GIB, used=4 * GIB)
    view = MemoryView(gpus=GpuSnapshot(devices=(card,)), host=HostMemory(total=GIB, used=0, available=GIB))
    assert ("GPU0" in server_texts(host, HEALTHY, view)[0]) is here


@pytest.mark.parametrize(("prompt", "told"), [(30, "ctx 40"), (0, "")])
def test_a_context_whose_prompt_no_server_counted_is_not_told(prompt: int, told: str) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    cost = TurnStatistics(prompt_tokens=prompt, new_tokens=10)
    answer = Message(id="a", role="assistant", text="Hi", created=when, statistics=cost)
    session = Session(id="s", created=when, updated=when, messages={"a": answer}, head="a")
    running = Turn(id="t", session=session, message=answer, prompt_tokens=prompt, tokens=10)
    for turn in (running, None):
        words = turn_text(turn, session, None)
        assert words.endswith(told)
        assert ("ctx" in words) is bool(told)
