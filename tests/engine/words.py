"""A tokenizer of numbered words for the random models, and a loaded model around them, without any file."""

from __future__ import annotations

from typing import Any

from engine import zoo
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine.loader import LoadedModel
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.sessions import SessionStates

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIALS = ("<pad>", "<s>", "<end>", "<system>", "<user>", "<assistant>")
PLENTY = 1 << 30


def tokenizer(size: int = zoo.VOCABULARY) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIALS, *(f"w{number}" for number in range(size - len(SPECIALS)))]
    whole = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    # No special tokens: every id that a random model samples must be seen in the text.
    fast = PreTrainedTokenizerFast(tokenizer_object=whole)
    fast.chat_template = TEMPLATE
    return fast


def loaded(kind: str, *, decoding: str = "eager", window: int = zoo.WINDOW) -> LoadedModel:
    """The random model as the loader would hand it over."""
    model = zoo.make(kind)
    report = p.LoadReport(
        path="", name=kind, architecture="", device="cpu", dtype="float32", kernel="dense", context_window=window
    )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer(),
        device="cpu",
        window=window,
        report=report,
        eos_ids=frozenset(),
        decoding=decoding,
    )


def text(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


class Bench:
    """A scheduler over one loaded model, and what it said."""

    def __init__(self, model: LoadedModel, budget: int = PLENTY, emit=lambda _: None) -> None:
        self.events: list[p.Event] = []
        self._emit = emit
        self.states = SessionStates(model, budget, budget, self._told)
        self.scheduler = Scheduler(model, self.states, self._told)
        self._turns = 0

    def _told(self, event: p.Event) -> None:
        self.events.append(event)
        self._emit(event)

    def start(
        self, messages: list[ChatMessage] | str, sampling: SamplingSettings, cancelled=lambda: False, **more
    ) -> str:
        if isinstance(messages, str):
            messages = [ChatMessage("user", messages)]
        self._turns += 1
        name = f"t{self._turns}"
        self.scheduler.start(p.Generate(turn=name, messages=messages, sampling=sampling, **more), cancelled)
        return name

    def run(self) -> dict[str, p.Finished | p.Failed]:
        """Step until nothing runs; the last event of every turn."""
        ends: dict[str, p.Finished | p.Failed] = {}
        while self.scheduler.running:
            for event in self.scheduler.step():
                assert event.turn not in ends
                ends[event.turn] = event
        return ends

    def answer(self, messages: list[ChatMessage] | str, sampling: SamplingSettings, **more) -> tuple[str, p.Finished]:
        name = self.start(messages, sampling, **more)
        end = self.run()[name]
        assert isinstance(end, p.Finished), end
        return self.said(name), end

    def said(self, turn: str) -> str:
        return "".join(event.text for event in self.events if isinstance(event, p.Delta) and event.turn == turn)
