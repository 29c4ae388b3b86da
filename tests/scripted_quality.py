"""What the scripted engine measures of a model: figures that follow from its bits."""

from __future__ import annotations

from pathlib import Path

from quantchat.domain.models import ModelInfo
from quantchat.engine.protocol import Evaluate

PERPLEXITY = 18.0
TOKENS = 999
DIVERGENCE = {2: 1.2, 3: 0.25, 4: 0.06, 8: 0.002, 16: 0.0}


def figures(command: Evaluate, model: ModelInfo | None) -> dict[str, float]:
    """Keep the model's name in place of its logits, and compare with what is kept."""
    bits = (model.quant.bits if model is not None else None) or 16
    divergence = DIVERGENCE[bits]
    found = {
        "perplexity": PERPLEXITY * (1 + divergence),
        "tokens": float(command.tokens or TOKENS),
        "window": float(command.window),
    }
    if command.keep:
        Path(command.keep).write_text(model.name if model is not None else "")
    if command.against:
        assert Path(command.against).exists()
        found |= {"divergence": divergence, "agreement": 1 - divergence / 2, "reference_perplexity": PERPLEXITY}
    return found
