"""A recipe is named in full, resolved by the sizes of the matrices, and refused with what to choose in its place."""

from __future__ import annotations

import pytest

from quantchat.domain.quantizing import Recipe, refusals

SMOLLM2 = [(576, 576), (576, 192), (576, 1536), (1536, 576)]


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe(group_size=64), "Model-GPTQ-4bit-g64"),
        (Recipe(bits=8, group_size=-1, desc_act=True), "Model-GPTQ-8bit-column-actorder"),
        (Recipe(group_size=32, sym=False, lm_head=True), "Model-GPTQ-4bit-g32-asym-head"),
        (Recipe(group_size=32, checkpoint_format="gptq_v2"), "Model-GPTQ-4bit-g32-gptq_v2"),
        (Recipe(group_size=32, sym=True, checkpoint_format="gptq"), "Model-GPTQ-4bit-g32"),
        (Recipe(method="awq", group_size=128), "Model-AWQ-4bit-g128"),
        (Recipe(method="awq", group_size=128, sym=True), "Model-AWQ-4bit-g128-sym"),
        (Recipe(method="awq", group_size=128, sym=False, checkpoint_format="gemv"), "Model-AWQ-4bit-g128-gemv"),
    ],
)
def test_folders_of_different_recipes_have_different_names(recipe: Recipe, name: str) -> None:
    assert recipe.folder_name("owner/Model") == name


def test_the_largest_usual_group_size_that_divides_is_taken() -> None:
    assert Recipe().resolved(SMOLLM2).group_size == 64
    assert Recipe().resolved([(4096, 11008), (11008, 4096)]).group_size == 128
    assert Recipe().resolved([(100, 100)]).group_size == -1
    assert Recipe(group_size=32).resolved(SMOLLM2).group_size == 32


@pytest.mark.parametrize(
    ("recipe", "code", "remedy"),
    [
        (Recipe(group_size=128), "group-size", "Choose 64, 32 or -1"),
        (Recipe(bits=5), "bits", "Choose 2, 3, 4 or 8"),
        (Recipe(method="awq", bits=3), "bits", "Choose 4"),
        (Recipe(method="awq", desc_act=True), "desc-act", "Leave it out, or choose GPTQ"),
        (Recipe(damping=1.0), "damping", "Choose a number above 0 and below 1, such as 0.01"),
    ],
)
def test_what_cannot_be_made_is_refused(recipe: Recipe, code: str, remedy: str) -> None:
    (refusal,) = refusals(recipe, SMOLLM2)
    assert (refusal.code, refusal.remedy) == (code, remedy)


def test_what_can_be_made_is_not() -> None:
    assert not list(refusals(Recipe(group_size=64), SMOLLM2))
    assert not list(refusals(Recipe(method="awq", group_size=32), SMOLLM2))
