"""The exact prompt of a session, as the engine makes it: asked for, counted per message, written as text."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from quantchat.domain.chat import ChatMessage, Session, new_id
from quantchat.domain.text import clean, shortened, spelled
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited, PromptWarning, RenderedPrompt, RequestFailed
from quantchat.errors import EngineGone, GenerationError, UsageError
from quantchat.services.conversation import Conversation
from quantchat.services.library import Library

EXCERPT = 200
"""Characters of a message that its row may show."""
UNKNOWN_TOKENS = "It is not known which tokens these are: this engine tells the text alone."
UNKNOWN_TEXT = "The text is not known: this engine tells its tokens alone."
State = Literal["", "no room", "not shown"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table: a message, or what the chat template adds.

    Attributes:
        message: Index of the message; None for the template.
        tokens: None where they are not known.
        share: Of the whole prompt, 0 to 1.
        state: Why nothing of it is in the prompt: no room in the window, or the template leaves it out.
    """

    label: str
    message: int | None = None
    tokens: int | None = None
    share: float = 0.0
    state: State = ""
    excerpt: str = ""


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt with the conversation that it was made of, and the model that it is for."""

    prompt: RenderedPrompt
    messages: tuple[ChatMessage, ...]
    model: str

    def parts(self) -> list[Part]:
        """Count the tokens of each message, and those of the template."""
        counts: Counter[int | None] = Counter()
        for piece in self.prompt.pieces:
            counts[piece.message] += piece.tokens
        full = _left_out(self.prompt.warnings)
        rows = [self._part(index, counts, full) for index in range(len(self.messages))]
        return [*rows, self._counted(Part(label="template"), counts)]

    def _part(self, index: int, counts: Counter[int | None], full: bool) -> Part:
        message = self.messages[index]
        part = Part(
            label=message.role, message=index, excerpt=shortened(spelled(message.content[: 4 * EXCERPT]), EXCERPT)
        )
        if self.prompt.pieces and index not in counts and message.content.strip():
            before = all(other not in counts for other in range(index) if self.messages[other].role != "system")
            part = msgspec.structs.replace(part, state="no room" if full and before else "not shown")
        return self._counted(part, counts)

    def _counted(self, part: Part, counts: Counter[int | None]) -> Part:
        if not self.prompt.pieces:
            return part
        tokens = counts[part.message]
        return msgspec.structs.replace(part, tokens=tokens, share=tokens / max(1, self.prompt.tokens))

    def figures(self) -> str:
        """Say how long the prompt is."""
        prompt = self.prompt
        words = f"{prompt.tokens:,} tokens"
        if prompt.window:
            words += f", {prompt.tokens / prompt.window:.1%} of a window of {prompt.window:,}"
        return f"{words}, for {clean(self.model, newlines=False)}"

    def notes(self) -> list[str]:
        """Say what this engine cannot tell."""
        if not self.prompt.text:
            return [UNKNOWN_TEXT]
        return [] if self.prompt.pieces else [UNKNOWN_TOKENS]

    def report(self, width: int = 100) -> str:
        """Write all of it as plain text."""
        blocks = [self.figures(), *self.notes(), *(warning_text(warning) for warning in self.prompt.warnings)]
        table = [HEAD, *(row_text(part, width) for part in self.parts())]
        return "\n\n".join([*blocks, "\n".join(table), clean(spelled(self.prompt.text))])


HEAD = "   #  who          tokens   share"


def row_text(part: Part, width: int) -> str:
    """Write a row of the table in so many columns."""
    number = "" if part.message is None else str(part.message + 1)
    tokens, share = ("?", "?") if part.tokens is None else (f"{part.tokens:,}", f"{part.share:.1%}")
    if part.state:
        tokens, share = "-", "-"
    words = f"({part.state}) {part.excerpt}" if part.state else part.excerpt
    start = f"{number:>4}  {part.label:<9} {tokens:>9}  {share:>6}  "
    return (start + shortened(words, max(1, width - len(start)))).rstrip()


def warning_text(warning: PromptWarning) -> str:
    """Write a warning in two lines."""
    return f"! {clean(spelled(warning.cause), newlines=False)}\n  {clean(spelled(warning.remedy), newlines=False)}"


def _left_out(warnings: Sequence[PromptWarning]) -> bool:
    return any(warning.code == "context-overflow" for warning in warnings)


class PromptInspector:
    """Asks the engine of the chat for prompts; a model must be loaded."""

    def __init__(self, library: Library, conversation: Conversation) -> None:
        self._library, self._conversation = library, conversation
        self._waiting: dict[str, asyncio.Future[RenderedPrompt]] = {}

    async def inspect(self, session: Session, draft: str = "") -> Inspected:
        """Return what a session would be asked with now, its own template and what stands in the prompt included.

        Raises:
            UsageError: if no model is loaded, or there is nothing to ask.
            GenerationError: if no prompt can be made of it, or this engine cannot tell.
            EngineGone: if the engine ended.
        """
        report, messages = self._library.loaded, session.prompt()
        if report is None:
            raise UsageError("No model is loaded", remedy="Load one with Ctrl+L: its template makes the prompt")
        if draft.strip():
            messages.append(ChatMessage("user", draft))
        if not messages:
            raise UsageError("There is nothing to ask yet", remedy="Write a prompt, or type /inspect and a text")
        request = protocol.RenderPrompt(
            request=new_id(),
            messages=messages,
            session=session.id,
            reserve=self._conversation.sampling_of(session).max_new_tokens,
            template=session.template,
        )
        return Inspected(prompt=await self._answer(request), messages=tuple(messages), model=report.name)

    async def _answer(self, request: protocol.RenderPrompt) -> RenderedPrompt:
        future: asyncio.Future[RenderedPrompt] = asyncio.get_running_loop().create_future()
        self._waiting[request.request] = future
        try:
            self._library.send(request)
            return await future
        finally:
            del self._waiting[request.request]

    def on_event(self, event: protocol.Event | EngineExited) -> None:
        """Take the engine's answers."""
        match event:
            case RenderedPrompt() if future := self._open(event.request):
                future.set_result(event)
            case RequestFailed() if future := self._open(event.request):
                future.set_exception(GenerationError.from_report(event.error))
            case EngineExited():
                for future in self._all_open():
                    future.set_exception(EngineGone("The engine has ended", remedy="Load the model again"))
            case _:
                return

    def _open(self, request: str) -> asyncio.Future[RenderedPrompt] | None:
        future = self._waiting.get(request)
        return future if future is not None and not future.done() else None

    def _all_open(self) -> Iterator[asyncio.Future[RenderedPrompt]]:
        yield from (future for request in list(self._waiting) if (future := self._open(request)) is not None)
