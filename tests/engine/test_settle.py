"""Files that a load has mapped are let go when what is left of them is little."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantchat.engine import memory

pytestmark = pytest.mark.engine
LEFT = torch.arange(4096.0).reshape(64, 64)


def mapped(file: Path, names: list[str]) -> torch.nn.Module:
    """A module with some tensors of a file, one of them under two names, and one as a buffer."""
    module, other = torch.nn.Module(), torch.nn.Module()
    with safe_open(file, framework="pt") as opened:
        for name in names:
            module.register_parameter(name, torch.nn.Parameter(opened.get_tensor(name), requires_grad=False))
        module.register_buffer("order", opened.get_tensor("order"))
    other.register_parameter("tied", module.left)
    module.add_module("other", other)
    return module


@pytest.mark.parametrize(("names", "stays"), [(["left"], False), (["left", "large"], True)])
def test_a_file_of_which_little_is_left_is_let_go(tmp_path: Path, names: list[str], stays: bool) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"left": LEFT, "order": torch.arange(64), "large": torch.zeros(512, 512)}, file)
    module = mapped(file, names)
    assert str(file) in Path("/proc/self/maps").read_text()
    memory.settle(module)
    assert (str(file) in Path("/proc/self/maps").read_text()) is stays
    assert torch.equal(module.left, LEFT)
    assert torch.equal(module.order, torch.arange(64))
    assert module.other.tied is module.left
