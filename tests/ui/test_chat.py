"""The main screen over the scripted engine: what each key does, and what is never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantchat.services.library import Phase
from quantchat.ui.screens.dialogs import ConfirmScreen, ErrorScreen, TitleScreen
from quantchat.ui.screens.help import HelpScreen
from quantchat.ui.widgets.sessions import SessionList
from ui.rig import SIZES, SLOW, running

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("size", SIZES)
async def test_a_prompt_is_answered(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        await rig.ask("Hello there")
        (answer,) = await rig.answered()
        assert "Hello there" in answer.text
        assert answer.finish == "stop"
        assert answer.run is not None
        assert answer.run.model == "alpha-GPTQ"
        assert rig.chat.prompt.text == ""


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_stop_keeps_the_text_and_does_not_quit(tmp_path: Path, monkeypatch: Patch, key: str) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.pilot.press(key)
        (answer,) = await rig.answered()
        assert answer.finish == "stopped"
        assert answer.text.startswith("word ")
        assert rig.app.is_running


async def test_a_prompt_sent_while_busy_waits_in_sight_and_then_runs(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.ask("second question")
        assert rig.chat.session.queued == ["second question"]
        await rig.until(lambda: "1 more waiting" in rig.line("activity"))
        assert any(view.tone == "queued" for view in rig.chat._views)
        await rig.pilot.press("escape")
        answers = await rig.answered(2)
        assert [answer.finish for answer in answers] == ["stopped", "stop"]
        assert "second question" in answers[1].text
        assert rig.chat.session.queued == []


async def test_a_waiting_prompt_can_be_taken_back(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW, config="parallel_turns = 1\n") as rig:
        await rig.begin_slow()
        await rig.pilot.press("ctrl+n")
        await rig.ask("from another session")
        await rig.until(lambda: "behind another session" in rig.line("activity"))
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.chat.prompt.text == "from another session")
        assert rig.chat.session.queued == []
        assert rig.app.desk.conversation.busy


async def test_switching_away_leaves_an_answer_streaming(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        first = rig.chat.session
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: rig.chat.session is not first)
        turn = rig.app.desk.conversation.turn_of(first.id)
        assert turn is not None
        seen = turn.tokens
        await rig.until(lambda: turn.tokens > seen)
        sessions = rig.chat.query_one(SessionList)
        await rig.until(lambda: any(row.mark == "*" for row in sessions.rows), "a streaming mark")
        rig.chat.choose_session(first.id)
        assert rig.chat._views[-1].text.count("word") >= seen - 1
        await rig.pilot.press("escape")
        await rig.answered()
        assert rig.chat.transcript.source_of_last_answer() == first.branch()[-1].text


async def test_an_answer_that_ends_unseen_is_marked(tmp_path: Path, monkeypatch: Patch) -> None:
    # Long enough to be left before it ends, on a crowded machine too.
    script = {"answers": [{"text": "word " * 80, "tokens_per_second": 20}]}
    async with running(tmp_path, monkeypatch, script) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.pilot.press("ctrl+n")
        sessions = rig.chat.query_one(SessionList)
        await rig.until(lambda: any(row.mark == "+" for row in sessions.rows), "an unseen mark")


async def test_the_draft_stays_with_its_session(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        first = rig.chat.session
        await rig.pilot.press(*"half")
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: rig.chat.session is not first)
        assert rig.chat.prompt.text == ""
        rig.chat.choose_session(first.id)
        assert rig.chat.prompt.text == "half"


async def test_regenerate_keeps_both_versions(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("again")
        await rig.answered()
        await rig.pilot.press("ctrl+r")
        await rig.until(lambda: len(rig.chat.session.messages) == 3 and not rig.chat.own_turn)
        question, second = rig.chat.session.branch()
        assert len(rig.chat.session.siblings(second.id)) == 2
        assert second.parent == question.id
        assert rig.chat._views[-1].label.endswith(" · 2/2")


async def test_rename_and_delete(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        session = rig.chat.session
        await rig.pilot.press("f2")
        await rig.until(lambda: isinstance(rig.app.screen, TitleScreen))
        await rig.pilot.press(*"Better", "enter")
        await rig.until(lambda: "Better" in rig.line("header"))
        await rig.pilot.press("f10")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: rig.chat.session is not session and not rig.chat.summaries)
        assert (tmp_path / "home" / "data" / "trash" / f"{session.id}.json").exists()


async def test_a_load_that_fails_says_why_and_gives_the_prompt_back(tmp_path: Path, monkeypatch: Patch) -> None:
    fail = {"code": "load", "title": "No such luck", "detail": "The [/weights] are odd", "remedy": "Try another"}
    async with running(tmp_path, monkeypatch, {"load": {"seconds": 0.5, "fail": fail}}) as rig:
        rig.chat.choose_model(rig.app.desk.library.models[0].path)
        await rig.ask("waiting for the model")
        await rig.until(lambda: isinstance(rig.app.screen, ErrorScreen))
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.chat.prompt.text == "waiting for the model")
        assert rig.app.desk.library.phase is Phase.EMPTY


async def test_a_kernel_that_fails_is_followed_by_the_next_one_in_a_fresh_engine(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    fail = {"code": "kernel", "title": "marlin cannot be built", "detail": "", "remedy": ""}
    script = {"load": {"fail": fail, "next_kernel": "gptq_torch_aten"}}
    async with running(tmp_path, monkeypatch, script) as rig:
        await rig.until(lambda: rig.app.desk.library.engine_pid)
        first = rig.app.desk.library.engine_pid
        rig.chat.choose_model(rig.app.desk.library.models[0].path)
        await rig.until(lambda: rig.app.desk.library.loaded)
        assert rig.app.desk.library.engine_pid != first


async def test_a_dead_engine_is_reported_and_started_again_by_the_next_prompt(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    script = {"answers": [{"match": "die", "text": "one two three four five", "crash_after_tokens": 3}]}
    async with running(tmp_path, monkeypatch, script) as rig:
        await rig.load()
        await rig.ask("die")
        (answer,) = await rig.answered()
        assert answer.finish == "error"
        assert answer.text.strip().startswith("one two")
        assert answer.error is not None
        assert answer.error.code == "engine-gone"
        await rig.ask("are you back")
        answers = await rig.answered(2)
        assert "are you back" in answers[1].text


async def test_unload_ends_the_engine_process(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        before = rig.app.desk.library.engine_pid
        await rig.pilot.press("f7")
        await rig.until(lambda: rig.app.desk.library.phase is Phase.EMPTY)
        assert rig.app.desk.library.engine_pid != before


async def test_switching_models_stops_the_answer_and_keeps_it(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.load("beta")
        (answer,) = await rig.answered()
        assert answer.finish == "stopped"
        assert answer.text
        await rig.until(lambda: "beta-GPTQ" in rig.line("header"))


@pytest.mark.parametrize("word", ["quit", "/quit", "exit", "bye"])
async def test_words_that_leave(tmp_path: Path, monkeypatch: Patch, word: str) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(word)
        await rig.until(lambda: not rig.app.is_running or rig.app._exit)


async def test_up_recalls_and_slash_commands_run(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one\ntwo")
        await rig.answered()
        await rig.pilot.press("up")
        await rig.until(lambda: rig.chat.prompt.text == "one\ntwo")
        await rig.ask("/help")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen))


async def test_a_prompt_without_a_model_stays_in_the_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("nobody is here")
        await rig.until(lambda: len(rig.app._notifications) == 1)
        assert rig.chat.prompt.text == "nobody is here"
        assert not rig.chat.session.queued


async def test_the_sidebar_lies_over_a_narrow_screen(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(80, 24)) as rig:
        sidebar = rig.chat.query_one("#sidebar")
        assert not sidebar.display
        await rig.pilot.press("ctrl+l")
        await rig.until(lambda: sidebar.display and rig.chat.query_one("#models").has_focus)
        await rig.pilot.press("escape")
        await rig.until(lambda: not sidebar.display and rig.chat.prompt.has_focus)


async def test_a_crash_gives_the_partial_answer_back(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        session = rig.chat.session
        folder = tmp_path / "home" / "data" / "sessions"
        await rig.until(lambda: "word" in (folder / f"{session.id}.journal").read_text())
        journal = (folder / f"{session.id}.journal").read_bytes()
        stored = (folder / f"{session.id}.json").read_bytes()
    (folder / f"{session.id}.journal").write_bytes(journal)
    (folder / f"{session.id}.json").write_bytes(stored)
    async with running(tmp_path, monkeypatch, resume=True) as rig:
        await rig.until(lambda: rig.answers)
        (answer,) = rig.answers
        assert answer.finish == "interrupted"
        assert answer.text.startswith("word")


async def test_foreign_text_cannot_command_the_terminal(tmp_path: Path, monkeypatch: Patch) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold] [/nope] \u202eabc <think>deep</think> List<int>"
    async with running(tmp_path, monkeypatch, {"answers": [{"text": hostile}]}) as rig:
        await rig.load()
        await rig.ask("say [/x] something \x1b[31m")
        (answer,) = await rig.answered()
        assert answer.text == hostile
        strips = [rig.chat.transcript.render_line(y) for y in range(rig.chat.transcript.size.height)]
        shown = "\n".join(strip.text for strip in strips)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        for kept in ("[bold]x[/bold]", "[/nope]", "<think>", "List<int>"):
            assert kept in shown


async def test_a_theme_with_a_bad_colour_is_named_and_survived(tmp_path: Path, monkeypatch: Patch) -> None:
    themes = tmp_path / "home" / "config" / "themes"
    themes.mkdir(parents=True)
    (themes / "broken.toml").write_text('name = "broken"\ndark = true\nprimary = "purpleish"\n')
    async with running(tmp_path, monkeypatch, theme="broken") as rig:
        assert rig.app.theme == "quantchat-dark"
        await rig.until(lambda: rig.app._notifications, "a notice")
        (told,) = [notice.message for notice in rig.app._notifications]
        assert "broken.toml" in told
        assert "primary" in told


async def test_keys_can_be_changed_and_wrong_ones_are_named(tmp_path: Path, monkeypatch: Patch) -> None:
    config = tmp_path / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[keys]\nhelp = "f11"\nnew = "ctrl+l"\nrename = "nokey!"\nfoo = "f1"\n')
    async with running(tmp_path, monkeypatch) as rig:
        told = await rig.dialog()
        assert "3 things" in told
        for named in ("'new'", "'rename'", "'foo'"):
            assert named in told
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
        await rig.pilot.press("f11")
        await rig.until(lambda: isinstance(rig.app.screen, HelpScreen))


async def test_a_session_cut_in_half_is_set_aside_and_named(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        session = rig.chat.session
        await rig.app.desk.archive.flush()
    path = tmp_path / "home" / "data" / "sessions" / f"{session.id}.json"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: isinstance(rig.app.screen, ErrorScreen))
        (kept,) = (tmp_path / "home" / "data" / "quarantine").iterdir()
        assert kept.read_bytes() == data[: len(data) // 2]


async def test_the_stored_session_holds_everything(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.app.desk.archive.flush()
        path = tmp_path / "home" / "data" / "sessions" / f"{rig.chat.session.id}.json"
        stored = json.loads(path.read_text())
        answer = stored["messages"][stored["head"]]
        assert answer["statistics"]["new_tokens"] > 0
        assert answer["run"]["kernel"] == "gptq_torch_aten"
        assert path.stat().st_mode & 0o777 == 0o600
        await rig.until(lambda: not path.with_suffix(".journal").exists())


async def test_toasts_carry_no_escape_sequences(tmp_path: Path, monkeypatch: Patch) -> None:
    themes = tmp_path / "home" / "config" / "themes"
    themes.mkdir(parents=True)
    (themes / "evil\x1b]0;owned\x07.toml").write_text("primary = 1\n")
    async with running(tmp_path, monkeypatch) as rig:
        rig.app.notify("evil\x1b]0;owned\x07")
        await rig.until(lambda: len(rig.app._notifications) == 2)
        assert not any("\x1b" in notification.message for notification in rig.app._notifications)


async def test_what_cannot_be_saved_at_quit_is_told(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.app.desk.archive.flush()
        sessions = tmp_path / "home" / "data" / "sessions"
        sessions.rename(tmp_path / "moved")
        sessions.write_text("a file where the folder was")
        rig.chat.prompt.load("a draft")
        await rig.pilot.press("ctrl+q")
        await rig.until(lambda: rig.app._exit)
        assert rig.app.return_code == 3
