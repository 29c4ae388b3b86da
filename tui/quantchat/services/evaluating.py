"""Measuring how good models still are, each in an engine process of its own, the reference first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quantchat import __version__, paths
from quantchat.domain.chat import ChatMessage, new_id
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.models import ModelInfo
from quantchat.domain.quality import Quality, bits_per_weight
from quantchat.engine.protocol import Evaluate, JobProgress, LoadReport
from quantchat.errors import GenerationError, JobError, QuantchatError, StorageError
from quantchat.services.background import in_background
from quantchat.services.headless import Headless, require_loadable
from quantchat.services.library import EngineFactory, LoadStatus
from quantchat.services.servers import require_here
from quantchat.staging import remove_stale, scratch
from quantchat.store.quality import add_quality

BUNDLED_TEXT = "quantchat held-out text"
QUESTION = "Tell me a long story about a lighthouse keeper, a storm and a ship that nobody expected."
FEW, MANY = 8, 64
DECODE_SECONDS = 3.0
"""A slow kernel decodes for about so long, others `MANY` tokens."""
TRIES = 3
"""Small models may end an answer at once."""
LOADED, MEASURED = 0.25, 0.85
"""Shares of a model's time after its load, and after its text."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """On what models are measured, and how they run; None leaves the choice to the engine.

    Attributes:
        text: A UTF-8 text file; None for the bundled held-out text.
        window: Tokens per window.
        tokens: Tokens of the text at most; 0 for all.
        speed: Measure the decoding speed too.
    """

    text: Path | None = None
    window: int = 512
    tokens: int = 0
    kernel: str | None = None
    device: str | None = None
    speed: bool = True


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an evaluation is: of the model `number` (from 1) of `models`, and the share of all, 0 to 1."""

    model: str
    stage: str
    number: int
    models: int
    share: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one model: its quality, or why there is none; `notes` are worth reading."""

    model: ModelInfo
    quality: Quality | None = None
    error: QuantchatError | None = None
    notes: tuple[str, ...] = ()


OnProgress = Callable[[Progress], None]


async def evaluate(
    models: Sequence[ModelInfo],
    reference: ModelInfo | None,
    wish: Wish,
    on_progress: OnProgress,
    engine_factory: EngineFactory | None = None,
) -> list[Result]:
    """Measure models, against a reference if there is one, and keep what was measured beside each.

    Two models are never held at once: the reference's logits wait in a file, which is removed in the end. Cancelling
    ends the engine and leaves nothing half made; what was measured before stays.

    Returns:
        The reference's result, if there is one, then one for each other model in their order.

    Raises:
        QuantchatError: if the reference or the text cannot be measured; of other models their results tell.
    """
    return await _Evaluation(models, reference, wish, on_progress, engine_factory).run()


def require_measurable(model: ModelInfo) -> None:
    """Raise `ModelError` for a model that is known not to load, or is a server's."""
    require_here(model, "be measured", "Measure the folder that it was made from, on the machine that has it")
    require_loadable(model)


class _Evaluation:
    def __init__(
        self,
        models: Sequence[ModelInfo],
        reference: ModelInfo | None,
        wish: Wish,
        on_progress: OnProgress,
        engine_factory: EngineFactory | None,
    ) -> None:
        self._reference = reference
        self._models = [model for model in models if reference is None or model.path != reference.path]
        self._wish = wish
        self._on_progress = on_progress
        self._engine_factory = engine_factory
        self._count = len(self._models) + (reference is not None)
        self._share = 0.0
        self._text = ("", "")

    async def run(self) -> list[Result]:
        """Measure all of them."""
        self._text = await in_background(_identity, self._wish.text)
        # A reference alone is measured as any other model; its logits would be of no use.
        if self._reference is None or not self._models:
            models = self._models or [model for model in (self._reference,) if model is not None]
            return [await self._explained(number, model) for number, model in enumerate(models)]
        with scratch(_own_place()) as folder:
            logits = str(folder / "logits")
            first = await self._measure(0, self._reference, keep=logits)
            others = [
                await self._explained(number, model, against=logits, beside=first.quality)
                for number, model in enumerate(self._models, 1)
            ]
        return [first, *others]

    async def _explained(
        self, number: int, model: ModelInfo, against: str = "", beside: Quality | None = None
    ) -> Result:
        try:
            return await self._measure(number, model, against=against, beside=beside)
        except QuantchatError as error:
            if self._count == 1:
                raise
            return Result(model=model, error=error)

    async def _measure(
        self, number: int, model: ModelInfo, *, keep: str = "", against: str = "", beside: Quality | None = None
    ) -> Result:
        require_measurable(model)
        wish = self._wish
        kernel = wish.kernel if model.quant.method != "none" else None
        engine = Headless(device=wish.device, kernel=kernel, engine_factory=self._engine_factory)
        async with engine:
            self._tell(number, model, "starting the engine", 0.0)
            report = await engine.load(model, lambda status: self._on_load(number, model, status))
            command = Evaluate(
                job=new_id(),
                text=str(wish.text.absolute()) if wish.text else None,
                window=wish.window,
                tokens=wish.tokens,
                keep=keep,
                against=against,
            )
            figures = await engine.evaluate(command, lambda step: self._on_step(number, model, step))
            self._tell(number, model, "decoding", MEASURED)
            speed = await decoding_speed(engine) if wish.speed else 0.0
            self._tell(number, model, "done", 1.0)
            versions = {"quantchat": __version__, **engine.versions}
            notes = list(dict.fromkeys([*report.warnings, *engine.notes]))
        quality = self._quality(model, report, figures, speed, versions, beside)
        notes += await in_background(_kept, model, quality)
        return Result(model=model, quality=quality, notes=tuple(notes))

    def _quality(
        self,
        model: ModelInfo,
        report: LoadReport,
        figures: dict[str, float],
        speed: float,
        versions: dict[str, str],
        reference: Quality | None,
    ) -> Quality:
        name, digest = self._text
        known = self._reference if reference is not None else None
        return Quality(
            perplexity=figures["perplexity"],
            tokens=int(figures["tokens"]),
            text=name,
            text_sha256=digest,
            window=int(figures["window"]),
            reference=known.name if known else "",
            reference_path=known.path if known else "",
            reference_perplexity=figures.get("reference_perplexity", 0.0),
            divergence=figures.get("divergence"),
            agreement=figures.get("agreement"),
            disk_bytes=model.weight_bytes or model.disk_bytes,
            device_bytes=report.device_bytes,
            tokens_per_second=speed,
            kernel=report.kernel,
            device=report.device,
            dtype=report.dtype,
            quantization=model.quant.label(),
            bits=round(bits_per_weight(model), 3),
            measured=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            versions=versions,
        )

    # Progress

    def _on_load(self, number: int, model: ModelInfo, status: LoadStatus) -> None:
        share = status.done / status.total if status.total and status.unit == "bytes" else 0.0
        self._tell(number, model, status.stage, LOADED * min(share, 1.0))

    def _on_step(self, number: int, model: ModelInfo, step: JobProgress) -> None:
        self._tell(number, model, step.stage, LOADED + (MEASURED - LOADED) * step.share)

    def _tell(self, number: int, model: ModelInfo, stage: str, share: float) -> None:
        self._share = max(self._share, (number + share) / self._count)
        self._on_progress(
            Progress(model=model.name, stage=stage, number=number + 1, models=self._count, share=self._share)
        )


async def decoding_speed(engine: Headless) -> float:
    """Return the tokens per second of one stream after a short prompt; 0 if the model says nothing.

    Tokens that prompt lookup guessed do not count: they would tell of the text, not of the model.
    """
    tokens = FEW
    for seed in range(TRIES + 1):
        # Sampled, as most chats are: greedy text of small models soon repeats itself.
        sampling = SamplingSettings(temperature=1.0, top_p=1.0, top_k=50, seed=seed, max_new_tokens=tokens)
        try:
            cost = (await engine.ask([ChatMessage("user", QUESTION)], sampling)).statistics
        except GenerationError:
            return 0.0
        if cost.decode_seconds <= 0 or cost.new_tokens <= FEW // 2:
            continue
        speed = max(0, cost.new_tokens - 1 - cost.accepted) / cost.decode_seconds
        # The first answer only warms up, unless the kernel is a slow one.
        if seed and (tokens > FEW or speed * DECODE_SECONDS < 2 * FEW):
            return speed
        tokens = max(FEW, min(MANY, int(speed * DECODE_SECONDS)))
    return 0.0


def _own_place() -> Path:
    """Name a folder for the reference's logits, and remove those that processes that are gone have left."""
    above = paths.cache_dir() / "reference-logits"
    for left in above.glob(".*.partial-*"):
        name, _, process = left.name[1:].rpartition(".partial-")
        if process != str(os.getpid()):
            remove_stale(above / name)
    return above / new_id()


def _identity(text: Path | None) -> tuple[str, str]:
    """Return the name of a text and the digest of its bytes."""
    path = text or paths.held_out_file()
    try:
        # Of a pipe nothing would be left for the engine, and a device may have no end.
        if not path.is_file() and path.exists():
            raise JobError("The text cannot be read", f"{path} is no ordinary file", "Write the text into a file")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise JobError("The text cannot be read", f"{path}: {error.strerror}", "Check the path") from error
    return (path.name if text else BUNDLED_TEXT), digest


def _kept(model: ModelInfo, quality: Quality) -> list[str]:
    try:
        add_quality(model.path, quality)
    except StorageError as error:
        return [f"What was measured of {model.name} could not be kept: {error}"]
    return []
