"""From settings to what is asked of the engine."""

from __future__ import annotations

import pytest

from quantchat.engine.protocol import DeviceShare
from quantchat.services.loads import options_of, parse_placement
from quantchat.store.settings import Settings


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("", ()),
        ("cuda:1", (DeviceShare("cuda:1", 0.0),)),
        ("cuda:0,cuda:1", (DeviceShare("cuda:0", 0.0), DeviceShare("cuda:1", 0.0))),
        ("cuda:0=2, cuda:1=0.5", (DeviceShare("cuda:0", 2.0), DeviceShare("cuda:1", 0.5))),
        ("cuda:0=2, cuda:1", (DeviceShare("cuda:0", 2.0), DeviceShare("cuda:1", 1.0))),
    ],
)
def test_placements(text: str, shares: tuple[DeviceShare, ...]) -> None:
    assert parse_placement(text) == shares


def test_the_command_line_wins_over_the_settings() -> None:
    settings = Settings(kernel="marlin", device="cuda:1", placement="cuda:0,cuda:1", kv_cache_gib=1.5, decoding="eager")
    own = options_of(settings)
    assert (own.kernel, own.device, own.decoding) == ("marlin", "cuda:1", "eager")
    assert (own.kv_budget, own.host_kv_budget) == (3 * 2**29, None)
    assert len(own.placement) == 2
    named = options_of(settings, kernel="triton", device="cpu")
    assert (named.kernel, named.device, named.placement) == ("triton", "cpu", ())
