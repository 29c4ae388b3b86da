"""The servers of a program: asked in a process of their own, again by and by, added and taken out."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from quantchat import paths
from quantchat.domain.served import ServerListing
from quantchat.domain.servers import ServerSpec, ServerTarget
from quantchat.errors import ModelError, StorageError, UsageError
from quantchat.services import serverlist
from quantchat.services.facts import Fact
from quantchat.services.listings import ask_servers
from quantchat.services.serverlist import Servers
from quantchat.store.keys import keep_key, load_keys
from quantchat.store.settings import load_settings, update_entry
from servers_rig import OTHER, URL, Listings

PATIENCE = 20.0
SPECS = {"box": ServerSpec(url=URL), "lab": ServerSpec(url=OTHER)}


@pytest.fixture
def listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listings:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    return Listings(tmp_path).use(monkeypatch)


async def until(test: Callable[[], object]) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while not test():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)


class Desk:
    """Servers, and what was heard of them."""

    def __init__(self, specs: dict[str, ServerSpec], given: dict[str, ServerSpec] | None = None) -> None:
        self.facts: list[Fact] = []
        self.models: list[str] = []
        self.servers = Servers(self.facts.append, specs, given)
        self.servers.on_models = lambda models: setattr(self, "models", [model.path for model in models])


async def test_all_servers_are_asked_at_once(listings: Listings) -> None:
    listings.tell(models={"a": 1})
    listings.tell(OTHER, {"b": 2})
    desk = Desk(SPECS)
    await desk.servers.ask()
    assert desk.models == ["server:box/a", "server:lab/b"]
    assert len(listings.asked) == 2
    assert desk.facts
    assert not desk.servers.due


async def test_one_that_is_silent_does_not_hide_the_others(listings: Listings) -> None:
    listings.say_nothing()
    listings.tell(OTHER, {"b": 2})
    desk = Desk(SPECS)
    await desk.servers.ask()
    assert desk.models == ["server:lab/b"]
    box = desk.servers.find("box")
    assert box is not None
    assert box.error is not None
    assert box.error.code == "server-unreachable"


async def test_a_silent_server_is_asked_again_less_and_less_often(
    listings: Listings, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk({"box": ServerSpec(url=URL)})
    waits = []
    for _ in range(6):
        now = 0.0
        monkeypatch.setattr(serverlist.time, "monotonic", lambda now=now: now)
        await desk.servers.ask()
        waits.append(desk.servers.known[0].due)
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    listings.tell()
    await desk.servers.ask()
    assert (desk.servers.known[0].failures, desk.servers.known[0].due) == (0, 120.0)


async def test_watching_asks_only_those_for_which_it_is_time(
    listings: Listings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serverlist, "RETRY_SECONDS", 0.0)
    listings.tell(OTHER, {"b": 2})
    desk = Desk(SPECS)
    await desk.servers.watch()
    assert desk.servers.due
    await desk.servers.watch()
    assert [asked["name"] for asked in listings.asked] == ["box", "lab", "box"]


async def test_a_server_is_not_asked_twice_at_the_same_time(listings: Listings) -> None:
    listings.tell()
    desk = Desk({"box": ServerSpec(url=URL)})
    await asyncio.gather(desk.servers.ask(), desk.servers.ask())
    assert len(listings.asked) == 1


async def test_its_key_reaches_the_process_that_asks(listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    listings.tell(key="sk-1")
    keep_key("box", "sk-1")
    desk = Desk({"box": ServerSpec(url=URL)})
    await desk.servers.ask()
    assert len(desk.models) == 2
    keep_key("box", "sk-2")
    await desk.servers.ask()
    assert desk.servers.known[0].error is not None
    assert desk.servers.known[0].error.code == "server-key"


async def test_models_that_the_settings_name_are_there_before_the_answer(listings: Listings) -> None:
    desk = Desk({"box": ServerSpec(url=URL, models=("a",))})
    assert [model.path for model in desk.servers.models] == ["server:box/a"]
    await desk.servers.ask()
    assert [problem.code for problem in desk.servers.models[0].problems] == ["server-unreachable"]


async def test_a_server_is_kept_asked_and_taken_out(listings: Listings) -> None:
    listings.tell(models={"a": 1})
    desk = Desk({})
    specs = desk.servers.specs
    await desk.servers.keep("box", ServerSpec(url=URL), "sk-1")
    await until(lambda: desk.models == ["server:box/a"])
    assert specs == {"box": ServerSpec(url=URL)}, "those who load see it"
    assert load_settings()[0].servers == specs
    await desk.servers.take_out("box")
    assert (desk.models, specs, load_settings()[0].servers, load_keys()) == ([], {}, {}, {})


async def test_what_the_disk_refuses_changes_nothing(listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("The disk is full")

    monkeypatch.setattr("quantchat.store.settings.write_atomic", refuse)
    desk = Desk({"box": ServerSpec(url=URL)})
    with pytest.raises(StorageError):
        await desk.servers.keep("lab", ServerSpec(url=OTHER), "sk-1")
    with pytest.raises(StorageError):
        await desk.servers.take_out("box")
    assert list(desk.servers.specs) == ["box"]


async def test_what_another_program_wrote_is_taken(listings: Listings) -> None:
    listings.tell(OTHER, {"b": 2})
    desk = Desk({"box": ServerSpec(url=URL)})
    update_entry("servers", "lab", ServerSpec(url=OTHER))
    await desk.servers.refresh()
    assert (desk.models, set(desk.servers.specs)) == (["server:lab/b"], {"lab"})
    paths.config_file().write_text("not TOML [")
    await desk.servers.refresh()
    assert set(desk.servers.specs) == {"lab"}, "a slip of the pen loses no server"


async def test_a_server_of_this_run_wins_and_is_not_written(listings: Listings) -> None:
    listings.tell(OTHER, {"b": 2})
    desk = Desk({"serve": ServerSpec(url=URL)}, {"serve": ServerSpec(url=OTHER)})
    await desk.servers.ask()
    assert desk.models == ["server:serve/b"]
    with pytest.raises(UsageError):
        await desk.servers.keep("serve", ServerSpec(url=URL))
    with pytest.raises(UsageError):
        await desk.servers.take_out("serve")
    await desk.servers.keep("box", ServerSpec(url=URL))
    assert set(load_settings()[0].servers) == {"box"}
    assert desk.servers.specs["serve"].url == OTHER
    await desk.servers.close()


async def test_an_answer_that_comes_after_its_server_is_gone_is_dropped(listings: Listings) -> None:
    tell: list[Callable[[ServerListing], None]] = []
    answered = asyncio.Event()

    async def ask(_: object, telling: Callable[[ServerListing], None]) -> None:
        tell.append(telling)
        await answered.wait()
        telling(ServerListing(server="box"))

    servers = Servers(lambda _fact: None, {"box": ServerSpec(url=URL)}, ask=ask)
    asking = asyncio.create_task(servers.ask())
    await until(lambda: tell)
    await servers.take_out("box")
    answered.set()
    await asking
    assert servers.known == ()


async def test_a_model_of_this_machine_is_found_without_waiting_for_servers(listings: Listings) -> None:
    from quantchat.domain.models import ModelInfo

    here = ModelInfo(path="/m/alpha", name="alpha")
    listings.tell(models={"alpha": 1, "beta": 2})
    servers = Desk({"box": ServerSpec(url=URL)}).servers
    assert await servers.named("alpha", (here,)) is here
    assert (await servers.named("server:box/gamma", (here,))).name == "gamma"
    assert listings.asked == []
    assert (await servers.named("beta", (here,))).path == "server:box/beta"
    with pytest.raises(ModelError):
        await servers.named("delta", (here,))
    assert len(listings.asked) == 1


# The process that asks


TARGET = ServerTarget(name="box", url=URL, model="", key="sk-secret")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('broken: ' + sys.stdin.read())", "broken"),
        ("print('nonsense')", "nonsense"),
        ("pass", "no reason was given"),
    ],
)
async def test_a_process_that_does_not_tell_is_explained_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    (tmp_path / "ask.py").write_text(program)
    monkeypatch.setenv("QUANTCHAT_LISTING_COMMAND", str(tmp_path / "ask.py"))
    told: list[ServerListing] = []
    await ask_servers([(TARGET, ())], told.append)
    assert told[0].error is not None
    assert words in told[0].error.sentence()
    assert "sk-secret" not in told[0].error.sentence()


async def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import json, os, sys, time; q = json.load(sys.stdin)\n"
    program += "print(json.dumps({'server': q['servers'][0]['name']}), flush=True)\n"
    program += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(1000)\n"
    (tmp_path / "ask.py").write_text(program)
    monkeypatch.setenv("QUANTCHAT_LISTING_COMMAND", str(tmp_path / "ask.py"))
    told: list[ServerListing] = []
    other = ServerTarget(name="lab", url=OTHER, model="")
    task = asyncio.create_task(ask_servers([(TARGET, ()), (other, ())], told.append, patience=2.0))
    await until(lambda: told and (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    await task
    assert [(one.server, one.error is None) for one in told] == [("box", True), ("lab", False)]
    assert not psutil.pid_exists(pid)


async def test_closing_ends_the_process_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    (tmp_path / "ask.py").write_text(
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    )
    monkeypatch.setenv("QUANTCHAT_LISTING_COMMAND", str(tmp_path / "ask.py"))
    desk = Desk({"box": ServerSpec(url=URL)})
    desk.servers.begin()
    await until(lambda: pid.exists() and pid.read_text())
    await desk.servers.close()
    assert not psutil.pid_exists(int(pid.read_text()))


def test_who_asks_servers_imports_no_client(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, json, quantchat.services.listings; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"openai", "httpx", "torch", "textual"} & set(json.loads(done.stdout))
