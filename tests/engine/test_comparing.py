"""Two quantizations of one model side by side, by the real engine, and the token in which they part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.rig import GREEDY, Rig, asking
from quantchat.engine import protocol as p

pytestmark = pytest.mark.engine
PROMPT = "What is counted tomorrow?"


def pieces(rig: Rig, folder: Path, *, apart: bool) -> list[p.Delta]:
    """What a model answers, as it came."""
    loaded = rig.load(folder, device="cpu")
    assert isinstance(loaded, p.Loaded)
    turn = rig.start(asking(PROMPT), GREEDY, apart=apart)
    while not rig.ends(turn):
        rig.wait(p.Finished, p.Failed)
    return [event for event in rig.events if isinstance(event, p.Delta) and event.turn == turn]


def test_the_text_of_each_token_is_sent_apart(rig: Rig, models: Path) -> None:
    gathered, apart = (pieces(rig, models / "dense", apart=wanted) for wanted in (False, True))
    assert "".join(delta.text for delta in apart) == "".join(delta.text for delta in gathered)
    assert len(apart) > len(gathered)
    # Tokens that are a part of a character have no text of their own.
    assert len(apart) > GREEDY.max_new_tokens // 2
    counts = [delta.tokens for delta in apart]
    assert counts == sorted(set(counts))


def test_two_quantizations_part_where_their_tokens_do(rig: Rig, models: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "quantchat"
    command = [sys.executable, str(program), "compare", str(models / "gptq"), str(models / "awq"), "-p", PROMPT]
    command += ["--preset", "exact", "--max-tokens", str(GREEDY.max_new_tokens), "--device", "cpu", "--json"]
    environment = os.environ | {"QUANTCHAT_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    sides = found["sides"]
    assert [side["model"] for side in sides] == ["gptq", "awq"]
    assert found["verdict"] == "differs"
    alone = [pieces(rig, models / name, apart=True) for name in ("gptq", "awq")]
    assert [side["text"] for side in sides] == ["".join(delta.text for delta in deltas) for deltas in alone]
    first = next(n for n, (one, other) in enumerate(zip(*alone, strict=False)) if one.text != other.text)
    for side, deltas in zip(sides, alone, strict=True):
        place = side["difference"]
        assert place["text"] == deltas[first].text
        assert place["start"] == sum(len(delta.text) for delta in deltas[:first])
        assert (deltas[first - 1].tokens if first else 0) < place["token"] <= deltas[first].tokens
        assert side["statistics"]["new_tokens"] >= place["token"]
