"""What stands around the answers of a comparison: plain functions from the state of a side to text."""

from __future__ import annotations

from dataclasses import replace

from rich.cells import cell_len
from textual.content import Content

from quantchat.domain.divergence import Divergence, Place
from quantchat.domain.text import clean, shortened
from quantchat.services.comparing import Comparison, Side
from quantchat.services.library import LoadStatus
from quantchat.services.turns import Turn
from quantchat.ui.status import kernel_name, meter
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.views import footer_of, message_view
from quantchat.ui.widgets.rows import cut_end, shorten

_TOKEN = 24
_NAME = 12
"""Cells that a model's name keeps beside the words about it."""
LINE_END = "⏎"


def head_line(side: Side, name: str, width: int) -> Content:
    """Which side it is, which model answers there, and with what; as much as there is room for."""
    run = side.answer.run if side.answer is not None else None
    report = side.voice.report if side.voice is not None else None
    kernel = run.kernel if run is not None else report.kernel if report is not None else side.choice.kernel or ""
    parts = [side.choice.model.quant.label(), kernel_name(kernel), side.choice.preset]
    if side.voice is not None and side.voice.borrowed:
        parts.append("the chat's engine")
    model, details = clean(side.choice.model.name, newlines=False), [part for part in parts if part]
    room = width - cell_len(name) - 4
    while details and room - cell_len(" · ".join(details)) - 1 < min(_NAME, cell_len(model)):
        details.pop()
    words = clean(" · ".join(details), newlines=False)
    model = shorten(model, max(room - cell_len(words) - 1, 4))
    return Content.assemble((f" {name} ", "bold reverse"), " ", (model, "bold"), (f" {words}" if words else "", "dim"))


def figures_line(side: Side, width: int) -> Content:
    """How far a side is, and what its answer cost in the end."""
    if side.loading is not None and side.stage == "loading":
        return Content.styled(_cut(_loading(side.loading), width), "$warning")
    if side.stage == "loading":
        words = f"Unloading {clean(side.unloading, newlines=False)} first" if side.unloading else "Begins to load"
        return Content.styled(_cut(f" {words}", width), "$warning")
    if side.stage == "waiting":
        return Content.styled(" Waits", "dim")
    if side.turn is not None:
        return Content.styled(_fit(_running(side.turn), width), "$accent")
    return Content(_fit(_cost(side), width))


def _loading(status: LoadStatus) -> str:
    words = f" Loading: {clean(status.stage, newlines=False)}"
    if not status.total:
        return words
    share = status.done / status.total
    return f"{words} {meter(share, 6)} {share:.0%}"


def _running(turn: Turn) -> list[str]:
    if turn.stage == "prefill":
        return [f"reading {turn.prefill_done:,} of {turn.prompt_tokens:,} tokens" if turn.prompt_tokens else "reading"]
    first = turn.time_to_first_token
    return [_tokens(turn.tokens), f"{turn.tokens_per_second:.1f} tok/s", f"TTFT {first:.2f} s" if first else ""]


def _tokens(count: int) -> str:
    return f"{count:,} {'token' if count == 1 else 'tokens'}"


def _cost(side: Side) -> list[str]:
    answer, cost = side.answer, side.answer.statistics if side.answer is not None else None
    if answer is None or cost is None:
        return ["stopped" if side.stage == "stopped" else ""]
    drawn = answer.run is not None and answer.run.sampling is not None and answer.run.sampling.temperature > 0
    return [
        _tokens(cost.new_tokens),
        f"{cost.tokens_per_second:.1f} tok/s" if cost.tokens_per_second else "",
        f"TTFT {cost.prefill_seconds:.2f} s" if cost.prefill_seconds else "",
        f"seed {cost.seed}" if drawn and cost.seed is not None else "greedy",
    ]


def _fit(parts: list[str], width: int) -> str:
    said = [part for part in parts if part]
    while len(said) > 1 and cell_len(" · ".join(said)) + 1 > width:
        said.pop()
    return _cut(" " + " · ".join(said), width)


def _cut(words: str, width: int) -> str:
    return cut_end(words, max(width, 1))


def verdict_line(side: Side, divergence: Divergence, width: int) -> Content:
    """Where this side parts from the other one."""
    if side.stage == "failed" and side.place is None:
        return Content.styled(" failed", "$error")
    if side.place is not None:
        return Content.styled(_cut(f" ≠ {difference(side, side.place)}", width), "bold $warning")
    if divergence.verdict == "equal":
        return Content.styled(_cut(" = the same to the end", width), "$success")
    if divergence.verdict == "cut" and divergence.common:
        least = min(divergence.tokens(0), divergence.tokens(1))
        return Content.styled(_cut(f" = the same as far as both go, {_tokens(least)}", width), "$success")
    return Content.styled(" = the same so far", "dim") if divergence.common and side.busy else Content()


def difference(side: Side, place: Place) -> str:
    """Say at which token a side parts from the other, and what it says there."""
    if place.start == place.end:
        return f"ends here, at token {place.token}"
    token = said(side, place).replace("\n", LINE_END)
    where = " of its thinking" if place.channel == "thinking" else ""
    return f"token {place.token}{where}: “{shortened(token, _TOKEN) or ' '}”"


def said(side: Side, place: Place) -> str:
    """The text of a token."""
    if side.turn is not None:
        text = side.turn.text if place.channel == "answer" else side.turn.thinking
    elif side.answer is not None:
        text = side.answer.text if place.channel == "answer" else side.answer.thinking
    else:
        text = ""
    return text[place.start : place.end]


def title_line(comparison: Comparison, conversation: str, width: int) -> Content:
    """What holds for both sides."""
    if comparison.question is None:
        seed = ""
        order = "one after the other" if comparison.one_by_one else "both at once where they fit"
    else:
        seed = f"seed {comparison.seed}"
        order = "both at once" if comparison.together else "one after the other"
    words = "  ".join(part for part in (seed, order, clean(conversation, newlines=False)) if part)
    return Content.assemble((" Side by side", "bold"), (_cut(f"  {words}", width - 13), "$text-secondary"))


def side_views(side: Side) -> list[MessageView]:
    """The question, the answer as far as it came, and what failed."""
    session, views = side.session, []
    if session is None:
        return []
    answer = side.answer
    question = session.messages.get((answer.parent if answer is not None else session.head) or "")
    if question is not None:
        views.append(message_view(question, [question.id], None))
    if answer is not None:
        shown = message_view(answer, [answer.id], side.turn)
        # The figures stand below the column.
        views.append(replace(shown, label="", figures=(), footer="" if shown.streaming else footer_of(answer)))
    notes = [side.error.sentence()] if side.error is not None else []
    views += [_note(number, words, "error") for number, words in enumerate(notes)]
    return views + [_note(number, words, "normal") for number, words in enumerate(side.notes, len(notes))]


def _note(number: int, words: str, tone: str) -> MessageView:
    return MessageView(
        id=f"note:{number}", role="note", text=words, label="", tone="error" if tone == "error" else "normal"
    )
