"""Sessions and models, put into the rows and messages that widgets show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from quantchat.domain.chat import Message, Session
from quantchat.domain.memory import Fit, format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.runcard import ENDINGS
from quantchat.domain.servers import split_path
from quantchat.domain.text import clean
from quantchat.domain.tree import BEGINNING
from quantchat.engine.protocol import LoadReport
from quantchat.services.conversation import label_of
from quantchat.services.turns import Turn
from quantchat.ui.status import kernel_name
from quantchat.ui.transcript.messages import MessageView, Tone
from quantchat.ui.widgets.rows import Row

FIT_MARKS: dict[Fit, tuple[str, str]] = {
    "fits": ("✓", "$success"),
    "tight": ("~", "$warning"),
    "too big": ("✗", "$error"),
    "broken": ("!", "$error"),
}
LOADED_MARK = ("●", "$accent")

FINISHES = {reason: words for reason, words in ENDINGS.items() if reason != "stop"}


def model_rows(
    models: Iterable[ModelInfo], judge: Callable[[ModelInfo], Fit | None], loaded: LoadReport | None
) -> list[Row]:
    """One row per model."""
    return [
        model_row(model, judge(model), loaded if loaded and loaded.path == model.path else None) for model in models
    ]


def model_row(model: ModelInfo, fit: Fit | None, loaded: LoadReport | None, note: str = "") -> Row:
    """Fit mark, name, quantization and size of a model; its kernel instead of its size while it is loaded."""
    if model.container == "server":
        return _served_row(model, loaded is not None)
    mark, style = FIT_MARKS[fit] if fit else (" ", "")
    size = model.weight_bytes or model.disk_bytes
    detail = f"{model.quant.label()} {format_bytes(size)}" if size else model.quant.label()
    if loaded is not None:
        mark, style = LOADED_MARK
        detail = f"{model.quant.label()} {kernel_name(loaded.kernel)}"
    if not model.loadable:
        detail = "needs a package" if model.lacks_only_package else "cannot load"
    name = clean(model.name, newlines=False)
    # In place of the size, which the info panel has too; a kernel that runs is worth more.
    noted = f"{model.quant.label()} {note}" if note and loaded is None and model.quant.method != "none" else ""
    return Row(model.path, name, detail, mark, style, strong=loaded is not None, note=note, noted=noted)


def _served_row(model: ModelInfo, loaded: bool) -> Row:
    """The server and the context window of its model."""
    mark, style = LOADED_MARK if loaded else ("!", "$warning") if model.problems else (" ", "")
    window = format_tokens(model.context_window)
    detail = f"{model.server} {window}" if window else model.server
    return Row(model.path, clean(model.name, newlines=False), detail, mark, style, strong=loaded)


def way_of(kernel: str, path: str, decoding: str) -> str:
    """By what a model was run: its kernel, or the name of its server."""
    server, _ = split_path(path) or ("", "")
    return clean(server, newlines=False) or f"{kernel_name(kernel)} {decoding}".strip()


def format_tokens(count: int | None) -> str:
    """Write a context window short: `32k`."""
    if not count:
        return ""
    return f"{round(count / 1024)}k" if count >= 1024 else str(count)


def message_views(session: Session, turn: Turn | None, busy: bool) -> list[MessageView]:
    """The branch that is shown, with the running answer's text so far and the prompts that wait."""
    views: list[MessageView] = []
    branch, versions = session.branch(), _versions(session)
    cut = None if busy else session.unfinished()
    for message in branch:
        streaming = turn if turn is not None and turn.message.id == message.id else None
        unsent = not session.edits.keys().isdisjoint((message.id, BEGINNING + message.id))
        views.append(
            message_view(message, versions[message.parent], streaming, can_go_on=message is cut, unsent=unsent)
        )
        if message.error is not None:
            views.append(
                MessageView(
                    id=f"{message.id}:error", role="note", text=message.error.sentence(), label="", tone="error"
                )
            )
    for index, prompt in enumerate(session.queued):
        views.append(MessageView(id=f"queued:{index}", role="user", text=prompt, label="you · waiting", tone="queued"))
    if branch and branch[-1].role == "user" and not busy:
        note = "Not answered yet. Ctrl+R asks the model again."
        views.append(MessageView(id="unanswered", role="note", text=note, label=""))
    return views


def _versions(session: Session) -> dict[str | None, list[str]]:
    """Ids of all messages by the message that they follow."""
    versions: dict[str | None, list[str]] = defaultdict(list)
    for message in session.messages.values():
        versions[message.parent].append(message.id)
    return versions


def message_view(
    message: Message, versions: Sequence[str], turn: Turn | None, *, can_go_on: bool = False, unsent: bool = False
) -> MessageView:
    """One message, one of several `versions`; `turn` is what writes it just now."""
    tone: Tone = "normal"
    if message.finish == "error":
        tone = "error"
    elif message.finish == "interrupted":
        tone = "interrupted"
    thinking, text = _said(message) if turn is None else (turn.thinking, turn.text)
    # Without a turn of ours another program is writing it.
    running = turn is not None or (message.role == "assistant" and message.finish is None)
    return MessageView(
        id=message.id,
        role="user" if message.role == "user" else "assistant",
        text=text,
        label=_label(message, versions, unsent=unsent),
        footer="" if running else footer_of(message, can_go_on=can_go_on),
        figures=() if running else figures_of(message),
        tone=tone,
        streaming=running,
        thinking=thinking,
    )


def _label(message: Message, versions: Sequence[str], *, unsent: bool) -> str:
    """Who speaks, and what of it is not as it came; `unsent` of a change that waits to be gone on with."""
    parts = [label_of(message)]
    if len(versions) > 1:
        parts.append(f"{versions.index(message.id) + 1}/{len(versions)}")
    if message.edited_from is not None:
        parts.append("changed by you")
    elif message.given:
        parts.append("begun by you")
    return " · ".join([*parts, "unsent change"] if unsent else parts)


def _said(message: Message) -> tuple[str, str]:
    """What was thought, and what was said; older sessions hold both in one text, with the model's tags."""
    if message.role != "assistant" or message.thinking:
        return message.thinking, message.text
    return _split(message.text)


@lru_cache(maxsize=4096)
def _split(text: str) -> tuple[str, str]:
    from quantchat.domain.thinking import split_thinking

    return split_thinking(text)


def footer_of(message: Message, *, can_go_on: bool = False) -> str:
    """Why an answer ended, if not by itself, and what can be done about it."""
    # The user made it end there: nothing was stopped.
    untouched = message.statistics is None and (message.edited_from is not None or message.given)
    parts = [FINISHES[message.finish]] if message.finish in FINISHES and not untouched else []
    goes_on = "/continue goes on"
    if message.finish == "context":
        goes_on += " without the oldest turns, a model with a larger window keeps them"
    return " · ".join([*parts, goes_on] if can_go_on else parts)


def figures_of(message: Message) -> tuple[str, ...]:
    """What an answer cost, and by which way it was computed."""
    cost, run = message.statistics, message.run
    # Of an answer that was interrupted as it went on, only the cost of its beginning is known.
    if cost is None or not cost.new_tokens or message.finish == "interrupted":
        return ()
    figures = (
        f"{cost.new_tokens:,} {'token' if cost.new_tokens == 1 else 'tokens'}",
        f"{cost.tokens_per_second:.1f} tok/s" if cost.tokens_per_second else "",
        f"TTFT {cost.prefill_seconds:.2f} s" if cost.prefill_seconds else "",
        f"{cost.reused_tokens:,} reused" if cost.reused_tokens else "",
        way_of(run.kernel, run.path, run.decoding) if run is not None else "",
    )
    return tuple(figure for figure in figures if figure)
