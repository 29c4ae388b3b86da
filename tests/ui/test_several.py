"""Several sessions at once, answers that go on, warm sessions and prompts that are read: what the screen says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.services.library import Phase
from quantchat.store.sessions import SessionStore
from quantchat.ui.widgets.rows import Row
from quantchat.ui.widgets.sessions import SessionList
from ui.rig import SIZES, Rig, running
from unit.catalog.model_folders import make_gptq

Patch = pytest.MonkeyPatch

TWO: dict[str, object] = {
    "answers": [
        {"match": "fruit", "text": "apple " * 2000, "tokens_per_second": 60},
        {"match": "beasts", "text": "zebra " * 2000, "tokens_per_second": 45},
        {"match": "short", "text": "one two three four five six"},
    ]
}
BOTH_SIZES = pytest.mark.parametrize("size", SIZES)


def rows(rig: Rig) -> dict[str, Row]:
    return {row.id: row for row in rig.chat.query_one(SessionList).rows}


def streamed(rig: Rig, session: Session) -> int:
    turn = rig.app.desk.conversation.turn_of(session.id)
    return turn.tokens if turn is not None else 0


def shown(rig: Rig) -> str:
    """The words of the last answer in the transcript."""
    return rig.chat.transcript.source_of_last_answer() or ""


def screen_text(rig: Rig) -> str:
    transcript = rig.chat.transcript
    return "\n".join(transcript.render_line(y).text.rstrip() for y in range(transcript.size.height))


async def ask_in_both(rig: Rig) -> tuple[Session, Session]:
    """Ask for fruit and, in a second session, for beasts; return when both answers stream."""
    await rig.load()
    await rig.ask("name fruit")
    fruit = rig.chat.session
    await rig.until(lambda: streamed(rig, fruit) > 2, "the first answer")
    await rig.pilot.press("ctrl+n")
    await rig.until(lambda: rig.chat.session is not fruit)
    await rig.ask("name beasts")
    beasts = rig.chat.session
    await rig.until(lambda: streamed(rig, beasts) > 2, "the second answer")
    return fruit, beasts


@BOTH_SIZES
async def test_two_sessions_stream_at_once_each_with_its_own_text(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, TWO, size=size) as rig:
        fruit, beasts = await ask_in_both(rig)
        await rig.until(lambda: "+1 answering" in rig.line("status"), "the other answer in the status bar")
        for session, word in ((fruit, "apple"), (beasts, "zebra"), (fruit, "apple")):
            before = streamed(rig, session)
            rig.chat.choose_session(session.id)
            assert shown(rig).split() == [word] * len(shown(rig).split())
            assert len(shown(rig).split()) >= before
            await rig.until(lambda before=before: len(shown(rig).split()) > before + 5, "more of it, live")
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.chat.own_turn is None, "the end of the first")
        assert rig.app.desk.conversation.streaming == {beasts.id}
        rig.chat.choose_session(beasts.id)
        await rig.until(lambda: "answering" not in rig.line("status"))
        await rig.pilot.press("ctrl+c")
        await rig.until(lambda: not rig.app.desk.conversation.busy)
        for session, word in ((fruit, "apple"), (beasts, "zebra")):
            answer = session.branch()[-1]
            assert answer.finish == "stopped"
            assert set(answer.text.split()) == {word}
            rig.chat.choose_session(session.id)
            assert shown(rig) == answer.text


@BOTH_SIZES
async def test_the_list_shows_every_session_that_streams(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, TWO, size=size) as rig:
        fruit, beasts = await ask_in_both(rig)
        await rig.pilot.press("f3")
        await rig.until(lambda: [rows(rig)[s.id].mark for s in (fruit, beasts)] == ["*", "*"], "two marks")
        await rig.pilot.press("escape")
        await rig.ask("/stop-all")
        await rig.until(lambda: not rig.app.desk.conversation.busy)
        assert [session.branch()[-1].finish for session in (fruit, beasts)] == ["stopped", "stopped"]
        await rig.until(lambda: [rows(rig)[s.id].mark for s in (fruit, beasts)] == ["+", " "], "no mark that streams")
        await rig.ask("/stop-all")
        await rig.until(lambda: any("No session" in note.message for note in rig.app._notifications))


async def test_a_prompt_beyond_the_limit_says_behind_how_many_it_waits(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, TWO, config="parallel_turns = 2\n") as rig:
        fruit, beasts = await ask_in_both(rig)
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: rig.chat.session is not beasts)
        await rig.ask("short please")
        await rig.until(lambda: "1 waiting behind 2 other sessions" in rig.line("activity"))
        waiting = rig.chat.session
        rig.chat.choose_session(fruit.id)
        await rig.pilot.press("escape")
        rig.chat.choose_session(waiting.id)
        (answer,) = await rig.answered()
        assert answer.text == "one two three four five six"


async def test_a_prompt_that_is_given_back_is_no_answer(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, TWO, config="parallel_turns = 2\n") as rig:
        fruit, beasts = await ask_in_both(rig)
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: rig.chat.session is not beasts)
        await rig.ask("short please")
        waiting = rig.chat.session
        await rig.until(lambda: rig.app.desk.conversation.is_busy(waiting.id))
        rig.chat.choose_session(beasts.id)
        await rig.ask("/stop-all")
        await rig.until(lambda: not rig.app.desk.conversation.busy)
        await rig.until(lambda: [rows(rig)[s.id].mark for s in (fruit, waiting)] == ["+", " "], "one unseen answer")
        assert waiting.draft == "short please"


async def test_a_model_that_cannot_be_loaded_stops_no_answer(tmp_path: Path, monkeypatch: Patch) -> None:
    make_gptq(tmp_path / "models" / "alpha-GPTQ")
    (make_gptq(tmp_path / "models" / "gamma-GPTQ") / "model.safetensors").unlink()
    async with running(tmp_path, monkeypatch, TWO, config="parallel_turns = 2\n") as rig:
        fruit, beasts = await ask_in_both(rig)
        await rig.ask("short please")
        broken = next(model for model in rig.app.desk.library.models if not model.loadable)
        rig.chat.choose_model(broken.path)
        assert "gamma-GPTQ cannot be loaded" in await rig.dialog()
        assert [turn.stage for turn in map(rig.app.desk.conversation.turn_of, (fruit.id, beasts.id)) if turn] == [
            "decoding",
            "decoding",
        ]
        assert rig.app.desk.conversation.waiting == 1
        assert rig.app.desk.state.last_model != broken.path


async def test_choosing_the_model_that_loads_does_not_begin_again(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, {"load": {"seconds": 60}}) as rig:
        alpha = rig.app.desk.library.models[0]
        rig.chat.choose_model(alpha.path)
        await rig.until(lambda: rig.app.desk.library.loading)
        request = rig.app.desk.library.loading.request  # type: ignore[union-attr]
        rig.chat.choose_model(alpha.path)
        await rig.pilot.pause()
        assert rig.app.desk.library.loading.request == request  # type: ignore[union-attr]


async def test_quitting_keeps_every_answer_that_streams(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, TWO) as rig:
        fruit, beasts = await ask_in_both(rig)
        await rig.pilot.press("ctrl+q")
        await rig.until(lambda: rig.app._exit)
    store = SessionStore(tmp_path / "home" / "data" / "sessions")
    for session, word in ((fruit, "apple"), (beasts, "zebra")):
        answer = store.load(session.id).branch()[-1]
        assert (answer.finish, set(answer.text.split())) == ("stopped", {word})


async def test_switching_models_stops_and_keeps_all_answers(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, TWO) as rig:
        sessions = await ask_in_both(rig)
        await rig.load("beta")
        await rig.until(lambda: not rig.app.desk.conversation.busy and rig.app.desk.library.phase is Phase.LOADED)
        assert [session.branch()[-1].finish for session in sessions] == ["stopped", "stopped"]
        assert all(session.branch()[-1].text for session in sessions)


# Answers that go on


@BOTH_SIZES
async def test_a_stopped_answer_goes_on_in_place(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    text = " ".join(f"w{number}" for number in range(60))
    script = {"answers": [{"text": text, "tokens_per_second": 30}]}
    async with running(tmp_path, monkeypatch, script, size=size) as rig:
        await rig.load()
        await rig.ask("count")
        await rig.until(lambda: rig.chat.own_turn and rig.chat.own_turn.tokens > 3)
        await rig.pilot.press("escape")
        (answer,) = await rig.answered()
        begun = answer.text
        assert begun
        assert begun != text
        await rig.until(lambda: "stopped · /continue goes on" in screen_text(rig), "the hint")
        entries = len(rig.chat._views)
        await rig.ask("/continue")
        await rig.until(lambda: rig.chat.own_turn and len(shown(rig)) > len(begun) + 8, "more in the same place")
        assert shown(rig).startswith(begun)
        assert len(rig.chat._views) == entries
        await rig.until(lambda: answer.finish == "stop", "its end")
        assert (answer.text, rig.chat.session.branch()[-1]) == (text, answer)
        await rig.until(lambda: shown(rig) == text and "goes on" not in screen_text(rig))
        assert len(rig.chat.session.messages) == 2


async def test_continue_says_when_there_is_nothing_to_continue(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, TWO) as rig:
        await rig.load()
        await rig.ask("short")
        (answer,) = await rig.answered()
        await rig.pilot.press("alt+r")
        await rig.until(lambda: any("complete" in note.message for note in rig.app._notifications), "a toast")
        assert (answer.finish, rig.chat.own_turn) == ("stop", None)


async def test_only_the_last_answer_offers_to_go_on(tmp_path: Path, monkeypatch: Patch) -> None:
    script = {"answers": [{"text": "a b c d", "reason": "length"}]}
    async with running(tmp_path, monkeypatch, script) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.ask("two")
        await rig.answered(2)
        await rig.until(lambda: screen_text(rig).count("/continue goes on") == 1)
        assert screen_text(rig).count("cut at the token limit") == 2


# Prompts that are read, and what is kept of them

LONG = " ".join(["word"] * 3000)


@BOTH_SIZES
async def test_reading_a_long_prompt_is_shown_and_can_be_stopped(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    script = {"answers": [{"match": LONG[:100], "text": "never said", "prefill_seconds": 20}]}
    async with running(tmp_path, monkeypatch, script, size=size) as rig:
        await rig.load()
        rig.app.desk.conversation.send(rig.chat.session.id, LONG)
        await rig.until(lambda: "Reading 64 of 3,003 tokens" in rig.line("activity"), "progress")
        assert "Esc stops" in rig.line("activity")
        await rig.pilot.press("escape")
        (answer,) = await rig.answered()
        assert (answer.text, answer.finish) == ("", "stopped")
        await rig.until(lambda: "stopped" in screen_text(rig))
        assert "goes on" not in screen_text(rig)


async def test_what_is_reused_of_a_prompt_is_told(tmp_path: Path, monkeypatch: Patch) -> None:
    script = {"answers": [{"match": "again", "text": "yes", "prefill_seconds": 30}, {"text": "no"}]}
    async with running(tmp_path, monkeypatch, script) as rig:
        await rig.load()
        await rig.ask("once " * 300)
        await rig.answered()
        await rig.ask("again")
        await rig.until(lambda: "Reading" in rig.line("activity") and "reused" in rig.line("activity"), "the share")
        turn = rig.chat.own_turn
        assert turn is not None
        assert turn.reused > 300
        assert f"({turn.reused} reused)" in rig.line("activity")
        await rig.pilot.press("escape")
        await rig.answered(2)


async def test_an_answer_tells_how_it_was_computed(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.ask("two")
        answer = (await rig.answered(2))[-1]
        assert answer.run is not None
        assert answer.run.decoding == "eager"
        *_, first, reused, way = rig.chat._views[-1].figures
        assert first.startswith("TTFT ")
        assert way == "aten eager"
        assert answer.statistics is not None
        assert reused == f"{answer.statistics.reused_tokens} reused"
        *_, line = [line for line in screen_text(rig).splitlines() if "TTFT" in line]
        assert line.strip("│ ").split(" · ") == list(rig.chat._views[-1].figures)


async def test_figures_give_way_on_a_small_screen_and_what_must_be_said_does_not(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    script = {"answers": [{"text": "a b c d", "reason": "length"}]}
    async with running(tmp_path, monkeypatch, script, size=(40, 30)) as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered()
        await rig.until(lambda: "/continue goes on" in " ".join(screen_text(rig).split()))
        assert "TTFT" not in screen_text(rig)
        await rig.ask("two")
        await rig.answered(2)
        await rig.until(lambda: screen_text(rig).count("cut at the token limit · 4 tokens") == 1)


@BOTH_SIZES
async def test_warm_sessions_are_marked_until_their_model_goes(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, {"warm": [1, 1]}, size=size) as rig:
        await rig.load()
        sessions = []
        for name in ("first", "second", "third"):
            await rig.ask(name)
            await rig.answered()
            sessions.append(rig.chat.session.id)
            await rig.pilot.press("ctrl+n")
            await rig.until(lambda: rig.chat.session.id not in sessions)

        def words() -> list[str]:
            return [rows(rig)[name].detail.split()[0] if name in rows(rig) else "" for name in sessions]

        await rig.until(lambda: words()[1:] == ["parked", "warm"], "the marks")
        assert words()[0] not in ("parked", "warm")
        await rig.pilot.press("f3")
        await rig.until(lambda: "third" in str(rig.app.export_screenshot(simplify=True)))
        assert "warm" in rig.app.export_screenshot(simplify=True)
        await rig.pilot.press("escape")
        await rig.load("beta")
        await rig.until(lambda: not {"parked", "warm"} & set(words()), "no marks")
