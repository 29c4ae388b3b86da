"""The screen with two columns, over scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Static

from processes import children
from quantchat.domain.divergence import Place
from quantchat.ui.screens.card import CardScreen
from quantchat.ui.screens.choose import ChooseScreen
from quantchat.ui.screens.compare import CompareScreen
from quantchat.ui.screens.sides import SidesScreen
from quantchat.ui.widgets.column import Column
from quantchat.ui.widgets.line import Line
from ui.rig import SCRIPTED_ENGINE, Rig, running

SCRIPT: dict[str, object] = {
    "answers": [
        {"match": "slow", "text": "word " * 400, "tokens_per_second": 50},
        {"model": "beta", "match": "capital", "text": "The capital is **Perth**.", "tokens_per_second": 400},
        {"match": "capital", "text": "The capital is **Paris**.", "tokens_per_second": 400},
        {"match": "same", "text": "Just the same.", "tokens_per_second": 400},
        {"model": "beta", "match": "think", "thinking": "So it is two .", "text": "2", "tokens_per_second": 400},
        {"match": "think", "thinking": "So it is three .", "text": "3", "tokens_per_second": 400},
    ]
}


class Sides:
    """The screen as a user sees it."""

    def __init__(self, rig: Rig, screen: CompareScreen) -> None:
        self.rig, self.screen = rig, screen

    async def ask(self, text: str) -> None:
        self.screen.prompt.load(text)
        await self.rig.pilot.press("enter")

    async def answered(self) -> None:
        comparison = self.screen.comparison
        await self.rig.until(lambda: comparison.question and not comparison.busy, "both answers")
        seen = [column for column in self.columns if column.region]
        await self.rig.until(lambda: all("tokens" in column.plain for column in seen), "the figures")

    @property
    def columns(self) -> list[Column]:
        return [self.screen.query_one(f"#{name}", Column) for name in ("left", "right")]

    def shown(self, place: int) -> str:
        """What a column shows of its answer, and the marked part in brackets."""
        answers = self.columns[place].answers
        lines = []
        for y in range(answers.size.height):
            for entry, strip in answers._document.lines(answers.scroll_offset.y + y, 1):
                text = strip.text
                for over in answers._overs(entry):
                    text = f"{text[: over.start]}[{text[over.start : over.end]}]{text[over.end :]}"
                lines.append(text.rstrip())
        return "\n".join(lines)

    def line(self, name: str) -> str:
        return self.screen.query_one(f"#{name}", Line).plain


@asynccontextmanager
async def comparing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, size: tuple[int, int] = (120, 40), load: bool = True
) -> AsyncIterator[Sides]:
    async with running(folder, monkeypatch, SCRIPT, size=size) as rig:
        if load:
            await rig.load("alpha")
        await rig.ask("/compare")
        await rig.until(lambda: isinstance(rig.app.screen, CompareScreen), "the screen")
        assert isinstance(rig.app.screen, CompareScreen)
        await rig.until(lambda: rig.app.screen.query_one("#title", Line).plain, "the first drawing")
        yield Sides(rig, rig.app.screen)


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (40, 24)])
async def test_both_columns_answer_and_the_difference_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with comparing(tmp_path, monkeypatch, size=size) as sides:
        await sides.ask("The capital?")
        await sides.answered()
        left, right = (column.plain for column in sides.columns)
        assert left.startswith(" A  alpha-GPTQ GPTQ 4b g128")
        assert right.startswith(" B  beta-GPTQ GPTQ 4b g128")
        assert "tok/s" in left
        assert "token 4: “**Paris**.”" in left
        assert "token 4: “**Perth**.”" in right
        assert "The capital is [Paris.]" in sides.shown(0)
        assert "The capital is [Perth.]" in sides.shown(1)
        stacked = sides.columns[0].region.x == sides.columns[1].region.x
        assert stacked == (size[0] < 70)
        assert all(column.region.height > 5 for column in sides.columns)


async def test_the_chats_engine_answers_for_its_model_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        pid = sides.rig.chat.desk.library.engine_pid
        await sides.ask("Be the same")
        await sides.answered()
        assert "the chat's engine" in sides.columns[0].plain
        assert "= the same to the end" in sides.columns[1].plain
        assert len(children(str(SCRIPTED_ENGINE))) == 2
        await sides.rig.pilot.press("escape")
        await sides.rig.until(lambda: sides.rig.app.screen is sides.rig.chat)
        await sides.rig.until(lambda: len(children(str(SCRIPTED_ENGINE))) == 1)
        assert sides.rig.chat.desk.library.engine_pid == pid
        assert not sides.rig.answers


async def test_esc_stops_both_first_and_closes_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        await sides.ask("be slow")
        comparison = sides.screen.comparison
        await sides.rig.until(lambda: all(side.turn and side.turn.tokens > 3 for side in comparison.sides))
        await sides.rig.until(lambda: "Esc stops" in sides.line("hint"))
        await sides.rig.pilot.press("escape")
        await sides.answered()
        assert [side.stage for side in comparison.sides] == ["stopped", "stopped"]
        assert sides.rig.app.screen is sides.screen
        await sides.rig.until(lambda: "Esc closes" in sides.line("hint"))
        await sides.rig.pilot.press("escape")
        await sides.rig.until(lambda: sides.rig.app.screen is sides.rig.chat)


async def test_what_a_side_said_is_kept_and_opens_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        await sides.rig.pilot.press("f3")
        assert sides.screen.kept is None
        await sides.ask("The capital?")
        await sides.answered()
        await sides.rig.pilot.press("f3")
        await sides.rig.until(lambda: sides.screen.kept)
        await sides.rig.pilot.press("escape")
        await sides.rig.until(lambda: sides.rig.app.screen is sides.rig.chat)
        assert [message.text for message in sides.rig.chat.session.branch()] == [
            "The capital?",
            "The capital is **Perth**.",
        ]
        run = sides.rig.answers[0].run
        assert run is not None
        assert run.model == "beta-GPTQ"
        await sides.rig.until(lambda: sides.rig.chat.desk.archive.store.is_stored(sides.rig.chat.session.id))


async def test_what_goes_on_with_a_temporary_session_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, SCRIPT) as rig:
        await rig.load("alpha")
        await rig.ask("/temporary")
        await rig.until(lambda: rig.chat.desk.archive.is_temporary(rig.chat.session.id))
        await rig.ask("The capital?")
        await rig.answered()
        await rig.ask("/compare")
        await rig.until(lambda: isinstance(rig.app.screen, CompareScreen))
        assert isinstance(rig.app.screen, CompareScreen)
        sides = Sides(rig, rig.app.screen)
        await sides.ask("Be the same")
        await sides.answered()
        await rig.pilot.press("f2")
        await rig.until(lambda: any("temporary" in note.message for note in rig.app._notifications))
        await rig.pilot.press("escape")
        await rig.until(lambda: len(rig.chat.session.branch()) == 4)
        await rig.chat.desk.archive.flush()
        assert not list((tmp_path / "home" / "data" / "sessions").glob("*.json"))


async def test_sides_are_chosen_in_a_dialog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        press, app = sides.rig.pilot.press, sides.rig.app
        await press("ctrl+l")
        await sides.rig.until(lambda: isinstance(app.screen, SidesScreen))
        dialog = app.screen
        assert isinstance(dialog, SidesScreen)
        for _ in range(3):
            await press("j")
        await press("enter")
        await sides.rig.until(lambda: isinstance(app.screen, ChooseScreen))
        await press("a", "l", "p", "h", "enter")
        await sides.rig.until(lambda: dialog.setup.right.model.name == "alpha-GPTQ")
        await press("j", "j", "enter")
        await sides.rig.until(lambda: isinstance(app.screen, ChooseScreen))
        await press("e", "x", "a", "c", "t", "enter")
        await sides.rig.until(lambda: dialog.setup.right.preset == "exact")
        await press("j", "j", "enter")
        await sides.rig.until(lambda: isinstance(app.screen, ChooseScreen))
        await press("4", "2", "enter")
        await sides.rig.until(lambda: dialog.setup.seed == 42)
        await press("escape")
        await sides.rig.until(lambda: app.screen is sides.screen)
        await sides.ask("The capital?")
        await sides.answered()
        # One model, one engine: both take turns on the chat's.
        assert len(children(str(SCRIPTED_ENGINE))) == 1
        assert "seed 42  one after the other" in sides.line("title")
        assert "exact" in sides.columns[1].plain
        assert "seed 42" in sides.columns[0].plain
        assert "greedy" in sides.columns[1].plain


async def test_sides_swap_and_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        await sides.ask("The capital?")
        await sides.answered()
        seed = sides.screen.comparison.seed
        await sides.rig.pilot.press("f8")
        assert "The capital is [Perth.]" in sides.shown(0)
        assert " A  beta-GPTQ" in sides.columns[0].plain
        await sides.rig.pilot.press("ctrl+r")
        await sides.rig.until(lambda: sides.screen.comparison.seed != seed)
        await sides.answered()
        assert "The capital is [Perth.]" in sides.shown(0)
        assert sides.screen.comparison.sides[0].place == Place(4, "answer", 14, 25)


async def test_both_go_on_with_the_session_or_ask_its_last_question_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, SCRIPT) as rig:
        await rig.load("alpha")
        await rig.ask("The capital?")
        await rig.answered()
        await rig.ask("/compare beta")
        await rig.until(lambda: isinstance(rig.app.screen, CompareScreen))
        assert isinstance(rig.app.screen, CompareScreen)
        sides = Sides(rig, rig.app.screen)
        await rig.until(lambda: "after 2 messages" in sides.line("title"))
        await rig.pilot.press("ctrl+r")
        await sides.answered()
        assert "The capital is [Perth.]" in sides.shown(1)
        left = sides.screen.comparison.sides[0].session
        assert left is not None
        assert [message.role for message in left.branch()] == ["user", "assistant"]
        await sides.ask("The same")
        await rig.until(lambda: sides.screen.comparison.question and sides.screen.comparison.question.base)
        await sides.answered()
        left = sides.screen.comparison.sides[0].session
        assert left is not None
        assert [message.text for message in left.branch()][::2] == ["The capital?", "The same"]
        assert len(rig.chat.session.messages) == 2


async def test_the_columns_are_read_and_their_run_cards_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        await sides.ask("The capital?")
        await sides.answered()
        await sides.rig.pilot.press("tab", "tab")
        assert sides.screen.focused is sides.columns[1].answers
        await sides.rig.pilot.press("i")
        await sides.rig.until(lambda: isinstance(sides.rig.app.screen, CardScreen))
        card = sides.rig.app.screen
        await sides.rig.until(lambda: "Kernel" in str(card.query_one("#card", Static).content))
        assert "beta-GPTQ" in str(card.query_one("#card", Static).content)
        await sides.rig.pilot.press("escape", "q")
        await sides.rig.until(lambda: sides.rig.app.screen is sides.rig.chat)


async def test_a_difference_in_what_was_thought_is_unfolded_and_answers_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        await sides.ask("Please think")
        await sides.answered()
        assert "token 4 of its thinking: “three”" in sides.columns[0].plain
        assert "[three]" not in sides.shown(0)
        await sides.rig.pilot.press("ctrl+f")
        assert "So it is [three] ." in sides.shown(0)
        assert "So it is [two] ." in sides.shown(1)
        await sides.rig.pilot.press("tab", "y")
        await sides.rig.until(lambda: sides.rig.app.clipboard == "3", "the answer in the clipboard")


async def test_what_was_written_and_compared_is_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch) as sides:
        await sides.ask("The capital?")
        await sides.answered()
        await sides.rig.pilot.press("f8", "n", "e", "x", "t", "escape")
        await sides.rig.until(lambda: sides.rig.app.screen is sides.rig.chat)
        await sides.rig.ask("/compare")
        await sides.rig.until(lambda: isinstance(sides.rig.app.screen, CompareScreen))
        assert isinstance(sides.rig.app.screen, CompareScreen)
        again = Sides(sides.rig, sides.rig.app.screen)
        await sides.rig.until(lambda: "token 4" in again.columns[0].plain)
        assert again.screen.prompt.text == "next"
        assert "The capital is [Perth.]" in again.shown(0)
        assert " A  beta-GPTQ" in again.columns[0].plain


async def test_where_both_have_no_room_tab_shows_the_other_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with comparing(tmp_path, monkeypatch, size=(50, 14)) as sides:
        await sides.ask("The capital?")
        await sides.answered()
        assert [bool(column.region) for column in sides.columns] == [True, False]
        await sides.rig.pilot.press("tab")
        assert sides.screen.focused is sides.columns[0].answers
        await sides.rig.pilot.press("tab")
        await sides.rig.until(lambda: "token 4: “**Perth**.”" in sides.columns[1].plain)
        assert [bool(column.region) for column in sides.columns] == [False, True]
        assert "The capital is [Perth.]" in sides.shown(1)


async def test_without_any_model_nothing_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, SCRIPT) as rig:
        await rig.ask("/compare gamma")
        await rig.until(lambda: any("gamma" in note.message for note in rig.app._notifications))
        assert rig.app.screen is rig.chat
