"""Sessions over tiny models, decoded the fast way without graphs and the ordinary way."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from engine import zoo
from quantchat.engine import graphs
from quantchat.engine.graphs import GraphDecoder
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.static import Refusal

ACCEPTED = ("llama", "qwen2", "qwen3", "phi3", "olmoe", "mistral", "gemma3", "gpt_oss")
SHORTEST, WINDOW = 32, 128
PLENTY = 2**40


def build(model, free=lambda: PLENTY, make_step=lambda step: step, window=WINDOW) -> GraphDecoder | Refusal:
    return graphs.build(model, window, make_step, free, SHORTEST)


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, zoo.VOCABULARY, (length,), generator=generator).tolist()


def eager(model, ids, count):
    """Greedy tokens and their logits by the ordinary path."""
    cache, new, tokens, rows = DynamicCache(config=model.config), list(ids), [], []
    for _ in range(count):
        logits = model(input_ids=torch.tensor([new]), past_key_values=cache, use_cache=True).logits[0, -1]
        new = [int(logits.argmax())]
        tokens += new
        rows.append(logits)
    return tokens, rows


def prefilled(model, ids) -> SessionCache:
    """A session that lacks only the last of the ids."""
    session = SessionCache(model)
    feed(model, session, ids[:-1])
    return session


def feed(model, session, ids) -> None:
    session.reuse([*ids, 0])
    new = ids[len(session.ids) :]
    if new:
        model(input_ids=torch.tensor([new]), past_key_values=session.cache, use_cache=True)
        session.append(new)


def decode(decoder, token, count) -> list[int]:
    tokens = []
    for _ in range(count):
        token = int(decoder.step(token).argmax())
        tokens.append(token)
    return tokens
