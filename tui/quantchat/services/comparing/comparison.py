"""One prompt to two sides with the same seed, at once where both models fit, else one after the other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from quantchat.domain.attachments import Draft
from quantchat.domain.chat import Session, new_id
from quantchat.domain.divergence import Divergence
from quantchat.domain.generation import SamplingOverrides, SamplingSettings, TurnStatistics, resolve_sampling
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol as p
from quantchat.errors import LoadError, QuantchatError
from quantchat.services.background import in_background
from quantchat.services.comparing.room import Wanted, beside_the_chat, fit_at_once, too_big
from quantchat.services.comparing.sides import Change, Choice, Question, Side, Spoke, Watcher
from quantchat.services.comparing.voices import ChatVoice, OwnVoice, Voice
from quantchat.services.engine import EngineFactory
from quantchat.services.library import Library, LoadStatus
from quantchat.services.loads import KernelTrials, LoadOptions
from quantchat.services.memory import MemoryView
from quantchat.services.turns import Turn, run_card

SEEDS = 2**32
Key = tuple[str, str | None]
Learn = Callable[[ModelInfo, p.LoadReport, dict[str, str]], Awaitable[None]]


class Comparison:
    """Two sides and the engines that speak for them; engines stay loaded between questions, until `close`.

    A side whose model the chat's engine holds borrows that; other models get engine processes of their own. Sides of
    one model and kernel share an engine and take turns: answers that are computed in one batch are rounded otherwise.

    Args:
        look: Takes a look at the memory.
        options: What the user wants of every load.
        sampling: The user's own defaults.
        chat: The chat's engine; None without a chat.
        learn: Keeps what a load came to, which corrects later predictions.

    Attributes:
        sides: Left and right; empty until both are chosen.
        divergence: Where the answers part.
        one_by_one: Never let both answer at once, so that each has the machine to itself.
        together: Whether both answered at once, or do so now.
        seed: Of the last question.
        draft: What was written for the next one and not asked.
        watch: Told of every change.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[MemoryView]],
        options: LoadOptions,
        *,
        sampling: SamplingOverrides | None = None,
        chat: Library | None = None,
        learn: Learn | None = None,
        engine_factory: EngineFactory | None = None,
    ) -> None:
        self._look, self._options = look, options
        self._sampling = sampling or SamplingOverrides()
        self._library = chat
        self._chat = ChatVoice(chat) if chat is not None else None
        self._engine_factory, self._learn = engine_factory, learn
        self._trials = KernelTrials()
        self._own: dict[Key, OwnVoice] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._stopped = False
        self.sides: tuple[Side, Side] | tuple[()] = ()
        self.divergence = Divergence()
        self.one_by_one = self.together = False
        self.question: Question | None = None
        self.seed = 0
        self.draft = Draft()
        self.watch: Watcher = lambda _change: None

    # What the user does

    def choose(self, left: Choice, right: Choice) -> None:
        """Say what answers; what was said before goes."""
        self.sides = Side(0, left), Side(1, right)
        self.divergence, self.question = Divergence(), None

    def swap(self) -> None:
        """Let the sides change places, also while they answer."""
        if self.sides:
            left, right = self.sides
            self.sides = right, left

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._asking is not None

    async def ask(self, question: Question) -> None:
        """Ask both sides, and return when both are over; what fails is told on its side."""
        if self.busy or not self.sides:
            return
        self._asking = asyncio.ensure_future(self._ask(question))
        try:
            await self._asking
        finally:
            self._asking = None
            self._tell()

    def stop(self) -> None:
        """End both answers; what they said stands. A load is broken off."""
        self._stopped = True
        for side in self.sides:
            if side.stage == "answering" and side.turn is not None and side.voice is not None:
                side.turn.stage = "stopping"
                side.voice.stop(side.turn.id)
            elif side.track in self._answering:
                self._answering[side.track].cancel()

    async def close(self) -> None:
        """Stop, and give all memory back; what was said stays."""
        self._stopped = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await self._drop(*self._own)

    def on_chat_event(self, event: p.Event | p.EngineExited) -> None:
        """Hear what the chat's engine says."""
        if self._chat is not None:
            self._chat.on_event(event)

    def keep(self, side: Side) -> Session | None:
        """Return the conversation of a side, to be kept as a session; None if nothing was said there."""
        said = side.answer is not None and bool(side.answer.text)
        return side.session if said and not side.busy else None

    # A question

    async def _ask(self, question: Question) -> None:
        self.question, self._stopped = question, False
        self.seed = secrets.randbelow(SEEDS) if question.seed is None else question.seed
        self.divergence = Divergence()
        for side in self.sides:
            side.begin(question)
        self.together = False
        self._tell()
        try:
            await self._give_voices()
            self.together = await self._fit_at_once()
            if self.together:
                await asyncio.gather(*map(self._answer, self.sides))
            else:
                for side in sorted(self.sides, key=_unloaded):
                    await self._answer(side)
        except asyncio.CancelledError:
            for side in self.sides:
                self._break_off(side)
            raise

    async def _give_voices(self) -> None:
        """Give each side an engine, and end those that nobody needs any more."""
        voices = {side.track: self._voice(side.choice) for side in self.sides}
        for side in self.sides:
            side.voice = voices[side.track]
        needed = [id(voice) for voice in voices.values()]
        await self._drop(*(key for key, voice in self._own.items() if id(voice) not in needed))

    def _voice(self, choice: Choice) -> Voice:
        wish = choice.kernel or self._options.kernel
        if self._chat is not None and self._chat.serves(choice.model, choice.kernel):
            return self._chat
        key = choice.model.path, wish
        if key not in self._own:
            options = msgspec.structs.replace(self._options, kernel=wish)
            trials = self._library.trials if self._library is not None else self._trials.beside()
            self._own[key] = OwnVoice(choice.model, options, self._engine_factory, trials)
        return self._own[key]

    async def _drop(self, *keys: Key) -> None:
        voices = [self._own.pop(key) for key in keys]
        await asyncio.gather(*(voice.close() for voice in voices))

    async def _fit_at_once(self) -> bool:
        left, right = (side.voice for side in self.sides)
        if self.one_by_one or left is right:
            return False
        wanted = [_wanted(voice) for voice in (left, right) if isinstance(voice, OwnVoice) and voice.report is None]
        return not wanted or await in_background(fit_at_once, wanted, await self._view())

    async def _view(self) -> MemoryView:
        return beside_the_chat(await self._look())

    # A side

    async def _answer(self, side: Side) -> None:
        """Let a side load and answer; whatever happens to it stays its own."""
        if self._stopped:
            self._break_off(side)
            return
        task = self._answering[side.track] = asyncio.ensure_future(self._speak(side))
        try:
            await task
        except asyncio.CancelledError:
            if (own := asyncio.current_task()) is not None and own.cancelling():
                raise
            self._break_off(side)
            if side.voice is not None:
                await side.voice.close(now=True)
        except QuantchatError as error:
            side.end("error", side.turn.statistics() if side.turn else TurnStatistics(), error.report)
        finally:
            del self._answering[side.track]
            self.divergence.end(side.track, whole=_is_whole(side), tokens=_tokens(side))
            self._place()
            self._tell(side)

    def _break_off(self, side: Side) -> None:
        if side.busy:
            side.end("stopped", side.turn.statistics() if side.turn else TurnStatistics())
            self._tell(side)

    async def _speak(self, side: Side) -> None:
        voice = side.voice
        assert voice is not None
        if voice.report is None:
            await self._load(side, voice)
        await self._generate(side, voice)

    async def _load(self, side: Side, voice: Voice) -> None:
        side.stage = "loading"
        self._tell(side)
        if isinstance(voice, OwnVoice) and not self.together:
            await self._make_room(side, voice)
        await voice.load(partial(self._on_load, side))
        side.loading = None
        if self._learn is not None and voice.report is not None:
            await self._learn(side.choice.model, voice.report, dict(voice.versions))
        side.notes = list(voice.report.warnings) if voice.report is not None else []

    async def _make_room(self, side: Side, voice: OwnVoice) -> None:
        """End the other side's engine if both do not fit.

        Raises:
            LoadError: if the model does not even fit alone.
        """
        # They keep their places: the next question loads them again.
        others = [other for other in self._own.values() if other is not voice and other.report is not None]
        if others and not await in_background(fit_at_once, [_wanted(voice)], await self._view()):
            side.unloading = ", ".join(other.model.name for other in others)
            self._tell(side)
            await asyncio.gather(*(other.close() for other in others))
            side.unloading = ""
        chat = self._library.model.name if self._library is not None and self._library.model is not None else ""
        report = await in_background(too_big, _wanted(voice), await self._view(), chat)
        if report is not None:
            raise LoadError.from_report(report)

    def _on_load(self, side: Side, status: LoadStatus) -> None:
        side.loading = status
        self._tell(side)

    async def _generate(self, side: Side, voice: Voice) -> None:
        session = side.session
        assert session is not None
        messages, sampling = session.prompt(), self._sampling_of(side)
        answer = side.answer = session.append("assistant", "")
        answer.run = run_card(side.choice.model, voice.report, voice.versions, sampling)
        side.turn = turn = Turn(id=new_id(), session=session, message=answer)
        side.stage = "answering"
        self._tell(side)
        command = p.Generate(turn=turn.id, messages=messages, sampling=sampling, template=session.template, apart=True)
        end = await voice.generate(command, partial(self._hear, side, turn))
        if isinstance(end, p.Failed):
            side.end("error", turn.statistics(), end.error)
        else:
            side.end(end.reason, end.statistics)

    def _sampling_of(self, side: Side) -> SamplingSettings:
        return resolve_sampling(SamplingOverrides(seed=self.seed), side.choice.sampling, self._sampling)

    def _hear(self, side: Side, turn: Turn, event: p.Event | p.EngineExited) -> None:
        match event:
            case p.Prefill():
                turn.read(event.done, event.total, event.reused, event.dropped)
                self._tell(side)
            case p.Delta():
                turn.take(event.text, event.tokens, event.channel)
                self.divergence.add(side.track, event.channel, event.text, event.tokens)
                self._place()
                self.watch(Spoke(side=side.track, message=turn.message.id, text=event.text, channel=event.channel))

    def _place(self) -> None:
        if self.divergence.found is not None:
            for side in self.sides:
                side.place = self.divergence.found[side.track]

    def _tell(self, *sides: Side) -> None:
        for side in sides or self.sides:
            self.watch(Change(side=side.track))


def _wanted(voice: OwnVoice) -> Wanted:
    return voice.model, voice.options


def _unloaded(side: Side) -> bool:
    """Whether a side has to load first; the others answer before."""
    return side.voice is None or side.voice.report is None


def _is_whole(side: Side) -> bool:
    return side.answer is not None and side.answer.finish == "stop"


def _tokens(side: Side) -> int:
    cost = side.answer.statistics if side.answer is not None else None
    return cost.new_tokens if cost is not None else 0
