"""Two sides over scripted engines: at once or in turn, stopped, failed, borrowed from the chat, kept."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from quantchat.catalog.reader import read_model
from quantchat.domain.backends import OWN, EngineSpec
from quantchat.domain.chat import Session
from quantchat.domain.divergence import Place
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.loading import KernelRefusal
from quantchat.domain.memory import GIB
from quantchat.domain.models import ModelInfo
from quantchat.engine.protocol import LoadReport
from quantchat.hardware.gpu import NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.comparing import Change, Choice, Comparison, Question, Side, Spoke
from quantchat.services.engine import EventHandler, default_engine
from quantchat.services.fit import forecast
from quantchat.services.library import Library, Phase
from quantchat.services.loads import KernelTrials, LoadOptions
from quantchat.services.memory import MemoryView
from unit.catalog.model_folders import make_gptq

ANSWERS: list[dict[str, object]] = [
    {"match": "slow", "text": "word " * 400, "tokens_per_second": 50},
    {"match": "capital", "text": "The capital is Paris .", "tokens_per_second": 400},
]
PATIENCE = 20.0


class Lab:
    """Two model folders, scripted engines, and a comparison that is told how much memory there is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models = []
        for name in ("alpha", "beta"):
            make_gptq(folder / name)
            self.models.append(read_model(folder / name))
        self.free, self.need = 64 * GIB, 0
        self.changes: list[Change] = []
        self.started = 0
        self.learnt: list[tuple[str, str, bool]] = []
        self._script = folder / "script.json"
        self.script()
        monkeypatch.setenv("QUANTCHAT_HOME", str(folder))
        monkeypatch.setenv("QUANTCHAT_ENGINE_COMMAND", shlex.join([sys.executable, str(SCRIPTED_ENGINE)]))
        monkeypatch.setenv("QUANTCHAT_SCRIPT", str(self._script))
        self.comparison = self.make()

    def script(self, **script: object) -> None:
        self._script.write_text(json.dumps({"answers": ANSWERS, **script}))

    def make(self, chat: Library | None = None) -> Comparison:
        made = Comparison(
            self.look, LoadOptions(device="cpu"), chat=chat, learn=self._learn, engine_factory=self._engine
        )
        made.watch = self.changes.append
        return made

    def _engine(self, on_event: EventHandler, spec: EngineSpec = OWN):
        self.started += 1
        return default_engine(on_event, spec)

    async def look(self) -> MemoryView:
        """Memory from which each engine takes as much as a model needs."""
        free = self.free - len(children(str(SCRIPTED_ENGINE))) * self.need
        host = HostMemory(total=64 * GIB, available=free, used=0)
        return MemoryView(gpus=NotAvailable("none"), host=host)

    async def _learn(self, model: ModelInfo, report: LoadReport, versions: dict[str, str]) -> None:
        self.learnt.append((model.name, report.path, "torch" in versions))

    def choose(self, left: dict[str, object] | None = None, right: dict[str, object] | None = None) -> None:
        pairs = zip(self.models, (left or {}, right or {}), strict=True)
        self.comparison.choose(*(Choice(**{"model": model, **more}) for model, more in pairs))

    async def ask(self, prompt: str = "The capital?", **more: object) -> tuple[Side, Side]:
        await self.comparison.ask(Question(prompt=prompt, **more))
        assert self.comparison.sides
        return self.comparison.sides

    async def until(self, test: Callable[[], object]) -> None:
        end = asyncio.get_running_loop().time() + PATIENCE
        while not test():
            assert asyncio.get_running_loop().time() < end, "waited in vain"
            await asyncio.sleep(0.01)

    def stages(self) -> list[str]:
        return [side.stage for side in self.comparison.sides]


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lab = Lab(tmp_path, monkeypatch)
    yield lab
    await lab.comparison.close()
    assert not children(str(SCRIPTED_ENGINE))


def texts(sides: tuple[Side, Side]) -> list[str]:
    return [side.answer.text if side.answer else "" for side in sides]


async def test_both_sides_answer_the_same_prompt_with_the_same_seed(lab: Lab) -> None:
    lab.choose()
    sides = await lab.ask(system_prompt="Be brief.")
    assert texts(sides) == ["The capital is Paris ."] * 2
    assert lab.comparison.divergence.verdict == "equal"
    assert lab.comparison.together
    assert sorted(lab.learnt) == [(model.name, model.path, True) for model in lab.models]
    costs = [side.answer.statistics for side in sides if side.answer]
    assert {cost.seed for cost in costs if cost} == {lab.comparison.seed}
    assert [side.answer.run.model for side in sides if side.answer and side.answer.run] == ["alpha", "beta"]
    assert all(side.session and side.session.system_prompt == "Be brief." for side in sides)


async def test_the_first_differing_token_is_found_on_both_sides(lab: Lab) -> None:
    lab.script(answers=[{"model": "beta", "text": "The capital is now Paris ."}, *ANSWERS])
    lab.choose()
    left, right = await lab.ask()
    assert lab.comparison.divergence.verdict == "differs"
    assert (left.place, right.place) == (Place(4, "answer", 14, 20), Place(4, "answer", 14, 18))


async def test_an_answer_that_was_cut_is_the_same_as_far_as_it_goes(lab: Lab) -> None:
    lab.choose(right={"sampling": SamplingOverrides(max_new_tokens=3)})
    left, right = await lab.ask()
    assert right.answer is not None
    assert right.answer.finish == "length"
    assert (lab.comparison.divergence.verdict, left.place, right.place) == ("cut", None, None)


async def test_both_go_on_with_what_was_said_before(lab: Lab) -> None:
    lab.script(answers=[])
    lab.choose()
    base = Session.new()
    base.append("user", "x")
    base.append("assistant", "y").finish = "stop"
    base.append("user", "not answered yet")
    for side in await lab.ask("the words", base=base):
        assert side.session is not None
        assert [message.text for message in side.session.branch()] == ["x", "y", "the words", "You said: the words"]
        assert side.answer is not None
        assert side.answer.statistics is not None
        assert side.answer.statistics.prompt_tokens > 8
    assert len(base.messages) == 3


async def test_streamed_text_comes_token_by_token_from_each_side(lab: Lab) -> None:
    lab.choose()
    sides = await lab.ask()
    for side in sides:
        said = [change.text for change in lab.changes if isinstance(change, Spoke) and change.side == side.track]
        assert said == ["The", " capital", " is", " Paris", " ."]


async def test_without_room_for_both_the_first_is_gone_before_the_second_loads(lab: Lab) -> None:
    lab.choose()
    engines: set[int] = set()
    lab.comparison.watch = lambda _change: engines.add(len(children(str(SCRIPTED_ENGINE))))
    found = forecast(lab.models[0], await lab.look(), LoadOptions(device="cpu")).prediction
    assert found is not None
    lab.need = found.needed
    lab.free = int(1.5 * found.needed)
    sides = await lab.ask()
    assert texts(sides) == ["The capital is Paris ."] * 2
    assert not lab.comparison.together
    assert lab.comparison.divergence.verdict == "equal"
    assert max(engines) == 1
    # The side that is loaded answers first the next time.
    lab.comparison.watch = lab.changes.append
    await lab.ask()
    assert [change.side for change in lab.changes if isinstance(change, Spoke)] == [1] * 5 + [0] * 5


async def test_a_model_that_finds_no_room_fails_alone_and_says_what_to_do(lab: Lab) -> None:
    lab.choose()
    lab.free = 1 << 20
    sides = await lab.ask()
    assert lab.stages() == ["failed", "failed"]
    for side in sides:
        assert side.error is not None
        assert "finds no room" in side.error.title
        assert "free" in side.error.detail
    assert lab.started == 0


async def test_stop_ends_both_and_keeps_what_they_said(lab: Lab) -> None:
    lab.choose()
    asking = asyncio.ensure_future(lab.ask("be slow"))
    await lab.until(lambda: all(side.turn and side.turn.tokens > 3 for side in lab.comparison.sides))
    lab.comparison.stop()
    sides = await asyncio.wait_for(asking, PATIENCE)
    assert lab.stages() == ["stopped", "stopped"]
    assert all(text.startswith("word word word") for text in texts(sides))
    assert lab.comparison.divergence.verdict == "cut"
    # The engines are still there, so that the next question is answered at once.
    started = lab.started
    assert texts(await lab.ask()) == ["The capital is Paris ."] * 2
    assert lab.started == started


async def test_stop_breaks_a_load_off(lab: Lab) -> None:
    lab.script(load={"seconds": 30})
    lab.choose()
    asking = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: all(side.loading for side in lab.comparison.sides))
    lab.comparison.stop()
    await asyncio.wait_for(asking, PATIENCE)
    assert lab.stages() == ["stopped", "stopped"]
    assert not children(str(SCRIPTED_ENGINE))


async def test_a_side_that_fails_leaves_the_other_alone(lab: Lab) -> None:
    lab.choose(right={"model": lab.models[0], "kernel": "torch_aten"})
    lab.script(answers=[{"match": None, "text": "one two three", "crash_after_tokens": 2}])
    broken = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: all(side.stage not in ("", "waiting") for side in lab.comparison.sides))
    sides = await asyncio.wait_for(broken, PATIENCE)
    assert lab.stages() == ["failed", "failed"]
    for side in sides:
        assert side.answer is not None
        assert side.answer.text == "one two"
        assert side.error is not None
        assert side.error.code == "engine-gone"
    lab.script()
    assert texts(await lab.ask()) == ["The capital is Paris ."] * 2


async def test_two_settings_of_one_model_share_an_engine_and_take_turns(lab: Lab) -> None:
    alpha = lab.models[0]
    lab.comparison.choose(
        Choice(model=alpha, preset="exact", sampling=SamplingOverrides(temperature=0)), Choice(model=alpha)
    )
    left, right = await lab.ask()
    assert lab.started == 1
    assert not lab.comparison.together
    runs = [side.answer.run for side in (left, right) if side.answer]
    assert [run.sampling.temperature for run in runs if run and run.sampling] == [0, 0.7]


def test_kernels_that_failed_are_known_to_engines_side_by_side(lab: Lab) -> None:
    trials, model = KernelTrials(), lab.models[0]
    beside = trials.beside()
    trials.note(KernelRefusal("gptq_marlin", "cannot be built"), build=True)
    beside.note(KernelRefusal("gptq_triton", "fails at the first token"))
    beside.loaded(model)
    for known in (trials, beside):
        assert {refusal.kernel for refusal in known.failed(model)} == {"gptq_marlin", "gptq_triton"}


async def test_a_wished_order_is_kept_and_swapping_changes_places_only(lab: Lab) -> None:
    lab.choose()
    lab.comparison.one_by_one = True
    left, right = await lab.ask()
    assert not lab.comparison.together
    ends = [change.side for change in lab.changes if isinstance(change, Spoke)]
    assert ends == [0] * 5 + [1] * 5
    lab.comparison.swap()
    assert lab.comparison.sides == (right, left)


async def test_what_a_side_said_can_be_kept_as_a_session(lab: Lab) -> None:
    lab.choose(left={"preset": "exact", "sampling": SamplingOverrides(temperature=0)})
    left, _ = await lab.ask()
    session = lab.comparison.keep(left)
    assert session is not None
    assert [message.role for message in session.branch()] == ["user", "assistant"]
    assert (session.preset, session.model) == ("exact", lab.models[0].path)
    assert session.sampling == SamplingOverrides(temperature=0)
    other = Comparison(lab.look, LoadOptions())
    other.choose(Choice(model=lab.models[0]), Choice(model=lab.models[1]))
    assert other.sides
    assert other.keep(other.sides[0]) is None


async def test_the_chats_engine_is_borrowed_where_it_holds_the_model(lab: Lab) -> None:
    chat = Library(lambda _fact: None, options=LoadOptions(device="cpu"), engine_factory=lab._engine)
    try:
        comparison = lab.comparison = lab.make(chat)
        chat.on_turn_event = comparison.on_chat_event
        await chat.load(lab.models[0])
        await lab.until(lambda: chat.phase is Phase.LOADED)
        lab.choose()
        pid, before = chat.engine_pid, lab.started
        sides = await lab.ask()
        assert texts(sides) == ["The capital is Paris ."] * 2
        assert lab.started == before + 1
        assert [side.voice.borrowed for side in sides if side.voice] == [True, False]
        await comparison.close()
        assert (chat.engine_pid, chat.phase) == (pid, Phase.LOADED)
        asking = asyncio.ensure_future(lab.ask("be slow"))
        await lab.until(lambda: all(side.turn and side.turn.tokens > 3 for side in comparison.sides))
        await chat.unload()
        await lab.until(lambda: comparison.sides[0].stage == "failed")
        assert comparison.sides[1].stage == "answering"
        comparison.stop()
        await asking
    finally:
        await chat.close(0)
