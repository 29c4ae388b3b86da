"""The settings of a quantization as rows: what each is, what it means, what else it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quantchat.domain.quantizing import BITS, DAMPING, FORMATS, GROUP_SIZES, Method, Recipe
from quantchat.domain.text import clean
from quantchat.errors import UsageError
from quantchat.services.quantizing.plan import Plan
from quantchat.ui.jobs import LEAST, short_path
from quantchat.ui.widgets.rows import Row, shorten

LABEL = 13
"""Cells of the names."""
SAMPLES = (0, 64, 128, 256, 512)
LENGTHS = (256, 512, 1024, 2048)
ON, OFF = "yes", "no"

Choice = tuple[str, Plan]
"""A value in words, and the plan that has it."""


@dataclass(frozen=True)
class Setting:
    """One line of the form.

    Attributes:
        shown: The value in words.
        choices: What it can be; empty where it can only be typed.
        typed: Makes a plan of what was typed; None where it can only be chosen.
        written: What stands in the line to type in at first.
        applies: Whether it means anything for the plan's method.
    """

    name: str
    label: str
    meaning: str
    shown: Callable[[Plan], str]
    choices: Callable[[Plan], Sequence[Choice]] = lambda plan: ()
    typed: Callable[[Plan, str], Plan] | None = None
    written: Callable[[Plan], str] = lambda plan: ""
    applies: Callable[[Plan], bool] = lambda plan: True

    def row(self, plan: Plan, width: int) -> Row:
        """Lay it out for a list of so many cells; of a long value the middle is left out."""
        value = clean(self.shown(plan), newlines=False) if self.applies(plan) else f"not with {_name(plan)}"
        value = shorten(value, max(width - LABEL - 2, LEAST))
        return Row(self.name, f"{self.label:{LABEL}}{value}", enabled=self.applies(plan), prose=True)

    def moved(self, plan: Plan, step: int) -> Plan:
        """Return the plan with the next value, or the one before; a typed one is followed by the first."""
        choices = self.choices(plan)
        if not choices or not self.applies(plan):
            return plan
        words = [word for word, _ in choices]
        place = words.index(self.shown(plan)) + step if self.shown(plan) in words else min(step, 0)
        return choices[place % len(choices)][1]


def _name(plan: Plan) -> str:
    return plan.recipe.method.upper()


def with_recipe(plan: Plan, **changes: object) -> Plan:
    """Return a plan with another recipe."""
    return msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, **changes))


def with_calibration(plan: Plan, **changes: object) -> Plan:
    """Return a plan with another calibration."""
    return msgspec.structs.replace(plan, calibration=msgspec.structs.replace(plan.calibration, **changes))


# Values in words


def _group(size: int | None) -> str:
    return "automatic" if size is None else "whole column" if size == -1 else str(size)


def _samples(count: int) -> str:
    return f"{count:,}" if count else "all"


def _switch(value: bool) -> str:
    return ON if value else OFF


def source_name(path: str) -> str:
    """What a model is called by its path; in the hub's cache by its repository."""
    parts = Path(path).parts
    repository = next((part for part in parts if part.startswith("models--")), "")
    return repository.removeprefix("models--").replace("--", "/") or "".join(parts[-1:])


def calibration_words(plan: Plan) -> str:
    """What the model reads while it is quantized."""
    pick = plan.sessions
    if pick is None:
        return plan.calibration.name or short_path(plan.calibration.path) or "bundled set"
    words = [*(f"#{tag}" for tag in pick.tags), f"last {pick.last}" if pick.last else "", "archived" * pick.archived]
    which = " ".join(filter(None, words)) or ("all" if not pick.ids else "")
    named = f"{len(pick.ids)} named" if len(pick.ids) > 1 else "one" * len(pick.ids)
    return f"own sessions: {' '.join(filter(None, (named, which)))}"


# Other values


def _methods(plan: Plan) -> list[Choice]:
    return [(method.upper(), _with_method(plan, method)) for method in BITS]


def _with_method(plan: Plan, method: Method) -> Plan:
    """Leave out what the other method does not know."""
    bits = plan.recipe.bits if plan.recipe.bits in BITS[method] else Recipe().bits
    changes: dict[str, object] = {} if method == "gptq" else {"desc_act": False, "damping": None, "lm_head": False}
    return with_recipe(plan, method=method, bits=bits, checkpoint_format="", sym=None, **changes)


def _formats(plan: Plan) -> list[Choice]:
    first, *others = FORMATS[plan.recipe.method]
    named = [(name, with_recipe(plan, checkpoint_format=name)) for name in others]
    return [(first, with_recipe(plan, checkpoint_format="")), *named]


def _symmetries(plan: Plan) -> list[Choice]:
    usual = with_recipe(plan, sym=None)
    return [(_switch(usual.recipe.symmetric), usual), (_switch(not usual.recipe.symmetric), _unusual(usual))]


def _unusual(usual: Plan) -> Plan:
    return with_recipe(usual, sym=not usual.recipe.symmetric)


def _is_gptq(plan: Plan) -> bool:
    return plan.recipe.method == "gptq"


def _switches(name: str) -> Callable[[Plan], list[Choice]]:
    return lambda plan: [(_switch(value), with_recipe(plan, **{name: value})) for value in (False, True)]


def _plan_switches(name: str) -> Callable[[Plan], list[Choice]]:
    return lambda plan: [(_switch(value), msgspec.structs.replace(plan, **{name: value})) for value in (False, True)]


# What is typed


def _whole(text: str, least: int) -> int:
    try:
        number = int(text.replace(",", ""))
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(f"{clean(text, newlines=False)!r} is not a whole number of at least {least}")
    return number


def _typed_group(plan: Plan, text: str) -> Plan:
    word = text.strip().lower()
    if word in ("", "auto", "automatic"):
        return with_recipe(plan, group_size=None)
    if word in ("-1", "column", "whole column"):
        return with_recipe(plan, group_size=-1)
    return with_recipe(plan, group_size=_whole(word, 1))


def _typed_damping(plan: Plan, text: str) -> Plan:
    word = text.strip().replace(",", ".")
    if word.lower() in ("", "default"):
        return with_recipe(plan, damping=None)
    try:
        damping = float(word)
    except ValueError:
        raise UsageError(f"{clean(text, newlines=False)!r} is not a number") from None
    return with_recipe(plan, damping=damping)


def _typed_samples(plan: Plan, text: str) -> Plan:
    word = text.strip().lower()
    return with_calibration(plan, samples=0 if word in ("", "all") else _whole(word, 1))


def _typed_length(plan: Plan, text: str) -> Plan:
    return with_calibration(plan, length=_whole(text.strip(), 1))


def _typed_output(plan: Plan, text: str) -> Plan:
    path = Path(text.strip()).expanduser().absolute() if text.strip() else None
    return msgspec.structs.replace(plan, output=path)


def _typed_adapter(plan: Plan, text: str) -> Plan:
    path = str(Path(text.strip()).expanduser().absolute()) if text.strip() else ""
    return msgspec.structs.replace(plan, adapter=path)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "source",
        "Model",
        "What is quantized: a model of the list, or the path of a folder or GGUF file",
        lambda plan: source_name(plan.source) or "choose one",
    ),
    Setting(
        "adapter",
        "LoRA adapter",
        "Folder of an adapter that is merged into the model first; empty for none",
        lambda plan: short_path(plan.adapter) or "none",
        typed=_typed_adapter,
        written=lambda plan: plan.adapter,
    ),
    Setting(
        "output",
        "Result",
        "Folder that is made; empty for one among quantchat's own models",
        lambda plan: short_path(str(plan.output)) if plan.output else "automatic",
        typed=_typed_output,
        written=lambda plan: str(plan.output or ""),
    ),
    Setting(
        "method",
        "Method",
        "GPTQ: any bits, most kernels. AWQ: 4 bits, slower to make",
        _name,
        choices=_methods,
    ),
    Setting(
        "bits",
        "Bits",
        "Fewer are smaller and worse: 4 is usual, 8 loses next to nothing, 2 and 3 have few fast kernels",
        lambda plan: str(plan.recipe.bits),
        choices=lambda plan: [(str(bits), with_recipe(plan, bits=bits)) for bits in BITS[plan.recipe.method]],
    ),
    Setting(
        "group-size",
        "Group size",
        "Weights that share a scale: smaller groups are better and larger on disk",
        lambda plan: _group(plan.recipe.group_size),
        choices=lambda plan: [(_group(size), with_recipe(plan, group_size=size)) for size in (None, *GROUP_SIZES, -1)],
        typed=_typed_group,
        written=lambda plan: "" if plan.recipe.group_size is None else str(plan.recipe.group_size),
    ),
    Setting(
        "act-order",
        "Act-order",
        "desc_act: quantizes what is active most first; a little better, slower kernels",
        lambda plan: _switch(plan.recipe.desc_act),
        choices=_switches("desc_act"),
        applies=_is_gptq,
    ),
    Setting(
        "symmetric",
        "Symmetric",
        "Without zero points, as the fast kernels want it of GPTQ; AWQ is usual with them, and better",
        lambda plan: _switch(plan.recipe.symmetric),
        choices=_symmetries,
    ),
    Setting(
        "damping",
        "Damping",
        "Share of the mean diagonal that is added to the Hessian, such as 0.05",
        lambda plan: f"{DAMPING:g}, the default" if plan.recipe.damping is None else f"{plan.recipe.damping:g}",
        typed=_typed_damping,
        written=lambda plan: "" if plan.recipe.damping is None else f"{plan.recipe.damping:g}",
        applies=_is_gptq,
    ),
    Setting(
        "lm-head",
        "Output head",
        "Quantize lm_head too: smaller, and worse; not for models that share it with the embedding",
        lambda plan: _switch(plan.recipe.lm_head),
        choices=_switches("lm_head"),
        applies=_is_gptq,
    ),
    Setting(
        "format",
        "Format",
        "How the integers are packed; the first is what most programs read",
        lambda plan: plan.recipe.packing,
        choices=_formats,
    ),
    Setting(
        "calibration",
        "Calibration",
        "Text that the model reads meanwhile: the bundled set, your sessions, or a JSONL or text file",
        calibration_words,
    ),
    Setting(
        "samples",
        "Samples",
        "How many of its samples are read, spread evenly; fewer are faster",
        lambda plan: _samples(plan.calibration.samples),
        choices=lambda plan: [(_samples(count), with_calibration(plan, samples=count)) for count in SAMPLES],
        typed=_typed_samples,
        written=lambda plan: str(plan.calibration.samples or ""),
    ),
    Setting(
        "length",
        "Length",
        "Longest sample in tokens; longer ones are cut",
        lambda plan: f"{plan.calibration.length:,} tokens",
        choices=lambda plan: [(f"{size:,} tokens", with_calibration(plan, length=size)) for size in LENGTHS],
        typed=_typed_length,
        written=lambda plan: str(plan.calibration.length),
    ),
    Setting(
        "smoke",
        "Try it",
        "Ask the result one question afterwards",
        lambda plan: _switch(plan.smoke),
        choices=_plan_switches("smoke"),
    ),
    Setting(
        "evaluate",
        "Measure it",
        "Measure perplexity and divergence from the original afterwards; loads both, one after the other",
        lambda plan: _switch(plan.evaluate),
        choices=_plan_switches("evaluate"),
    ),
)


def find_setting(name: str | None) -> Setting | None:
    """Return the setting of a row."""
    return next((setting for setting in SETTINGS if setting.name == name), None)
