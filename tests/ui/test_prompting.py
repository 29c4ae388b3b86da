"""The prompt in the whole program: commands, completion, files, drafts, recall, the editor."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from textual import events

from quantchat.domain.attachments import Attachment, Draft
from quantchat.services.attachments import with_mentioned_files
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore
from quantchat.ui.screens.actions import drafts
from quantchat.ui.screens.help import HelpScreen
from quantchat.ui.widgets.completion import CompletionList
from ui.rig import SIZES, SLOW, Rig, running

Patch = pytest.MonkeyPatch
LONG = "\n".join(f"line {number}\tend" for number in range(50))
SMALL = [*SIZES, (40, 15)]


def offered(rig: Rig) -> str:
    return rig.chat.query_one(CompletionList).plain


async def typed(rig: Rig, text: str) -> None:
    """Letters that arrive at once, as fast typing does."""
    for key in text:
        rig.app.post_message(events.Key(key, key))
    await rig.pilot.pause()


def notices(rig: Rig) -> str:
    return " ".join(note.message for note in rig.app._notifications)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A working folder with files to mention."""
    folder = tmp_path / "work"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "notes.md").write_text("# Notes\n\ttabbed ❤\ufe0f\n")
    (folder / "src" / "main.py").write_text("print('hello')\n")
    (folder / "with space.txt").write_text("spaced")
    (folder / ".hidden").write_text("hidden")
    (folder / "model.bin").write_bytes(b"\x00\x01\x02" * 100)
    (folder / "big.log").write_text("x" * 300_000)
    monkeypatch.chdir(folder)
    return folder


# Commands


@pytest.mark.parametrize("size", SMALL)
async def test_a_slash_lists_commands_and_letters_narrow_them(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        await typed(rig, "/")
        assert "/stop" in offered(rig)
        await rig.pilot.pause()
        shown = rig.chat.query_one(CompletionList).region
        assert shown.height > 0
        assert shown.bottom <= rig.chat.prompt.region.y
        await typed(rig, "he")
        assert offered(rig).split()[0] == "/help"
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen))
        assert rig.chat.prompt.text == ""
        assert offered(rig) == ""


async def test_the_list_lies_above_the_prompt_and_moves_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(80, 24)) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        before = (rig.chat.prompt.region, rig.chat.transcript.region)
        await typed(rig, "/re")
        await rig.pilot.pause()
        shown = rig.chat.query_one(CompletionList).region
        assert (rig.chat.prompt.region, rig.chat.transcript.region) == before
        assert shown.bottom == rig.chat.prompt.region.y
        assert shown.height == len(offered(rig).splitlines())
        assert rig.chat.prompt.has_focus


async def test_keys_of_the_list(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        await typed(rig, "/th")
        await rig.pilot.press("down", "tab")
        assert rig.chat.prompt.text == "/theme "
        rig.chat.prompt.load("")
        await typed(rig, "/th")
        await rig.pilot.press("up", "up", "tab")
        assert rig.chat.prompt.text == "/thinking"


async def test_enter_takes_no_row_of_the_word_before(tmp_path: Path, monkeypatch: Patch, files: Path) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        for key in "/attach /no-such-file":
            rig.app.post_message(events.Key(key, key))
        await rig.pilot.press("enter")
        await rig.until(lambda: "cannot be attached: there is no such file" in notices(rig))
        assert rig.chat.prompt.text == "/attach /no-such-file"


async def test_a_row_can_be_clicked(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        await typed(rig, "/th")
        await rig.pilot.click(CompletionList, offset=(3, 1))
        await rig.until(lambda: rig.chat.prompt.text == "/theme ")
        assert rig.chat.prompt.has_focus


async def test_esc_closes_the_list_and_not_the_answer(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await typed(rig, "/he")
        await rig.pilot.press("escape")
        await rig.until(lambda: not offered(rig))
        assert rig.chat.own_turn is not None
        assert rig.chat.own_turn.stage != "stopping"
        await typed(rig, "l")
        assert not offered(rig)
        await rig.pilot.press("escape")
        await rig.answered()


@pytest.mark.parametrize("space", [" ", "\t", "\u3000"])
async def test_a_command_takes_its_argument_behind_any_space(tmp_path: Path, monkeypatch: Patch, space: str) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.ask(f"/rename{space}My own title")
        await rig.until(lambda: rig.chat.session.title == "My own title")
        await rig.ask(f"/new{space}one")
        await rig.until(lambda: "takes nothing behind it" in notices(rig))
        assert rig.chat.prompt.text == f"/new{space}one"


async def test_an_argument_too_many_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("/help me understand")
        await rig.until(lambda: "takes nothing behind it" in notices(rig))
        assert rig.chat.prompt.text == "/help me understand"
        await rig.ask(" /help me understand")
        await rig.answered()
        assert rig.chat.session.branch()[0].text == " /help me understand"


@pytest.mark.parametrize("text", ["/usr/bin is what?", "/new\nlines", "a /new one"])
async def test_what_only_looks_like_a_command_is_sent(tmp_path: Path, monkeypatch: Patch, text: str) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask(text)
        await rig.answered()
        assert rig.chat.session.branch()[0].text == text


# Files


@pytest.mark.parametrize("size", SMALL)
async def test_a_path_is_completed_and_its_file_sent(
    tmp_path: Path, monkeypatch: Patch, files: Path, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        await typed(rig, "Explain @")
        await rig.until(lambda: offered(rig), "a list")
        assert offered(rig).split()[0] == "src/"
        assert ".hidden" not in offered(rig)
        await typed(rig, "s")
        await rig.pilot.press("tab")
        await rig.until(lambda: "main.py" in offered(rig), "the folder's list")
        await typed(rig, "ma")
        await rig.pilot.press("enter")
        assert rig.chat.prompt.text == "Explain @src/main.py "
        await rig.pilot.press("enter")
        await rig.answered()
        assert rig.chat.session.branch()[0].text == (
            "Explain @src/main.py\n\n[file 1: src/main.py, 15 characters]\n```python\nprint('hello')\n\n```"
        )
        assert rig.chat.prompt.text == ""


async def test_hidden_names_and_spaces(tmp_path: Path, monkeypatch: Patch, files: Path) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await typed(rig, "@.h")
        await rig.until(lambda: ".hidden" in offered(rig))
        rig.chat.prompt.load("")
        await typed(rig, "@wi")
        await rig.until(lambda: "with space.txt" in offered(rig))
        await rig.pilot.press("enter")
        assert rig.chat.prompt.text == '@"with space.txt" '
        await rig.pilot.press("enter")
        await rig.answered()
        assert "\nspaced\n" in rig.chat.session.branch()[0].text


async def test_a_name_that_is_complete_is_sent_by_the_first_enter(
    tmp_path: Path, monkeypatch: Patch, files: Path
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await typed(rig, "@notes.md")
        await rig.until(lambda: "notes.md" in offered(rig))
        await rig.pilot.press("enter")
        await rig.answered()
        assert "# Notes\n\ttabbed ❤\ufe0f\n" in rig.chat.session.branch()[0].text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("see @./nothing.md", "there is no such file"),
        ("see @nothing.md.", "there is no such file"),
        ("see @src/", "it is a folder"),
        ("see @./model.bin", "not a text file"),
        ("see @big.log", "larger than 256 KiB"),
    ],
)
async def test_a_file_that_cannot_be_sent_keeps_the_prompt(
    tmp_path: Path, monkeypatch: Patch, files: Path, text: str, said: str
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask(text)
        await rig.until(lambda: said in notices(rig))
        await rig.until(lambda: rig.chat.prompt.text == text)
        assert not rig.chat.session.messages


@pytest.mark.parametrize("text", ["a@b.de", "@property and @app.get", "@types/node", "@src", "@ alone", "@media (x)"])
async def test_words_that_name_no_file_are_sent(tmp_path: Path, monkeypatch: Patch, files: Path, text: str) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask(text)
        await rig.answered()
        assert rig.chat.session.branch()[0].text == text


async def test_attach_puts_a_file_into_the_prompt(tmp_path: Path, monkeypatch: Patch, files: Path) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await typed(rig, "/attach no")
        await rig.until(lambda: "notes.md" in offered(rig))
        await rig.pilot.press("tab")
        assert rig.chat.prompt.text == "/attach notes.md"
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.prompt.text == "[file 1: notes.md, 2 lines]")
        await rig.pilot.press("enter")
        await rig.answered()
        assert rig.chat.session.branch()[0].text == (
            "[file 1: notes.md, 2 lines]\n```markdown\n# Notes\n\ttabbed ❤\ufe0f\n\n```"
        )


async def test_the_next_prompt_waits_for_the_files_of_the_one_before(
    tmp_path: Path, monkeypatch: Patch, files: Path
) -> None:
    os.mkfifo(files / "pipe.md")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        for key in "@notes.md":
            rig.app.post_message(events.Key(key, key))
        rig.app.post_message(events.Key("enter", "\r"))
        for key in "two":
            rig.app.post_message(events.Key(key, key))
        rig.app.post_message(events.Key("enter", "\r"))
        await rig.answered(2)
        asked = [message.text.split()[0] for message in rig.chat.session.branch() if message.role == "user"]
        assert asked == ["@notes.md", "two"]
        await rig.ask("@pipe.md")
        await rig.until(lambda: "not a regular file" in notices(rig))


async def test_a_prompt_whose_files_are_being_read_is_not_lost(
    tmp_path: Path, monkeypatch: Patch, files: Path, quick: None
) -> None:
    disk_answers = threading.Event()

    def slowly(draft: Draft) -> Draft:
        disk_answers.wait()
        return with_mentioned_files(draft)

    monkeypatch.setattr("quantchat.services.attachments.with_mentioned_files", slowly)
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        first = rig.chat.session
        await rig.ask("see @notes.md")
        await rig.until(lambda: not rig.chat.prompt.text)
        await typed(rig, "later")
        await rig.until(lambda: first.draft == "see @notes.md\n\nlater", "both in the draft")
        rig.chat.open_session(rig.app.desk.archive.new())
        rig.chat.choose_session(first.id)
        assert rig.chat.prompt.text == "later"
        rig.chat.open_session(rig.app.desk.archive.new())
        await rig.app.desk.archive.flush()
        disk_answers.set()
        await rig.until(lambda: first.messages or first.queued, "the question")
        await rig.until(lambda: first.draft == "later", "the rest of the draft")
        rig.chat.choose_session(first.id)
        await rig.answered()
        disk_answers.clear()
        await rig.ask("again @notes.md")
        await rig.until(lambda: not rig.chat.prompt.text)
        await typed(rig, "last words")
        await rig.app.action_quit()
        disk_answers.set()
    assert SessionStore().load(first.id).draft == "again @notes.md\n\nlast words"


async def test_a_paste_goes_through_while_a_list_is_open(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await typed(rig, "/re")
        assert offered(rig)
        rig.app.post_message(events.Paste(" pasted\rtext"))
        await rig.until(lambda: rig.chat.prompt.text == "/re pasted\ntext")
        assert not offered(rig)


# Drafts


@pytest.fixture
def quick(monkeypatch: Patch) -> None:
    monkeypatch.setattr(drafts, "PAUSE_SECONDS", 0.05)


async def test_a_draft_is_on_the_disk_soon_after_typing(tmp_path: Path, monkeypatch: Patch, quick: None) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await typed(rig, "half a thought")
        rig.app.post_message(events.Paste(LONG))
        session = rig.chat.session.id
        path = SessionStore().path(session)
        await rig.until(lambda: path.exists() and "line 49" in path.read_text(), "a saved draft")
        draft = Draft.folded(SessionStore().load(session).draft)
        assert [attachment.text for attachment in draft.attachments] == [LONG]
        rig.chat.prompt.load("")
        await rig.until(lambda: not path.exists(), "no empty session")
        assert not list(SessionStore().list())


async def test_a_draft_keeps_its_tokens_where_they_were(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        first = rig.chat.session.id
        draft = Draft("Fix [paste 1: 50 lines] now", (Attachment(number=1, text=LONG),))
        rig.chat.prompt.load_draft(draft)
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: rig.chat.session.id != first)
        assert rig.chat.prompt.text == ""
        rig.chat.choose_session(first)
        assert rig.chat.prompt.draft == draft
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.until(lambda: rig.chat.session.id == first)
        assert rig.chat.prompt.draft == draft


async def test_a_question_that_begins_with_a_path_is_kept_like_any_other(
    tmp_path: Path, monkeypatch: Patch, quick: None
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        for command in ("/rename My", "/re", "/", "quit"):
            rig.chat.prompt.load(command)
            assert drafts._is_command(rig.chat.prompt.text)
        rig.chat.prompt.load("/etc/hosts\nis what?")
        path = SessionStore().path(rig.chat.session.id)
        await rig.until(lambda: path.exists() and "is what?" in path.read_text(), "a saved draft")


async def test_a_prompt_taken_back_stands_behind_what_is_written(
    tmp_path: Path, monkeypatch: Patch, quick: None
) -> None:
    async with running(tmp_path, monkeypatch, SLOW, config="parallel_turns = 1\n") as rig:
        await rig.begin_slow()
        await rig.pilot.press("ctrl+n")
        await rig.ask("waiting")
        await typed(rig, "meanwhile")
        await rig.until(lambda: rig.chat.session.draft == "meanwhile")
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.chat.prompt.text == "meanwhile\n\nwaiting")
        assert rig.chat.session.draft == "meanwhile\n\nwaiting"
        assert not rig.chat.session.queued


async def test_a_sent_prompt_leaves_no_draft(tmp_path: Path, monkeypatch: Patch, quick: None) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await typed(rig, "question")
        await rig.until(lambda: rig.chat.session.draft == "question")
        await rig.pilot.press("enter")
        await rig.answered()
        assert rig.chat.prompt.text == ""
        await rig.app.desk.archive.flush()
        assert SessionStore().load(rig.chat.session.id).draft == ""


async def test_a_draft_that_another_program_writes_is_not_copied(
    tmp_path: Path, monkeypatch: Patch, quick: None
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await typed(rig, "theirs")
        session = rig.chat.session.id
        await rig.until(lambda: SessionStore().list(), "a saved draft")
    holder = SessionLocks().acquire(session)
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.until(lambda: rig.chat.prompt.text == "theirs")
        await rig.pilot.press("ctrl+q")
        await rig.until(lambda: rig.app._exit)
    holder.release()
    assert [summary.id for summary in SessionStore().list()] == [session]


async def test_what_is_written_into_a_session_of_another_program_is_soon_on_the_disk_too(
    tmp_path: Path, monkeypatch: Patch, quick: None
) -> None:
    def copies() -> list[str]:
        return [SessionStore().load(found.id).draft for found in SessionStore().list() if found.id != session]

    async with running(tmp_path, monkeypatch) as rig:
        await typed(rig, "theirs")
        session = rig.chat.session.id
        await rig.until(lambda: SessionStore().list(), "a saved draft")
    holder = SessionLocks().acquire(session)
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.until(lambda: rig.chat.prompt.text == "theirs")
        for words in (" mine", " more"):
            await typed(rig, words)
            await rig.until(lambda: copies() == [rig.chat.prompt.text], "a copy of the draft")
        rig.chat.prompt.load("theirs")
        await rig.until(lambda: not copies(), "no copy of what nobody changed")
    holder.release()


# Earlier prompts


@pytest.mark.parametrize("size", SIZES)
async def test_prompts_are_recalled_in_another_run(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        rig.app.post_message(events.Paste(LONG))
        await rig.until(lambda: rig.chat.prompt.text)
        await rig.pilot.press("enter")
        await rig.answered()
        await rig.ask("/help")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen))
        rig.chat.recall.flush()
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.until(lambda: rig.chat.prompt.has_focus)
        await rig.pilot.press("up")
        await rig.until(lambda: rig.chat.prompt.text == "[paste 1: 50 lines]")
        assert rig.chat.prompt.draft.attachments[0].text == LONG


# The editor


async def test_without_an_editor_the_prompt_stays(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    for wanted, said in (("no-such-editor -x", "no such program"), ("vi 'unclosed", "did not do its work")):
        monkeypatch.setenv("EDITOR", wanted)
        async with running(tmp_path, monkeypatch) as rig:
            rig.chat.prompt.load("words")
            await rig.pilot.press("ctrl+g")
            await rig.until(lambda said=said: said in notices(rig))
            assert rig.chat.prompt.text == "words"


async def test_an_editor_that_changes_nothing_leaves_the_prompt_as_it_was(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("quantchat.ui.editor.edit_text", lambda _app, text: text)
    async with running(tmp_path, monkeypatch) as rig:
        draft = Draft("Fix [paste 1: 50 lines] now", (Attachment(number=1, text=LONG),))
        rig.chat.prompt.load_draft(draft)
        await rig.pilot.press("x", "ctrl+g", "ctrl+z")
        await rig.until(lambda: rig.chat.prompt.draft == draft)


async def test_a_screen_that_cannot_step_aside_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("VISUAL", "true")
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.prompt.load("words")
        await rig.ask("/editor")
        await rig.until(lambda: "cannot be handed over" in notices(rig))
