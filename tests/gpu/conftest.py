"""The device of the GPU suite, and the checkpoints that its tests load.

`QUANTCHAT_TEST_DEVICE=cpu` runs everything that needs no CUDA on tiny shapes, to prove the suite itself.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gpu.checkpoints import Recipe, variants, write
from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo

DEVICE = os.environ.get("QUANTCHAT_TEST_DEVICE", "cuda:0")
TINY = Recipe("tiny", layers=2)
WIDE = replace(TINY, name="wide", group_size=128, hidden=4096, intermediate=14336, heads=32, kv_heads=8, window=32768)
"""Matrices as wide as those of a 7B model, and two layers of them."""


def base_recipe() -> Recipe:
    return WIDE if DEVICE.startswith("cuda") else TINY


RECIPES = {recipe.name.partition("-")[2] or "plain": recipe for recipe in variants(base_recipe())}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = _missing()
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _missing() -> str:
    if not DEVICE.startswith("cuda"):
        return "" if "QUANTCHAT_TEST_DEVICE" in os.environ else "no device"
    import torch

    return "" if torch.cuda.is_available() else "needs a CUDA device, and torch sees none"


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """A function that returns a recipe's checkpoint, made when first asked for."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[Recipe, ModelInfo] = {}

    def get(recipe: Recipe) -> ModelInfo:
        if recipe not in made:
            made[recipe] = read_model(write(recipe, folder / recipe.name, DEVICE))
        return made[recipe]

    return get
