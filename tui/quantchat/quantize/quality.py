"""How well the loaded model predicts a text, and how far its predictions are from those of a reference."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quantchat.engine import memory
from quantchat.engine.forward import Forward, TurnStopped, decoder_layers
from quantchat.errors import Cancelled, JobError
from quantchat.quantize import logits as files
from quantchat.quantize.heldout import pieces_of, prefix_of, read_text

if TYPE_CHECKING:
    from quantchat.engine.loader import LoadedModel
    from quantchat.engine.protocol import Evaluate
    from quantchat.quantize.watch import Watch

READING, MEASURING = "reading the text", "measuring"
WEIGHTS = {READING: 0.02, MEASURING: 0.98}
ROWS = 32
"""Tokens whose distributions are computed at once, which bounds the memory that a large vocabulary takes."""
LARGEST_LOSS = 680.0
STEPS = 500
"""Steps of progress that are told at most."""
SHORTER = "Choose a shorter window, of the reference too, or end other programs that hold memory there"


def evaluate(loaded: LoadedModel | None, command: Evaluate, watch: Watch) -> dict[str, float]:
    """Measure a model; its logits are written and compared as the command says.

    Returns:
        The figures that `Evaluate` names.

    Raises:
        JobError: without a model or a text, if the reference reads the text as other tokens, or if the model's output
            is not finite.
        StorageError: if the disk refuses the logits.
        Cancelled: within a layer's time.
    """
    if loaded is None:
        raise JobError("No model is loaded", remedy="Load a model first.", code="no-model")
    watch.plan(WEIGHTS)
    watch.report(READING)
    window = min(command.window, loaded.window or command.window)
    pieces = pieces_of(loaded.tokenizer, read_text(command.text, command.tokens), window, command.tokens)
    skipped = max(1, len(prefix_of(loaded.tokenizer)))
    with ExitStack() as stack:
        keep = stack.enter_context(files.writing(Path(command.keep), pieces, skipped)) if command.keep else None
        against = stack.enter_context(files.reading(Path(command.against))) if command.against else None
        if against is not None:
            require_alike(pieces, against.header)
        try:
            sums = _measure(loaded, pieces, skipped, keep, against, watch)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            report = memory.out_of_memory(loaded.device, JobError, error).report
            raise JobError(report.title, report.detail, SHORTER, code=report.code) from error
    return sums.figures() | {"window": float(window)}


def require_alike(pieces: list[list[int]], reference: files.Header) -> None:
    """Refuse a reference whose tokens are not the model's own.

    Raises:
        JobError: with the first difference.
    """
    if pieces == reference.pieces:
        return
    if [token for piece in pieces for token in piece] == [token for piece in reference.pieces for token in piece]:
        detail = f"windows of {len(pieces[0])} and {len(reference.pieces[0])} tokens cannot be compared"
        raise JobError(
            "The two models read the text in different windows", detail, "Choose a window that both can hold"
        )
    pairs = zip((t for piece in pieces for t in piece), (t for piece in reference.pieces for t in piece), strict=False)
    place = next((place for place, (own, other) in enumerate(pairs) if own != other), None)
    detail = "one reads more of it than the other" if place is None else f"token {place + 1} of the text differs"
    remedy = "Choose the model that this one was made from; a KL divergence needs one tokenizer"
    raise JobError("The two models read the text as different tokens", detail, remedy, code="other-tokenizer")


@dataclass
class Sums:
    """Sums over the predicted tokens, in float64; `divergence` and what follows it against the reference."""

    tokens: int = 0
    loss: float = 0.0
    compared: bool = False
    divergence: float = 0.0
    agreed: int = 0
    reference_loss: float = 0.0

    def figures(self) -> dict[str, float]:
        """The means, by the names that `Evaluate` gives them."""
        count = self.tokens
        figures = {"perplexity": _perplexity(self.loss / count), "tokens": float(count)}
        if not self.compared:
            return figures
        return figures | {
            "divergence": max(0.0, self.divergence / count),
            "agreement": self.agreed / count,
            "reference_perplexity": _perplexity(self.reference_loss / count),
        }

    def add(self, own: Any, targets: Any, reference: Any | None = None) -> None:
        """Add some tokens.

        Args:
            own: The model's logits, of shape [tokens, vocabulary].
            targets: The tokens that really came, of shape [tokens].
            reference: The reference's logits, of the same shape.
        """
        for begin in range(0, len(targets), ROWS):
            part = slice(begin, begin + ROWS)
            self._add(own[part], targets[part, None], None if reference is None else reference[part])

    def _add(self, own: Any, targets: Any, reference: Any | None) -> None:
        ours = torch.log_softmax(own.float(), -1)
        self.tokens += len(targets)
        self.loss -= float(ours.gather(-1, targets).double().sum())
        if reference is None:
            return
        theirs = torch.log_softmax(reference.float(), -1)
        # What the reference gives no chance adds nothing; computed, it would be no number.
        terms = torch.where(theirs > -math.inf, theirs.exp() * (theirs - ours), 0.0)
        self.compared = True
        self.divergence += float(terms.sum(dtype=torch.float64))
        self.agreed += int((own.argmax(-1) == reference.argmax(-1)).sum())
        self.reference_loss -= float(theirs.gather(-1, targets).double().sum())


def _perplexity(loss: float) -> float:
    # More would not be a number that JSON can hold.
    return math.exp(min(loss, LARGEST_LOSS))


def _measure(
    loaded: LoadedModel,
    pieces: list[list[int]],
    skipped: int,
    keep: files.Writer | None,
    against: files.Reader | None,
    watch: Watch,
) -> Sums:
    sums, passes = Sums(), _Passes(loaded, len(pieces), watch)
    for piece in pieces:
        own = passes.logits(piece)[skipped - 1 : -1]
        targets = torch.tensor(piece[skipped:], device=own.device)
        with torch.inference_mode():
            sums.add(own, targets, _reference(against, own))
        if not math.isfinite(sums.loss + sums.divergence):
            raise JobError(
                "The model's output is not finite",
                f"in tokens {sums.tokens - len(targets) + 1:,} to {sums.tokens:,} of the text",
                "Its weights are damaged, or its kernel computes wrongly here: try another with --kernel",
                code="not-finite",
            )
        if keep is not None:
            keep.add(own)
    return sums


def _reference(against: files.Reader | None, own: Any) -> Any | None:
    if against is None:
        return None
    if against.header.vocabulary != own.shape[-1]:
        detail = f"this one has {own.shape[-1]:,} and the reference {against.header.vocabulary:,}"
        title = "The two models have vocabularies of different sizes"
        raise JobError(title, detail, "Choose the model that this one was made from", code="other-tokenizer")
    return against.read(own.device)


class _Passes:
    """Forward passes over whole windows, which tell how far they are and can be left between layers."""

    def __init__(self, loaded: LoadedModel, windows: int, watch: Watch) -> None:
        self._forward = Forward(loaded)
        self._device = loaded.device
        self._watch = watch
        self._layers = len(decoder_layers(loaded.model))
        self._total = windows * self._layers
        self._stride = max(1, self._total // STEPS)
        self._windows = self._done = 0

    def logits(self, ids: list[int]) -> Any:
        """Return the logits after each token, of shape [tokens, vocabulary]."""
        self._watch.check()
        if self._forward.threads is not None:
            self._forward.threads.use(len(ids))
        try:
            with torch.inference_mode(), self._forward.interruptible(self._step):
                batch = torch.tensor([ids], device=self._device)
                logits = self._forward.model(input_ids=batch, use_cache=False).logits[0]
        except TurnStopped:
            raise Cancelled("Stopped") from None
        self._windows += 1
        self._tell(self._windows * self._layers)
        return logits

    def _step(self) -> bool:
        """Count a layer that is about to be computed; say whether nobody wants it any more."""
        if self._done % self._stride == 0:
            self._tell(self._done)
        self._done = min(self._done + 1, (self._windows + 1) * self._layers)
        return self._watch.cancelled()

    def _tell(self, done: int) -> None:
        self._done = done
        self._watch.report(MEASURING, done, self._total)
