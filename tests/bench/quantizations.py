"""What each quantization of the demo's model costs and brings: the table and the chart of `docs/quantize.md`.

SmolLM2-135M-Instruct goes through `quantchat quantize` to GPTQ with 8, 4 and 3 bits and to AWQ with 4, with the
bundled calibration set, then all go through `quantchat evaluate` against the bf16 model on the held-out text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._command_line import copied, evaluate, quantchat, quantize, working_folder
from bench._report import parser
from demo_model import demo_model
from engine import tiny
from quantchat.domain.quality import Quality
from quantchat.services.demo import PLAIN

RECIPES = {"gptq-8": ("gptq", "8"), "gptq-4": ("gptq", "4"), "awq-4": ("awq", "4"), "gptq-3": ("gptq", "3")}
HEADS = ("Model", "Bits per weight", "KL (nats)", "Same top token", "Perplexity", "On disk", "Memory", "Tokens/s")
MB = 1e6
QUICK = ("--samples", "8", "--group-size", "32")


def make(source: Path, folder: Path, recipes: list[str], *options: str) -> list[Path]:
    """Quantize, what is there already left out, and say how long each took."""
    made = []
    for name in recipes:
        method, bits = RECIPES[name]
        target = folder / f"{source.name.removesuffix('-bf16')}-{name}"
        begun = time.perf_counter()
        quantize(source, target, "--method", method, "--bits", bits, *options)
        print(f"{target.name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        made.append(target)
    return made


def table(measured: dict[Path, Quality]) -> Iterator[str]:
    """Markdown, one line a model, in the order of the measurements."""
    yield f"| {' | '.join(HEADS)} |"
    yield f"|---|{'---:|' * (len(HEADS) - 1)}"
    for path, quality in measured.items():
        yield f"| {' | '.join(cells(path, quality))} |"


def cells(path: Path, quality: Quality) -> Iterator[str]:
    yield quality.quantization if quality.divergence is not None else path.name.rpartition("-")[2]
    yield f"{quality.bits:.2f}"
    yield "–" if quality.divergence is None else f"{quality.divergence:.4f}"
    yield "–" if quality.agreement is None else f"{100 * quality.agreement:.1f} %"
    yield f"{quality.perplexity:.2f}"
    yield f"{quality.disk_bytes / MB:.0f} MB"
    yield f"{quality.device_bytes / MB:.0f} MB"
    yield (
        f"{quality.tokens_per_second:.1f} ({quality.kernel})" if quality.kernel else f"{quality.tokens_per_second:.1f}"
    )


def as_json(measured: dict[Path, Quality]) -> str:
    return json.dumps({path.name: msgspec.to_builtins(quality) for path, quality in measured.items()})


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--folder", type=Path, help="keep the models here, and take those that are there already")
    chosen = options.parse_args()
    original = tiny.folder() / "dense" if chosen.quick else demo_model().with_name(PLAIN)
    with working_folder(chosen.folder) as folder:
        source = copied(original, folder)
        recipes, more = (["gptq-4"], QUICK) if chosen.quick else (list(RECIPES), ())
        models = make(source, folder, recipes, *more)
        measured = evaluate(models, source)
        if chosen.json:
            print(as_json(measured))
            return
        print(*table(measured), "", sep="\n")
        print(quantchat("evaluate", "--stored", *models), end="")


if __name__ == "__main__":
    main()
