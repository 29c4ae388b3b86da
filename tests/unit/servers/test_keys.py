"""API keys stand in a file of their own that nobody else can read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from quantchat import paths
from quantchat.errors import UsageError
from quantchat.store.keys import checked_key, keep_key, load_keys


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
