"""Whether a plan can be carried out on this machine, told before any weight is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.catalog.matrices import matrices
from quantchat.domain.kernel_table import Kernel
from quantchat.domain.matrices import Matrix
from quantchat.domain.models import ModelInfo, Problem, QuantSpec
from quantchat.domain.quantizing import Recipe
from quantchat.errors import KernelError
from quantchat.services.background import in_background
from quantchat.services.experience import choose
from quantchat.services.memory import MemoryView
from quantchat.services.quantizing.checks import (
    fault,
    output_problems,
    recipe_problems,
    source_problems,
    text_problems,
)
from quantchat.services.quantizing.plan import Plan, Preflight
from quantchat.services.quantizing.room import gpus_of, judge_room
from quantchat.services.quantizing.sources import Subject, find_subject

_PRECISION = re.compile(r"[-_.](?:bf16|fp16|f16|fp32|f32|i?q\d\w*)$", re.IGNORECASE)
"""The ending of a name that tells how the weights of the source are stored."""


async def examine(
    plan: Plan, view: MemoryView, models: Sequence[ModelInfo] = (), roots: Sequence[Path] = ()
) -> Preflight:
    """Say what a plan takes; quick enough to be asked at each change of a form.

    Args:
        plan: What is wanted; its source is a path.
        view: A look at the memory of this machine.
        models: Those of this machine, among which the base of an adapter is looked for.
        roots: The folders that are scanned for models; without any nothing is said about whether the result is found.
    """
    return await in_background(_examine, plan, view, tuple(models), tuple(roots))


def _examine(plan: Plan, view: MemoryView, models: tuple[ModelInfo, ...], roots: tuple[Path, ...]) -> Preflight:
    subject = find_subject(plan, models)
    problems = list(source_problems(subject))
    found = matrices(subject.model, lm_head=plan.recipe.lm_head) if subject.model is not None else ()
    plan = _completed(plan, subject, found)
    assert plan.output is not None
    tied = subject.model is not None and subject.model.tied
    problems += (unfit := tuple(recipe_problems(plan.recipe, found, tied=tied)))
    problems += text_problems(plan.calibration)
    problems += output_problems(plan.output, plan.source, roots)
    preflight = Preflight(plan=plan, model=subject.model, problems=tuple(problems))
    if subject.model is None or not found:
        return preflight
    if not any(problem.severity == "error" for problem in unfit):
        preflight = _with_kernel(preflight, found, view)
    return judge_room(preflight, found, view)


def _completed(plan: Plan, subject: Subject, found: Sequence[Matrix]) -> Plan:
    """Fill in what the user left open."""
    recipe = plan.recipe.resolved([matrix.sides for matrix in found]) if found else plan.recipe
    source = subject.model.path if subject.model is not None else plan.source
    adapter = subject.adapter.path if subject.adapter is not None else ""
    named = _PRECISION.sub("", subject.model.name if subject.model is not None else Path(plan.source).name)
    if adapter:
        named = f"{named}-{Path(adapter).name}"
    output = plan.output or paths.models_dir() / recipe.folder_name(named)
    # Without `..`: the name of what is staged and renamed is the last part.
    output = Path(os.path.abspath(output.expanduser()))
    return msgspec.structs.replace(plan, recipe=recipe, source=source, adapter=adapter, output=output)


def _with_kernel(preflight: Preflight, found: Sequence[Matrix], view: MemoryView) -> Preflight:
    """Say with which kernel the result would run here."""
    recipe, model = preflight.plan.recipe, preflight.model
    if view.experience is None or model is None:
        return preflight
    packed = msgspec.structs.replace(model.weights, matrices=tuple(sorted({matrix.sides for matrix in found})))
    result = msgspec.structs.replace(model, quant=spec_of(recipe), weights=packed)
    chosen = choose(result, view.experience.host(gpus_of(view)[:1]), None)
    problems = [*preflight.problems, *_kernel_problems(chosen)]
    kernel = chosen.name if isinstance(chosen, Kernel) else ""
    return msgspec.structs.replace(preflight, kernel=kernel, problems=tuple(problems))


def _kernel_problems(chosen: Kernel | KernelError | None) -> Iterator[Problem]:
    if isinstance(chosen, KernelError):
        report = chosen.report
        cause = f"The result would not run on this machine: {report.title}"
        yield fault("kernel", cause, report.remedy or "Choose other bits or another group size", "warning")
    elif chosen is not None and chosen.slow:
        cause = f"The result would run slowly on this machine: only {chosen.name} takes such a model"
        yield fault("kernel-slow", cause, "4 bits, GPTQ and symmetric, run fastest", "warning")


def spec_of(recipe: Recipe) -> QuantSpec:
    """Return what the catalog will read of the result."""
    return QuantSpec(
        method=recipe.method,
        bits=recipe.bits,
        group_size=recipe.group_size,
        desc_act=recipe.desc_act,
        sym=recipe.symmetric,
        checkpoint_format=recipe.packing,
        lm_head=recipe.lm_head,
    )
