"""API keys stand in a file of their own that nobody else can read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from quantchat import paths
from quantchat.domain.servers import ServerSpec
from quantchat.errors import StorageError, UsageError
from quantchat.services.serverlist import keep_server
from quantchat.store import keys
from quantchat.store import settings as settings_module
from quantchat.store.atomic import write_atomic
from quantchat.store.keys import checked_key, keep_key, load_keys
from quantchat.store.settings import load_settings
from servers_rig import OTHER, URL

HERE, THERE = ServerSpec(url=URL), ServerSpec(url=OTHER)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))


def test_without_a_file_there_are_no_keys() -> None:
    assert load_keys() == {}


def test_a_key_is_kept_for_its_owner_alone() -> None:
    keep_key("box", "sk-1")
    path = paths.keys_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_keys() == {"box": "sk-1"}


def test_keys_come_and_go_and_comments_stay() -> None:
    keep_key("box", "sk-1")
    path = paths.keys_file()
    path.write_text(path.read_text() + "# from the wiki\n")
    keep_key("lab", "sk-2")
    keep_key("box", "")
    keep_key("absent", "")
    assert load_keys() == {"lab": "sk-2"}
    assert "# from the wiki" in path.read_text()
    keep_key("lab", "sk-3")
    assert load_keys() == {"lab": "sk-3"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_read_is_refused(mode: int) -> None:
    keep_key("box", "sk-1")
    paths.keys_file().chmod(mode)
    for attempt in (load_keys, lambda: keep_key("lab", "sk-2")):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert f"chmod 600 {paths.keys_file()}" in str(caught.value)
        assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["box = sk-secret", 'box = "sk-secret', "box = ['sk-secret']", "[box]\nkey = 'sk-secret'"]
)
def test_what_does_not_parse_is_told_without_the_key_and_left_as_it_is(text: str) -> None:
    path = paths.keys_file()
    path.parent.mkdir(parents=True)
    path.touch(mode=0o600)
    path.write_text(text)
    for attempt in (load_keys, lambda: keep_key("lab", "sk-2")):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert str(path) in str(caught.value)
        assert "secret" not in str(caught.value)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", " ", "two words", "sk-ü", "sk-\x1b[31m", "a\nb", "x" * 5000])
def test_what_can_be_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_key(text)
    assert not text.strip() or text not in str(caught.value)


def test_white_space_around_a_pasted_key_is_dropped() -> None:
    assert checked_key(" sk-1\r\n") == "sk-1"


# A server and its key are in two files


def kept() -> tuple[ServerSpec | None, str | None]:
    return load_settings()[0].servers.get("box"), load_keys().get("box")


def test_no_key_is_ever_without_its_server_or_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is broken off; keys were written first, also for a server that was never kept."""
    seen = []

    def write(path: Path, data: bytes) -> None:
        write_atomic(path, data)
        seen.append(kept())

    for module in (keys, settings_module):
        monkeypatch.setattr(module, "write_atomic", write)
    keep_server("box", HERE, "sk-1")
    keep_server("box", THERE, "sk-2")
    keep_server("box", None, "")
    ends = [(HERE, "sk-1"), (THERE, "sk-2"), (None, None)]
    assert [state for state in seen if state in ends] == ends
    assert set(seen) - set(ends) == {(HERE, None), (THERE, None)}


@pytest.mark.parametrize(("spec", "key"), [(THERE, "sk-2"), (THERE, ""), (THERE, None), (None, "")])
def test_settings_that_cannot_be_written_cost_no_key(
    monkeypatch: pytest.MonkeyPatch, spec: ServerSpec | None, key: str | None
) -> None:
    keep_server("box", HERE, "sk-1")
    monkeypatch.setattr(settings_module, "write_atomic", refuse)
    with pytest.raises(StorageError):
        keep_server("box", spec, key)
    assert kept() == (HERE, "sk-1")
    with pytest.raises(StorageError):
        keep_server("lab", HERE, "sk-3")
    assert "lab" not in load_keys()


def test_a_key_that_cannot_be_written_leaves_a_server_that_can_be_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keys, "write_atomic", refuse)
        with pytest.raises(StorageError):
            keep_server("box", HERE, "sk-1")
    assert kept() == (HERE, None)
    keep_server("box", None, "")
    assert kept() == (None, None)


def refuse(*_: object) -> None:
    raise StorageError("The disk is full")
