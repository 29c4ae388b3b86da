"""Small named files: what may be called how, what is read, and that nothing is lost."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantchat import paths
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.text import plain
from quantchat.errors import UsageError
from quantchat.services.promptbook import PromptBook
from quantchat.store.library import MOST_BYTES, NamedFiles, is_name, prompt_files
from quantchat.store.prompts import (
    parse_toml,
    preset_text,
    presets_bundle,
    prompts_bundle,
    read_presets,
    read_prompts,
    sound_preset,
)


@pytest.fixture
def files(home: Path) -> NamedFiles:
    return prompt_files()


def trash() -> list[str]:
    folder = paths.trash_dir()
    return sorted(path.read_text() for path in folder.iterdir()) if folder.is_dir() else []


def test_what_is_written_is_read_back_under_its_name(files: NamedFiles) -> None:
    assert files.names() == []
    path = files.write("code review", "Look at\r\n{code}\n")
    assert path.name == "code review.md"
    assert path.stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert files.names() == ["code review"]
    assert files.read("code review") == "Look at\n{code}\n"


def test_what_is_replaced_or_removed_goes_to_the_trash(files: NamedFiles) -> None:
    files.write("a", "one")
    with pytest.raises(UsageError, match="already"):
        files.write("a", "two")
    files.write("a", "two", replace=True)
    assert files.read("a") == "two"
    assert trash() == ["one\n"]
    files.remove("a")
    assert files.names() == []
    assert trash() == ["one\n", "two\n"]
    with pytest.raises(UsageError, match="no prompt a"):
        files.remove("a")


def test_other_endings_are_read_and_kept(files: NamedFiles) -> None:
    files.folder.mkdir(parents=True)
    (files.folder / "old.txt").write_text("text")
    assert files.names() == ["old"]
    files.write("old", "newer", replace=True)
    assert (files.folder / "old.txt").read_text() == "newer\n"
    (files.folder / "old.md").write_text("wins")
    assert files.read("old") == "wins"


def test_what_is_no_text_file_is_passed_over_or_refused(files: NamedFiles, tmp_path: Path) -> None:
    files.folder.mkdir(parents=True)
    os.mkfifo(files.folder / "pipe.md")
    (files.folder / "folder.md").mkdir()
    (files.folder / ".hidden.md").write_text("x")
    (files.folder / "lost.md").symlink_to(tmp_path / "nowhere")
    (files.folder / "bad.md").write_bytes(b"\xff\xfe")
    (files.folder / "zero.md").write_bytes(b"a\0b")
    (files.folder / "large.md").write_bytes(b"x" * (MOST_BYTES + 1))
    (tmp_path / "real.md").write_text("linked")
    (files.folder / "link.md").symlink_to(tmp_path / "real.md")
    assert files.names() == ["bad", "large", "link", "zero"]
    assert files.read("link") == "linked"
    for name, told in (("bad", "UTF-8"), ("zero", "no text"), ("large", "too large")):
        with pytest.raises(UsageError, match=told):
            files.read(name)


@pytest.mark.parametrize("name", ["", " a", ".a", "a/b", "a\\b", "a\nb", "a\x1bb", "x" * 101, "é" * 51, "a\u202eb"])
def test_names_that_no_file_should_have_are_refused(files: NamedFiles, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(UsageError, match="can be called") as caught:
        files.write(name, "x")
    assert "\x1b" not in str(caught.value)


def test_the_folder_is_listed_once_to_read_all_of_it(files: NamedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        files.write(f"{number}", f"Say {number}")
    listed: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(folder), scandir(folder))[1])
    assert len(PromptBook(files).look()[0]) == 20
    assert len(listed) == 2, "for the stamp, and for the names"


def test_a_stamp_tells_of_every_change(files: NamedFiles) -> None:
    stamps = [files.stamp()]
    files.write("a", "x")
    stamps.append(files.stamp())
    files.write("a", "xx", replace=True)
    stamps.append(files.stamp())
    files.remove("a")
    assert len(set(stamps)) == 3
    assert files.stamp() == stamps[0]


# Bundles

_texts = st.text().map(plain)
_names = st.text(min_size=1, max_size=20).filter(is_name)
_presets = st.builds(
    SamplingOverrides,
    temperature=st.none() | st.floats(0, 10),
    top_k=st.none() | st.integers(0, 10**6),
    stop=st.none() | st.lists(_texts, max_size=3).map(tuple),
    logit_bias=st.none() | st.dictionaries(_texts.filter(bool), st.floats(-100, 100), max_size=3),
    seed=st.none() | st.integers(0, 2**62 - 1),
)


@settings(deadline=None)
@given(st.dictionaries(_names, _texts, max_size=4))
def test_a_bundle_of_prompts_says_what_they_say(prompts: dict[str, str]) -> None:
    assert read_prompts(prompts_bundle(prompts), "bundle") == prompts


@settings(deadline=None)
@given(st.dictionaries(_names, _presets, min_size=1, max_size=4))
def test_a_bundle_of_presets_says_what_they_say(presets: dict[str, SamplingOverrides]) -> None:
    assert read_presets(presets_bundle(presets), "bundle") == presets


@settings(deadline=None)
@given(_presets)
def test_a_preset_says_what_it_said(values: SamplingOverrides) -> None:
    assert sound_preset(parse_toml(preset_text(values), "x"), "x") == values


def test_a_bundle_of_prompts_keeps_their_lines() -> None:
    bundle = prompts_bundle({"a": 'One\n"""two"""\n\\three'})
    assert "\nOne\n" in bundle
    assert tomllib.loads(bundle)["prompts"]["a"] == 'One\n"""two"""\n\\three'


def test_a_bundle_of_presets_is_what_config_toml_holds() -> None:
    text = presets_bundle({"careful": SamplingOverrides(temperature=0.1, logit_bias={"x": 1.0})})
    assert tomllib.loads(text) == {"presets": {"careful": {"temperature": 0.1, "logit_bias": {"x": 1.0}}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = \nb = 1", "line 1"),
        ("[prompts]\na = 1", "no prompts"),
        ("b = 1", "no prompts"),
        ('[prompts]\n"a/b" = "x"', "can be called"),
        ("prompts = 3", "no prompts"),
    ],
)
def test_a_wrong_bundle_of_prompts_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_prompts(text, "file")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[presets.a]\ntemperature = 99.0", "temperature"),
        ("[presets.a]\ntemprature = 1.0", "did you mean `temperature`"),
        ("presets = 3", "no presets"),
        ("[presets]\na = 1", "no presets"),
        ('[presets."a/b"]', "can be called"),
    ],
)
def test_a_wrong_bundle_of_presets_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_presets(text, "file")
