"""How a text is generated: sampling settings, why it ended, what it cost."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

FinishReason = Literal["stop", "length", "stopped", "context", "error", "interrupted"]
"""Why an answer ended: end of sequence or stop string, token limit, the user, a full context window, a
failure. `interrupted` is only found on disk: the program died while the answer streamed."""

Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=10.0)]
Probability = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Penalty = Annotated[float, msgspec.Meta(gt=0.0, le=10.0)]
AdditivePenalty = Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Bias = Annotated[float, msgspec.Meta(ge=-100.0, le=100.0)]
BiasedText = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class SamplingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Complete sampling settings of one turn.

    Attributes:
        temperature: 0 means greedy decoding; seed, top-k, top-p, min-p and typical-p are then without effect.
        top_p: Smallest set of tokens whose probabilities add up to this is kept; 1 keeps all.
        top_k: Number of most probable tokens kept; 0 keeps all.
        min_p: Tokens less probable than this share of the most probable one's probability are left out; 0 keeps all.
        typical_p: Tokens of typical information that add up to this probability are kept; 1 keeps all.
        repetition_penalty: Divides logits of tokens already seen, those of the prompt too; 1 is off.
        presence_penalty: Taken once from the logits of tokens that the answer has used; 0 is off.
        frequency_penalty: Taken from their logits as often as the answer has used them; 0 is off.
        no_repeat_ngram: No sequence of so many tokens comes twice, prompt and answer together; 0 is off.
        logit_bias: Text to what is added to its logits: -100 bans it, 100 leaves hardly anything else.
        max_new_tokens: Longest answer in tokens.
        seed: Same seed, same text on the same machine and kernel; None draws one, which the statistics name.
        stop: Texts that end the answer and are not shown.
    """

    temperature: Temperature = 0.7
    top_p: Probability = 0.95
    top_k: Count = 50
    min_p: Share = 0.0
    typical_p: Probability = 1.0
    repetition_penalty: Penalty = 1.0
    presence_penalty: AdditivePenalty = 0.0
    frequency_penalty: AdditivePenalty = 0.0
    no_repeat_ngram: Count = 0
    logit_bias: dict[BiasedText, Bias] = {}
    max_new_tokens: Positive = 1024
    seed: Seed | None = None
    stop: tuple[str, ...] = ()


class SamplingOverrides(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some sampling settings; what is None is left to the next layer. Units as in `SamplingSettings`."""

    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Count | None = None
    min_p: Share | None = None
    typical_p: Probability | None = None
    repetition_penalty: Penalty | None = None
    presence_penalty: AdditivePenalty | None = None
    frequency_penalty: AdditivePenalty | None = None
    no_repeat_ngram: Count | None = None
    logit_bias: dict[BiasedText, Bias] | None = None
    max_new_tokens: Positive | None = None
    seed: Seed | None = None
    stop: tuple[str, ...] | None = None


def resolve_sampling(*layers: SamplingOverrides) -> SamplingSettings:
    """Merge layers, most specific first; what none of them says has quantchat's default."""
    merged: dict[str, object] = {}
    for layer in reversed(layers):
        merged |= {name: value for name, value in msgspec.structs.asdict(layer).items() if value is not None}
    return SamplingSettings(**merged)  # type: ignore[arg-type]


class TurnStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a turn cost. Times are in seconds of the engine's clock.

    Attributes:
        prompt_tokens: Tokens of the rendered prompt.
        new_tokens: Tokens generated, an end-of-sequence token included.
        prefill_seconds: From the start of the turn to the first token; equals the time to first token.
        decode_seconds: From the first token to the last.
        seed: The seed that was used; None for greedy decoding.
        reused_tokens: Prompt tokens that came from the KV cache.
        drafted: Tokens that prompt lookup proposed, and `accepted`, how many of them were right.
        resumed_tokens: New tokens that the prompt held, because the answer was cut after them and went on.
    """

    prompt_tokens: int = 0
    new_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    seed: int | None = None
    reused_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    resumed_tokens: int = 0

    def after(self, begun: TurnStatistics | None) -> TurnStatistics:
        """Add what the beginning of the same answer cost.

        New tokens, decoding time and lookups add up; prompt, reuse, time to first token and seed are the last part's.
        """
        if begun is None:
            return self
        return msgspec.structs.replace(
            self,
            new_tokens=begun.new_tokens + self.new_tokens,
            decode_seconds=begun.decode_seconds + self.decode_seconds,
            drafted=begun.drafted + self.drafted,
            accepted=begun.accepted + self.accepted,
            resumed_tokens=begun.new_tokens,
        )

    @property
    def context_tokens(self) -> int:
        """Tokens of the context window that prompt and answer take."""
        return self.prompt_tokens + self.new_tokens - self.resumed_tokens

    @property
    def tokens_per_second(self) -> float:
        """Decode speed: tokens after the first one, over the time between the first and the last."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens that were computed, over the time to the first token."""
        return (self.prompt_tokens - self.reused_tokens) / self.prefill_seconds if self.prefill_seconds > 0 else 0.0
