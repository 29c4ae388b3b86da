"""A conversation with one model, question by question, for a program without a screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from quantchat.domain.chat import new_id
from quantchat.domain.generation import FinishReason, SamplingOverrides, TurnStatistics, resolve_sampling
from quantchat.domain.models import ModelInfo
from quantchat.domain.thinking import Channel
from quantchat.engine import protocol as p
from quantchat.engine.protocol import EngineExited
from quantchat.errors import EngineError, EngineGone, ErrorReport, GenerationError
from quantchat.services.headless import Headless, OnLoad, require_loadable
from quantchat.services.history import History

OnText = Callable[[Channel, str], None]
OnReport = Callable[[ErrorReport], None]

TOLD = frozenset({EngineGone.code, "load-warning"})


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer.

    Attributes:
        dropped: Messages, oldest first, that found no room in the context window.
    """

    text: str
    thinking: str
    finish_reason: FinishReason
    statistics: TurnStatistics
    dropped: int = 0


@dataclass
class _Speech:
    """An answer as it comes."""

    hear: OnText
    said: dict[Channel, list[str]] = field(default_factory=lambda: {"answer": [], "thinking": []})
    dropped: int = 0

    def take(self, event: p.Event | EngineExited) -> None:
        match event:
            case p.Prefill():
                self.dropped = event.dropped
            case p.Delta():
                self.said[event.channel].append(event.text)
                self.hear(event.channel, event.text)
            case _:
                return

    def text(self, channel: Channel = "answer") -> str:
        return "".join(self.said[channel])


class LineChat:
    """Asks a model and keeps what was said.

    A question stands in the history as soon as it is asked, an answer, or as much of it as there is, when it ends,
    however it ends. Only a question that the engine would not answer at all is taken out again.

    Args:
        engine: Without a model yet, or with this one.
        model: What answers.
        history: Is gone on with.
        layers: Of sampling, the most specific first; below them stands what the model recommends.
        template: A Jinja chat template in place of the model's own; empty for that.
    """

    def __init__(
        self,
        engine: Headless,
        model: ModelInfo,
        history: History,
        *,
        layers: tuple[SamplingOverrides, ...] = (),
        template: str = "",
    ) -> None:
        self._engine, self._model, self._layers, self._template = engine, model, layers, template
        self._session = new_id()
        self._turn = ""
        self.history = history

    def watch(self, on_note: OnReport) -> None:
        """Hear of warnings while they come, but for those that `load` and `answer` tell of."""
        self._engine.on_note = lambda report: None if report.code in TOLD else on_note(report)

    async def load(self, on_load: OnLoad) -> p.LoadReport | None:
        """Load the model; None if it is there, as it is except at first and after the end of an engine.

        Raises:
            QuantchatError: if it does not load.
        """
        if self._engine.report is not None:
            return None
        require_loadable(self._model)
        return await self._engine.load(self._model, on_load)

    def put(self, question: str) -> None:
        """Put a question at the end of the history, unless the very same stands there without an answer."""
        if self.history.open_question != question:
            self.history.add("user", question)

    async def answer(self, on_text: OnText) -> Reply:
        """Answer the question at the end of the history.

        Raises:
            GenerationError: if it failed.
            EngineError: if the engine died.
        """
        speech = _Speech(on_text)
        command = self._command()
        self._turn = command.turn
        refused = False
        try:
            event = await self._engine.generate(command, speech.take)
            if isinstance(event, p.Failed):
                raise GenerationError.from_report(event.error)
        except GenerationError:
            refused = True
            raise
        finally:
            self._turn = ""
            self._keep(speech.text(), refused)
        return Reply(
            text=speech.text(),
            thinking=speech.text("thinking"),
            finish_reason=event.reason,
            statistics=event.statistics,
            dropped=speech.dropped,
        )

    def _command(self) -> p.Generate:
        report = self._engine.report
        recommended = report.recommended if report is not None else SamplingOverrides()
        return p.Generate(
            turn=new_id(),
            messages=list(self.history.messages),
            sampling=resolve_sampling(*self._layers, recommended),
            session=self._session,
            template=self._template,
        )

    def _keep(self, text: str, refused: bool) -> None:
        if text:
            self.history.add("assistant", text)
        elif refused:
            self.history.take_back()

    def stop(self) -> bool:
        """End the answer that is being written, and keep what there is of it; false if none is."""
        if not self._turn:
            return False
        # A dead engine ends it, too.
        with contextlib.suppress(EngineError):
            self._engine.stop(self._turn)
        return True
