"""`quantchat sessions` through the installed command: list, show, export, import, rm."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quantchat.domain.chat import Message, Session, new_id
from quantchat.store.exchange.formats import FORMATS, Format
from quantchat.store.journal import Journal
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore

SCRIPT = Path(sys.executable).parent / "quantchat"
TIDES, BREAD, EVIL = "Why tides come", "Bread without yeast", "evil \x1b[2J[/x]"
Done = subprocess.CompletedProcess[str]


def quantchat(home: Path, *arguments: str, typed: str | None = None) -> Done:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "sessions", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"QUANTCHAT_HOME": str(home), "TZ": "UTC"},
        input=typed if typed is not None else "",
        encoding="utf-8",
    )


def on_a_terminal(home: Path, *arguments: str, typed: bytes = b"") -> tuple[int, str]:
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    command = [sys.executable, str(SCRIPT), "sessions", *arguments]
    environment = os.environ | {"QUANTCHAT_HOME": str(home), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    return process.wait(), written.decode()


def make(store: SessionStore, title: str, *texts: str, days: int, **fields: object) -> Session:
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)
    session = Session(id=new_id(when), title=title, created=when, updated=when, **fields)  # type: ignore[arg-type]
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        message = Message(id=f"m{number}", role=role, text=text, created=when, parent=session.head)
        message.finish = "stop" if number % 2 else None
        session.messages[message.id], session.head = message, message.id
    store.save(session)
    return session


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def kept(home: Path) -> list[Session]:
    store = SessionStore()
    return [
        make(store, TIDES, "Why do tides come?", "The moon pulls.", days=1, tags=["physics"]),
        make(store, BREAD, "How do I bake?", "With *flour*.", "And yeast?", "None.", days=2),
        make(store, EVIL, "\x1b]0;owned\x07", "\x1b[31mred", days=3, archived=True),
    ]


def ids(done: Done) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line.split()[0] for line in done.stdout.splitlines()]


def stored() -> set[str]:
    return {row.title for row in SessionStore().list()}


# The list


def test_the_list_is_filtered_and_sorted(home: Path, kept: list[Session]) -> None:
    tides, bread, evil = (session.id for session in kept)
    assert ids(quantchat(home)) == [bread, tides]
    assert ids(quantchat(home, "list", "--sort", "title")) == [bread, tides]
    assert ids(quantchat(home, "--sort", "created")) == [bread, tides]
    assert ids(quantchat(home, "physics", "TIDES")) == [tides]
    assert ids(quantchat(home, "--archived")) == [evil]
    assert f"{tides}  2026-01-02 00:00  2  {TIDES} #physics" in quantchat(home).stdout.splitlines()
    nothing = quantchat(home, "nothing-like-it")
    assert (nothing.stdout, nothing.stderr) == ("", "No session was found.\n")
    assert "\x1b" not in quantchat(home, "--archived").stdout


def test_an_empty_home_says_so(home: Path) -> None:
    done = quantchat(home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "There are no sessions yet.\n")
    assert quantchat(home, "--json").stdout == "[]\n"
    assert not (home / "data").exists()


def test_the_list_as_json_and_with_hits(home: Path, kept: list[Session]) -> None:
    (row,) = json.loads(quantchat(home, "list", "--json", "tides").stdout)
    assert (row["id"], row["title"], row["messages"], row["tags"]) == (kept[0].id, TIDES, 2, ["physics"])
    found = quantchat(home, "--search", "FLOUR")
    assert found.stdout.splitlines()[1:] == ["    answer: With *flour*."]
    (row,) = json.loads(quantchat(home, "--json", "--search", "flour").stdout)
    assert row["hits"] == [{"place": "answer", "excerpt": "With *flour*."}]
    assert quantchat(home, "--search", "nowhere").stdout == ""


# Show and export


def test_a_session_is_shown_by_id_title_or_last(home: Path, kept: list[Session]) -> None:
    by_title = quantchat(home, "show", "tides")
    assert by_title.stdout.startswith(f"# {TIDES}\n")
    assert "## You\n\nWhy do tides come?\n" in by_title.stdout
    assert quantchat(home, "show", kept[0].id).stdout == by_title.stdout
    assert quantchat(home, "show", kept[0].id[:20]).stdout == by_title.stdout
    assert "owned" in quantchat(home, "show", "last").stdout
    assert json.loads(quantchat(home, "show", "--json", "tides").stdout)["title"] == TIDES


def test_names_that_mean_none_or_several_are_refused(home: Path, kept: list[Session]) -> None:
    none, several = quantchat(home, "show", "no such thing"), quantchat(home, "show", "e")
    assert (none.returncode, several.returncode) == (2, 2)
    assert "'no such thing' is no id and no title" in none.stderr
    assert "Several sessions are called so" in several.stderr
    assert "\x1b" not in several.stderr


def test_nothing_commands_the_terminal(home: Path, kept: list[Session]) -> None:
    code, shown = on_a_terminal(home, "show", "evil")
    assert code == 0
    assert "owned" in shown
    assert "\x1b" not in shown.replace("\x1b[0m", "")
    assert "\x07" not in shown


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_every_format_goes_to_standard_output(home: Path, kept: list[Session], kind: Format) -> None:
    done = quantchat(home, "export", "bread", "--format", kind.name)
    assert done.returncode == 0
    assert "How do I bake?" in done.stdout
    lost = ", ".join(kind.losses(kept[1]))
    assert done.stderr == (f"Left out, as {kind.name} does not hold it: {lost}.\n" if lost else "")


def test_files_are_written_whole_and_never_over_others(home: Path, kept: list[Session], tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    done = quantchat(home, "export", "bread", "-o", str(target))
    assert done.stderr.startswith(f"Written {target}.\n")
    assert target.read_text().startswith("<!doctype html>")
    assert target.stat().st_mode & 0o777 == 0o600
    again = quantchat(home, "export", "tides", "-o", str(target))
    assert again.returncode == 3
    assert "is there already. Name another, or use --force" in again.stderr
    assert "bake" in target.read_text()
    assert quantchat(home, "export", "tides", "-o", str(target), "--force").returncode == 0
    assert "bake" not in target.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["out.html"]


def test_odd_targets_are_refused(home: Path, kept: list[Session], tmp_path: Path) -> None:
    for target, words in [("/dev/null", "no ordinary file"), ("x.txt", "does not say its format")]:
        done = quantchat(home, "export", "bread", "--force", "-o", target, *(["-f", "json"] if "/" in target else []))
        assert done.returncode in (2, 3)
        assert words in done.stderr
    gone = quantchat(home, "export", "bread", "-o", str(tmp_path / "no" / "such.json"))
    assert (gone.returncode, "there is no folder" in gone.stderr) == (3, True)
    assert Path("/dev/null").is_char_device()


def test_several_go_to_one_file_or_a_folder(home: Path, kept: list[Session], tmp_path: Path) -> None:
    whole, folder = tmp_path / "all.json", tmp_path / "pages"
    assert quantchat(home, "export", "--all", "-o", str(whole)).returncode == 0
    assert [one["title"] for one in json.loads(whole.read_text())] == [EVIL, BREAD, TIDES]
    assert quantchat(home, "export", "--all", "-f", "markdown", "-o", str(folder)).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "Bread-without-yeast.md",
        "Why-tides-come.md",
        "evil-2J-x.md",
    ]
    refused = quantchat(home, "export", "--all", "-f", "markdown")
    assert (refused.returncode, "Name a folder" in refused.stderr) == (2, True)
    listed = quantchat(home, "export", "-", "-f", "jsonl", typed=quantchat(home).stdout)
    assert len(listed.stdout.splitlines()) == 2
    found = quantchat(home, "export", "-", "-f", "jsonl", typed=quantchat(home, "--search", "yeast").stdout)
    assert found.stderr.startswith("Left out, as jsonl")
    assert len(found.stdout.splitlines()) == 1


def test_the_running_answer_is_exported_from_its_journal(home: Path, kept: list[Session]) -> None:
    answer = Message(id="j", role="assistant", text="", created=kept[0].created, parent="m1")
    journal = Journal(SessionStore().journal_path(kept[0].id), answer)
    journal.append("Streaming words")
    journal.close(None, None)
    assert "Streaming words" in quantchat(home, "show", "tides").stdout
    assert SessionStore().journal_path(kept[0].id).exists()


# Import


def test_what_is_exported_comes_back(home: Path, kept: list[Session], tmp_path: Path) -> None:
    whole = tmp_path / "all.json"
    quantchat(home, "export", "--all", "-o", str(whole))
    assert quantchat(home, "rm", "--yes", *(session.id for session in kept)).returncode == 0
    assert stored() == set()
    done = quantchat(home, "import", str(whole))
    assert sorted(ids(done)) == sorted(session.id for session in kept)
    assert done.stderr == "Imported 3 sessions with 8 messages.\n"
    assert SessionStore().load(kept[1].id).messages == kept[1].messages
    again = quantchat(home, "import", str(whole))
    assert (again.stdout, "3 sessions known already" in again.stderr) == ("", True)


def test_a_history_comes_through_a_pipe(home: Path) -> None:
    history = [{"role": "user", "content": "Hello \x1b[2J"}, {"role": "assistant", "content": "Hi"}]
    done = quantchat(home, "import", "-", "--json", typed=json.dumps(history))
    (row,) = json.loads(done.stdout)
    assert row["messages"] == 2
    assert "\x1b" not in done.stdout
    assert quantchat(home, "show", row["id"]).stdout.count("\n## ") == 2


def test_bad_parts_keep_everything_out_unless_they_are_skipped(home: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.jsonl"
    good.write_text(json.dumps([{"role": "user", "content": "good"}]))
    bad.write_text('{"messages": [{"role": "user", "content": "fine"}]}\n{"messages": [{"role": "robot"}]}\n')
    done = quantchat(home, "import", str(good), str(bad))
    assert done.returncode == 3
    assert "Nothing was imported: bad.jsonl, line 2: message 1 has the role 'robot'" in done.stderr
    assert stored() == set()
    assert quantchat(home, "import", "--dry-run", str(good)).stderr == "It would be 1 session with 1 message.\n"
    assert stored() == set()
    skipped = quantchat(home, "import", "--skip-bad", str(good), str(bad))
    assert "Left out: bad.jsonl, line 2" in skipped.stderr
    assert stored() == {"good", "fine"}


def test_files_that_cannot_be_read_are_named(home: Path, tmp_path: Path) -> None:
    gone = quantchat(home, "import", str(tmp_path / "gone.json"))
    assert (gone.returncode, "gone.json: there is no such file" in gone.stderr) == (3, True)
    folder = quantchat(home, "import", str(tmp_path))
    assert (folder.returncode, "it is a folder" in folder.stderr) == (3, True)
    other = quantchat(home, "import", str(SCRIPT))
    assert "of no kind that is known" in other.stderr
    assert "Traceback" not in gone.stderr + folder.stderr + other.stderr


# Removal


def test_sessions_move_to_the_trash(home: Path, kept: list[Session]) -> None:
    refused = quantchat(home, "rm", "tides")
    assert (refused.returncode, "no terminal to ask on" in refused.stderr) == (2, True)
    assert quantchat(home, "rm", "--yes", "tides").returncode == 2
    assert len(stored()) == 3
    done = quantchat(home, "rm", "--yes", kept[0].id, TIDES, BREAD)
    assert done.returncode == 0
    assert stored() == {EVIL}
    assert sorted(path.stem for path in (home / "data" / "trash").iterdir()) == sorted(one.id for one in kept[:2])


def test_a_person_is_asked(home: Path, kept: list[Session]) -> None:
    code, shown = on_a_terminal(home, "rm", "tides", typed=b"n\n")
    assert (code, "Move this session to the trash?" in shown, len(stored())) == (130, True, 3)
    code, _ = on_a_terminal(home, "rm", "tides", typed=b"y\n")
    assert (code, stored()) == (0, {BREAD, EVIL})


def test_a_session_that_is_open_elsewhere_keeps_all_that_were_named(home: Path, kept: list[Session]) -> None:
    with SessionLocks(SessionStore().root).acquire(kept[1].id):
        done = quantchat(home, "rm", "--yes", kept[0].id, kept[1].id)
    assert done.returncode == 3
    assert len(stored()) == 3


def test_ids_come_through_a_pipe(home: Path, kept: list[Session]) -> None:
    listed = quantchat(home).stdout
    assert quantchat(home, "rm", "-", typed=listed).returncode == 2
    assert quantchat(home, "rm", "--yes", "-", typed=listed).returncode == 0
    assert stored() == {EVIL}


def test_more_sessions_than_a_process_may_have_files_move_to_the_trash(home: Path, kept: list[Session]) -> None:
    ids = [make(SessionStore(), f"One of many, {number}", "x", days=number).id for number in range(80)]
    limited = ["sh", "-c", f'ulimit -n 48; exec {sys.executable} {SCRIPT} sessions rm --yes "$@"', "rm", *ids]
    done = subprocess.run(limited, env=os.environ | {"QUANTCHAT_HOME": str(home)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored() == {TIDES, BREAD, EVIL}
