"""The prompt by itself: keys, pastes, tokens, composed characters, recall."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from quantchat.domain.attachments import Attachment, Draft
from quantchat.services.recall import Walk
from quantchat.store.history import Entry
from quantchat.ui.widgets.prompt import FOLD_CHARACTERS, FOLD_LINES, Prompt
from ui.rig import SIZES

LONG = "\n".join(f"line {number}\tend" for number in range(314))


class PromptApp(App[None]):
    def __init__(self, *earlier: Draft) -> None:
        super().__init__()
        self.sent: list[Draft] = []
        self.earlier = [Entry.of(draft) for draft in earlier]

    def compose(self) -> ComposeResult:
        yield Prompt(placeholder="Ask anything", id="prompt")

    def on_mount(self) -> None:
        self.query_one(Prompt).begin_recall = lambda: Walk(self.earlier)

    def on_prompt_submitted(self, message: Prompt.Submitted) -> None:
        self.sent.append(message.draft)


def prompt_of(pilot: Pilot[None]) -> Prompt:
    return pilot.app.query_one(Prompt)


async def paste(pilot: Pilot[None], text: str) -> Prompt:
    prompt_of(pilot).post_message(events.Paste(text))
    await pilot.pause()
    return prompt_of(pilot)


async def test_enter_sends_and_leaves_the_text_to_the_owner() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("hello\nthere")
        await pilot.press("enter")
        assert app.sent == [Draft("hello\nthere")]
        assert prompt_of(pilot).text == "hello\nthere"


async def test_an_empty_prompt_is_not_sent() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("  \n ")
        await pilot.press("enter")
        assert app.sent == []


@pytest.mark.parametrize("key", ["ctrl+j", "shift+enter", "shift+\r"])
async def test_new_line_keys(key: str) -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("ab")
        await pilot.press(key, "c")
        assert prompt_of(pilot).text == "ab\nc"
        assert app.sent == []


@pytest.mark.parametrize(("lines", "height"), [(1, 3), (4, 6), (8, 10), (30, 10)])
@pytest.mark.parametrize("size", SIZES)
async def test_the_prompt_grows_to_eight_lines(lines: int, height: int, size: tuple[int, int]) -> None:
    app = PromptApp()
    async with app.run_test(size=size) as pilot:
        prompt_of(pilot).load("\n".join("x" * lines))
        await pilot.pause()
        assert prompt_of(pilot).size.height + 2 == height


async def test_the_placeholder_shows() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await pilot.pause()
        assert "Ask anything" in "".join(strip.text for strip in app.screen._compositor.render_strips())


async def _send(pilot: Pilot[None]) -> None:
    await pilot.press("enter", "ctrl+j", "x", "up")
    await paste(pilot, "pasted")


@pytest.mark.parametrize(
    "block", [lambda prompt: setattr(prompt, "read_only", True), lambda prompt: setattr(prompt, "disabled", True)]
)
async def test_a_read_only_or_disabled_prompt_does_nothing(block: Callable[[Prompt], None]) -> None:
    app = PromptApp(Draft("earlier"))
    async with app.run_test() as pilot:
        prompt_of(pilot).load("waiting")
        block(prompt_of(pilot))
        await _send(pilot)
        assert app.sent == []
        assert prompt_of(pilot).text == "waiting"


# Pastes


async def test_a_paste_loses_only_control_characters() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = await paste(pilot, "\ta\x1b[31mb\r\nc\x9b\x00\x07 ❤\ufe0f \u202ex\u202c")
        assert prompt.text == "\ta[31mb\nc ❤\ufe0f \u202ex\u202c"


async def test_what_a_terminal_would_obey_stays_off_the_screen() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load_draft(Draft("a\tb ❤\ufe0f \u202ec"))
        await pilot.pause()
        shown = "".join(strip.text for strip in app.screen._compositor.render_strips())
        assert "a   b ❤ c" in shown
        assert not {"\t", "\ufe0f", "\u202e"} & set(shown)


async def test_a_small_paste_can_be_edited() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = await paste(pilot, "x\n" * FOLD_LINES)
        assert prompt.text == "x\n" * FOLD_LINES
        assert not prompt.draft.attachments


@pytest.mark.parametrize("size", SIZES)
async def test_a_large_paste_becomes_a_token(size: tuple[int, int]) -> None:
    app = PromptApp()
    async with app.run_test(size=size) as pilot:
        await pilot.press(*"Fix ")
        prompt = await paste(pilot, LONG.replace("\n", "\r"))
        assert prompt.text == "Fix [paste 1: 314 lines]"
        await pilot.press("enter")
        assert app.sent[0].expanded() == f"Fix\n[paste 1: 314 lines]\n```\n{LONG}\n```"


async def test_a_long_line_becomes_a_token_and_numbers_go_on() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await paste(pilot, "x" * (FOLD_CHARACTERS + 1))
        prompt = await paste(pilot, LONG)
        assert prompt.text == "[paste 1: 2001 characters][paste 2: 314 lines]"
        assert [attachment.text for attachment in prompt.draft.attachments] == ["x" * 2001, LONG]


@pytest.mark.parametrize("key", ["backspace", "ctrl+w", "ctrl+u"])
async def test_deleting_a_part_of_a_token_deletes_it(key: str) -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = await paste(pilot, LONG)
        await pilot.press(key)
        assert prompt.text == ""
        assert not prompt.draft.attachments
        await pilot.press("ctrl+z")
        assert [attachment.text for attachment in prompt.draft.attachments] == [LONG]


async def test_delete_in_front_of_a_token_takes_it_whole() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await pilot.press("a")
        prompt = await paste(pilot, LONG)
        await pilot.press("b", "left", "left", "delete")
        assert prompt.text == "ab"


async def test_nothing_can_be_typed_into_a_token() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = await paste(pilot, LONG)
        prompt.move_cursor((0, 5))
        await pilot.press("x")
        assert prompt.text == "[paste 1: 314 lines]x"
        prompt.move_cursor((0, 5))
        await paste(pilot, "yz")
        assert prompt.text == "[paste 1: 314 lines]yzx"


async def test_the_cursor_steps_over_a_token() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = await paste(pilot, LONG)
        await pilot.press("left")
        assert prompt.cursor_location == (0, 0)
        await pilot.press("right")
        assert prompt.cursor_location == (0, len("[paste 1: 314 lines]"))


async def test_the_programs_own_clipboard_is_pasted_like_any_other() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        app.copy_to_clipboard(LONG)
        await pilot.press("ctrl+v")
        assert prompt_of(pilot).text == "[paste 1: 314 lines]"


async def test_keys_cost_the_same_beside_a_megabyte() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = prompt_of(pilot)
        before = await _cost(prompt)
        prompt.load("")
        await paste(pilot, "word " * 200_000)
        assert len(prompt.draft.attachments[0].text) == 1_000_000
        assert await _cost(prompt) < before * 3


async def _cost(prompt: Prompt) -> float:
    spent = []
    for _ in range(30):
        start = time.perf_counter()
        await prompt._on_key(events.Key("x", "x"))
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


async def test_loading_a_sent_text_folds_its_attachments() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        sent = Draft("Fix [paste 1: 314 lines]", (Attachment(number=1, text=LONG),)).expanded()
        prompt_of(pilot).load(sent)
        assert prompt_of(pilot).text == "Fix\n[paste 1: 314 lines]"
        assert prompt_of(pilot).draft.expanded() == sent


# Composed characters


@pytest.mark.parametrize("text", ["e\u0301", "👨\u200d👩\u200d👧", "क्\u200cष", "한국어", "❤\ufe0f"])
async def test_composed_characters_arrive_as_several_keys(text: str) -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        for character in text:
            prompt_of(pilot).post_message(events.Key(f"u{ord(character):x}", character))
        await pilot.pause()
        assert prompt_of(pilot).text == text


async def test_keys_of_one_packet_keep_their_order() -> None:
    app = PromptApp(Draft("earlier"))
    async with app.run_test() as pilot:
        for key in ("a", "b", "backspace", "c", "left", "x", "end", "y", "ctrl+w", "up", "z"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        assert prompt_of(pilot).text == "earlierz"


async def test_a_lone_modifier_types_nothing() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await pilot.press("left_shift", "left_control")
        assert prompt_of(pilot).text == ""


# Earlier prompts


@pytest.mark.parametrize("size", SIZES)
async def test_up_goes_back_and_down_forward_to_the_empty_prompt(size: tuple[int, int]) -> None:
    app = PromptApp(Draft("new"), Draft("old\nlines"), Draft("oldest"))
    seen = []
    async with app.run_test(size=size) as pilot:
        for key in ("up", "up", "up", "up", "up", "down", "down", "down", "down"):
            await pilot.press(key)
            seen.append(prompt_of(pilot).text)
    assert seen == ["new", "old\nlines", "old\nlines", "oldest", "oldest", "old\nlines", "new", "", ""]


async def test_an_edited_prompt_is_kept() -> None:
    app = PromptApp(Draft("new"), Draft("old"))
    async with app.run_test() as pilot:
        await pilot.press("up", "!", "up", "up", "down")
        assert prompt_of(pilot).text == "new!"


async def test_up_in_a_written_prompt_only_moves() -> None:
    app = PromptApp(Draft("earlier"))
    async with app.run_test() as pilot:
        prompt_of(pilot).load("one\ntwo")
        await pilot.press("up")
        assert prompt_of(pilot).cursor_location[0] == 0
        await pilot.press("up")
        assert prompt_of(pilot).text == "one\ntwo"


@pytest.mark.parametrize("other", ["", "[paste 1: 314 lines]"])
async def test_a_token_that_was_cut_still_stands_for_its_text_in_another_draft(other: str) -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = await paste(pilot, LONG)
        await pilot.press("a", "b", "ctrl+a", "ctrl+x")
        theirs = Attachment(number=1, text=LONG.replace("end", "other"))
        prompt.load_draft(Draft(other, (theirs,) if other else ()))
        await pilot.press("ctrl+v")
        assert [held.text for held in prompt.draft.attachments] == ([theirs.text, LONG] if other else [LONG])
        assert prompt.text == (f"{other}[paste 2: 314 lines]ab" if other else "[paste 1: 314 lines]ab")


async def test_a_recalled_prompt_has_its_attachments() -> None:
    paste_ = Attachment(number=1, text=LONG)
    app = PromptApp(Draft(f"Why? {paste_.token}", (paste_,)))
    async with app.run_test() as pilot:
        await pilot.press("up", "enter")
        assert app.sent == [Draft(f"Why? {paste_.token}", (paste_,))]


async def test_a_wrapped_line_is_walked_before_going_back() -> None:
    app = PromptApp(Draft("word " * 40), Draft("old"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("up", "up")
        assert prompt_of(pilot).text == "word " * 40
        await pilot.press("up", "up")
        assert prompt_of(pilot).text == "old"


@pytest.mark.parametrize("seed", range(5))
async def test_no_edit_leaves_a_piece_of_a_token(seed: int) -> None:
    chance = random.Random(seed)
    edits = [
        "delete_left",
        "delete_right",
        "delete_word_left",
        "delete_word_right",
        "delete_line",
        "undo",
        "redo",
        "cut",
    ]
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt = prompt_of(pilot)
        for step in range(150):
            row = chance.randrange(prompt.document.line_count)
            prompt.move_cursor(
                (row, chance.randint(0, len(prompt.document.get_line(row)))), select=chance.random() < 0.3
            )
            act = chance.choice([*edits, "type", "attach", "new_line"])
            if act == "attach":
                prompt.paste(f"paste of step {step}\n" * 30)
            elif act == "type":
                prompt.paste("word ")
            else:
                await prompt.run_action(act)
            whole = sum(prompt.text.count(attachment.token) for attachment in prompt.draft.attachments)
            assert prompt.text.count("[paste") == prompt.text.count("lines]") == whole, (act, prompt.text)


async def test_undo_of_lines_beyond_the_scrollbar_survives() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await pilot.press(*["ctrl+j"] * 12)
        await pilot.pause()
        for _ in range(12):
            await pilot.press("ctrl+z")
        assert prompt_of(pilot).text == ""
