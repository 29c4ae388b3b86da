"""`quantchat servers`, and servers' models in the other commands, through the installed program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quantchat.cli.servers import add_command, remove_command
from quantchat.domain.servers import ServerSpec
from quantchat.services.serverlist import keep_server
from quantchat.store.keys import load_keys
from quantchat.store.settings import load_settings, update_entry
from servers_rig import OTHER, URL, Listings
from terminal import Terminal, program_env
from unit.catalog.model_folders import make_gptq

SCRIPT = Path(sys.executable).parent / "quantchat"


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listings = Listings(folder)
        self.config = folder / "home" / "config" / "config.toml"
        self.keys = self.config.with_name("keys.toml")

    def run(self, *arguments: str, typed: str = "", status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        own = {"QUANTCHAT_HOME": str(self.folder / "home"), "HF_HUB_CACHE": str(self.folder / "hub")}
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            capture_output=True,
            text=True,
            env=os.environ | own | self.listings.env() | {"HOME": str(self.folder)} | env,
            input=typed,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    @property
    def servers(self) -> dict[str, Any]:
        return tomllib.loads(self.config.read_text()).get("servers", {}) if self.config.exists() else {}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_server_is_added_listed_and_removed(home: Home) -> None:
    assert "servers add" in home.run("servers").stderr
    home.listings.tell(key="sk-secret")
    added = home.run("servers", "add", "127.0.0.1:8000", "--name", "box", "--key", typed="sk-secret\n")
    assert "2 models" in added.stderr
    assert home.servers == {"box": {"url": URL}}
    assert "sk-secret" in home.keys.read_text()
    shown = home.run("servers")
    assert URL in shown.stdout
    everything = home.run("servers", "--json").stdout + home.run("servers", "check", "--json").stdout
    assert "sk-secret" not in everything + shown.stdout + home.config.read_text()
    home.run("servers", "remove", "box")
    assert home.servers == {}
    assert "sk-secret" not in home.keys.read_text()


def test_a_key_that_is_typed_is_not_shown(home: Home, tmp_path: Path) -> None:
    home.listings.tell(key="sk-secret")
    env = program_env(tmp_path / "home", HOME=str(tmp_path), **home.listings.env())
    terminal = Terminal([str(SCRIPT), "servers", "add", URL, "--key"], env=env)
    try:
        terminal.wait_for("API key")
        terminal.type("sk-secret\r")
        assert terminal.wait_exit() == 0
    finally:
        terminal.close()
    assert b"sk-secret" not in terminal.raw
    assert "sk-secret" in home.keys.read_text()


def test_a_server_that_does_not_answer_is_not_kept_unless_that_is_wanted(home: Home) -> None:
    refused = home.run("servers", "add", URL, status=6)
    assert "does not answer" in refused.stderr
    assert home.servers == {}
    home.run("servers", "add", URL, "--no-check", "--model", "a", "--context-window", "4096")
    assert home.servers == {"local": {"url": URL, "models": ["a"], "context_window": 4096}}
    assert "already" in home.run("servers", "add", OTHER, "--name", "local", "--no-check", status=2).stderr
    home.run("servers", "add", OTHER, "--name", "local", "--no-check", "--replace")
    assert home.servers["local"]["url"] == OTHER


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "http://me:pass@box/v1"), "more than a place"),
        (("add", URL, "--name", "a/b"), "is no name"),
        (("add", URL, "--key-env", "sk-secret"), "no name of an environment variable"),
        (("add", URL, "--key-env", "KEY", "--key"), "two places"),
        (("add", URL, "--key"), "no API key"),
        (("add", URL, "--key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
        (("remove", "absent"), "There is no server absent"),
        (("check", "absent"), "There is no server absent"),
    ],
)
def test_what_cannot_be_is_explained(home: Home, arguments: tuple[str, ...], words: str) -> None:
    assert words in home.run("servers", *arguments, status=2).stderr
    assert home.servers == {}


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`servers add` in this process, in the place of a server with a key; nobody is asked."""
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    keep_server("box", ServerSpec(url=URL), "sk-1")

    def run(url: str, *options: str, typed: str = "") -> Result:
        arguments = [url, "--name", "box", "--replace", "--no-check", *options]
        return CliRunner().invoke(add_command, arguments, input=typed)

    return run


@pytest.mark.parametrize(
    ("options", "key"),
    [((), "sk-1"), (("--key",), "sk-2"), (("--no-key",), None), (("--key-env", "BOX_KEY"), None)],
)
def test_replacing_a_server_keeps_its_key_unless_told_otherwise(
    add: Callable[..., Result], options: tuple[str, ...], key: str | None
) -> None:
    """Without `--key` it was taken out in silence."""
    assert add(URL, "--model", "a", *options, typed="sk-2\n").exit_code == 0
    assert load_settings()[0].servers["box"].models == ("a",)
    assert load_keys().get("box") == key


def test_the_variable_of_a_key_is_kept_too(add: Callable[..., Result]) -> None:
    assert add(URL, "--key-env", "BOX_KEY").exit_code == 0
    assert add(URL, "--model", "a").exit_code == 0
    assert load_settings()[0].servers["box"] == ServerSpec(url=URL, key_env="BOX_KEY", models=("a",))
    assert add(OTHER).exit_code == 2, "nor is it sent to another place"


def test_a_key_is_not_kept_for_another_place(add: Callable[..., Result]) -> None:
    refused = add(OTHER)
    assert refused.exit_code == 2
    assert "was given for 127.0.0.1:8000" in refused.stderr
    assert load_settings()[0].servers["box"].url == URL
    assert add(OTHER, "--no-key").exit_code == 0
    assert (load_settings()[0].servers["box"].url, load_keys()) == (OTHER, {})


def test_a_key_that_is_left_of_a_server_can_be_removed(add: Callable[..., Result]) -> None:
    """Of one that was taken out of the settings by hand."""
    update_entry("servers", "box", None)
    assert CliRunner().invoke(remove_command, ["box"]).exit_code == 0
    assert load_keys() == {}


def test_checking_says_what_came_back(home: Home) -> None:
    home.listings.tell()
    home.run("servers", "add", URL, "--name", "box")
    home.run("servers", "add", OTHER, "--name", "lab", "--no-check")
    good = home.run("servers", "check", "box")
    assert "vLLM" in good.stdout
    assert "org/large  32,768 tokens" in good.stdout
    both = home.run("servers", "check", "--json", status=6)
    box, lab = json.loads(both.stdout)
    assert [model["id"] for model in box["answer"]["models"]] == ["org/small", "org/large"]
    assert lab["answer"]["error"]["code"] == "server-unreachable"


def test_a_wrong_server_in_the_settings_is_told(home: Home) -> None:
    home.config.parent.mkdir(parents=True)
    home.config.write_text("[servers.box]\n")
    assert "`servers.box.url` is missing" in home.run("servers").stderr


def test_models_of_servers_stand_among_the_others(home: Home) -> None:
    make_gptq(home.folder / "models" / "alpha-GPTQ")
    home.listings.tell()
    home.run("servers", "add", URL, "--name", "box")
    home.run("servers", "add", OTHER, "--name", "lab", "--no-check")
    listed = home.run("models", "--models-dir", str(home.folder / "models"))
    assert all(words in listed.stdout for words in ("alpha-GPTQ", "org/large", "served", "box"))
    assert "does not answer" in listed.stderr
    found = json.loads(home.run("models", "large", "--json").stdout)
    assert [(model["path"], model["server"]) for model in found] == [("server:box/org/large", "box")]
    shown = home.run("models", "show", "org/large").stdout
    assert all(words in shown for words in (URL, "32,768 tokens", "vLLM", "its weights are not here"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("models", "rm", "org/large"), "cannot be deleted"),
        (("evaluate", "org/large"), "cannot be measured"),
        (("quantize", "large"), "cannot be quantized"),
        (("bench", "no-such-model"), "lab"),
    ],
)
def test_what_makes_no_sense_for_a_served_model_refuses(home: Home, command: tuple[str, ...], words: str) -> None:
    home.listings.tell()
    home.run("servers", "add", URL, "--name", "box")
    home.run("servers", "add", OTHER, "--name", "lab", "--no-check")
    refused = home.run(*command, status=4)
    assert words in refused.stderr
