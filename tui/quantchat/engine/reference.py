"""A turn by transformers' own `generate`: the reference for our loop, and the fallback where ours does not serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from quantchat.engine.forward import Forward, TurnStopped
from quantchat.engine.quiet import no_warnings
from quantchat.engine.turn import Turn


class ReferenceTurn(Turn):
    """A turn that runs in one piece: no KV reuse, and no other turn beside it."""

    def prefill(self, forward: Forward, *, alone: bool) -> None:
        """Run the whole turn."""
        self._begin()
        self._tell_prefill(0)
        inputs = torch.tensor([self.ids], device=self._loaded.device)
        if forward.threads is not None:
            forward.threads.use(len(self.ids))
        try:
            with forward.interruptible(self._cancelled), no_warnings():
                self._loaded.model.generate(
                    input_ids=inputs,
                    attention_mask=torch.ones_like(inputs),
                    generation_config=GenerationConfig(
                        max_new_tokens=self._limit,
                        do_sample=False,
                        use_cache=True,
                        disable_compile=True,
                        pad_token_id=0,
                    ),
                    logits_processor=LogitsProcessorList([_Chosen(lambda logits: self._choose(logits, forward))]),
                    stopping_criteria=StoppingCriteriaList([_Ended(self)]),
                )
        except TurnStopped:
            self._stopped = True

    def _choose(self, logits: Any, forward: Forward) -> int:
        if not self.stream.tokens:
            self._tell_prefill(self._prompt_tokens)
            if forward.threads is not None:
                forward.threads.use(1)
        return self.take(logits)


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves `generate` one token to choose: the one that our sampler took."""

    def __init__(self, choose: Callable[[Any], int]) -> None:
        self._choose = choose

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, self._choose(scores[0])] = 0
        return chosen


class _Ended(StoppingCriteria):  # type: ignore[misc]
    """Ends `generate` with the turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._turn.ended, device=input_ids.device, dtype=torch.bool)
