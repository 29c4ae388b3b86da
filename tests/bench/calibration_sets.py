"""What our calibration and settings are worth: the KL divergence from bf16 that a quantization to 4 bits costs.

`quantchat quantize` with the bundled set and its defaults stands beside GPTQModel called directly, with its own
defaults and 256 samples of a public text package. Both are measured on the held-out text, which neither has seen, and
on text of the public package that was kept back: there the other side has the advantage. SmolLM2's inner sizes allow
groups of 64 and not of 128, GPTQModel's default, so both sides have groups of 64.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import _fortunes
from bench._command_line import copied, evaluate, quantize, working_folder
from bench._report import Figure, parser, report
from demo_model import demo_model
from engine import tiny
from quantchat.domain.quality import Quality
from quantchat.services.demo import PLAIN

SAMPLES = 256
CHARACTERS = 1000
"""Of each sample; GPTQModel hears of 80,000 tokens, the bundled set has 50,000."""
KEPT_BACK = 10
"""Samples of the public package on which both are measured."""
BAR = 1.0

DIRECT = """
import json, os, sys
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
from gptqmodel import GPTQModel, QuantizeConfig
source, target, group, texts = sys.argv[1:]
model = GPTQModel.load(source, QuantizeConfig(bits=4, group_size=int(group)), device="cpu")
with open(texts, encoding="utf-8") as file:
    model.quantize(json.load(file))
model.save(target)
"""


def direct(source: Path, target: Path, texts: list[str], group: int) -> None:
    """Quantize without quantchat, as GPTQModel's own examples do, unless it is done already."""
    if target.exists():
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(texts, file)
        file.flush()
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-c", DIRECT, str(source), str(partial), str(group), file.name]
        with target.with_suffix(".log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd=target.parent)
        partial.rename(target)


def measure(source: Path, folder: Path, group: int, count: int, bar: float | None = None) -> list[Figure]:
    texts = _fortunes.samples(count + KEPT_BACK, CHARACTERS)
    kept_back = folder / "kept-back.txt"
    kept_back.write_text("\n\n".join(texts[count:]), encoding="utf-8")
    source = copied(source, folder)
    ours, theirs = folder / "quantchat", folder / "gptqmodel"
    quantize(source, ours, "--method", "gptq", "--bits", "4", "--group-size", str(group))
    direct(source, theirs, texts[:count], group)
    on_held_out = evaluate([ours, theirs], source)
    on_kept_back = evaluate([ours, theirs], source, "--text", kept_back)
    return [
        *figures("held-out text", on_held_out[ours], on_held_out[theirs], bar),
        *figures(f"kept back of {_fortunes.PACKAGE}", on_kept_back[ours], on_kept_back[theirs]),
    ]


def figures(text: str, ours: Quality, theirs: Quality, bar: float | None = None) -> list[Figure]:
    divergences = [quality.divergence or 0.0 for quality in (ours, theirs)]
    agreements = [100 * (quality.agreement or 0.0) for quality in (ours, theirs)]
    return [
        Figure(f"{text}: quantchat, KL divergence", divergences[0], "nats"),
        Figure(f"{text}: GPTQModel, KL divergence", divergences[1], "nats"),
        Figure(f"{text}: ours by theirs", divergences[0] / divergences[1], "ratio", bar),
        Figure(f"{text}: quantchat, same likeliest token", agreements[0], "%"),
        Figure(f"{text}: GPTQModel, same likeliest token", agreements[1], "%"),
        Figure(f"{text}: tokens", ours.tokens, "tokens"),
    ]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--folder", type=Path, help="keep the models here, and take those that are there already")
    chosen = options.parse_args()
    with working_folder(chosen.folder) as folder:
        if chosen.quick:
            measured = measure(tiny.folder() / "dense", folder, group=32, count=16)
        else:
            measured = measure(demo_model().with_name(PLAIN), folder, group=64, count=SAMPLES, bar=BAR)
    report(measured, as_json=chosen.json)


if __name__ == "__main__":
    main()
