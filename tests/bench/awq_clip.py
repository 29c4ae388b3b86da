"""AWQ's clip search on layers of SmolLM2-135M: quantchat's against GPTQModel's, in one run.

Both get the same weights and features. GPTQModel looks at 512 of the tokens, quantchat at all. Printed are the seconds
of both, their ratio, and the mean squared error over all tokens with the bounds that each has chosen.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from demo_model import demo_model
from quantchat.domain.quantizing import CalibrationChoice
from quantchat.engine import quiet
from quantchat.quantize import calibration, clip
from quantchat.quantize.watch import Watch
from quantchat.services.demo import PLAIN

GROUP = 64
TOKENS = 4096
LINEARS = ("self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


class LayerReached(Exception):
    """The features of the last layer in question are there."""


def cases(layers: list[int]) -> Iterator[tuple[Any, Any]]:
    """Yield the weights of linear modules, and what they get as input on the calibration text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model().parent / PLAIN
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    watch = Watch(lambda _: None, lambda: False)
    rows = calibration.packed(calibration.prepare(tokenizer, CalibrationChoice(), watch)[0], 512)[: TOKENS // 512]
    features: dict[Any, Any] = {}
    modules = [model.get_submodule(f"model.layers.{layer}.{name}") for layer in layers for name in LINEARS]
    for module in modules:
        module.register_forward_pre_hook(lambda module, inputs: features.__setitem__(module, inputs[0]))
    modules[-1].register_forward_hook(lambda *_: stop())
    with torch.inference_mode(), suppress(LayerReached):
        model(torch.tensor(rows), use_cache=False)
    for module in modules:
        yield module.weight.detach(), features[module]


def stop() -> None:
    raise LayerReached


def timed(search: Callable[..., Any], processor: Any, weight: Any, features: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    bounds = search(processor, weight, features)
    return time.perf_counter() - begun, bounds


def error(processor: Any, weight: Any, features: Any, bounds: Any) -> float:
    """Mean squared error of the output of all groups over all tokens."""
    import torch

    groups = weight.reshape(*bounds.shape[:2], -1)
    changed = torch.empty_like(groups)
    processor._pseudo_quantize_tensor_into(groups.clamp(-bounds, bounds), changed, abs_max=bounds)
    change = (changed.double() - groups.double()).transpose(0, 1)
    inputs = features.reshape(-1, groups.shape[1], groups.shape[2])
    return float(((change @ clip.gram(inputs, "cpu").double()) * change).sum() / inputs.shape[0])


def main() -> None:
    options = parser(__doc__).parse_args()
    quiet.set_environment()
    warnings.simplefilter("ignore")
    quiet.silence()
    from gptqmodel.looper.awq_processor import AWQProcessor

    processor = AWQProcessor.__new__(AWQProcessor)
    processor.qcfg = SimpleNamespace(group_size=GROUP, sym=False, bits=4)
    seconds, errors = [0.0, 0.0], [0.0, 0.0]
    for weight, features in cases([10] if options.quick else [3, 20]):
        for side, search in enumerate((AWQProcessor._compute_best_clip, clip.compute_best_clip)):
            took, bounds = timed(search, processor, weight, features)
            seconds[side] += took
            errors[side] += error(processor, weight, features, bounds)
    figures = [
        Figure("GPTQModel's search", seconds[0], "s"),
        Figure("quantchat's search", seconds[1], "s"),
        Figure("times as fast", seconds[0] / seconds[1], "", bar=10.0, at_least=True),
        Figure("squared error, quantchat to GPTQModel", errors[1] / errors[0], "", bar=1.0),
    ]
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
