"""`quantchat presets` and `quantchat prompts` through the installed command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unit.test_cli_models import SCRIPT, environment, quantchat


@pytest.fixture
def home(tmp_path: Path) -> Path:
    prompts = tmp_path / "config" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "review.md").write_text("Look at this:\n{code}\n")
    (tmp_path / "config" / "config.toml").write_text("[presets.careful]\ntemperature = 0.1\n")
    return tmp_path


def test_libraries_are_listed_with_where_things_are_kept(home: Path) -> None:
    listed = quantchat(home, "presets")
    assert listed.returncode == 0, listed.stderr
    assert "careful              config.toml  temperature 0.1" in listed.stdout
    rows = json.loads(quantchat(home, "presets", "--json").stdout)
    assert {"name": "careful", "from": "config.toml", "values": {"temperature": 0.1}} in rows
    assert "{code}" in quantchat(home, "prompts").stdout
    (row,) = json.loads(quantchat(home, "prompts", "--json").stdout)
    assert row == {"name": "review", "fields": ["code"], "text": "Look at this:\n{code}"}
    assert quantchat(home, "prompts", "show", "review").stdout == "Look at this:\n{code}\n"


def test_a_bundle_goes_through_a_pipe(home: Path, tmp_path: Path) -> None:
    exported = quantchat(home, "prompts", "export")
    assert exported.returncode == 0, exported.stderr
    other = tmp_path / "other"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "prompts", "import", "-"],
        input=exported.stdout,
        capture_output=True,
        text=True,
        env=environment(other),
    )
    assert (done.returncode, done.stdout) == (0, "review: added\n"), done.stderr
    assert (other / "config" / "prompts" / "review.md").read_text() == "Look at this:\n{code}\n"


def test_files_and_folders_are_written_and_taken(home: Path, tmp_path: Path) -> None:
    preset = tmp_path / "wild.toml"
    preset.write_text("temperature = 2.0\n")
    assert quantchat(home, "presets", "import", str(preset)).stdout == "wild: added\n"
    out = tmp_path / "out"
    out.mkdir()
    assert quantchat(home, "presets", "export", "wild", "-o", str(out)).returncode == 0
    assert (out / "wild.toml").read_text() == "temperature = 2.0\n"
    again = quantchat(home, "presets", "export", "-o", str(out))
    assert again.returncode == 2
    assert "--replace" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("prompts", "show", "none"), "no prompt none"),
        (("prompts", "export", "none"), "no prompt none"),
        (("presets", "export"), "no presets to export"),
        (("presets", "import", "nowhere.toml"), "no file"),
    ],
)
def test_what_cannot_be_done_is_told_on_stderr(home: Path, arguments: tuple[str, ...], told: str) -> None:
    done = quantchat(home, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == ""


def test_a_wrong_file_is_named_with_its_line_and_takes_nothing_in(home: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("top_k = 3\ntemprature = 1.0\n")
    done = quantchat(home, "presets", "import", str(wrong))
    assert done.returncode == 2
    assert "wrong.toml, line 2: `temprature`" in done.stderr
    assert not (home / "config" / "presets").exists()


def test_temporary_opens_no_other_session() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--temporary", "--continue"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--temporary" in done.stderr
