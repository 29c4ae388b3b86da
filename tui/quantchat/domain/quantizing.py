"""What a quantization is asked for, and whether it can be made of matrices of given sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

Method = Literal["gptq", "awq"]
BITS: dict[Method, tuple[int, ...]] = {"gptq": (2, 3, 4, 8), "awq": (4,)}
GROUP_SIZES = (128, 64, 32)
"""The usual ones, the most compact first; any other that divides the inputs is taken too."""
FORMATS: dict[Method, tuple[str, ...]] = {"gptq": ("gptq", "gptq_v2"), "awq": ("gemm", "gemv", "gemv_fast")}
"""How the integers are packed; the first is what most programs read."""
GEMV_GROUPS = (64, 128)
SMALLEST_GROUP = 16
DAMPING = 0.01
"""Of the GPTQ paper. With GPTQModel's 0.05 the divergence of SmolLM2-135M (4 bits, group 64) is 0.227 and not 0.207."""
AWQ_TOKENS = {"cpu": 8192, "cuda": 65536}
"""Calibration tokens that AWQ reads where the user names no number of samples: it reads them twenty times over."""
ENOUGH_SAMPLES = 1024
"""Taken of a very large file where the user names no number."""
PROSE_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
"""Of plain text; every other calibration file holds a conversation per line, unless its beginning says otherwise."""
SHORTEST_SAMPLE = 11
"""Tokens; GPTQModel drops samples of ten and fewer."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a quantization.

    Attributes:
        bits: Bits per weight.
        group_size: Weights that share a scale; -1 for one group per column; None takes the largest usual one that fits.
        desc_act: GPTQ act-order: columns are quantized by falling activation size; slower kernels, a little exacter.
        sym: Symmetric: no stored zero point. Most fast kernels want it of GPTQ, while those for AWQ expect zero points,
            with which it is also exacter. None for the method's usual.
        damping: Share of the mean Hessian diagonal that is added to it (GPTQ), above 0 and below 1; None for `DAMPING`.
        lm_head: Quantize the output head too.
        checkpoint_format: One of `FORMATS`; empty takes the first.
    """

    method: Method = "gptq"
    bits: int = 4
    group_size: int | None = None
    desc_act: bool = False
    sym: bool | None = None
    damping: float | None = None
    lm_head: bool = False
    checkpoint_format: str = ""

    @property
    def packing(self) -> str:
        """The checkpoint format that is written."""
        return self.checkpoint_format or FORMATS[self.method][0]

    @property
    def symmetric(self) -> bool:
        """Whether no zero points are stored."""
        return self.method == "gptq" if self.sym is None else self.sym

    def label(self) -> str:
        """The short form, such as `GPTQ 4b g64`; as `QuantSpec.label` writes it."""
        group = "" if self.group_size is None else f" g{self.group_size}" if self.group_size > 0 else " column"
        return f"{self.method.upper()} {self.bits}b{group}"

    def folder_name(self, model: str) -> str:
        """The usual name of the result's folder, such as `SmolLM2-GPTQ-4bit-g64`, and what is unusual in it."""
        group = "" if self.group_size is None else f"-g{self.group_size}" if self.group_size > 0 else "-column"
        usual = self.method == "gptq"
        unusual = {
            "-actorder": self.desc_act,
            "-sym" if self.symmetric else "-asym": self.symmetric != usual,
            "-head": self.lm_head,
            f"-{self.packing}": self.packing != FORMATS[self.method][0],
        }
        rest = "".join(name for name, present in unusual.items() if present)
        return f"{model.rpartition('/')[2]}-{self.method.upper()}-{self.bits}bit{group}{rest}"

    def resolved(self, matrices: Iterable[tuple[int, int]]) -> Recipe:
        """Choose the group size where it is left open: the largest usual one that divides all inputs."""
        if self.group_size is not None:
            return self
        inputs = {inputs for inputs, _ in matrices}
        fitting = (size for size in GROUP_SIZES if all(width % size == 0 for width in inputs))
        return msgspec.structs.replace(self, group_size=next(fitting, -1))


class CalibrationChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which text the quantizer watches the model read.

    Attributes:
        path: JSONL file of `{"messages": [...]}` lines, or plain text (`.txt`, `.md`); empty for the bundled set.
        name: What the model card calls it; the file's name if empty.
        samples: How many samples are taken, spread evenly over the file; 0 for all, of a very large file 1,024.
        length: Longest sample in tokens; what is longer is cut.
    """

    path: str = ""
    name: str = ""
    samples: int = 0
    length: int = 512


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a calibration set with a model's tokenizer and chat template. Lengths are in tokens.

    Attributes:
        samples: How many are used.
        available: How many different ones the file holds; of plain text, how many were read.
        dropped: How many were too short to be used.
        duplicates: How many were left out because the same stands above.
        cut: How many were cut to the longest length.
        tokens: All tokens that the model reads, padding not counted.
        shortest: Length of the shortest sample, `middle` of the median one, `longest` of the longest.
        padding: Tokens added so that the samples of a batch have one length; masked, they count for nothing.
        template: `model` for the model's own chat template, `none` where it has none and texts are joined.
    """

    samples: int
    available: int = 0
    dropped: int = 0
    duplicates: int = 0
    cut: int = 0
    tokens: int = 0
    shortest: int = 0
    middle: int = 0
    longest: int = 0
    padding: int = 0
    template: str = "model"

    def summary(self) -> str:
        """Say it in one line, such as `96 samples of 24 to 512 tokens, 18,301 in all; 3 cut; 4 % padding`."""
        span = f"{self.shortest:,} to {self.longest:,}" if self.shortest < self.longest else f"{self.longest:,}"
        plural = "" if self.samples == 1 else "s"
        share = round(100 * self.padding / (self.tokens + self.padding or 1))
        told = (
            f"{self.samples:,} sample{plural} of {span} tokens, {self.tokens:,} in all",
            f"{self.cut:,} cut" if self.cut else "",
            f"{self.dropped:,} too short" if self.dropped else "",
            f"{self.duplicates:,} twice" if self.duplicates else "",
            f"{share} % padding" if share else "",
            "no chat template" if self.template == "none" else "",
        )
        return "; ".join(filter(None, told))


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a quantization cannot be made, and what to choose in its place."""

    code: str
    cause: str
    remedy: str


def refusals(recipe: Recipe, matrices: Iterable[tuple[int, int]] = ()) -> Iterator[Refusal]:
    """Say what of a recipe does not go together, or not with matrices of these inputs and outputs."""
    yield from _settings(recipe)
    size = recipe.group_size
    if size is not None and size > 0:
        widths = sorted({inputs for inputs, _ in matrices if inputs % size})
        if widths:
            yield _indivisible(size, widths, [inputs for inputs, _ in matrices])
    if recipe.method == "awq":
        odd = sorted({outputs for _, outputs in matrices if outputs % 8})
        if odd:
            cause = f"AWQ packs 8 output columns together, and the model has matrices of {_numbers(odd)} outputs"
            yield Refusal(code="awq-outputs", cause=cause, remedy="Choose GPTQ")


def _settings(recipe: Recipe) -> Iterator[Refusal]:
    method = recipe.method.upper()
    if recipe.bits not in BITS[recipe.method]:
        choices = _numbers(BITS[recipe.method])
        yield Refusal(
            code="bits", cause=f"{recipe.bits} bits are not possible with {method}", remedy=f"Choose {choices}"
        )
    if recipe.packing not in FORMATS[recipe.method]:
        cause = f"{method} cannot be written as {recipe.packing}"
        yield Refusal(code="format", cause=cause, remedy=f"Choose {' or '.join(FORMATS[recipe.method])}")
    size = recipe.group_size
    if size is not None and size != -1 and size < SMALLEST_GROUP:
        cause = f"{size} is not a group size"
        yield Refusal(code="group-size", cause=cause, remedy="Choose -1 for whole columns, 32, 64 or 128")
    if recipe.method == "awq" and recipe.desc_act:
        yield Refusal(code="desc-act", cause="AWQ has no act-order", remedy="Leave it out, or choose GPTQ")
    if recipe.method == "awq" and recipe.lm_head:
        yield Refusal(
            code="lm-head", cause="AWQ cannot quantize the output head", remedy="Leave it out, or choose GPTQ"
        )
    if recipe.packing == "gemv" and size is not None and size not in GEMV_GROUPS:
        cause = "The format gemv knows only groups of 64 or 128"
        yield Refusal(code="format", cause=cause, remedy="Choose one of those, or the format gemm")
    if recipe.damping is not None and not 0 < recipe.damping < 1:
        cause = f"A damping of {recipe.damping:g} is out of range"
        yield Refusal(code="damping", cause=cause, remedy="Choose a number above 0 and below 1, such as 0.01")


def _indivisible(size: int, widths: list[int], inputs: list[int]) -> Refusal:
    fitting = [usual for usual in GROUP_SIZES if all(width % usual == 0 for width in inputs)]
    cause = f"Groups of {size} do not fit: {size} does not divide {_numbers(widths)}, the inputs of some layers"
    return Refusal(code="group-size", cause=cause, remedy=f"Choose {_numbers([*fitting, -1])}")


def _numbers(numbers: Iterable[int]) -> str:
    texts = list(map(str, numbers))
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"
