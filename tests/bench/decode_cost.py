"""What decoding a token costs in our own code: everything but the model.

The engine's scheduler answers with a stand-in for the model whose forward pass only looks up logits that were computed
before: what remains is sampling, text decoding, stop strings, thinking tags, counting, and events that are encoded and
written. The tokenizer is the demo model's, the logits have its vocabulary and type. A turn with the default sampling
settings is measured too, and what writing the KV cache of 30 layers costs beside transformers' own.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import AutoTokenizer, DynamicCache, LlamaConfig

from bench._report import Figure, parser, report
from bench._samples import prose
from demo_model import demo_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine import quiet
from quantchat.engine.__main__ import Pipe
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.sessions import SessionStates

if TYPE_CHECKING:
    from quantchat.engine.loader import LoadedModel

BAR = 100.0
MICRO = 1e6
TOKENS = 400
WINDOW = 8192
LAYERS, HEADS, HEAD_SIZE, CONTEXT = 30, 3, 64, 1000
QUESTION = [ChatMessage("user", "Tell me something.")]


class StandIn(torch.nn.Module):
    """A model of one layer that says a text it was given; its pass writes one number into the KV cache."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.config = LlamaConfig(
            vocab_size=logits.shape[1], num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, hidden_size=1
        )
        self._logits = logits
        self._state = torch.zeros(1, 1, 1, 1)
        self.prompt = 0

    def forward(
        self, input_ids: Any, past_key_values: Any, use_cache: bool = True, logits_to_keep: int = 1
    ) -> SimpleNamespace:
        states = self._state.expand(1, 1, input_ids.shape[1], 1)
        past_key_values.update(states, states, 0)
        last = max(0, past_key_values.get_seq_length() - self.prompt) + 1
        return SimpleNamespace(logits=self._logits[None, max(0, last - logits_to_keep) : last])


def stand_in(tokenizer: Any) -> StandIn:
    """One that says prose."""
    source, text = prose(Random(3)), ""
    while len(ids := tokenizer(text)["input_ids"]) < TOKENS + 1:
        text += next(source)
    torch.manual_seed(0)
    logits = torch.randn(TOKENS + 1, len(tokenizer))
    logits[torch.arange(TOKENS + 1), torch.tensor(ids[: TOKENS + 1])] += 30
    return StandIn(logits.to(torch.bfloat16))


def loaded(folder: Path) -> LoadedModel:
    """The demo's tokenizer around the stand-in."""
    quiet.set_environment()
    quiet.silence()
    from quantchat.engine.loader import LoadedModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = p.LoadReport(
        path=str(folder),
        name=folder.name,
        architecture="",
        device="cpu",
        dtype="bfloat16",
        kernel="",
        context_window=WINDOW,
    )
    return LoadedModel(
        model=stand_in(tokenizer),
        tokenizer=tokenizer,
        device="cpu",
        window=WINDOW,
        report=made,
        eos_ids=frozenset({tokenizer.eos_token_id}),
    )


class Engine:
    """The scheduler as the worker drives it; events are encoded and written to nowhere."""

    def __init__(self, model: LoadedModel) -> None:
        pipe = Pipe(os.open(os.devnull, os.O_WRONLY))
        self._model = model.model
        self._states = SessionStates(model, 2**30, 2**30, pipe.emit)
        self._scheduler = Scheduler(model, self._states, pipe.emit)
        self._turns = 0

    def seconds_per_token(self, sampling: SamplingSettings) -> tuple[float, int]:
        """Answer once; seconds per token after the first, and how many tokens prompt lookup proposed."""
        self._turns += 1
        self._model.prompt = len(self._states.fit("", QUESTION, sampling.max_new_tokens).prompt.ids)
        command = p.Generate(turn=f"t{self._turns}", messages=QUESTION, sampling=sampling)
        self._scheduler.start(command, lambda: False)
        ends = self._scheduler.step()
        begun = time.perf_counter()
        while not ends:
            ends = self._scheduler.step()
        seconds = time.perf_counter() - begun
        end = ends[0]
        if not isinstance(end, p.Finished) or end.statistics.new_tokens != sampling.max_new_tokens:
            raise SystemExit(f"The turn failed: {end}")
        return seconds / (end.statistics.new_tokens - 1), end.statistics.drafted


def cache_seconds(make: Callable[[], Any]) -> float:
    """Seconds that writing one token of all layers takes, behind 1,000 others."""
    cache = make()
    states = torch.zeros(1, HEADS, CONTEXT, HEAD_SIZE, dtype=torch.bfloat16)
    token = states[:, :, :1]
    steps = 20
    with torch.inference_mode():
        for layer in range(LAYERS):
            cache.update(states, states, layer)
        begun = time.perf_counter()
        for _ in range(steps):
            for layer in range(LAYERS):
                cache.update(token, token, layer)
        return (time.perf_counter() - begun) / steps


def measure(folder: Path, rounds: int) -> list[Figure]:
    torch.set_num_threads(1)
    engine = Engine(loaded(folder))
    kinds = {
        "greedy": SamplingSettings(temperature=0.0, max_new_tokens=TOKENS),
        "sampled": SamplingSettings(seed=1, max_new_tokens=TOKENS),
    }
    config = SimpleNamespace(
        config=LlamaConfig(num_hidden_layers=LAYERS), forward=lambda input_ids, past_key_values=None: None
    )
    caches = {"ours": lambda: SessionCache(config).cache, "transformers'": lambda: DynamicCache(config=config.config)}
    taken: dict[str, list[float]] = {name: [] for name in (*kinds, *caches)}
    drafted = 0
    for _ in range(rounds + 1):
        for name, sampling in kinds.items():
            seconds, proposed = engine.seconds_per_token(sampling)
            taken[name].append(seconds * MICRO)
            drafted += proposed
        for name, make in caches.items():
            taken[name].append(cache_seconds(make) * MICRO)
    # The first round fetches code and memory.
    middle = {name: statistics.median(times[1:]) for name, times in taken.items()}
    return [
        Figure("our own code per greedy token", middle["greedy"], "µs", BAR),
        Figure("our own code per sampled token", middle["sampled"], "µs"),
        Figure("drafted by prompt lookup", drafted, "tokens"),
        *(Figure(f"KV cache of {LAYERS} layers, {name}", middle[name], "µs") for name in caches),
    ]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    report(measure(demo_model(), 3 if options.quick else 15), as_json=options.json)


if __name__ == "__main__":
    main()
