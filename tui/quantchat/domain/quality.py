"""How good a model still is: what was measured of it on a text, alone and against its reference."""

from __future__ import annotations

import msgspec

from quantchat.domain.models import ModelInfo

UNQUANTIZED = 16.0
SCALE_BYTES = 2
SHORT = 1e4
"""Larger figures are written with an exponent."""


class Quality(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One measurement of a model.

    Attributes:
        perplexity: exp of the mean negative log likelihood per predicted token, in nats.
        tokens: Predicted tokens.
        text: Name of the text, and `text_sha256` of its bytes: only figures on the same text compare.
        window: Tokens per window; the first token of each is not predicted.
        reference: Name of the model that the next four are measured against; empty without one.
        reference_path: Its folder.
        reference_perplexity: Of the reference on the same text.
        divergence: Mean over the tokens of KL(reference || model) of the next-token distributions, in nats.
        agreement: Share of the tokens at which both have the same likeliest next token.
        disk_bytes: The weights on disk.
        device_bytes: What the engine process held with it loaded, as `LoadReport.device_bytes`.
        tokens_per_second: Decoding speed of one stream.
        kernel: The kernel that ran, and the `device` and `dtype` it ran with.
        quantization: Short form such as `GPTQ 4b g64`, and `bits` per weight as stored, scales and zeros included.
        measured: When, as `YYYY-MM-DDTHH:MM:SSZ`.
        versions: Of quantchat and the engine's libraries.
    """

    perplexity: float
    tokens: int
    text: str
    text_sha256: str
    window: int
    reference: str = ""
    reference_path: str = ""
    reference_perplexity: float = 0.0
    divergence: float | None = None
    agreement: float | None = None
    disk_bytes: int = 0
    device_bytes: int = 0
    tokens_per_second: float = 0.0
    kernel: str = ""
    device: str = ""
    dtype: str = ""
    quantization: str = ""
    bits: float = 16.0
    measured: str = ""
    versions: dict[str, str] = {}

    def short(self) -> str:
        """What a model row says of it: the divergence, else the perplexity."""
        if self.divergence is not None:
            return f"KL {self.divergence:.3f}" if self.divergence < SHORT else f"KL {self.divergence:.0e}"
        return f"ppl {self.perplexity:.1f}" if self.perplexity < SHORT else f"ppl {self.perplexity:.0e}"

    @property
    def ruler(self) -> tuple[str, int, int]:
        """What must be equal for two perplexities to be comparable: text, window and tokens."""
        return self.text_sha256, self.window, self.tokens

    def replaces(self, other: Quality) -> bool:
        """Whether it measures anew what another has measured."""
        return _circumstances(self) == _circumstances(other)


def _circumstances(quality: Quality) -> tuple[object, ...]:
    run = quality.kernel, quality.device, quality.dtype
    return quality.ruler, quality.reference, quality.reference_path, run


def bits_per_weight(model: ModelInfo) -> float:
    """Bits that a weight of the packed matrices takes, with scales, zero points and order; of all weights without any.

    Of GPTQ in groups of 64: 4 bits, 16 / 64 for the scale and 4 / 64 for the zero point.
    """
    parts = [(run.count, run.pieces) for run in model.weights.layers]
    parts += [(1, model.weights.inputs), (1, model.weights.outputs)]
    weights = sum(count * pieces.packed_weights for count, pieces in parts)
    if weights:
        taken = sum(
            count * (pieces.packed + SCALE_BYTES * pieces.scales + pieces.zeros + pieces.order)
            for count, pieces in parts
        )
        return 8 * taken / weights
    if model.parameters and model.weight_bytes:
        return 8 * model.weight_bytes / model.parameters
    return float(model.quant.bits or UNQUANTIZED)
