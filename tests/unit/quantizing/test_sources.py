"""What a name on the command line means as the source of a quantization."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError
from quantchat.services.pull.names import Wanted
from quantchat.services.quantizing.sources import Adapter, find_base, find_source
from unit.catalog.model_folders import make_dense, make_gptq


@pytest.fixture
def models(tmp_path: Path) -> list[ModelInfo]:
    plain = read_model(make_dense(tmp_path / "plain"), name="Owner/Chat")
    packed = read_model(make_gptq(tmp_path / "packed"), name="Owner/Chat-GPTQ")
    return [plain, packed]


def test_names_and_paths_of_this_machine(models: list[ModelInfo]) -> None:
    assert find_source("owner/chat", models) is models[0]
    assert find_source(models[0].path, models) is models[0]
    assert find_source("Chat-GPTQ", models) is models[1]


def test_a_repository_that_is_not_here_is_to_be_fetched(models: list[ModelInfo]) -> None:
    # Only a part of it is the name of a model here.
    assert find_source("Owner/Cha", models) == Wanted("Owner/Cha")
    assert find_source("Owner/Chat@v2", models) == Wanted("Owner/Chat", "v2")


@pytest.mark.parametrize("name", ["nothing", "/nowhere/at/all", "./nothing"])
def test_what_is_neither_is_refused(models: list[ModelInfo], name: str) -> None:
    with pytest.raises(ModelError):
        find_source(name, models)


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("owner/chat", 0),
        ("/home/other/models/plain2", None),
        ("meta/Chat", Wanted("meta/Chat")),
        ("a/b/c", None),
        ("", None),
    ],
)
def test_the_base_of_an_adapter(models: list[ModelInfo], base: str, found: object) -> None:
    expected = models[found] if isinstance(found, int) else found
    assert find_base(Adapter(path="/a", base=base), models) == expected


def test_a_base_under_its_last_name_alone(tmp_path: Path, models: list[ModelInfo]) -> None:
    local = read_model(make_dense(tmp_path / "Llama-3"))
    assert find_base(Adapter(path="/a", base="meta/Llama-3"), [*models, local]) is local
    assert find_base(Adapter(path="/a", base=str(tmp_path / "Llama-3")), []) == local


def test_a_quantized_copy_is_no_base(models: list[ModelInfo]) -> None:
    assert find_base(Adapter(path="/a", base="Owner/Chat-GPTQ"), models) == Wanted("Owner/Chat-GPTQ")
