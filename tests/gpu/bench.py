"""Measures one card with random checkpoints of a 7B model's shape, and writes one Markdown table.

Run: python tests/gpu/bench.py --output TABLE.md    (or `--device cpu --shape tiny` to see that it works)
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from transformers import DynamicCache

from gpu import checkpoints
from gpu.checkpoints import SEVEN_B, Recipe
from quantchat.catalog.reader import read_model
from quantchat.domain import kernels
from quantchat.engine import graphs, loader, memory, traffic
from quantchat.engine import protocol as p
from quantchat.engine.building import is_built
from quantchat.engine.kernels import probe
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.static import Refusal

GIB = 2**30
COLUMNS = (
    "checkpoint", "kernel", "load s", "memory GiB", "prefill tok/s", "generate tok/s", "own loop tok/s",
    "graph tok/s", "of copy bandwidth", "graph made s", "graph GiB", "left GiB",
)  # fmt: skip
TINY = Recipe("tiny")


@dataclass(frozen=True)
class Lengths:
    """Tokens of the prompt, and of the answers that are timed."""

    prompt: int
    eager: int
    graph: int


LENGTHS = {"7b": Lengths(prompt=2000, eager=64, graph=256), "tiny": Lengths(prompt=100, eager=8, graph=16)}


def recipes(shape: str) -> tuple[Recipe, ...]:
    base = SEVEN_B if shape == "7b" else TINY
    return base, replace(base, name=f"{base.name}-awq", method="awq", sym=False)


class Rows:
    """Measures row by row, so that what is done stands in the table if time runs out."""

    def __init__(self, device: str, lengths: Lengths) -> None:
        self.device, self.lengths = device, lengths

    def of(self, recipe: Recipe, folder: Path) -> Iterator[list[str]]:
        info = read_model(checkpoints.write(recipe, folder / recipe.name, self.device))
        plan = kernels.plan(info.quant, probe([self.device], is_built))
        for kernel in plan.candidates:
            if kernel.slow:
                continue
            try:
                yield [recipe.name, kernel.name, *self._measure(recipe, info, kernel.name)]
            except Exception as error:  # noqa: BLE001 - the table says it, and goes on
                yield [recipe.name, kernel.name, f"failed: {type(error).__name__}: {str(error)[:120]}"]
            memory.give_back()

    def _measure(self, recipe: Recipe, info: Any, kernel: str) -> list[str]:
        before = self._held()
        begun = time.perf_counter()
        loaded = loader.load(p.Load(request="r", model=info, device=self.device, kernel=kernel), lambda _: None)
        took = time.perf_counter() - begun
        held = self._held()
        with torch.inference_mode():
            cells = self._speeds(loaded, checkpoints.tokens(recipe, self.lengths.prompt))
        del loaded
        memory.give_back()
        return [f"{took:.1f}", f"{(held - before) / GIB:.2f}", *cells, f"{(self._held() - before) / GIB:.2f}"]

    def _held(self) -> int:
        return memory.device_bytes(self.device)

    def _speeds(self, loaded: Any, ids: list[int]) -> list[str]:
        figures = traffic.figures(loaded, lambda *_: None, lambda: False)
        memory.give_back()
        prefill = self._prefill(loaded.model, ids)
        generate = self._generate(loaded.model, ids)
        own = self._own_loop(loaded.model, ids)
        begun = time.perf_counter()
        decoder = self._fast_path(loaded)
        made = time.perf_counter() - begun
        speeds = [f"{prefill:.0f}", f"{generate:.1f}", f"{own:.1f}"]
        if isinstance(decoder, Refusal):
            return [*speeds, f"none: {decoder.reason}", self._share(own, figures), "", ""]
        graph = self._graph(decoder, loaded.model, ids)
        nbytes = decoder.nbytes
        decoder.release()
        return [*speeds, f"{graph:.1f}", self._share(graph, figures), f"{made:.1f}", f"{nbytes / GIB:.2f}"]

    def _share(self, speed: float, figures: dict[str, float]) -> str:
        """Bytes of weights that a token reads, times tokens per second, against what a copy moves."""
        return f"{speed * figures['token_bytes'] / figures['copy_bytes_per_second']:.0%}"

    def _fast_path(self, loaded: Any) -> graphs.GraphDecoder | Refusal:
        if self.device.startswith("cuda"):
            return graphs.create(loaded.model, loaded.window, loaded.report.kernel)
        return graphs.build(loaded.model, loaded.window, lambda step: step, lambda: 2**40)

    def _prefill(self, model: Any, ids: list[int]) -> float:
        inputs = torch.tensor([ids], device=self.device)

        def run() -> None:
            model(inputs, past_key_values=DynamicCache(config=model.config), logits_to_keep=1)

        run()
        return len(ids) / statistics.median(self._seconds(run) for _ in range(3))

    def _generate(self, model: Any, ids: list[int]) -> float:
        """Tokens per second of transformers' own loop, prefill taken off."""
        inputs = torch.tensor([ids], device=self.device)

        def run(count: int) -> float:
            options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
            return self._seconds(lambda: model.generate(inputs, attention_mask=torch.ones_like(inputs), **options))

        run(2)
        return self.lengths.eager / (run(self.lengths.eager + 1) - run(1))

    def _own_loop(self, model: Any, ids: list[int]) -> float:
        cache = DynamicCache(config=model.config)
        model(torch.tensor([ids], device=self.device), past_key_values=cache, logits_to_keep=1)
        return self._decode(lambda token: self._eager_step(model, cache, token), self.lengths.eager)

    def _eager_step(self, model: Any, cache: Any, token: int) -> Any:
        return model(torch.tensor([[token]], device=self.device), past_key_values=cache).logits[0, -1]

    def _graph(self, decoder: graphs.GraphDecoder, model: Any, ids: list[int]) -> float:
        session = SessionCache(model)
        model(torch.tensor([ids], device=self.device), past_key_values=session.cache, logits_to_keep=1)
        session.append(ids)
        refused = decoder.attach(session)
        if refused is not None:
            raise RuntimeError(refused.reason)
        speed = self._decode(decoder.step, self.lengths.graph)
        decoder.detach()
        return speed

    def _decode(self, step: Callable[[int], Any], count: int) -> float:
        """Greedy tokens per second; every token goes through the host, as sampled ones do."""
        token = int(step(2).argmax())

        def run() -> None:
            nonlocal token
            for _ in range(count):
                token = int(step(token).argmax())

        return count / self._seconds(run)

    def _seconds(self, run: Callable[[], object]) -> float:
        self._wait()
        begun = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def heading(device: str, shape: str, lengths: Lengths) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "gptqmodel"))
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU, {platform.machine()}"
    cuda = f", CUDA {torch.version.cuda}" if device.startswith("cuda") else ""
    return (
        f"{card}; Python {platform.python_version()}, {versions}{cuda}. Random weights of the shape {shape}; prompt "
        f"{lengths.prompt} tokens, answers of {lengths.eager} (generate, own loop) and {lengths.graph} (graph) tokens."
    )


def line(cells: list[str]) -> str:
    padded = cells + [""] * (len(COLUMNS) - len(cells))
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in padded) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--shape", choices=tuple(LENGTHS), default="7b")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    lengths = LENGTHS[options.shape]
    rows = Rows(options.device, lengths)
    lines = [heading(options.device, options.shape, lengths), "", line(list(COLUMNS)), "|" + "---|" * len(COLUMNS)]
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes(options.shape):
            for row in rows.of(recipe, Path(folder)):
                lines.append(line(row))
                print(lines[-1], file=sys.stderr, flush=True)
                options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
